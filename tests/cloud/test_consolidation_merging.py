"""Merging: later facts win, whatever the order in which facts arrive and however often they do."""

from datetime import timedelta

import attrs
from hypothesis import given, settings
from hypothesis import strategies as st
from support.consolidation import SAID_AT, consolidate, extract_facts, make_turns

from memoair_cloud.consolidation import (
    CallTurn,
    Fact,
    FactKind,
    ProfileSummary,
    RuleExtractor,
    merge_facts,
    replace_sessions,
    summarize_facts,
)

DAY = timedelta(days=1)


def extract_on_day(*said: str, session: str, day: int) -> tuple[Fact, ...]:
    return RuleExtractor().extract(make_turns(*said, session=session, at=SAID_AT + day * DAY)).facts


def current_texts(facts: tuple[Fact, ...]) -> list[str]:
    return [fact.text for fact in facts if fact.is_current]


def test_a_repeated_fact_keeps_the_first_source() -> None:
    first = extract_on_day("I live in Lisbon.", session="call-1", day=0)
    again = extract_on_day("I live in Lisbon.", session="call-2", day=5)
    facts = merge_facts([*first, *again])
    assert [fact for fact in facts if fact.is_current] == list(first)
    assert facts[1].repeats == facts[0].id, "when it was last confirmed is known"


def test_a_contradiction_closes_the_older_fact_and_keeps_it_as_history() -> None:
    facts = merge_facts(
        [
            *extract_on_day("I live in Porto.", session="a", day=9),
            *extract_on_day("I live in Lisbon.", session="b", day=0),
        ]
    )
    assert [fact.text for fact in facts] == ["Dana lives in Lisbon.", "Dana lives in Porto."]
    assert facts[0].closed_by == facts[1].id
    assert current_texts(facts) == ["Dana lives in Porto."]


def test_a_value_that_returns_is_current_again() -> None:
    calls = [
        extract_on_day(f"I live in {place}.", session=place + str(day), day=day)
        for day, place in enumerate(["Rome", "Oslo", "Rome"])
    ]
    facts = merge_facts([*calls[2], *calls[0], *calls[1]])
    assert [fact.is_current for fact in facts] == [False, False, True]


def test_several_values_of_a_list_attribute_do_not_contradict_each_other() -> None:
    said = (
        "My son's called Kofi.",
        "My daughter's called Abena.",
        "My daughter's called Ama.",
        "I like tea.",
        "I like figs.",
    )
    assert len(current_texts(merge_facts(extract_facts(*said)))) == 5


def test_a_fact_without_a_value_closes_all_earlier_values() -> None:
    facts = merge_facts(extract_facts("My dog is called Rex.", "My dog is called Bo.", "We don't have a dog any more."))
    assert current_texts(facts) == ["Dana no longer has a dog."]
    facts = merge_facts([*facts, *extract_on_day("My dog is called Max.", session="call-2", day=400)])
    assert current_texts(facts) == ["Dana's dog is called Max."]


def test_a_part_of_a_name_repeats_the_full_name() -> None:
    extraction = RuleExtractor().extract(
        make_turns("My name is Dana.", "My name is Dana Whitlock.", "My name is Dana.", caller="")
    )
    assert current_texts(merge_facts(extraction.facts)) == ["The caller's name is Dana Whitlock."]


def test_a_moved_plan_is_closed_and_a_past_plan_is_not() -> None:
    first = extract_on_day("I have a dentist appointment tomorrow.", session="a", day=0)
    moved = extract_on_day("My dentist appointment is on Friday.", session="b", day=0)
    later = extract_on_day("I have a dentist appointment tomorrow.", session="c", day=90)
    facts = merge_facts([*first, *moved, *later])
    assert [fact.closed_by for fact in facts] == [facts[1].id, None, None]


