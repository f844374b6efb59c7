"""The profile: what stands, in a few lines."""

from collections.abc import Iterable

from memoair_cloud.consolidation.records import CALLER, NOTHING, Fact, Kind, Profile

# A profile is read before every answer: of each kind the last ones, which are seldom more.
_LINES = (
    (Kind.IDENTITY, 12),
    (Kind.RELATION, 8),
    (Kind.PREFERENCE, 10),
    (Kind.PLAN, 4),
    (Kind.COMMITMENT, 4),
    (Kind.EVENT, 4),
)
# These speak of who the caller is; what he did and plans to do is told in the summary, and found by recall.
_ATTRIBUTES = frozenset({Kind.IDENTITY, Kind.RELATION, Kind.PREFERENCE})


def summarise(facts: Iterable[Fact], known: Profile | None = None) -> Profile:
    """The profile that facts make, a line for each kind.

    The version grows by one if anything else than ``known`` comes out.
    """
    current = [fact for fact in facts if fact.is_current]
    lines = [_line(current, kind, most) for kind, most in _LINES]
    summary = "\n".join(line for line in lines if line)
    attributes = _attributes(current)
    known = known or Profile()
    if summary == known.summary and attributes == known.attributes:
        return known
    return Profile(summary, attributes, known.version + 1)


def _line(current: list[Fact], kind: Kind, most: int) -> str:
    texts = list(dict.fromkeys(" ".join(fact.text.split()) for fact in current if fact.kind is kind))
    return " ".join(texts[-most:])


def _attributes(current: list[Fact]) -> dict[str, str | tuple[str, ...]]:
    attributes: dict[str, str | tuple[str, ...]] = {}
    for fact in current:
        if fact.kind not in _ATTRIBUTES or fact.value == NOTHING:
            continue
        name = fact.attribute if fact.subject == CALLER else f"{fact.subject} {fact.attribute}"
        earlier = attributes.get(name, ())
        values = (earlier,) if isinstance(earlier, str) else earlier
        attributes[name] = (*values, fact.value) if fact.is_one_of_many else fact.value
    return dict(sorted(attributes.items()))
