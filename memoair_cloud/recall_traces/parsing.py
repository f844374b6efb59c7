"""Parse and validate one recall trace from the wire. An invalid one does not affect the others of its batch.

Unknown fields are ignored, so that newer machines can send more.
"""

from datetime import datetime
from typing import Annotated, Any

import msgspec

from memoair_cloud.errors import InvalidRequestError
from memoair_cloud.identifiers import check_identifier, sanitize_text
from memoair_index.ranking import FEATURES
from memoair_protocol.enums import LaneName, RecallOrigin, TraceMode
from memoair_protocol.identifiers import MAX_ID_BYTES
from memoair_protocol.json_guards import strip_values
from memoair_protocol.limits import MAX_TRACE_BYTES
from memoair_protocol.timestamps import parse_timestamp

_TERM_NAMES = frozenset([*FEATURES, "redundant"])
_MAX_COUNT = 2**53 - 1
_TRACEPARENT = r"^[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}\Z"
_ENUM_VALUES = {
    "mode": ", ".join(mode.value for mode in TraceMode),
    "origin": ", ".join(origin.value for origin in RecallOrigin),
    "lanes": ", ".join(lane.value for lane in LaneName),
}

Identifier = Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_ID_BYTES)]
HitId = Annotated[str, msgspec.Meta(min_length=1, max_length=2_048)]
Word = Annotated[str, msgspec.Meta(min_length=1, max_length=40, pattern=r"^[a-z_]+\Z")]
Count = Annotated[int, msgspec.Meta(ge=0, le=_MAX_COUNT)]
Milliseconds = Annotated[float, msgspec.Meta(ge=0, le=1e9)]


class _TraceStruct(msgspec.Struct, frozen=True, rename="camel"):
    pass


class TracedHit(_TraceStruct, frozen=True):
    """A hit of a lane, in the order of its rank.

    Attributes:
        id: The id of the hit, as in the reply of the search.
        kind: ``turn``, ``fact``, ``document`` or ``profile``.
        score: Its score.
        confidence: How likely it is what the question asks for, 0 to 1.
        in_context: Whether it is in the context; else the budget cut it.
        terms: How the score adds up, by the features of the search engine. In the mode ``ids``, other names are
            dropped: they may be words.
        chars: The characters that it takes in the context.
        session_id: The session of a turn or a fact.
        turn_id: The turn of a turn or a fact.
        index_name: The index of a document.
        document_id: The document.
    """

    id: HitId
    kind: Word | None = None
    score: float | None = None
    confidence: float | None = None
    in_context: bool = True
    terms: dict[str, float] | None = None
    chars: Count | None = None
    session_id: HitId | None = None
    turn_id: HitId | None = None
    index_name: Identifier | None = None
    document_id: Identifier | None = None


class TracedLane(_TraceStruct, frozen=True):
    """What a lane did in a search.

    Attributes:
        status: ``ok``, ``late``, ``loading``, ``skipped`` or ``error``.
        ms: How long it took, in milliseconds.
        hits: The number of its hits.
        chars: The characters of its section of the context.
        confidence: How sure it is that its hits answer the question, 0 to 1.
        items: The hits.
    """

    status: Word
    ms: Milliseconds = 0.0
    hits: Count = 0
    chars: Count = 0
    confidence: float | None = None
    items: Annotated[list[TracedHit], msgspec.Meta(max_length=200)] = []


class _Versions(_TraceStruct, frozen=True):
    org: Count | None = None
    memory: Count | None = None


class _Trace(_TraceStruct, frozen=True):
    trace_id: Identifier
    session_id: Identifier
    occurred_at: str
    mode: TraceMode
    total_ms: Milliseconds
    lanes: dict[LaneName, TracedLane]
    turn_id: Annotated[str, msgspec.Meta(min_length=1, max_length=1_024)] | None = None
    turn_event_id: Identifier | None = None
    origin: RecallOrigin = RecallOrigin.API
    intent: Word = "answer_current_user"
    deadline_ms: Milliseconds | None = None
    degraded: bool = False
    prefetched: bool = False
    context_chars: Count = 0
    versions: _Versions = _Versions()
    prompt_version: Annotated[int, msgspec.Meta(ge=1, le=_MAX_COUNT)] | None = None
    notes: Annotated[list[str], msgspec.Meta(max_length=20)] = []
    query: str | None = None
    context_text: str | None = None
    traceparent: Annotated[str, msgspec.Meta(pattern=_TRACEPARENT)] | None = None


