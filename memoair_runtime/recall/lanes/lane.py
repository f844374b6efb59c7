"""The interface of a lane: its query and its answer."""

import time
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any, Protocol

import attrs
import msgspec

from memoair_index import Hit
from memoair_protocol.enums import Intent, LaneName, Variant
from memoair_protocol.timestamps import format_utc
from memoair_runtime.filters import Predicate
from memoair_runtime.readiness import Readiness

# Reranking takes some milliseconds; with less time left than this it is skipped.
_MIN_RERANK_S = 0.015


@attrs.frozen
class LaneQuery:
    """One search, as a lane sees it.

    Attributes:
        text: The text of the query.
        session_id: The session that searches.
        intent: The purpose of the search.
        limit: Maximum number of hits.
        deadline: Time of the monotonic clock by which to answer, in seconds.
        now: Time of the query in seconds since the epoch, for relative dates such as "last week".
        variant: The embedding to use.
        predicate: The filter on metadata, if there is one.
        min_confidence: The lanes of earlier calls and of documents leave out hits of less confidence, from 0 to 1.
    """

    text: str
    session_id: str
    intent: Intent
    limit: int
    deadline: float
    now: float | None = None
    variant: Variant = Variant.DEFAULT
    predicate: Predicate | None = None
    min_confidence: float = 0.0

    def can_rerank(self) -> bool:
        """Return whether the session asks for reranking, and enough time is left for it."""
        return self.variant is Variant.MEDIUM and self.deadline - time.monotonic() > _MIN_RERANK_S


# Which turn, fact or document: its kind, its id, and its index if it is a document.
SourceKey = tuple[str, str, str | None]


# A search makes dozens of objects of these classes. They are msgspec structs, which take a sixth of the time to make.


class HitSource(msgspec.Struct, frozen=True):
    """The source of a hit.

    Attributes:
        lane: The lane.
        id: Id of the turn's event, of the fact or of the document.
        kind: ``turn``, ``fact``, ``document`` or ``profile``.
        session_id: The session of a turn or fact.
        turn_id: The id of a turn.
        document_id: The id of a document.
        index_name: The index of a document.
        created_at: When a turn or fact was spoken.
    """

    lane: LaneName
    id: str
    kind: str
    session_id: str | None = None
    turn_id: str | None = None
    document_id: str | None = None
    index_name: str | None = None
    created_at: datetime | None = None

    @property
    def key(self) -> SourceKey:
        """What the passages of this turn, fact or document have as their `Passage.source`."""
        return self.kind, self.id, self.index_name

    def to_wire(self) -> dict[str, str]:
        """Return the source as the wire has it, without the fields that do not apply."""
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
    """One hit of a lane.

    Attributes:
        text: The text of the turn, fact or document.
        score: The score; higher is better.
        source: Where it comes from.
        metadata: The metadata of the turn, fact or document.
        index_hit: The hit of the index behind it, or None if it was not found by its words.
        penalty: What was taken off the index's score, because the hit says nothing that a better one does not say.
    """

    text: str
    score: float
    source: HitSource
    metadata: Mapping[str, Any]
    index_hit: Hit | None = None
    penalty: float = 0.0

    @property
    def confidence(self) -> float:
        """How likely the hit is what the query asks for, from 0 to 1; 0 if it was not found by its words."""
        return self.index_hit.confidence if self.index_hit else 0.0

    def contributions(self) -> Mapping[str, float]:
        """Return the terms whose sum is the score; empty without an index hit."""
        terms = self.index_hit.contributions if self.index_hit else {}
        return {**terms, "redundant": -self.penalty} if self.penalty else terms

    def to_wire(self) -> dict[str, Any]:
        """Return the hit as the wire has it."""
        source = self.source.to_wire()
        return {
            "id": source["id"],
            "text": self.text,
            "score": round(self.score, 4),
            "confidence": round(self.confidence, 4),
            "lane": source["lane"],
            "metadata": self.metadata,
            "source": source,
        }


class Passage(msgspec.Struct, frozen=True):
    """A piece of text for the context, smaller than a hit: one side of a turn, one document, one statement.

    Attributes:
        text: The text.
        position: Sort key of the passage among those of its lane that fit the context.
        speaker: Who said it, or empty.
        heading: Heading under which the passages of the same heading are grouped, or empty.
        source: The turn, fact or document that it is part of; None for a statement of the profile.
    """

    text: str
    position: tuple[Any, ...]
    speaker: str = ""
    heading: str = ""
    source: SourceKey | None = None


@attrs.frozen
class LaneAnswer:
    """The answer of a lane.

    Attributes:
        hits: The hits for programs, best first.
        passages: The texts for the context, most important first. May be iterated more than once.
        profile: The user's profile as the wire has it, from the profile lane only.
        confidence: That of the best hit, also if the query's ``min_confidence`` leaves it out; 0 if nothing was found,
            None from a lane that does not search.
    """

    hits: tuple[LaneHit, ...] = ()
    passages: Iterable[Passage] = ()
    profile: Mapping[str, Any] | None = None
    confidence: float | None = None


NO_ANSWER = LaneAnswer()


class Lane(Protocol):
    """A lane. Thread-safe.

    Attributes:
        name: The name of the lane.
        default_limit: Maximum number of hits if the client does not say.
    """

    name: LaneName
    default_limit: int

    @property
    def readiness(self) -> Readiness:
        """How far the lane's data is loaded."""

    def search(self, query: LaneQuery) -> LaneAnswer:
        """Answer a query.

        Raises:
            NotReadyError: If the lane's data is not loaded by the query's deadline, or failed to load. Any other
                exception is a defect, which costs only this lane's answer.
        """
