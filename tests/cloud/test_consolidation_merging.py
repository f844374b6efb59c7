"""Which facts stand: what was said later, whatever arrives when and how often."""

from datetime import timedelta

import attrs
from hypothesis import given, settings
from hypothesis import strategies as st
from support.consolidation import SAID_AT, consolidated, found, turns

from memoair_cloud.consolidation import (
    Fact,
    Kind,
    Profile,
    RuleExtractor,
    Turn,
    merged,
    replaced,
    summarise,
)

DAY = timedelta(days=1)


def facts_of(*said: str, session: str, day: int) -> tuple[Fact, ...]:
    return RuleExtractor().extract(turns(*said, session=session, at=SAID_AT + day * DAY)).facts


def current(facts: tuple[Fact, ...]) -> list[str]:
    return [fact.text for fact in facts if fact.is_current]


def test_the_same_again_changes_nothing_and_keeps_the_first_source() -> None:
    first = facts_of("I live in Lisbon.", session="call-1", day=0)
    again = facts_of("I live in Lisbon.", session="call-2", day=5)
    facts = merged([*first, *again])
    assert [fact for fact in facts if fact.is_current] == list(first)
    assert facts[1].repeats == facts[0].id, "when it was last confirmed is known"


def test_a_contradiction_closes_the_older_fact_and_keeps_it() -> None:
    facts = merged(
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
    facts = merged([*calls[2], *calls[0], *calls[1]])
    assert [fact.is_current for fact in facts] == [False, False, True]


def test_another_child_contradicts_nothing() -> None:
    said = (
        "My son's called Kofi.",
        "My daughter's called Abena.",
        "My daughter's called Ama.",
        "I like tea.",
        "I like figs.",
    )
    assert len(current(merged(found(*said)))) == 5


def test_what_is_no_more_closes_all_that_was() -> None:
    facts = merged(found("My dog is called Rex.", "My dog is called Bo.", "We don't have a dog any more."))
    assert current(facts) == ["Dana no longer has a dog."]
    facts = merged([*facts, *facts_of("My dog is called Max.", session="call-2", day=400)])
    assert current(facts) == ["Dana's dog is called Max."]


def test_a_part_of_a_name_is_no_other_name() -> None:
    said = RuleExtractor().extract(
        turns("My name is Dana.", "My name is Dana Whitlock.", "My name is Dana.", caller="")
    )
    assert current(merged(said.facts)) == ["The caller's name is Dana Whitlock."]


def test_a_plan_that_is_moved_is_closed_and_one_that_is_over_is_not() -> None:
    first = facts_of("I have a dentist appointment tomorrow.", session="a", day=0)
    moved = facts_of("My dentist appointment is on Friday.", session="b", day=0)
    later = facts_of("I have a dentist appointment tomorrow.", session="c", day=90)
    facts = merged([*first, *moved, *later])
    assert [fact.closed_by for fact in facts] == [facts[1].id, None, None]


def test_a_turn_that_comes_late_puts_right_what_was_learned_without_it() -> None:
    call = turns("I'm flying to Lisbon on Wednesday.", "No, wait, make that Thursday.", "I like tea.")
    early = consolidated([], [call[0], call[2]], RuleExtractor())
    late = consolidated(early.facts, call, RuleExtractor(), profile=early.profile)
    assert current(late.facts) == ["Dana is flying to Lisbon on Thursday 5 March 2026.", "Dana likes tea."]
    assert late == consolidated([], call, RuleExtractor(), profile=early.profile)


def test_a_fact_of_another_session_stays_when_one_is_read_again() -> None:
    kept = facts_of("I like tea.", session="a", day=0)
    assert replaced(kept, {"b"}, []) == kept
    assert replaced(kept, {"a"}, []) == ()


# The profile


def test_a_profile_tells_in_a_few_lines_what_stands() -> None:
    facts = merged(
        found(
            "My name is Dana.",
            "I live in Porto.",
            "No, I live in Lisbon.",
            "My cat's called Milo.",
            "My cat is called Bo.",
            "I like tea.",
        )
    )
    profile = summarise(facts)
    assert profile.summary.splitlines() == [
        "The caller's name is Dana Whitlock. Dana lives in Lisbon.",
        "Dana's cat is called Milo. Dana's cat is called Bo.",
        "Dana likes tea.",
    ]
    assert profile.attributes == {
        "cat": ("Milo", "Bo"),
        "home": "Lisbon",
        "liking of tea": "likes",
        "name": "Dana Whitlock",
    }
    assert profile.version == 1


def test_a_version_grows_with_a_change_and_only_then() -> None:
    profile = summarise(merged(found("I like tea.")))
    assert summarise(merged(found("I like tea.", "I like tea.")), profile) == profile
    assert summarise(merged(found("I like tea.", "I like figs.")), profile).version == 2
    assert summarise([]) == Profile()
    assert summarise([], profile) == Profile(version=2)


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


def calls_of(drawn: list[tuple[list[str], int]]) -> list[list[Turn]]:
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
    assert summarise(other) == summarise(once)
    assert merged(once) == once
    assert merged([*once[::-1], *once]) == once


@given(_CALLS)
@settings(deadline=None)
def test_what_has_closed_a_fact_was_said_after_it_and_is_there(drawn: list[tuple[list[str], int]]) -> None:
    facts = merged(fact for call in calls_of(drawn) for fact in RuleExtractor().extract(call).facts)
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
    assert current(merged([by_hand, said])) == ["Dana lives in Oslo."]
    assert by_hand.kind is Kind.IDENTITY
