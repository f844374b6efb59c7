"""Merge facts: decide which are current, which are history, and which only repeat a known fact.

The result depends only on what was said and when. It does not depend on the order in which facts arrive, nor on how
often each of them arrives.
"""

from collections import defaultdict
from collections.abc import Collection, Iterable
from datetime import datetime

import attrs

from memoair_cloud.consolidation.endings import is_ended
from memoair_cloud.consolidation.people import UNNAMED, find_people, is_same_person, mark, unmark
from memoair_cloud.consolidation.records import (
    ANY_VALUE,
    END_OF_FACT,
    END_OF_PLAN,
    END_OF_RELATION,
    NAME,
    NO_VALUE,
    Fact,
    FactKind,
)


def merge_facts(facts: Iterable[Fact], known_name: str = "") -> tuple[Fact, ...]:
    """Return all facts in the order in which they were said, with what closed them or what they repeat.

    Where several people call, each has facts of their own. A statement without a known speaker closes facts of all
    of them, because a wrong fact is worse than none, but opens none of theirs.

    Args:
        facts: The facts of one user. They may have been merged before, and may contain whole sessions twice.
        known_name: The user's name that an application passed; empty if none.
    """
    in_order = sorted((unmark(fact) for fact in facts), key=_sort_key)
    facts_by_id = {fact.id: attrs.evolve(fact, closed_by=None, repeats=None) for fact in in_order}
    people = find_people(facts_by_id.values(), known_name)
    current: defaultdict[tuple[str, str, int], _CurrentFacts] = defaultdict(_CurrentFacts)
    closed_by: dict[str, str] = {}
    repeats: dict[str, str] = {}
    for fact in facts_by_id.values():
        group = people.group_of(fact)
        change = current[fact.subject, fact.attribute, group].add(fact)
        # What ends facts of other attributes, or facts of any speaker
        affected = list(current.items()) if group == UNNAMED or is_end(fact) else []
        for (subject, attribute, other_group), others in affected:
            if subject != fact.subject or group not in (UNNAMED, other_group):
                continue
            if is_end(fact):
                change.closed += others.end(fact)
            if group == UNNAMED != other_group and attribute == fact.attribute:
                change.closed += others.close_ended(fact)
        if fact.is_denial:
            repeats[fact.id] = fact.id  # it is no fact by itself
        if change.repeated is not None:
            repeats[fact.id] = change.repeated.id
        closed_by |= dict.fromkeys((other.id for other in change.closed), (change.repeated or fact).id)
        repeats |= dict.fromkeys((other.id for other in change.absorbed), fact.id)
    merged = [
        attrs.evolve(fact, closed_by=closed_by.get(fact.id), repeats=repeats.get(fact.id))
        for fact in facts_by_id.values()
    ]
    return mark(merged, people, known_name)


def replace_sessions(
    known: Iterable[Fact], session_ids: Collection[str], new_facts: Iterable[Fact]
) -> tuple[Fact, ...]:
    """Merge again after some sessions were extracted again: their new facts replace their old ones.

    Otherwise a late turn that corrects another one would leave the mistake next to its correction.

    Args:
        known: All facts of one user so far.
        session_ids: The sessions that were extracted again.
        new_facts: All facts that were found in these sessions.
    """
    return merge_facts([*(fact for fact in known if fact.session_id not in session_ids), *new_facts])


def is_end(fact: Fact) -> bool:
    """Return whether a fact ends facts of other attributes: "Milo died", "I have no appointment"."""
    return fact.attribute == END_OF_RELATION or fact.attribute.startswith((END_OF_PLAN, END_OF_FACT))


def _sort_key(fact: Fact) -> tuple[datetime, int, str, str, int, str, str]:
    # Of two facts in one turn, the correction comes later. The rest only makes the order total.
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
    """How a new fact changes the facts of the same attribute."""

    repeated: Fact | None = None  # an earlier fact that says the same
    closed: list[Fact] = attrs.field(factory=list)  # facts that can no longer be true
    absorbed: list[Fact] = attrs.field(factory=list)  # facts whose value was corrected by hand


