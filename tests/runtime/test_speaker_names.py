"""Whom a question asks about: names that were told, names that are heard, and words that only look like names."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from support.calls import keeping, save, start, user_folder, write_call
from support.runtimes import RunningRuntime
from support.waiting import eventually

from memoair_index.analysis import fold, split_words
from memoair_runtime.memory.speaker_names import AGENT, CALLER, Addressee, SpeakerNames
from memoair_runtime.memory.user_store import UserStore

OF_CALLER, OF_AGENT, NOBODY, MYSELF = Addressee(CALLER), Addressee(AGENT), Addressee(), Addressee(CALLER, by_name=False)
OTHER = {CALLER: AGENT, AGENT: CALLER}


class Listener:
    """Names, and how many utterances hold a word, as the index would count them."""

    def __init__(self) -> None:
        self._utterances: Counter[str] = Counter()
        self.names = SpeakerNames(self._utterances.__getitem__)

    def hears(self, side: str, *texts: str) -> None:
        """Something is said by a side."""
        for text in texts:
            self._utterances.update(set(split_words(fold(text))))
            self.names.hear(side, text)


@pytest.fixture
def listener() -> Listener:
    return Listener()


# Told


@pytest.mark.parametrize("side", [CALLER, AGENT])
@pytest.mark.parametrize(
    "question", ["What did Dana order?", "what did dana order", "Dana's order", "DANA\N{RIGHT SINGLE QUOTATION MARK}S?"]
)
def test_a_name_that_was_told_is_known_in_any_case_and_as_a_possessive(
    listener: Listener, side: str, question: str
) -> None:
    listener.names.tell(side, "Dana")
    assert listener.names.meant(question) == Addressee(side)


@pytest.mark.parametrize("question", ["What did Dana say?", "And Weber?", "Zoë's boots", "the boots of zoe"])
def test_each_part_of_a_name_is_a_name_with_or_without_its_accents(listener: Listener, question: str) -> None:
    listener.names.tell(CALLER, "Zoë Dana Weber")
    assert listener.names.meant(question) == OF_CALLER


@pytest.mark.parametrize("question", ["Danube cruises?", "a bandana", "dan", "What is it?", ""])
def test_a_part_of_a_word_is_no_name(listener: Listener, question: str) -> None:
    listener.names.tell(CALLER, "Dana")
    assert listener.names.meant(question) == NOBODY


def test_a_name_that_is_told_later_counts_as_well(listener: Listener) -> None:
    listener.names.tell(CALLER, "Dana")
    assert listener.names.meant("What did Daniela say?") == NOBODY
    listener.names.tell(CALLER, "Daniela")
    assert listener.names.meant("What did Daniela say?") == OF_CALLER
    assert listener.names.meant("What did Dana say?") == OF_CALLER


@pytest.mark.parametrize("name", ["", " ", "Will", "The Who", "...", "!?", "\N{WAVING HAND SIGN}"])
def test_a_name_that_is_no_name_is_nobodys(listener: Listener, name: str) -> None:
    listener.names.tell(CALLER, name)
    assert listener.names.meant("When will the who be there ... ?") == NOBODY


# Heard


@pytest.mark.parametrize(
    "greeting",
    ["Hi Dana, how are you?", "hi dana how are you", "Thanks, Dana!", "thank you dana", "Goodbye Dana.", "HEY DANA"],
)
@pytest.mark.parametrize("side", [CALLER, AGENT])
def test_who_is_greeted_by_a_name_bears_it(listener: Listener, side: str, greeting: str) -> None:
    listener.hears(OTHER[side], greeting, greeting)
    assert listener.names.meant("What did Dana say?") == NOBODY, "twice may be chance"
    listener.hears(OTHER[side], greeting)
    assert listener.names.meant("What did Dana say?") == Addressee(side)


def test_a_word_that_is_mostly_said_without_a_greeting_is_no_name(listener: Listener) -> None:
    listener.hears(AGENT, *["Great boots, those."] * 4)
    listener.hears(CALLER, *["I would like to return the boots."] * 12)
    assert listener.names.meant("Where are the boots?") == NOBODY


def test_a_word_that_becomes_common_is_a_name_no_longer(listener: Listener) -> None:
    listener.hears(AGENT, *["Thanks, Rose."] * 3)
    assert listener.names.meant("What did Rose say?") == OF_CALLER
    listener.hears(CALLER, *["The rose has thorns."] * 13)
    assert listener.names.meant("What did Rose say?") == NOBODY


@pytest.mark.parametrize(
    ("said", "question"),
    [
        ("Great question!", "Do I have a question?"),
        ("Yes, absolutely.", "Am I absolutely sure?"),
        ("Sure, happy to help.", "When is my happy hour?"),
        ("Awesome choice.", "What was my choice?"),
    ],
)
def test_what_an_agent_says_to_everything_is_not_the_name_of_the_caller(
    listener: Listener, said: str, question: str
) -> None:
    listener.hears(AGENT, *[said] * 4)
    assert listener.names.meant(question) == MYSELF


@pytest.mark.parametrize("text", ["Hello there!", "Yes please.", "Thank you so much.", "Hi, 42 boots.", "Hi, I.", "Hi"])
def test_words_that_say_nothing_are_no_names_however_often_they_follow_a_greeting(
    listener: Listener, text: str
) -> None:
    listener.hears(AGENT, *[text] * 9)
    assert not listener.names.of(CALLER) - {"much"}


def test_what_is_said_after_every_greeting_by_both_sides_is_no_ones_name(listener: Listener) -> None:
    for side in (CALLER, AGENT):
        listener.hears(side, *["Yes, exactly.", "Great, perfect.", "Good morning everybody."] * 4)
    for question in ("What was it exactly?", "Which one was perfect?", "Who is everybody?"):
        assert listener.names.meant(question) == NOBODY


def test_a_word_of_a_told_name_that_everybody_uses_as_a_word_does_not_take_a_question_for_itself(
    listener: Listener,
) -> None:
    listener.names.tell(AGENT, "Booking Assistant")
    listener.names.tell(CALLER, "Robin Price")
    listener.hears(CALLER, *["I made a booking.", "What is the price of the booking?"] * 6)
    assert listener.names.meant("When is the booking?") == NOBODY
    assert listener.names.meant("What was the price?") == NOBODY
    assert listener.names.meant("What did Robin say?") == OF_CALLER


# Whom a question means


@pytest.mark.parametrize(
    ("question", "meant"),
    [
        ("What does Dana like?", OF_CALLER),
        ("Juno's advice?", OF_AGENT),
        ("What did Juno tell Dana?", NOBODY),
        ("What did Dana's friend say to Juno's friend?", NOBODY),
        ("What did I order?", MYSELF),
        ("i've asked before", MYSELF),
        ("I\N{RIGHT SINGLE QUOTATION MARK}m late", MYSELF),
        ("where are my boots", MYSELF),
        ("Did I tell Dana?", OF_CALLER),
        ("What did Juno tell me?", OF_AGENT),
        ("Where are the boots?", NOBODY),
        ("imagine myth mythical", NOBODY),
        ("", NOBODY),
    ],
)
def test_a_question_is_about_one_side_about_both_about_who_asks_or_about_nobody(
    listener: Listener, question: str, meant: Addressee
) -> None:
    listener.names.tell(CALLER, "Dana")
    listener.names.tell(AGENT, "Juno")
    assert listener.names.meant(question) == meant


@given(st.lists(st.tuples(st.sampled_from([CALLER, AGENT]), st.text(max_size=40)), max_size=6), st.text(max_size=60))
@example(
    [(AGENT, "hi \N{LATIN SMALL LETTER SHARP S}\N{COMBINING DIAERESIS}")] * 3, "\N{LATIN CAPITAL LETTER SHARP S}'s"
)
@example([(CALLER, "thank you \N{LATIN SMALL LIGATURE FI}fi")] * 3, "'s 's'")
@example([(CALLER, "hi, " + "a" * 40)] * 3, "\x00\N{RIGHT-TO-LEFT OVERRIDE}i")
@settings(deadline=None)
def test_any_text_is_heard_and_any_question_answered(said: list[tuple[str, str]], question: str) -> None:
    listener = Listener()
    for side, text in said:
        listener.names.tell(side, text)
        listener.hears(side, text, f"Hi {text}", f"thanks, {text}")
    assert listener.names.meant(question) in (OF_CALLER, OF_AGENT, NOBODY, MYSELF)
    for side in (CALLER, AGENT):
        assert all(word == fold(word) for word in listener.names.of(side))


@given(st.lists(st.tuples(st.sampled_from([CALLER, AGENT]), st.sampled_from(["Hi Dana", "thanks, Juno", "ok"]))))
@settings(deadline=None)
def test_what_was_noted_is_known_again(said: list[tuple[str, str]]) -> None:
    before, after = Listener(), Listener()
    for side, text in said:
        before.hears(side, text)
        after._utterances.update(set(split_words(fold(text))))
    after.names.from_note(before.names.to_note())
    for side in (CALLER, AGENT):
        assert after.names.of(side) == before.names.of(side)


# Over a restart


def speakers_of(keeper: UserStore, question: str) -> set[str]:
    """Whose utterances a question prefers by name."""
    hits = keeper.memory.search(keeper.memory.query(question, None), 10)
    assert hits
    return {hit.document.speaker for hit in hits if hit.contributions.get("speaker")}


def test_names_that_were_heard_or_told_are_known_to_the_next_process_which_opens_a_file(
    tmp_path: Path,
) -> None:
    talk = [("Thanks, Juno, about the plums.", "Hi Dana, the plums are here.")] * 5
    write_call(tmp_path, "call-1", [*talk, *[("Plums again?", "Plums again.")] * 250])
    write_call(tmp_path, "call-2", [("Plums?", "Plums.")], user={"name": "Weber"}, metadata={"assistantName": "Mira"})
    for session in ("call-3", "call-4"):
        with keeping(tmp_path) as keeper:
            assert speakers_of(keeper, "What did Dana say about plums?") == {CALLER}
            assert speakers_of(keeper, "What did Weber say about plums?") == {CALLER}
            assert speakers_of(keeper, "What did Juno say about plums?") == {AGENT}
            assert speakers_of(keeper, "What did Mira say about plums?") == {AGENT}
            start(keeper, session)  # so that there is a snapshot of the profile
    assert user_folder(tmp_path).indexes()


def test_a_name_that_came_with_a_turn_is_known_to_the_next_process_which_opens_a_file(
    tmp_path: Path,
) -> None:
    write_call(tmp_path, "call-1", [("Plums again?", "Plums again.")] * 250)
    with keeping(tmp_path, is_loaded=False) as first:
        save(first, "call-2", "t1", "Plums?", "Here they are.", assistantName="Mira")
        first.load()
    assert user_folder(tmp_path).indexes()

    with keeping(tmp_path) as second:
        assert speakers_of(second, "What did Mira say about plums?") == {AGENT}


def test_a_process_prefers_what_the_one_said_whom_a_question_names(
    start_runtime: Callable[..., RunningRuntime],
) -> None:
    runtime = start_runtime()
    runtime.start("call-1", name="Dana", assistantName="Juno")
    runtime.save("call-1", "t1", "The red plums were too sour.", "The red plums come from Italy.")
    runtime.start("call-2")
    runtime.wait_until_loaded()

    def preferred(question: str) -> set[str]:
        found = eventually(lambda: runtime.search("call-2", question, lanes=["permanent"], explain=True))
        first = found["contextText"].splitlines()
        assert any("red plums" in line for line in first)
        explained = found["trace"]["explain"]["permanent"]
        return {term for terms in explained.values() for term in terms} & {"speaker", "self"}

    assert preferred("What about the red plums, Dana?") == {"speaker"}
    assert preferred("Did I like the red plums?") == {"self"}
    assert preferred("Were the red plums good?") == set()