def test_a_late_turn_corrects_what_was_learned_without_it() -> None:
    call = make_turns("I'm flying to Lisbon on Wednesday.", "No, wait, make that Thursday.", "I like tea.")
    early = consolidate([], [call[0], call[2]], RuleExtractor())
    late = consolidate(early.facts, call, RuleExtractor())
    assert current_texts(late.facts) == ["Dana is flying to Lisbon on Thursday 5 March 2026.", "Dana likes tea."]
    assert late == consolidate([], call, RuleExtractor())


def test_extracting_a_session_again_keeps_facts_of_other_sessions() -> None:
    known = extract_on_day("I like tea.", session="a", day=0)
    assert replace_sessions(known, {"b"}, []) == known
    assert replace_sessions(known, {"a"}, []) == ()


# The profile


def test_a_profile_summarizes_current_facts_in_a_few_lines() -> None:
    facts = merge_facts(
        extract_facts(
            "My name is Dana.",
            "I live in Porto.",
            "No, I live in Lisbon.",
            "My cat's called Milo.",
            "My cat is called Bo.",
            "I like tea.",
        )
    )
    profile = summarize_facts(facts, SAID_AT.date())
    assert profile.summary.splitlines() == [
        "The caller's name is Dana Whitlock. Dana lives in Lisbon.",
        "Dana's cat is called Milo. Dana's cat is called Bo.",
        "Dana likes tea.",
    ]
    assert profile.attributes == {
        "cat": ["Milo", "Bo"],
        "home": "Lisbon",
        "liking of tea": "likes",
        "name": "Dana Whitlock",
    }
    assert summarize_facts([], SAID_AT.date()) == ProfileSummary()


def test_a_profile_leaves_out_past_plans() -> None:
    facts = merge_facts(extract_facts("I have a dentist appointment tomorrow.", "I like tea."))
    assert len(summarize_facts(facts, SAID_AT.date()).summary.splitlines()) == 2
    assert summarize_facts(facts, SAID_AT.date() + 2 * DAY).summary == "Dana likes tea."


def test_the_size_of_a_profile_is_limited() -> None:
    facts = merge_facts(
        extract_facts(*(f"My friend is called {name * 3}." for name in "Abcd Efgh Ijkl Mnop Qrst".split() * 1))
    )
    many = [attrs.evolve(facts[0], value=f"v{n}", text=f"Text {n}.", event_id=f"{n}") for n in range(500)]
    profile = summarize_facts(many, SAID_AT.date())
    assert max(map(len, profile.attributes.values())) == 20
    assert len(profile.summary) < 1_000


# Order of arrival

_SAID = st.lists(
    st.sampled_from(
        [
            *("I live in Lisbon.", "I live in Porto.", "My dog is called Rex.", "My dog is called Bo.", "I love tea."),
            *(
                "I hate tea.",
                "I don't have a dog any more.",
                "No, I said Thursday.",
                "I'm flying to Rome on Wednesday.",
            ),
            *("My name is Dana.", "No, sorry, Bo.", "I have a dentist appointment tomorrow.", "My son's called Kofi."),
        ]
    ),
    max_size=5,
)
_CALLS = st.lists(st.tuples(_SAID, st.integers(0, 3)), min_size=1, max_size=5)


def make_calls(drawn: list[tuple[list[str], int]]) -> list[list[CallTurn]]:
    """Return sessions, several of which may be on the same day and even at the same moment."""
    return [make_turns(*said, session=f"call-{n}", at=SAID_AT + day * DAY) for n, (said, day) in enumerate(drawn)]


