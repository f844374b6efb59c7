"""A recall trace that waits in memory to be written; see `memoair_runtime.trace_recorder`."""

from collections.abc import Mapping
from typing import Any

import attrs

from memoair_protocol.enums import TraceMode
from memoair_runtime.recall.trace_record import FinishedSearch
from memoair_runtime.requests import RecallTraceOptions


@attrs.define(eq=False)
class PendingTrace:
    """A trace that is not written yet. ``search`` holds on to index files, and is dropped once ``record`` is built."""

    trace_id: str
    session_id: str
    turn_id: str | None
    options: RecallTraceOptions
    mode: TraceMode
    versions: Mapping[str, int | None]
    search: FinishedSearch | None
    due_at: float  # when it no longer waits, in monotonic seconds
    text_due_at: float
    record: dict[str, Any] = attrs.field(factory=dict, repr=False)
    turn_event_id: str | None = None
    is_held: bool = False  # of a prefetch: dropped unless a search uses it
    is_complete: bool = False
    prompt_version: int | None = None
    texts: dict[str, Any] = attrs.field(factory=dict, repr=False)