class IncomingTrace(msgspec.Struct, frozen=True):
    """A validated trace.

    Attributes:
        trace_id: Its id, unique in the project.
        session_id: The session in which was searched.
        turn_id: The turn that followed, as the application calls it, if known.
        turn_event_id: The event of that turn, if known.
        occurred_at: When the search began, in UTC.
        columns: Further columns of its row.
        documents: The documents that were found, best first.
    """

    trace_id: str
    session_id: str
    turn_id: str | None
    turn_event_id: str | None
    occurred_at: datetime
    columns: dict[str, Any]
    documents: list[TracedHit]


def parse_trace(content: Any) -> IncomingTrace:
    """Parse and validate a trace.

    Args:
        content: The trace as decoded JSON.

    Raises:
        InvalidRequestError: If it is invalid. The message names fields and what is wrong with them, never their values.
    """
    if len(msgspec.json.encode(content)) > MAX_TRACE_BYTES:
        raise InvalidRequestError(f"larger than {MAX_TRACE_BYTES} bytes")
    try:
        trace = msgspec.convert(content, _Trace)
    except msgspec.ValidationError as error:
        raise InvalidRequestError(strip_values(str(error), _ENUM_VALUES)) from None
    if trace.mode is TraceMode.OFF:
        raise InvalidRequestError("mode: a trace has the mode ids or text")
    try:
        occurred_at = parse_timestamp(trace.occurred_at)
    except ValueError:
        raise InvalidRequestError("occurredAt: invalid ISO 8601 timestamp") from None
    org_hits = trace.lanes[LaneName.ORG].items if LaneName.ORG in trace.lanes else []
    return IncomingTrace(
        trace_id=_check("traceId", trace.trace_id),
        session_id=_check("sessionId", trace.session_id),
        turn_id=None if trace.turn_id is None else sanitize_text(trace.turn_id),
        turn_event_id=None if trace.turn_event_id is None else _check("turnEventId", trace.turn_event_id),
        occurred_at=occurred_at,
        columns=_columns(trace),
        documents=[hit for hit in org_hits if hit.index_name is not None and hit.document_id is not None],
    )


def extract_trace_id(content: Any) -> str | None:
    """Return the id of an invalid trace if it has one, so that its rejection can name it."""
    trace_id = content.get("traceId") if isinstance(content, dict) else None
    return trace_id if isinstance(trace_id, str) else None


def _columns(trace: _Trace) -> dict[str, Any]:
    lanes = {name.value: trace.lanes[name] for name in LaneName if name in trace.lanes}
    confidences = [lane.confidence for lane in lanes.values() if lane.confidence is not None]
    keeps_words = trace.mode is TraceMode.TEXT
    details: dict[str, Any] = {
        "hits": {name: [_hit_record(hit, keeps_words) for hit in lane.items] for name, lane in lanes.items()},
        "notes": [sanitize_text(note) for note in trace.notes],
    }
    if trace.traceparent is not None:
        details["traceparent"] = trace.traceparent
    if keeps_words:
        details |= {"query": trace.query, "contextText": trace.context_text}
    return {
        "mode": trace.mode.value,
        "origin": trace.origin.value,
        "intent": trace.intent,
        "total_us": round(trace.total_ms * 1e3),
        "deadline_ms": trace.deadline_ms,
        "is_degraded": trace.degraded,
        "is_prefetched": trace.prefetched,
        "found_count": sum(lane.hits for name, lane in lanes.items() if name != LaneName.PROFILE.value),
        "context_chars": trace.context_chars,
        "confidence": max(confidences, default=None),
        "org_version": trace.versions.org,
        "memory_version": trace.versions.memory,
        "prompt_version": trace.prompt_version,
        "lane_statuses": " ".join(f"{name}:{lane.status}" for name, lane in lanes.items()),
        "lanes": {name: _lane_record(lane) for name, lane in lanes.items()},
        "details": details,
    }


def _lane_record(lane: TracedLane) -> dict[str, Any]:
    record = {"status": lane.status, "ms": lane.ms, "hits": lane.hits, "chars": lane.chars}
    return record if lane.confidence is None else {**record, "confidence": lane.confidence}


def _hit_record(hit: TracedHit, keeps_words: bool) -> dict[str, Any]:
    """Return a hit as it is stored. In the mode ``ids``, words that a client sends in spite of it are dropped."""
    record: dict[str, Any] = {name: value for name, value in msgspec.to_builtins(hit).items() if value is not None}
    if not keeps_words and "terms" in record:
        record["terms"] = {name: weight for name, weight in record["terms"].items() if name in _TERM_NAMES}
    return record


def _check(field: str, value: str) -> str:
    try:
        return check_identifier(value)
    except ValueError as error:
        raise InvalidRequestError(f"{field}: {error}") from None
