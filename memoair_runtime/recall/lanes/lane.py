"""What a lane is asked, and what it answers."""

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any, Protocol

import attrs
import msgspec

from memoair_index import Hit
from memoair_runtime.enums import Intent, LaneName, Variant
from memoair_runtime.filters import Predicate
from memoair_runtime.readiness import Readiness
from memoair_runtime.timeutil import format_utc


@attrs.frozen
class LaneQuery:
    """One search, as a lane sees it. ``deadline`` is in monotonic seconds, ``limit`` counts items.

    ``now`` is the moment of asking, in seconds since the epoch.
    """

    text: str
    session_id: str
    intent: Intent
    limit: int
    deadline: float
    now: float | None = None
    variant: Variant = Variant.DEFAULT
    predicate: Predicate | None = None  # the filter on metadata


# What a search makes dozens of are structs, which are made in a sixth of the time.


class HitSource(msgspec.Struct, frozen=True):
    """Where a hit comes from."""

    lane: LaneName
    id: str
    kind: str  # turn, fact, document or profile
    session_id: str | None = None
    turn_id: str | None = None
    document_id: str | None = None
    index_name: str | None = None
    created_at: datetime | None = None

    def to_wire(self) -> dict[str, str]:
        """The source as the wire has it; what does not apply is left out."""
        wire = {"lane": self.lane.value, "id": self.id, "kind": self.kind}
        if self.session_id is not None:
            wire["sessionId"] = self.session_id
        if self.turn_id is not None:
            wire["turnId"] = self.turn_id
        if self.document_id is not None:
            wire["documentId"] = self.document_id
        if self.index_name is not None:
            wire["indexName"] = self.index_name
        if self.created_at is not None:
            wire["createdAt"] = format_utc(self.created_at)
        return wire


class LaneHit(msgspec.Struct, frozen=True):
    """One item that a lane found."""

    text: str
    score: float
    source: HitSource
    metadata: Mapping[str, Any]
    index_hit: Hit | None = None  # what the index found of it

    def contributions(self) -> Mapping[str, float]:
        """What the score is the sum of; empty where nothing was found, and it is given for another reason."""
        return self.index_hit.terms if self.index_hit else {}

    def to_wire(self) -> dict[str, Any]:
        """The hit as the wire has it."""
        source = self.source.to_wire()
        return {
            "id": source["id"],
            "text": self.text,
            "score": round(self.score, 4),
            "lane": source["lane"],
            "metadata": self.metadata,
            "source": source,
        }


class Passage(msgspec.Struct, frozen=True):
    """A piece of text for the context, smaller than a hit: one side of a turn, one document, one statement.

    A lane gives its passages the most important first; ``place`` says where each stands among those that are chosen.
    Passages of one ``heading`` stand together under it.
    """

    text: str
    position: tuple[Any, ...]
    speaker: str = ""
    heading: str = ""


@attrs.frozen
class LaneAnswer:
    """What a lane found: ``hits`` for programs, ``passages`` for the context, the most important first."""

    hits: tuple[LaneHit, ...] = ()
    passages: Iterable[Passage] = ()  # may be gone through more than once
    profile: Mapping[str, Any] | None = None


NO_ANSWER = LaneAnswer()


class Lane(Protocol):
    """One of the four. Safe to use from any thread."""

    name: LaneName
    default_limit: int

    @property
    def readiness(self) -> Readiness:
        """How far the lane's data has come."""

    def search(self, query: LaneQuery) -> LaneAnswer:
        """Answer a question. May raise `NotReadyError`; anything else is a defect, and costs this lane only."""
