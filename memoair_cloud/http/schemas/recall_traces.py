"""Bodies of the recall trace routes."""

from datetime import datetime
from typing import Annotated, Any

from pydantic import Field

from memoair_cloud.http.schemas.base import DocumentedAs, Identifier, RequestBody, ResponseBody
from memoair_protocol.enums import LaneName, RecallOrigin, TraceMode
from memoair_protocol.limits import MAX_TRACES


class TraceIn(RequestBody):
    """One search. `memoair_cloud.recall_traces.parsing` parses it; it lists the optional fields."""

    trace_id: Identifier
    session_id: Identifier
    occurred_at: datetime
    mode: TraceMode
    total_ms: Annotated[float, Field(ge=0, le=1e9)]
    lanes: dict[LaneName, dict[str, Any]]
    origin: RecallOrigin = RecallOrigin.API


class TracesIn(RequestBody):
    """A batch of traces. Each is validated by itself, so that an invalid one does not block the others."""

    traces: Annotated[list[Annotated[Any, DocumentedAs(TraceIn)]], Field(json_schema_extra={"maxItems": MAX_TRACES})]


class RejectedTraceOut(ResponseBody):
    """A trace that was rejected."""

    trace_id: str | None
    code: str
    message: str


class TraceReceiptOut(ResponseBody):
    """The outcome of a batch."""

    accepted: list[str]
    duplicate: list[str]
    rejected: list[RejectedTraceOut]


class TraceOut(ResponseBody):
    """The record of a search.

    `lanes` has status, `ms`, `hits`, `chars` and `confidence` of each lane; `details.hits` the hits of each lane in the
    order of their ranks. In the mode `text`, `details` also has the question and the context.
    """

    trace_id: str = Field(validation_alias="id")
    user_id: str | None
    session_id: str
    turn_id: str | None
    turn_event_id: str | None
    agent_id: str | None
    occurred_at: datetime
    mode: TraceMode
    origin: RecallOrigin
    intent: str
    total_ms: float
    deadline_ms: float | None
    degraded: bool = Field(validation_alias="is_degraded")
    prefetched: bool = Field(validation_alias="is_prefetched")
    found_count: int
    context_chars: int
    confidence: float | None
    org_version: int | None
    memory_version: int | None
    prompt_version: int | None
    lanes: dict[str, Any]
    details: dict[str, Any]


class TracesOut(ResponseBody):
    """A page of traces."""

    traces: list[TraceOut]
    next: str | None
