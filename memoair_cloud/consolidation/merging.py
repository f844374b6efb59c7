"""Merging: which of all facts stand, which are history, and which only say again what is known.

What comes out depends on what was said and when, and on nothing else: not on the order in which it arrives, and not on
how often.
"""

from collections import defaultdict
from collections.abc import Collection, Iterable
from datetime import datetime

import attrs

from memoair_cloud.consolidation.records import NO_VALUE, Fact


def merge_facts(facts: Iterable[Fact]) -> tuple[Fact, ...]:
    """All facts in the order in which they were said, each with what has closed it or what it repeats.

    Facts that were merged before may come in again, and so may whole sessions.
    """
    facts_by_id = {fact.id: attrs.evolve(fact, closed_by=None, repeats=None) for fact in sorted(facts, key=_sort_key)}
    current: defaultdict[tuple[str, str], _CurrentFacts] = defaultdict(_CurrentFacts)
    closed_by: dict[str, str] = {}
    repeats: dict[str, str] = {}
    for fact in facts_by_id.values():
        change = current[fact.subject, fact.attribute].add(fact)
        if change.repeated is not None:
            repeats[fact.id] = change.repeated.id
        closed_by |= dict.fromkeys((other.id for other in change.closed), (change.repeated or fact).id)
        repeats |= dict.fromkeys((other.id for other in change.absorbed), fact.id)
    return tuple(
        attrs.evolve(fact, closed_by=closed_by.get(fact.id), repeats=repeats.get(fact.id))
        for fact in facts_by_id.values()
    )


def replace_sessions(
    known: Iterable[Fact], session_ids: Collection[str], new_facts: Iterable[Fact]
) -> tuple[Fact, ...]:
    """All facts after some sessions were read once more: what was found in them now stands for what was found before.

    Else a turn that came late, and puts another one right, would leave the mistake standing beside its correction.
    """
    return merge_facts([*(fact for fact in known if fact.session_id not in session_ids), *new_facts])


def _sort_key(fact: Fact) -> tuple[datetime, int, str, str, int, str, str]:
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


@attrs.define
class _MergeStep:
    """What became of the facts of one attribute when another one was said."""

    repeated: Fact | None = None  # which had said the same already
    closed: list[Fact] = attrs.field(factory=list)  # which can't be true any more
    absorbed: list[Fact] = attrs.field(factory=list)  # which said what somebody has put right


class _CurrentFacts:
    """The facts of one subject and attribute that stand, by their values. Each is looked at once or twice, not by all
    that come after it.
    """

    def __init__(self) -> None:
        self._open: dict[str, Fact] = {}
        self._expired: dict[str, Fact] = {}  # what was true until a day that is past: what comes later does not undo it

    def add(self, fact: Fact) -> _MergeStep:
        """Let a fact be said, after all that were taken before."""
        step = _MergeStep()
        if fact.absorbs is not None:
            step.absorbed = self._pop((fact.value, *fact.absorbs))
        else:
            step.repeated = self._find_same(fact)
        if fact.corrects is not None and fact.corrects not in (fact.value, step.repeated and step.repeated.value):
            step.closed += self._pop([fact.corrects])
        excludes_all = not fact.is_one_of_many or fact.value == NO_VALUE
        step.closed += self._close_contradicted(fact, step.repeated, list(self._open) if excludes_all else [NO_VALUE])
        if step.repeated is None:
            self._open[fact.value] = fact
        return step

    def _find_same(self, fact: Fact) -> Fact | None:
        known = self._open.get(fact.value) or self._expired.get(fact.value)
        if known is None and fact.attribute == "name":
            words = set(fact.value.casefold().split())
            # A part of a name is no other name: "Dana" was told to be "Dana Whitlock".
            full_names = (
                candidate for candidate in self._open.values() if words <= set(candidate.value.casefold().split())
            )
            known = next(full_names, None) if words else None
        return known

    def _close_contradicted(self, fact: Fact, repeated: Fact | None, values: Iterable[str]) -> list[Fact]:
        """Those of some values that cannot be true beside a fact, so that the one that was said later stands."""
        closed = []
        for value in values:
            older = self._open.get(value)
            if older is None or older is repeated:
                continue
            del self._open[value]
            if older.holds_until is not None and older.holds_until < fact.said_at.date():
                self._expired[value] = older  # the next appointment does not undo the last one
            else:
                closed.append(older)
        return closed

    def _pop(self, values: Iterable[str]) -> list[Fact]:
        stores = (self._open, self._expired)
        return [facts.pop(value) for value in values for facts in stores if value in facts]
