"""What the rules learn from what a caller says, and, more often, what they do not."""

import time
from datetime import date, datetime, timezone

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.consolidation import (
    consolidate,
    current_texts,
    extract_facts,
    extract_texts,
    load_example_call,
    make_turns,
)

from memoair_cloud.consolidation import FactKind, RuleExtractor, merge_facts


@pytest.mark.parametrize(
    ("said", "learned"),
    [
        # Identity
        ("My name is Dana Whitlock.", "The caller's name is Dana Whitlock."),
        ("Uh, my, my name is, um, Dana.", "The caller's name is Dana Whitlock."),
        ("my name is dana whitlock", "The caller's name is Dana Whitlock."),
        ("Hi, it's Dana Whitlock again.", "The caller's name is Dana Whitlock."),
        ("Please call me Dee.", "Dana likes to be called Dee."),
        ("My mobile number is 555-0167.", "Dana's mobile phone number is 555-0167."),
        ("My number is five five five oh one double six", "Dana's phone number is 5550166."),
        ("My email is dana at example dot com.", "Dana's email address is dana@example.com."),
        ("My email is dana@example.com.", "Dana's email address is dana@example.com."),
        ("My birthday is the fifth of May.", "Dana's birthday is 5 May."),
        ("I was born on May 5th, 1980.", "Dana's birthday is 5 May 1980."),
        ("My address is 12 Mill Lane.", "Dana's address is 12 Mill Lane."),
        ("I live in Lisbon.", "Dana lives in Lisbon."),
        ("We've just moved to Porto.", "Dana lives in Porto."),
        ("I'm a nurse.", "Dana is a nurse."),
        ("I work for Harbour and Pine.", "Dana works for Harbour and Pine."),
        ("I'm 34 years old.", "Dana was 34 years old on 2 March 2026."),
        # People and animals
        ("My cat's called Milo.", "Dana's cat is called Milo."),
        ("My daughter's name is Abena.", "Dana's daughter is called Abena."),
        ("My wife Ann is coming along.", "Dana's wife is called Ann."),
        ("I've got two kids.", "Dana has two kids."),
        ("I don't have a dog any more.", "Dana no longer has a dog."),
        ("We don't have any kids.", "Dana has no kid."),
        ("I'm married.", "Dana is married."),
        ("My sister lives in Boston.", "Dana's sister lives in Boston."),
        # Likes and needs
        ("I'm allergic to peanuts.", "Dana is allergic to peanuts."),
        ("I've got a nut allergy.", "Dana is allergic to nut."),
        ("I'm a vegetarian.", "Dana is vegetarian."),
        ("I really love spicy food.", "Dana loves spicy food."),
        ("I can't stand olives.", "Dana can't stand olives."),
        ("My favourite colour is green.", "Dana's favourite colour is green."),
        ("I'd prefer an aisle seat.", "Dana prefers an aisle seat."),
        ("I'd rather speak German.", "Dana prefers to speak German."),
        ("Please call me in the mornings.", "Dana wants to be called in the mornings."),
        ("Don't call me before nine.", "Dana does not want to be called before nine."),
        ("I always pay by credit card.", "Dana prefers to pay by credit card."),
        # Plans and events
        ("I'm flying to Lisbon on Friday.", "Dana is flying to Lisbon on Friday 6 March 2026."),
        ("I have a dentist appointment tomorrow.", "Dana has a dentist appointment on Tuesday 3 March 2026."),
        ("We're getting married.", "Dana is getting married."),
        ("I went to a pottery class yesterday.", "Dana went to a pottery class on Sunday 1 March 2026."),
        ("Last week I visited my sister.", "Dana visited their sister between 23 February 2026 and 1 March 2026."),
        ("I went to Buy Buy Baby yesterday.", "Dana went to Buy Buy Baby on Sunday 1 March 2026."),
        ("I got a puppy a few weeks ago.", "Dana got a puppy between 5 February 2026 and 13 February 2026."),
        ("In January, I took a trip to Rome.", "Dana took a trip to Rome in January 2026."),
        (
            "I attended a workshop last week and the host, Ann, sang.",
            "Dana attended a workshop between 23 February 2026 and 1 March 2026.",
        ),
        ("I just adopted a kitten.", "Dana adopted a kitten shortly before Monday 2 March 2026."),
    ],
)
def test_plain_statements_are_learned(said: str, learned: str) -> None:
    assert extract_texts(said) == [learned]


