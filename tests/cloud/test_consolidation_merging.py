"""Which facts stand: what was said later, whatever arrives when and how often."""

from datetime import timedelta

import attrs
from hypothesis import given, settings
from hypothesis import strategies as st
from support.consolidation import SAID_AT, consolidated, found, turns

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


def facts_of(*said: str, session: str, day: int) -> tuple[Fact, ...]:
    return RuleExtractor().extract(turns(*said, session=session, at=SAID_AT + day * DAY)).facts


def current(facts: tuple[Fact, ...]) -> list[str]:
    return [fact.text for fact in facts if fact.is_current]


def test_the_same_again_changes_nothing_and_keeps_the_first_source() -> None:
    first = facts_of("I live in Lisbon.", session="call-1", day=0)
    again = facts_of("I live in Lisbon.", session="call-2", day=5)
    facts = merge_facts([*first, *again])
    assert [fact for fact in facts if fact.is_current] == list(first)
    assert facts[1].repeats == facts[0].id, "when it was last confirmed is known"


def test_a_contradiction_closes_the_older_fact_and_keeps_it() -> None:
    facts = merge_facts(
        [*facts_of("I live in Porto.", session="a", day=9), *facts_of("I live in Lisbon.", session="b", day=0)]
    )
    assert [fact.text for fact in facts] == ["Dana lives in Lisbon.", "Dana lives in Porto."]
    assert facts[0].closed_by == facts[1].id
    assert current(facts) == ["Dana lives in Porto."]


def test_who_moves_back_lives_there_again() -> None:
    calls = [
        facts_of(f"I live in {place}.", session=place + str(day), day=day)
        for day, place in enumerate(["Rome", "Oslo", "Rome"])
    ]
    facts = merge_facts([*calls[2], *calls[0], *calls[1]])
    assert [fact.is_current for fact in facts] == [False, False, True]


def test_another_child_contradicts_nothing() -> None:
    said = (
        "My son's called Kofi.",
        "My daughter's called Abena.",
        "My daughter's called Ama.",
        "I like tea.",
        "I like figs.",
    )
    assert len(current(merge_facts(found(*said)))) == 5


def test_what_is_no_more_closes_all_that_was() -> None:
    facts = merge_facts(found("My dog is called Rex.", "My dog is called Bo.", "We don't have a dog any more."))
    assert current(facts) == ["Dana no longer has a dog."]
    facts = merge_facts([*facts, *facts_of("My dog is called Max.", session="call-2", day=400)])
    assert current(facts) == ["Dana's dog is called Max."]


def test_a_part_of_a_name_is_no_other_name() -> None:
    said = RuleExtractor().extract(
        turns("My name is Dana.", "My name is Dana Whitlock.", "My name is Dana.", caller="")
    )
    assert current(merge_facts(said.facts)) == ["The caller's name is Dana Whitlock."]


def test_a_plan_that_is_moved_is_closed_and_one_that_is_over_is_not() -> None:
    first = facts_of("I have a dentist appointment tomorrow.", session="a", day=0)
    moved = facts_of("My dentist appointment is on Friday.", session="b", day=0)
    later = facts_of("I have a dentist appointment tomorrow.", session="c", day=90)
    facts = merge_facts([*first, *moved, *later])
    assert [fact.closed_by for fact in facts] == [facts[1].id, None, None]


def test_a_turn_that_comes_late_puts_right_what_was_learned_without_it() -> None:
    call = turns("I'm flying to Lisbon on Wednesday.", "No, wait, make that Thursday.", "I like tea.")
    early = consolidated([], [call[0], call[2]], RuleExtractor())
    late = consolidated(early.facts, call, RuleExtractor())
    assert current(late.facts) == ["Dana is flying to Lisbon on Thursday 5 March 2026.", "Dana likes tea."]
    assert late == consolidated([], call, RuleExtractor())


def test_a_fact_of_another_session_stays_when_one_is_read_again() -> None:
    kept = facts_of("I like tea.", session="a", day=0)
    assert replace_sessions(kept, {"b"}, []) == kept
    assert replace_sessions(kept, {"a"}, []) == ()


# The profile


