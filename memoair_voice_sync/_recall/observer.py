"""The observer of a client's searches: recall traces, the `on_recall` hook, and spans.

Everything that takes time happens in one background thread, after the answer: the hook, the redaction of words, and
what a runtime has to know. A search itself pays for an id, and for a span if the application uses OpenTelemetry.
"""

import os
import time
from collections.abc import Callable, Mapping
from datetime import datetime, timezone
from typing import Any

import attrs

from memoair_protocol.enums import TraceMode
from memoair_protocol.keyed_queue import KeyedQueue
from memoair_protocol.timestamps import format_utc
from memoair_voice_sync._diagnostics import log
from memoair_voice_sync._recall.mode import choose_trace_mode
from memoair_voice_sync._recall.spans import SearchSpan, start_span
from memoair_voice_sync._turns.redaction import Redaction
from memoair_voice_sync.errors import MemoAirVoiceMemoryError
from memoair_voice_sync.results import RecallRecord, SearchResult

OnRecall = Callable[[RecallRecord], object]
# Tells a runtime more about a search; see ``POST /v1/runtime/recall_trace``.
Amend = Callable[[Mapping[str, Any]], object]

# More than this waits only if the hook hangs. Further searches are then not reported to it.
_MAX_WAITING = 1_000
_LINGER_S = 2.0
_CLOSE_TIMEOUT_S = 1.0
_KEY = "recall"
_LANES = ("working", "permanent", "org")


@attrs.frozen
class SearchTrace:
    """What identifies a search to those who observe it.

    Attributes:
        id: The id of its recall trace.
        origin: Who asks.
        turn_id: The turn, if the application names it.
        options: The part of the request that says how it is recorded.
        started_at: When it began, in seconds since the epoch.
        clock: The same on the monotonic clock.
        span: Its span, if the application uses OpenTelemetry.
    """

    id: str
    origin: str
    turn_id: str | None
    options: Mapping[str, Any]
    started_at: float
    clock: float
    span: SearchSpan | None


@attrs.frozen
class _FinishedSearch:
    trace: SearchTrace
    user_id: str | None = attrs.field(repr=False)
    session_id: str
    query: str = attrs.field(repr=False)
    intent: str
    deadline_ms: float
    total_ms: float
    result: SearchResult = attrs.field(repr=False)
    amend: Amend | None


