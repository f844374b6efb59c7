"""Summarize current facts as a profile of a few lines."""

from collections.abc import Iterable
from datetime import date

from memoair_cloud.consolidation.people import People, find_people
from memoair_cloud.consolidation.records import (
    CALLER_SUBJECT,
    NAME,
    NO_VALUE,
    OTHER_CALLER,
    Fact,
    FactKind,
    ProfileSummary,
)
from memoair_protocol.callers import CALLERS_ATTRIBUTE

# The agent reads the profile before every answer, so it has only the latest facts of each kind, which are rarely more.
_MAX_FACTS_BY_KIND = (
    (FactKind.IDENTITY, 12),
    (FactKind.RELATION, 8),
    (FactKind.PREFERENCE, 10),
    (FactKind.PLAN, 4),
    (FactKind.COMMITMENT, 4),
    (FactKind.EVENT, 4),
)
# These describe who the caller is. Events and plans appear in the summary only, and are found by recall.
_ATTRIBUTE_KINDS = frozenset({FactKind.IDENTITY, FactKind.RELATION, FactKind.PREFERENCE})
_MAX_VALUES = 20
_SEVERAL_PEOPLE = "Several people use this number, among them {names}. Ask who is calling before using a name."


def summarize_facts(facts: Iterable[Fact], today: date, known_name: str = "") -> ProfileSummary:
    """Return the profile that facts make, with one line for each kind.

    Where several people call, a line before the others says who, and no name is given as the caller's.

    Args:
        facts: Merged facts in the order in which they were said.
        today: Facts that ended before this day are left out, except events.
        known_name: The user's name that an application passed; empty if none.
    """
    current = [fact for fact in facts if fact.is_current and not _is_over(fact, today)]
    people = find_people(current, known_name)
    if people.is_shared:
        current = [fact for fact in current if fact.attribute not in (NAME, OTHER_CALLER)]
    lines = [_summary_line(current, kind, max_facts) for kind, max_facts in _MAX_FACTS_BY_KIND]
    attributes = _collect_attributes(current)
    if people.is_shared:
        lines.insert(0, _SEVERAL_PEOPLE.format(names=_list_names(people)))
        attributes = dict(sorted({**attributes, CALLERS_ATTRIBUTE: people.names[:_MAX_VALUES]}.items()))
    return ProfileSummary("\n".join(line for line in lines if line), attributes)


def _list_names(people: People) -> str:
    *before, last = people.names[:_MAX_VALUES]
    return f"{', '.join(before)} and {last}" if before else last


def _is_over(fact: Fact, today: date) -> bool:
    """Return whether the fact ended before today. Events never count as ended."""
    return fact.kind is not FactKind.EVENT and fact.holds_until is not None and fact.holds_until < today


def _summary_line(current: list[Fact], kind: FactKind, max_facts: int) -> str:
    texts = list(dict.fromkeys(" ".join(fact.text.split()) for fact in current if fact.kind is kind))
    return " ".join(texts[-max_facts:])


def _collect_attributes(current: list[Fact]) -> dict[str, str | list[str]]:
    lists: dict[str, list[str]] = {}
    singles: dict[str, str] = {}
    for fact in current:
        if fact.kind not in _ATTRIBUTE_KINDS or fact.value == NO_VALUE:
            continue
        name = fact.attribute if fact.subject == CALLER_SUBJECT else f"{fact.subject} {fact.attribute}"
        if fact.is_one_of_many:
            lists.setdefault(name, []).append(fact.value)
        else:
            singles[name] = fact.value
    attributes: dict[str, str | list[str]] = {name: values[-_MAX_VALUES:] for name, values in lists.items()}
    attributes.update(singles)
    return dict(sorted(attributes.items()))
