"""Spans of searches, by the semantic conventions for generative-AI memory, if the application uses OpenTelemetry.

The runtime has no exporter: the trace of its reply says what it did, and becomes child spans here. No span has
words in it, unless recall traces have the mode ``text``; then it has the redacted question.
"""

from collections.abc import Mapping
from typing import Any

import attrs

from memoair_protocol.enums import LaneName
from memoair_protocol.telemetry import find_tracer, format_traceparent
from memoair_voice_sync.results import RecallRecord

_TRACER = "memoair_voice"
_PROVIDER = "memoair"
_NS_PER_MS = 1_000_000


@attrs.frozen
class SearchSpan:
    """The open span of a search.

    Attributes:
        tracer: Makes its children.
        span: The span.
        started_ns: When it began, in nanoseconds since the epoch.
    """

    tracer: Any
    span: Any
    started_ns: int

    @property
    def traceparent(self) -> str | None:
        """The W3C trace context of the span."""
        return format_traceparent(self.span)

    def end(self, record: RecallRecord, project_id: str, agent_id: str | None, question: str | None) -> None:
        """End the span, with what became of the search.

        Args:
            record: The search.
            project_id: The project whose memory was searched.
            agent_id: The agent.
            question: The question, redacted; None to leave it out.
        """
        attributes: dict[str, Any] = {
            "gen_ai.operation.name": "search_memory",
            "gen_ai.provider.name": _PROVIDER,
            "gen_ai.memory.store.id": project_id,
            "gen_ai.memory.record.count": len(record.hits),
            "gen_ai.conversation.id": record.session_id,
            "gen_ai.agent.id": agent_id,
            "gen_ai.memory.query.text": question,
            "memoair.trace_id": record.trace_id,
            "memoair.turn_id": record.turn_id,
            "memoair.origin": record.origin,
            "memoair.intent": record.intent,
            "memoair.deadline_ms": record.deadline_ms,
            "memoair.degraded": record.degraded,
            "memoair.prefetched": record.prefetched,
            "memoair.context_chars": record.context_chars,
            "error.type": record.error_code,
        }
        self.span.set_attributes({name: value for name, value in attributes.items() if value is not None})
        if record.error_code is not None:
            self._set_error(record.error_code)
        if not record.prefetched:  # a prefetch ran before, not within this search
            self._add_lanes(record)
        self.span.end(end_time=self.started_ns + round(record.total_ms * _NS_PER_MS))

    def _set_error(self, code: str) -> None:
        from opentelemetry.trace import Status, StatusCode

        self.span.set_status(Status(StatusCode.ERROR, code))

    def _add_lanes(self, record: RecallRecord) -> None:
        """Add a child for each lane that was asked. They ran one after another, in the middle of the search."""
        from opentelemetry.trace import set_span_in_context

        asked = [
            (name.value, record.lanes[name.value])
            for name in LaneName
            if record.lanes.get(name.value, {}).get("status") not in (None, "skipped")
        ]
        spent_ms = sum(_ms_of(lane) for _, lane in asked)
        at_ns = self.started_ns + round(max(0.0, record.total_ms - spent_ms) / 2 * _NS_PER_MS)
        context = set_span_in_context(self.span)
        for name, lane in asked:
            child = self.tracer.start_span(f"retrieval {name}", context=context, start_time=at_ns)
            attributes = {
                "gen_ai.operation.name": "retrieval",
                "gen_ai.provider.name": _PROVIDER,
                "gen_ai.data_source.id": name,
                "memoair.lane.status": lane.get("status"),
                "memoair.lane.hits": lane.get("hits"),
                "memoair.lane.confidence": lane.get("confidence"),
            }
            child.set_attributes({key: value for key, value in attributes.items() if value is not None})
            at_ns += round(_ms_of(lane) * _NS_PER_MS)
            child.end(end_time=at_ns)


def start_span(started_ns: int) -> SearchSpan | None:
    """Start the span of a search as a child of the current span; None without a tracer.

    Args:
        started_ns: When the search began, in nanoseconds since the epoch.
    """
    tracer = find_tracer(_TRACER)
    if tracer is None:
        return None
    from opentelemetry.trace import SpanKind  # loaded already: the application has a tracer

    span = tracer.start_span("search_memory", kind=SpanKind.CLIENT, start_time=started_ns)
    return SearchSpan(tracer, span, started_ns) if span.is_recording() else None


def _ms_of(lane: Mapping[str, Any]) -> float:
    ms = lane.get("ms", 0.0)
    return float(ms) if isinstance(ms, int | float) else 0.0