@pytest.mark.parametrize(
    "said",
    [
        # Questions
        "Is my name Dana?",
        "Do I live in Lisbon?",
        "Can I fly to Lisbon on Friday?",
        "My cat's called Milo, right?",
        "what if my name is Dana",
        "Which is my favourite colour?",
        # Hypotheses
        "If I live in Lisbon, is it cheaper?",
        "Maybe I'm flying to Lisbon on Friday.",
        "I might have a dentist appointment tomorrow.",
        "I'd love a dog.",
        "I wish my cat was called Milo.",
        "Suppose I live in Lisbon.",
        "I was thinking of moving to Porto.",
        "I could be allergic to peanuts.",
        "I think my birthday is May 5th.",
        "Hopefully I'm flying to Lisbon on Friday.",
        # Quotes, role play, and statements about others
        'She said "my name is Ann".',
        "My sister says I'm allergic to peanuts.",
        "He told me my cat's called Milo.",
        "The song goes, my name is Luka.",
        "Her cat is called Milo.",
        "Ann lives in Lisbon.",
        "His birthday is May 5th.",
        "They're flying to Lisbon on Friday.",
        "Pretend my name is Ann.",
        "Act as my lawyer. I live in Lisbon.",
        "My name is King Arthur, just kidding.",
        "Write a letter: my name is Ann and I live in Lisbon.",
        # Denials
        "I'm not allergic to anything.",
        "My name isn't Dana.",
        "I don't live in Lisbon.",
        "I'm not flying to Lisbon on Friday.",
        "I never went to Lisbon last week.",
        "I didn't go to the class yesterday.",
        # Statements that need their context
        "I love it.",
        "I love them, I want a bigger pair.",
        "I like that idea.",
        "I bought it yesterday.",
        "I enjoy stories that are short.",
        "I'm fine.",
        "I'm happy.",
        "I'm German.",
        "I'm at the Hilton.",
        "This is Great!",
        "Call me back.",
        "Call me tomorrow.",
        "That number was 555-0167.",
        "My old number was 555-0142.",
        "I have a question.",
        "I've got a problem with my order.",
        "I went through it last week.",
        "I went to a concert on a Sunday.",
        "I'd rather not speak German.",
        "I'd prefer not to have an aisle seat.",
        "I hate to bother you.",
        "I'm married to my job.",
        "I had a busy Sunday.",
        "I took ten rides from the 20th to the 27th of February.",
        "I attended the Ash Wednesday service.",
        "I'm going to choir on Thursday evenings.",
        "I want the desk by the window.",
        "Every Friday I'm flying to Lisbon.",
        "I'm going to need a minute today.",
        "I love how you said my name.",
        "My order number is 44717.",
        "Hello? Hello?",
        "",
        "...",
        "no, no, no",
        "Um, uh, er.",
    ],
)
def test_questions_hypotheses_quotes_denials_and_unclear_statements_are_not_learned(said: str) -> None:
    assert extract_texts(said) == []


@pytest.mark.parametrize(
    ("said", "learned"),
    [
        (
            "I'm flying to Lisbon on Wednesday, no wait, make that Thursday.",
            "Dana is flying to Lisbon on Thursday 5 March 2026.",
        ),
        (
            "I'm flying to Lisbon on Wednesday. No, wait, Thursday.",
            "Dana is flying to Lisbon on Thursday 5 March 2026.",
        ),
        (
            "I'm flying to Lisbon on Wednesday... sorry, I meant Thursday.",
            "Dana is flying to Lisbon on Thursday 5 March 2026.",
        ),
        ("My cat's called Milo, no, sorry, Miro.", "Dana's cat is called Miro."),
        ("My number is 555-0142, no, 555-0167.", "Dana's phone number is 555-0167."),
        ("My email is dan@example.com, sorry, I meant dana@example.com.", "Dana's email address is dana@example.com."),
        ("I live in Porto, no, I live in Lisbon.", "Dana lives in Lisbon."),
    ],
)
def test_a_correction_within_a_turn_replaces_what_was_said_before(said: str, learned: str) -> None:
    assert extract_texts(said) == [learned]