def test_a_profile_tells_in_a_few_lines_what_stands() -> None:
    facts = merge_facts(
        found(
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


def test_a_profile_does_not_tell_what_is_over() -> None:
    facts = merge_facts(found("I have a dentist appointment tomorrow.", "I like tea."))
    assert len(summarize_facts(facts, SAID_AT.date()).summary.splitlines()) == 2
    assert summarize_facts(facts, SAID_AT.date() + 2 * DAY).summary == "Dana likes tea."


def test_a_profile_does_not_grow_without_end() -> None:
    facts = merge_facts(found(*(f"My friend is called {name * 3}." for name in "Abcd Efgh Ijkl Mnop Qrst".split() * 1)))
    many = [attrs.evolve(facts[0], value=f"v{n}", text=f"Text {n}.", event_id=f"{n}") for n in range(500)]
    profile = summarize_facts(many, SAID_AT.date())
    assert max(map(len, profile.attributes.values())) == 20
    assert len(profile.summary) < 1_000


# In any order

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


def calls_of(drawn: list[tuple[list[str], int]]) -> list[list[CallTurn]]:
    """Sessions, of which several may be held on the same day and even at the same moment."""
    return [turns(*said, session=f"call-{n}", at=SAID_AT + day * DAY) for n, (said, day) in enumerate(drawn)]


@given(_CALLS, st.randoms(use_true_random=False))
@settings(deadline=None, max_examples=150)
def test_sessions_may_come_in_any_order_and_any_number_of_times(
    drawn: list[tuple[list[str], int]], random: object
) -> None:
    calls = calls_of(drawn)
    once: tuple[Fact, ...] = ()
    for call in calls:
        once = consolidated(once, call, RuleExtractor()).facts
    shuffled = [*calls, *calls[: len(calls) // 2 + 1]]
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    other: tuple[Fact, ...] = ()
    for call in shuffled:
        other = consolidated(other, call, RuleExtractor()).facts
    assert other == once
    assert summarize_facts(other, SAID_AT.date()) == summarize_facts(once, SAID_AT.date())
    assert merge_facts(once) == once
    assert merge_facts([*once[::-1], *once]) == once


@given(_CALLS)
@settings(deadline=None)
def test_what_has_closed_a_fact_was_said_after_it_and_is_there(drawn: list[tuple[list[str], int]]) -> None:
    facts = merge_facts(fact for call in calls_of(drawn) for fact in RuleExtractor().extract(call).facts)
    place = {fact.id: number for number, fact in enumerate(facts)}
    assert len(place) == len(facts)
    for number, fact in enumerate(facts):
        assert fact.repeats is None or place[fact.repeats] < number
        assert fact.closed_by is None or fact.closed_by in place
        closer = facts[place[fact.closed_by]] if fact.closed_by else None
        assert closer is None or (closer.subject, closer.attribute) == (fact.subject, fact.attribute)


def test_a_correction_by_hand_stands_like_one_that_was_said() -> None:
    (said,) = facts_of("I live in Lisbon.", session="a", day=0)
    by_hand = attrs.evolve(
        said, text="Dana lives in Oslo.", value="Oslo", event_id="hand", session_id="", said_at=SAID_AT + DAY
    )
    assert current(merge_facts([by_hand, said])) == ["Dana lives in Oslo."]
    assert by_hand.kind is FactKind.IDENTITY


# Against a slow, obvious reference


def obviously_merged(facts: list[Fact]) -> list[tuple[str, str | None, str | None]]:
    """Each fact with what closed it and what it repeats: every fact is held against every one before it."""
    closed_by: dict[str, str] = {}
    repeats: dict[str, str] = {}
    standing: list[Fact] = []
    for fact in facts:
        others = [each for each in standing if (each.subject, each.attribute) == (fact.subject, fact.attribute)]
        if fact.absorbs is not None:
            known = None
            gone = [each for each in others if each.value in (fact.value, *fact.absorbs)]
            repeats |= {each.id: fact.id for each in gone}
            standing = [each for each in standing if each not in gone]
            others = [each for each in others if each not in gone]
        else:
            known = next((each for each in others if each.value == fact.value), None)
        for each in others:
            is_over = each.holds_until is not None and each.holds_until < fact.said_at.date()
            excludes = not fact.is_one_of_many or "" in (fact.value, each.value)
            if each is not known and (fact.corrects == each.value or (not is_over and excludes)):
                closed_by[each.id] = (known or fact).id
                standing.remove(each)
        if known:
            repeats[fact.id] = known.id
        else:
            standing.append(fact)
    return [(fact.id, closed_by.get(fact.id), repeats.get(fact.id)) for fact in facts]


VALUES = st.sampled_from(["", "a", "b", "c"])


@st.composite
def statements(draw: st.DrawFn) -> list[Fact]:
    (known,) = found("I live in Lisbon.")
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


@given(statements())
@settings(deadline=None, max_examples=400)
def test_merging_is_what_it_obviously_is(facts: list[Fact]) -> None:
    assert [(fact.id, fact.closed_by, fact.repeats) for fact in merge_facts(facts)] == obviously_merged(facts)