class _CurrentFacts:
    """The current facts of one subject and attribute, by value.

    A fact is examined once or twice, not by every later fact.
    """

    def __init__(self) -> None:
        self._open: dict[str, Fact] = {}
        self._expired: dict[str, Fact] = {}  # held until a day that is past: later facts do not undo them

    def add(self, fact: Fact) -> _MergeStep:
        """Add a fact that was said after all facts that were added before."""
        step = _MergeStep()
        if fact.is_denial:
            step.closed = self._pop(list(self._open) if fact.corrects is None else self._named_like(fact))
            return step
        if fact.absorbs is not None:
            step.absorbed = self._pop((fact.value, *fact.absorbs))
        else:
            step.repeated = self._find_same(fact)
        if fact.corrects == ANY_VALUE:
            step.closed += self._pop([value for value in self._open if value != fact.value])
        elif fact.corrects is not None and fact.corrects not in (fact.value, step.repeated and step.repeated.value):
            step.closed += self._pop([fact.corrects])
        excludes_all = not fact.is_one_of_many or fact.value == NO_VALUE
        step.closed += self._close_contradicted(fact, step.repeated, list(self._open) if excludes_all else [NO_VALUE])
        if step.repeated is None:
            self._open[fact.value] = fact
        return step

    def _named_like(self, fact: Fact) -> list[str]:
        """Return the values that a denial denies; of a name any form of it."""
        denied = fact.corrects or ""
        if fact.attribute != NAME:
            return [denied]
        return [value for value in self._open if is_same_person(value, denied)]

    def close_ended(self, fact: Fact) -> list[Fact]:
        """Remove and return the facts that hold no longer, if a fact of another speaker says so."""
        if fact.corrects is not None and fact.corrects != ANY_VALUE:
            return self._pop([fact.corrects])
        return self._pop(list(self._open)) if fact.is_denial or fact.value in (NO_VALUE, "no") else []

    def end(self, fact: Fact) -> list[Fact]:
        """Remove and return the facts that an end of another attribute ends."""
        if fact.attribute == END_OF_RELATION:
            ended = [
                value
                for value, known in self._open.items()
                if known.kind is FactKind.RELATION and value == fact.corrects
            ]
            return self._pop(ended)
        if fact.attribute.startswith(END_OF_FACT):
            return self._pop([value for value, known in self._open.items() if is_ended(known, fact)])
        name = fact.attribute.removeprefix(END_OF_PLAN)
        ended = [
            value
            for value, known in self._open.items()
            if known.kind is FactKind.PLAN
            and value != NO_VALUE
            and not is_end(known)
            and f" {name} " in f"{known.attribute} ".replace(":", " ")
        ]
        return self._close_contradicted(fact, None, ended)

    def _find_same(self, fact: Fact) -> Fact | None:
        known = self._open.get(fact.value) or self._expired.get(fact.value)
        if known is None and fact.attribute == NAME and fact.corrects != ANY_VALUE:
            words = len(fact.value.split())
            # A part of a name is the same name: "Dana" became known as "Dana Whitlock".
            full_names = (
                candidate
                for candidate in self._open.values()
                if words < len(candidate.value.split()) and is_same_person(candidate.value, fact.value)
            )
            known = next(full_names, None)
        return known

    def _close_contradicted(self, fact: Fact, repeated: Fact | None, values: Iterable[str]) -> list[Fact]:
        """Remove and return the facts with some values that cannot be true together with a later fact."""
        closed = []
        for value in values:
            older = self._open.get(value)
            if older is None or older is repeated:
                continue
            del self._open[value]
            if older.holds_until is not None and older.holds_until < fact.said_at.date():
                self._expired[value] = older  # a new appointment does not undo a past one
            else:
                closed.append(older)
        return closed

    def _pop(self, values: Iterable[str]) -> list[Fact]:
        stores = (self._open, self._expired)
        folded = {value.casefold() for value in values}
        return [facts.pop(value) for facts in stores for value in list(facts) if value.casefold() in folded]
