"""Merging: which of all facts stand, which are history, and which only say again what is known.

What comes out depends on what was said and when, and on nothing else: not on the order in which it arrives, and not on
how often.
"""

from collections import defaultdict
from collections.abc import Collection, Iterable
from datetime import datetime

import attrs

from memoair_cloud.consolidation.records import NOTHING, Fact


def merged(facts: Iterable[Fact]) -> tuple[Fact, ...]:
    """All facts in the order in which they were said, each with what has closed it or what it repeats.

    Facts that were merged before may come in again, and so may whole sessions.
    """
    said = {fact.id: attrs.evolve(fact, closed_by=None, repeats=None) for fact in sorted(facts, key=_order)}
    standing: defaultdict[tuple[str, str], list[Fact]] = defaultdict(list)
    closed_by: dict[str, str] = {}
    repeats: dict[str, str] = {}
    for fact in said.values():
        others = standing[fact.subject, fact.attribute]
        known = next((other for other in others if _says_the_same(fact, other)), None)
        if known:
            repeats[fact.id] = known.id
        closed = {other.id for other in others if other is not known and _closes(fact, other)}
        closed_by |= dict.fromkeys(closed, known.id if known else fact.id)
        others[:] = [other for other in others if other.id not in closed]
        if not known:
            others.append(fact)
    return tuple(
        attrs.evolve(fact, closed_by=closed_by.get(fact.id), repeats=repeats.get(fact.id)) for fact in said.values()
    )


def replaced(known: Iterable[Fact], sessions: Collection[str], found: Iterable[Fact]) -> tuple[Fact, ...]:
    """All facts after some sessions were read once more: what was found in them now stands for what was found before.

    Else a turn that came late, and puts another one right, would leave the mistake standing beside its correction.
    """
    return merged([*(fact for fact in known if fact.session_id not in sessions), *found])


def _order(fact: Fact) -> tuple[datetime, int, str, str, int, str, str]:
    # Which fact of two in one turn comes later is told by the correction; the rest only makes the order total.
    return (
        fact.said_at,
        fact.number,
        fact.session_id,
        fact.event_id,
        fact.corrects is not None,
        fact.id,
        repr(fact),
    )


def _says_the_same(fact: Fact, known: Fact) -> bool:
    if fact.value == known.value:
        return True
    # A part of a name is no other name: "Dana" was told to be "Dana Whitlock".
    words = set(fact.value.casefold().split())
    return fact.attribute == "name" and bool(words) and words <= set(known.value.casefold().split())


def _closes(fact: Fact, older: Fact) -> bool:
    """Whether both cannot be true at once, so that the one that was said later stands."""
    if fact.corrects is not None and fact.corrects == older.value:
        return True
    if fact.value == older.value:
        return False
    if older.holds_until is not None and older.holds_until < fact.said_at.date():
        return False  # it is over, and was true: the next appointment does not undo it
    return not fact.is_one_of_many or NOTHING in (fact.value, older.value)