@given(_CALLS, st.randoms(use_true_random=False))
@settings(deadline=None, max_examples=150)
def test_sessions_may_arrive_in_any_order_and_repeatedly(drawn: list[tuple[list[str], int]], random: object) -> None:
    calls = make_calls(drawn)
    once: tuple[Fact, ...] = ()
    for call in calls:
        once = consolidate(once, call, RuleExtractor()).facts
    shuffled = [*calls, *calls[: len(calls) // 2 + 1]]
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    other: tuple[Fact, ...] = ()
    for call in shuffled:
        other = consolidate(other, call, RuleExtractor()).facts
    assert other == once
    assert summarize_facts(other, SAID_AT.date()) == summarize_facts(once, SAID_AT.date())
    assert merge_facts(once) == once
    assert merge_facts([*once[::-1], *once]) == once


@given(_CALLS)
@settings(deadline=None)
def test_links_of_a_fact_point_to_known_facts_of_the_same_attribute(drawn: list[tuple[list[str], int]]) -> None:
    facts = merge_facts(fact for call in make_calls(drawn) for fact in RuleExtractor().extract(call).facts)
    positions = {fact.id: number for number, fact in enumerate(facts)}
    assert len(positions) == len(facts)
    for number, fact in enumerate(facts):
        assert fact.repeats is None or positions[fact.repeats] < number
        assert fact.closed_by is None or fact.closed_by in positions
        closer = facts[positions[fact.closed_by]] if fact.closed_by else None
        assert closer is None or (closer.subject, closer.attribute) == (fact.subject, fact.attribute)


def test_a_correction_by_hand_replaces_an_earlier_value() -> None:
    (extracted,) = extract_on_day("I live in Lisbon.", session="a", day=0)
    by_hand = attrs.evolve(
        extracted, text="Dana lives in Oslo.", value="Oslo", event_id="hand", session_id="", said_at=SAID_AT + DAY
    )
    assert current_texts(merge_facts([by_hand, extracted])) == ["Dana lives in Oslo."]
    assert by_hand.kind is FactKind.IDENTITY


# A brute-force reference


def merge_by_brute_force(facts: list[Fact]) -> list[tuple[str, str | None, str | None]]:
    """Return each fact with what closed it and what it repeats, by comparing every fact with all facts before it."""
    closed_by: dict[str, str] = {}
    repeats: dict[str, str] = {}
    standing: list[Fact] = []
    for fact in facts:
        others = [other for other in standing if (other.subject, other.attribute) == (fact.subject, fact.attribute)]
        if fact.absorbs is not None:
            known = None
            absorbed = [other for other in others if other.value in (fact.value, *fact.absorbs)]
            repeats |= {other.id: fact.id for other in absorbed}
            standing = [other for other in standing if other not in absorbed]
            others = [other for other in others if other not in absorbed]
        else:
            known = next((other for other in others if other.value == fact.value), None)
        for other in others:
            is_over = other.holds_until is not None and other.holds_until < fact.said_at.date()
            excludes = not fact.is_one_of_many or "" in (fact.value, other.value)
            if other is not known and (fact.corrects == other.value or (not is_over and excludes)):
                closed_by[other.id] = (known or fact).id
                standing.remove(other)
        if known:
            repeats[fact.id] = known.id
        else:
            standing.append(fact)
    return [(fact.id, closed_by.get(fact.id), repeats.get(fact.id)) for fact in facts]


VALUES = st.sampled_from(["", "a", "b", "c"])


@st.composite
def facts_of_one_attribute(draw: st.DrawFn) -> list[Fact]:
    (known,) = extract_facts("I live in Lisbon.")
    attribute, is_one_of_many = draw(st.sampled_from([("home", False), ("son", True), ("visit", False)]))
    count = draw(st.integers(1, 8))
    return [
        attrs.evolve(
            known,
            attribute=attribute,
            is_one_of_many=is_one_of_many,
            value=draw(VALUES),
            event_id=f"e{number}",
            number=number,
            said_at=SAID_AT + number * DAY,
            holds_until=draw(st.none() | st.integers(0, 9).map(lambda days: (SAID_AT + days * DAY).date())),
            corrects=draw(st.none() | VALUES),
            absorbs=draw(st.none() | st.lists(VALUES, max_size=2).map(tuple)),
        )
        for number in range(count)
    ]


@given(facts_of_one_attribute())
@settings(deadline=None, max_examples=400)
def test_merging_equals_a_brute_force_reference(facts: list[Fact]) -> None:
    assert [(fact.id, fact.closed_by, fact.repeats) for fact in merge_facts(facts)] == merge_by_brute_force(facts)
