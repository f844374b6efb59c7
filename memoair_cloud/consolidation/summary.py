"""The profile: what stands, in a few lines."""

from collections.abc import Iterable
from datetime import date

from memoair_cloud.consolidation.records import CALLER_SUBJECT, NO_VALUE, Fact, FactKind, ProfileSummary

# A profile is read before every answer: of each kind the last ones, which are seldom more.
_MAX_FACTS_BY_KIND = (
    (FactKind.IDENTITY, 12),
    (FactKind.RELATION, 8),
    (FactKind.PREFERENCE, 10),
    (FactKind.PLAN, 4),
    (FactKind.COMMITMENT, 4),
    (FactKind.EVENT, 4),
)
# These speak of who the caller is; what he did and plans to do is told in the summary, and found by recall.
_ATTRIBUTE_KINDS = frozenset({FactKind.IDENTITY, FactKind.RELATION, FactKind.PREFERENCE})
_MAX_VALUES = 20


def summarize_facts(facts: Iterable[Fact], today: date) -> ProfileSummary:
    """The profile that facts make, a line for each kind; what was told to be over by ``today`` is left out of it."""
    current = [fact for fact in facts if fact.is_current and not _is_over(fact, today)]
    lines = [_summary_line(current, kind, max_facts) for kind, max_facts in _MAX_FACTS_BY_KIND]
    return ProfileSummary("\n".join(line for line in lines if line), _collect_attributes(current))


def _is_over(fact: Fact, today: date) -> bool:
    """Whether it held until a day that is past; what has happened has happened."""
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