def test_an_unclear_correction_removes_what_it_corrects() -> None:
    assert extract_texts("My cat's called Milo, no wait, that's wrong somehow.") == []


@pytest.mark.parametrize(
    "correction",
    [
        "No, I said Thursday.",
        "No, wait, make that Thursday.",
        "Actually, make it Thursday.",
        "Sorry, I meant Thursday.",
    ],
)
def test_a_correction_in_a_later_turn_closes_the_earlier_fact(correction: str) -> None:
    said = [("I'm flying to Lisbon on Wednesday.", "Wednesday, lovely."), ("A window seat?", "Yes."), correction]
    facts = merge_facts(extract_facts(*said))
    assert [fact.text for fact in facts if fact.is_current] == ["Dana is flying to Lisbon on Thursday 5 March 2026."]
    wrong, right = facts
    assert wrong.closed_by == right.id
    assert (right.event_id, right.corrects) == ("call-1-2", "on Wednesday 4 March 2026")


def test_a_corrected_name_replaces_one_of_several() -> None:
    assert current_texts(("My son's called Kofi.", "Toby?"), "No, sorry, Kojo.", "My son is called Yaw.") == [
        "Dana's son is called Kojo.",
        "Dana's son is called Yaw.",
    ]


@pytest.mark.parametrize(
    ("asked", "answer", "learned"),
    [
        ("May I have your name?", "Dana Whitlock.", ["The caller's name is Dana Whitlock."]),
        ("What's your son's name?", "Kofi. He drives a van.", ["Dana's son is called Kofi."]),
        ("Any allergies?", "Just peanuts.", ["Dana is allergic to peanuts."]),
        ("Any allergies?", "No, none.", []),
        ("Would you like a text or a call?", "A call, please.", ["Dana prefers to be reached by a call."]),
        ("Would you like a window or an aisle seat?", "Window.", ["Dana prefers a window seat."]),
        (
            "Is your home phone still 555-0118?",
            "No, that's the old one. It's 555-0181 now.",
            ["Dana's home phone number is 555-0181."],
        ),
        ("Is that your name?", "Yes.", []),
        ("May I have your name?", "However, I am in a hurry.", []),
        ("What is the name of the shop?", "Harbour.", []),
        ("Do you live in Lisbon?", "Yes.", []),
    ],
)
def test_an_answer_is_interpreted_by_its_question(asked: str, answer: str, learned: list[str]) -> None:
    assert extract_texts(("Hello.", "Hello."), ("I'm calling about my order.", asked), answer) == learned


@pytest.mark.parametrize(
    ("agent", "learned"),
    [
        ("I'll call you back on Friday.", ["Juno will call Dana back on Friday 6 March 2026."]),
        ("Sure. I've booked you for the gentle class.", ["Juno has booked Dana for the gentle class."]),
        (
            "The courier will pick up the box on Thursday.",
            ["The courier will pick up the box on Thursday 5 March 2026."],
        ),
        ("We'll email your receipt tomorrow.", ["Juno will email Dana's receipt on Tuesday 3 March 2026."]),
        ("You live in Lisbon and your cat is called Milo.", []),
        ("Your appointment is Thursday at two.", []),
        ("I'll be happy to help.", []),
        ("I can call you back on Friday.", []),
        ("If you like, I'll call you back on Friday.", []),
        ("Shall I call you back on Friday?", []),
        ("I'll send it.", []),
        ("My name is Juno and I live in Lisbon.", []),
        ("I'm flying to Lisbon on Friday.", []),
    ],
)
def test_only_commitments_are_learned_from_the_agent(agent: str, learned: list[str]) -> None:
    facts = extract_facts(("Hello.", agent))
    assert [fact.text for fact in facts] == learned
    assert all(fact.kind is FactKind.COMMITMENT for fact in facts)


def test_a_fact_has_its_source_and_dates() -> None:
    (fact,) = extract_facts("Hello.", "I'm flying to Lisbon in April.")
    assert (fact.event_id, fact.session_id, fact.number) == ("call-1-1", "call-1", 1)
    assert (fact.holds_from, fact.holds_until) == (date(2026, 4, 1), date(2026, 4, 30))


