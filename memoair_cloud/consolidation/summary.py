"""The profile: what stands, in a few lines."""

from collections.abc import Iterable
from datetime import date

from memoair_cloud.consolidation.records import CALLER, NOTHING, Fact, FactKind, ProfileSummary

# A profile is read before every answer: of each kind the last ones, which are seldom more.
_LINES = (
    (FactKind.IDENTITY, 12),
    (FactKind.RELATION, 8),
    (FactKind.PREFERENCE, 10),
    (FactKind.PLAN, 4),
    (FactKind.COMMITMENT, 4),
    (FactKind.EVENT, 4),
)
# These speak of who the caller is; what he did and plans to do is told in the summary, and found by recall.
_ATTRIBUTES = frozenset({FactKind.IDENTITY, FactKind.RELATION, FactKind.PREFERENCE})
_MOST_VALUES = 20


def summarise(facts: Iterable[Fact], today: date) -> ProfileSummary:
    """The profile that facts make, a line for each kind; what was told to be over by ``today`` is left out of it."""
    current = [fact for fact in facts if fact.is_current and not _is_over(fact, today)]
    lines = [_line(current, kind, most) for kind, most in _LINES]
    return ProfileSummary("\n".join(line for line in lines if line), _attributes(current))


def _is_over(fact: Fact, today: date) -> bool:
    """Whether it held until a day that is past; what has happened has happened."""
    return fact.kind is not FactKind.EVENT and fact.holds_until is not None and fact.holds_until < today


def _line(current: list[Fact], kind: FactKind, most: int) -> str:
    texts = list(dict.fromkeys(" ".join(fact.text.split()) for fact in current if fact.kind is kind))
    return " ".join(texts[-most:])


def _attributes(current: list[Fact]) -> dict[str, str | list[str]]:
    several: dict[str, list[str]] = {}
    one: dict[str, str] = {}
    for fact in current:
        if fact.kind not in _ATTRIBUTES or fact.value == NOTHING:
            continue
        name = fact.attribute if fact.subject == CALLER else f"{fact.subject} {fact.attribute}"
        if fact.is_one_of_many:
            several.setdefault(name, []).append(fact.value)
        else:
            one[name] = fact.value
    told: dict[str, str | list[str]] = {name: values[-_MOST_VALUES:] for name, values in several.items()}
    told.update(one)
    return dict(sorted(told.items()))