class RecallObserver:
    """Observes the searches of one client. Safe to use from any thread.

    Args:
        project_id: The project.
        agent_id: The agent, if any.
        recall_traces: The client's argument; see `MemoAirVoiceClientSync`.
        on_recall: The application's hook, if any.
        redaction: Redacts the words of traces in the mode ``text``.

    Raises:
        ValueError: If the mode is unknown.
        TypeError: If an argument has the wrong type.
    """

    def __init__(
        self,
        project_id: str,
        agent_id: str | None,
        recall_traces: object,
        on_recall: OnRecall | None,
        redaction: Redaction,
    ) -> None:
        if on_recall is not None and not callable(on_recall):
            raise TypeError(f"on_recall must be a function, not {type(on_recall).__name__}")
        self.mode: TraceMode | None = choose_trace_mode(recall_traces)
        self._project_id, self._agent_id = project_id, agent_id
        self._hook = on_recall
        self._redaction = redaction
        self._has_logged_error = False
        self.dropped: int = 0  # searches that the hook was not called for
        self._queue: KeyedQueue[_FinishedSearch] = KeyedQueue(self._report, name="memoair-recall", linger_s=_LINGER_S)

    def reset_after_fork(self) -> None:
        """Drop what waits in the child of a fork: it belongs to the parent."""
        self._queue.reset_after_fork()

    def begin(self, origin: str, turn_id: str | None = None, *, is_prefetch: bool = False) -> SearchTrace:
        """Return the trace of a search that begins now, or of a prefetch, which has no span."""
        started_ns = time.time_ns()
        if self.mode is TraceMode.OFF:
            trace_id, options = "", {"mode": self.mode.value}
        else:
            trace_id = os.urandom(16).hex()
            options = {"id": trace_id, "origin": origin}
            if self.mode is not None:
                options["mode"] = self.mode.value
            if is_prefetch:
                options["held"] = True
        span = None if is_prefetch else start_span(started_ns)
        if span is not None and trace_id and (traceparent := span.traceparent):
            options["traceparent"] = traceparent
        return SearchTrace(trace_id, origin, turn_id, options, started_ns / 1e9, time.monotonic(), span)

    def end(
        self,
        trace: SearchTrace,
        *,
        user_id: str | None,
        session_id: str,
        query: str,
        intent: str,
        deadline_ms: float,
        result: SearchResult,
        amend: Amend | None,
    ) -> None:
        """Report a search whose result is ready. It returns at once; see `RecallObserver`.

        Args:
            trace: Its trace.
            user_id: The user; None for a search without one.
            session_id: The call.
            query: The question.
            intent: What the result is for.
            deadline_ms: The time that it had, in milliseconds.
            result: Its result.
            amend: Tells the runtime more about it, if there is a runtime.
        """
        is_reported = self._hook is not None or trace.span is not None
        if not (is_reported or self._needs_amendment(trace, result)):
            return
        if len(self._queue) >= _MAX_WAITING:
            self.dropped += 1
            return
        total_ms = round((time.monotonic() - trace.clock) * 1e3, 3)
        self._queue.put(
            _KEY,
            _FinishedSearch(trace, user_id, session_id, query, intent, deadline_ms, total_ms, result, amend),
        )

    def fail(self, trace: SearchTrace) -> None:
        """End the span of a search that raised."""
        if trace.span is not None:
            trace.span.span.end()

    def close(self) -> None:
        """Report what waits, for a second at most, and nothing later."""
        self._queue.close(join_timeout_s=_CLOSE_TIMEOUT_S)

    @staticmethod
    def _needs_amendment(trace: SearchTrace, result: SearchResult) -> bool:
        return bool(trace.id) and not {"prefetched", "recallTrace", "error"}.isdisjoint(result.trace)

    # In the background thread

    def _report(self, search: _FinishedSearch) -> None:
        try:
            self._amend(search)
            record = _make_record(search)
            if search.trace.span is not None:
                question = self._redact(search.query) if self.mode is TraceMode.TEXT else None
                search.trace.span.end(record, self._project_id, self._agent_id, question)
            if self._hook is not None:
                self._hook(record)
        except Exception as error:  # noqa: BLE001 - nothing of this may reach the application; the message may have words
            if not self._has_logged_error:
                self._has_logged_error = True
                log.error(
                    "on_recall= or a recall trace failed: action=recall_hook_failed error=%s", type(error).__name__
                )

    def _amend(self, search: _FinishedSearch) -> None:
        if search.amend is None or not self._needs_amendment(search.trace, search.result):
            return
        result_trace = search.result.trace
        prefetched = result_trace.get("prefetched")
        # The trace of a prefetched result is that of the prefetch.
        body: dict[str, Any] = {"traceId": search.trace.id}
        if isinstance(prefetched, Mapping):
            if not prefetched.get("traceId"):
                return
            body = {"traceId": prefetched["traceId"], "prefetched": True}
            if search.trace.turn_id is not None:
                body["turnId"] = search.trace.turn_id
        if "recallTrace" in result_trace:
            question, text = self._redact(search.query), self._redact(search.result.contextText)
            if question is not None and text is not None:
                body |= {"query": question, "contextText": text}
        if "error" in result_trace:
            body |= _describe_failure(search)
        try:
            search.amend(body)
        except MemoAirVoiceMemoryError as error:  # a runtime of an earlier version, or one that is gone
            log.debug("a recall trace was not completed: action=trace_incomplete code=%s", error.code)

    def _redact(self, text: str) -> str | None:
        """Return a redacted text; None if the application's hook fails: what it has not seen is not kept."""
        try:
            return self._redaction.redact_text(text)
        except MemoAirVoiceMemoryError:
            return None


def _describe_failure(search: _FinishedSearch) -> dict[str, Any]:
    """Return what a runtime records of a search that it did not answer in time, once it runs."""
    trace = search.result.trace
    return {
        "turnId": search.trace.turn_id,
        "failed": {
            "sessionId": search.session_id,
            "occurredAt": format_utc(datetime.fromtimestamp(search.trace.started_at, timezone.utc)),
            "intent": search.intent[:40],
            "totalMs": search.total_ms,
            "deadlineMs": search.deadline_ms,
            "code": str(trace["error"].get("code")),
            "lanes": {name: lane["status"] for name, lane in trace["lanes"].items()},
            "recallTrace": search.trace.options,
        },
    }


def _make_record(search: _FinishedSearch) -> RecallRecord:
    trace = search.result.trace
    error = trace.get("error")
    hits = [hit for lane in _LANES for hit in getattr(search.result, lane)]
    return RecallRecord(
        trace_id=search.trace.id,
        user_id=search.user_id,
        session_id=search.session_id,
        turn_id=search.trace.turn_id,
        origin=search.trace.origin,
        intent=search.intent,
        started_at=datetime.fromtimestamp(search.trace.started_at, timezone.utc),
        total_ms=search.total_ms,
        deadline_ms=search.deadline_ms,
        degraded=bool(trace.get("degraded")),
        error_code=error.get("code") if isinstance(error, Mapping) else None,
        prefetched="prefetched" in trace,
        lanes=dict(trace.get("lanes") or {}),
        hits=[{name: hit.get(name) for name in ("lane", "id", "score", "confidence")} for hit in hits],
        context_chars=len(search.result.contextText),
    )
