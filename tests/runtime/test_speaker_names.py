"""The side that a question is about: names that are stated, names in greetings, and words that only look like names."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from support.calls import open_store, save_turn, start_session, user_folder, write_call
from support.runtimes import RunningRuntime
from support.waiting import eventually

from memoair_index.analysis import split_words
from memoair_index.folding import fold
from memoair_runtime.memory.speaker_names import AGENT, CALLER, SpeakerNames, SpeakerReference
from memoair_runtime.memory.user_store import UserStore

CALLER_BY_NAME, AGENT_BY_NAME, NO_REFERENCE, FIRST_PERSON = (
    SpeakerReference(CALLER),
    SpeakerReference(AGENT),
    SpeakerReference(),
    SpeakerReference(CALLER, by_name=False),
)
OTHER_SIDE = {CALLER: AGENT, AGENT: CALLER}


class Call:
    """The names in a call, and how many utterances contain a word, as the index would count them."""

    def __init__(self) -> None:
        self._utterances: Counter[str] = Counter()
        self.names = SpeakerNames(self._utterances.__getitem__)

    def say(self, side: str, *texts: str) -> None:
        """Add utterances of a side."""
        for text in texts:
            self._utterances.update(set(split_words(fold(text))))
            self.names.add_utterance(side, text)


@pytest.fixture
def call() -> Call:
    return Call()


# Stated names


@pytest.mark.parametrize("side", [CALLER, AGENT])
@pytest.mark.parametrize(
    "question", ["What did Dana order?", "what did dana order", "Dana's order", "DANA\N{RIGHT SINGLE QUOTATION MARK}S?"]
)
def test_a_stated_name_is_recognized_in_any_case_and_as_a_possessive(call: Call, side: str, question: str) -> None:
    call.names.add_stated_name(side, "Dana")
    assert call.names.find_reference(question) == SpeakerReference(side)


@pytest.mark.parametrize("question", ["What did Dana say?", "And Weber?", "Zoë's boots", "the boots of zoe"])
def test_each_part_of_a_name_is_a_name_with_or_without_its_accents(call: Call, question: str) -> None:
    call.names.add_stated_name(CALLER, "Zoë Dana Weber")
    assert call.names.find_reference(question) == CALLER_BY_NAME


@pytest.mark.parametrize("question", ["Danube cruises?", "a bandana", "dan", "What is it?", ""])
def test_a_part_of_a_word_is_not_a_name(call: Call, question: str) -> None:
    call.names.add_stated_name(CALLER, "Dana")
    assert call.names.find_reference(question) == NO_REFERENCE


def test_a_name_that_is_stated_later_counts_as_well(call: Call) -> None:
    call.names.add_stated_name(CALLER, "Dana")
    assert call.names.find_reference("What did Daniela say?") == NO_REFERENCE
    call.names.add_stated_name(CALLER, "Daniela")
    assert call.names.find_reference("What did Daniela say?") == CALLER_BY_NAME
    assert call.names.find_reference("What did Dana say?") == CALLER_BY_NAME


@pytest.mark.parametrize("name", ["", " ", "Will", "The Who", "...", "!?", "\N{WAVING HAND SIGN}"])
def test_a_stated_name_of_stop_words_or_signs_is_ignored(call: Call, name: str) -> None:
    call.names.add_stated_name(CALLER, name)
    assert call.names.find_reference("When will the who be there ... ?") == NO_REFERENCE


# Names in greetings


@pytest.mark.parametrize(
    "greeting",
    ["Hi Dana, how are you?", "hi dana how are you", "Thanks, Dana!", "thank you dana", "Goodbye Dana.", "HEY DANA"],
)
@pytest.mark.parametrize("side", [CALLER, AGENT])
def test_a_side_that_is_greeted_by_a_name_three_times_has_that_name(call: Call, side: str, greeting: str) -> None:
    call.say(OTHER_SIDE[side], greeting, greeting)
    assert call.names.find_reference("What did Dana say?") == NO_REFERENCE, "twice may be a coincidence"
    call.say(OTHER_SIDE[side], greeting)
    assert call.names.find_reference("What did Dana say?") == SpeakerReference(side)


def test_a_word_that_is_mostly_said_without_a_greeting_is_not_a_name(call: Call) -> None:
    call.say(AGENT, *["Great boots, those."] * 4)
    call.say(CALLER, *["I would like to return the boots."] * 12)
    assert call.names.find_reference("Where are the boots?") == NO_REFERENCE


def test_a_word_that_becomes_common_is_no_longer_a_name(call: Call) -> None:
    call.say(AGENT, *["Thanks, Rose."] * 3)
    assert call.names.find_reference("What did Rose say?") == CALLER_BY_NAME
    call.say(CALLER, *["The rose has thorns."] * 13)
    assert call.names.find_reference("What did Rose say?") == NO_REFERENCE


@pytest.mark.parametrize(
    ("said", "question"),
    [
        ("Great question!", "Do I have a question?"),
        ("Yes, absolutely.", "Am I absolutely sure?"),
        ("Sure, happy to help.", "When is my happy hour?"),
        ("Awesome choice.", "What was my choice?"),
    ],
)
def test_a_phrase_that_an_agent_often_says_is_not_the_name_of_the_caller(call: Call, said: str, question: str) -> None:
    call.say(AGENT, *[said] * 4)
    assert call.names.find_reference(question) == FIRST_PERSON


@pytest.mark.parametrize("text", ["Hello there!", "Yes please.", "Thank you so much.", "Hi, 42 boots.", "Hi, I.", "Hi"])
def test_common_words_are_not_names_however_often_they_follow_a_greeting(call: Call, text: str) -> None:
    call.say(AGENT, *[text] * 9)
    assert not call.names.names_of(CALLER) - {"much"}


def test_a_word_that_both_sides_say_after_greetings_is_not_a_name(call: Call) -> None:
    for side in (CALLER, AGENT):
        call.say(side, *["Yes, exactly.", "Great, perfect.", "Good morning everybody."] * 4)
    for question in ("What was it exactly?", "Which one was perfect?", "Who is everybody?"):
        assert call.names.find_reference(question) == NO_REFERENCE


def test_a_word_of_a_stated_name_that_is_also_a_common_word_is_not_a_reference(
    call: Call,
) -> None:
    call.names.add_stated_name(AGENT, "Booking Assistant")
    call.names.add_stated_name(CALLER, "Robin Price")
    call.say(CALLER, *["I made a booking.", "What is the price of the booking?"] * 6)
    assert call.names.find_reference("When is the booking?") == NO_REFERENCE
    assert call.names.find_reference("What was the price?") == NO_REFERENCE
    assert call.names.find_reference("What did Robin say?") == CALLER_BY_NAME


# The side that a question is about


@pytest.mark.parametrize(
    ("question", "reference"),
    [
        ("What does Dana like?", CALLER_BY_NAME),
        ("Juno's advice?", AGENT_BY_NAME),
        ("What did Juno tell Dana?", NO_REFERENCE),
        ("What did Dana's friend say to Juno's friend?", NO_REFERENCE),
        ("What did I order?", FIRST_PERSON),
        ("i've asked before", FIRST_PERSON),
        ("I\N{RIGHT SINGLE QUOTATION MARK}m late", FIRST_PERSON),
        ("where are my boots", FIRST_PERSON),
        ("Did I tell Dana?", CALLER_BY_NAME),
        ("What did Juno tell me?", AGENT_BY_NAME),
        ("Where are the boots?", NO_REFERENCE),
        ("imagine myth mythical", NO_REFERENCE),
        ("", NO_REFERENCE),
    ],
)
def test_a_question_refers_to_one_side_to_both_to_the_caller_or_to_neither(
    call: Call, question: str, reference: SpeakerReference
) -> None:
    call.names.add_stated_name(CALLER, "Dana")
    call.names.add_stated_name(AGENT, "Juno")
    assert call.names.find_reference(question) == reference


@given(st.lists(st.tuples(st.sampled_from([CALLER, AGENT]), st.text(max_size=40)), max_size=6), st.text(max_size=60))
@example(
    [(AGENT, "hi \N{LATIN SMALL LETTER SHARP S}\N{COMBINING DIAERESIS}")] * 3, "\N{LATIN CAPITAL LETTER SHARP S}'s"
)
@example([(CALLER, "thank you \N{LATIN SMALL LIGATURE FI}fi")] * 3, "'s 's'")
@example([(CALLER, "hi, " + "a" * 40)] * 3, "\x00\N{RIGHT-TO-LEFT OVERRIDE}i")
@settings(deadline=None)
def test_any_text_and_any_question_is_accepted(said: list[tuple[str, str]], question: str) -> None:
    call = Call()
    for side, text in said:
        call.names.add_stated_name(side, text)
        call.say(side, text, f"Hi {text}", f"thanks, {text}")
    assert call.names.find_reference(question) in (CALLER_BY_NAME, AGENT_BY_NAME, NO_REFERENCE, FIRST_PERSON)
    for side in (CALLER, AGENT):
        assert all(word == fold(word) for word in call.names.names_of(side))


@given(st.lists(st.tuples(st.sampled_from([CALLER, AGENT]), st.sampled_from(["Hi Dana", "thanks, Juno", "ok"]))))
@settings(deadline=None)
def test_a_record_restores_the_names(said: list[tuple[str, str]]) -> None:
    before, after = Call(), Call()
    for side, text in said:
        before.say(side, text)
        after._utterances.update(set(split_words(fold(text))))
    after.names.add_record(before.names.to_record())
    for side in (CALLER, AGENT):
        assert after.names.names_of(side) == before.names.names_of(side)


# After a restart


def preferred_speakers(store: UserStore, question: str) -> set[str]:
    """Return the sides whose utterances a question prefers by name."""
    hits = store.memory.search(store.memory.build_query(question, None), 10)
    assert hits
    return {hit.document.speaker for hit in hits if hit.contributions.get("speaker")}


def test_greeted_and_stated_names_are_restored_from_the_index_file(
    tmp_path: Path,
) -> None:
    turns = [("Thanks, Juno, about the plums.", "Hi Dana, the plums are here.")] * 5
    write_call(tmp_path, "call-1", [*turns, *[("Plums again?", "Plums again.")] * 250])
    write_call(tmp_path, "call-2", [("Plums?", "Plums.")], user={"name": "Weber"}, metadata={"assistantName": "Mira"})
    for session in ("call-3", "call-4"):
        with open_store(tmp_path) as store:
            assert preferred_speakers(store, "What did Dana say about plums?") == {CALLER}
            assert preferred_speakers(store, "What did Weber say about plums?") == {CALLER}
            assert preferred_speakers(store, "What did Juno say about plums?") == {AGENT}
            assert preferred_speakers(store, "What did Mira say about plums?") == {AGENT}
            start_session(store, session)  # so that the profile is written
    assert user_folder(tmp_path).list_indexes()


def test_a_name_that_was_stated_with_a_turn_is_restored_from_the_index_file(
    tmp_path: Path,
) -> None:
    write_call(tmp_path, "call-1", [("Plums again?", "Plums again.")] * 250)
    with open_store(tmp_path, is_loaded=False) as first:
        save_turn(first, "call-2", "t1", "Plums?", "Here they are.", assistantName="Mira")
        first.load()
    assert user_folder(tmp_path).list_indexes()

    with open_store(tmp_path) as second:
        assert preferred_speakers(second, "What did Mira say about plums?") == {AGENT}


def test_recall_prefers_what_the_side_said_that_a_question_names(
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