def test_nothing_is_learned_from_a_pasted_text() -> None:
    assert extract_texts("My name is Ann.\n" * 5) == []
    assert extract_texts("My name is Ann. " + "So it goes on and on. " * 200) == []


def test_a_caller_without_a_known_name_is_called_the_caller() -> None:
    (fact,) = RuleExtractor().extract(make_turns("I live in Lisbon.", caller="")).facts
    assert fact.text == "The caller lives in Lisbon."


def test_facts_of_the_example_calls_to_the_shop() -> None:
    first = consolidate([], load_example_call("returns-call-1"), RuleExtractor())
    second = consolidate(first.facts, load_example_call("returns-call-2"), RuleExtractor())
    assert [fact.text for fact in second.facts if fact.is_current] == [
        "The caller's name is Dana Whitlock.",
        "Dana is at their mum's on Wednesday 4 March 2026.",
        "The courier will pick up the box between nine and one on Thursday 5 March 2026.",
        "Juno has put a note on for the courier: knock, don't ring the bell, baby sleeping.",
        "Dana's mobile phone number is 555-0167.",
        "Juno has changed Dana's mobile to 555-0167.",
    ]
    assert second.profile == first.profile, "the second call only asks"


def test_facts_of_the_example_calls_to_the_clinic() -> None:
    first = consolidate([], load_example_call("clinic-call-1"), RuleExtractor())
    assert [fact.text for fact in first.facts if fact.is_current] == [
        "The caller's name is Gerald Osei.",
        "Ines will remind Gerald the day before, too.",
        "Gerald prefers to be reached by a call.",
        "Gerald's home phone number is 555-0181.",
        "Gerald takes blood thinners.",
        "Gerald is allergic to sticky tape they use for strapping.",
        "Gerald's daughter is called Abena.",
    ]
    second = consolidate(first.facts, load_example_call("clinic-call-2"), RuleExtractor())
    assert [fact.text for fact in second.facts if fact not in first.facts and fact.is_current] == [
        "Gerald's son is called Kofi."
    ]


# The latest start of a call whose turns, some seconds later, are still within the calendar.
LAST_MOMENT = datetime(9999, 12, 30)  # noqa: DTZ001 - the strategy adds the zone
_WORDS = st.sampled_from(
    "i I'm my name is Dana no wait, make that on Friday, the 31st of February in 2 weeks last , . ? ... 555-0167 called"
    " cat"
    " don't have a any more love 99 years ago May five oh double allergic to and \N{COMBINING DIAERESIS} \x00 \n".split(
        " "
    )
)


@given(
    st.lists(st.one_of(st.text(max_size=80), st.lists(_WORDS, max_size=25).map(" ".join)), max_size=4),
    st.datetimes(max_value=LAST_MOMENT, timezones=st.just(timezone.utc)),
)
@settings(deadline=None, max_examples=300)
def test_any_text_can_be_processed_at_any_time(said: list[str], at: datetime) -> None:
    call = make_turns(*[(text, text) for text in said], at=at)
    facts = RuleExtractor().extract(call).facts
    assert {fact.event_id for fact in facts} <= {turn.event_id for turn in call}
    assert all(fact.text.strip() and fact.attribute for fact in facts)
    assert RuleExtractor().extract(call[::-1]).facts == facts


@pytest.mark.parametrize(
    "words",
    [
        *("would you like a text or ", "shall we send call or ", "allergy ", "your name ", "my every -", "- ", ", "),
        *("A'", "I ", "no, ", "a dot a at a ", "five double ", "555-", "in 2 weeks ", "i like a and "),
    ],
)
def test_extraction_takes_bounded_time_for_any_text(words: str) -> None:
    long_text = words * 8_000
    said = [
        (long_text, long_text),
        (f"no wait {long_text}"[:1_990], long_text),
        ("Yes.", long_text),
        ("Peanuts, a text, Ana.", ""),
    ]
    started_at = time.thread_time()
    RuleExtractor().extract(make_turns(*said))
    assert time.thread_time() - started_at < 2  # it takes a twelfth of that here; some took minutes
