"""The recorder of recall traces: it takes note of searches after their replies, and writes them behind the answers.

A trace waits in memory for the turn that follows its search, for half a minute at most, and is then appended to a file
without fsync. So a crash may lose the last ones. A burst of searches is thinned out, and the number of traces that were
dropped is counted: traces must never cost a search its time, or fill a disk.
"""

import logging
import threading
import time
import uuid
from collections import OrderedDict, deque
from collections.abc import Callable, Mapping
from contextlib import suppress

import msgspec

from memoair_protocol.enums import RecallOrigin, TraceMode
from memoair_protocol.limits import MAX_TRACE_BYTES
from memoair_protocol.threads import ThreadUnavailableError, run_loop, start_thread
from memoair_runtime.metrics import RuntimeMetrics
from memoair_runtime.pending_trace import PendingTrace
from memoair_runtime.recall.trace_record import FinishedSearch, build_record
from memoair_runtime.requests import FailedSearch, RecallTraceOptions, RecallTraceRequest
from memoair_runtime.storage.trace_file import TraceFile

log = logging.getLogger(__name__)

# How long a trace waits for its turn, a prefetched one for the search that uses it, and one for its words.
TURN_WAIT_S, PREFETCH_WAIT_S, TEXT_WAIT_S = 30.0, 10.0, 10.0
# Searches come in bursts, and what follows a search wants the processor: their records are built together afterwards.
LINGER_S = 0.5
# What a call may ask for, tools and retries included, with room to spare. Beyond that, traces are dropped.
MAX_PER_S, MAX_BURST = 20.0, 200
_MAX_PENDING = 1_000
_MAX_RECENT_TURNS = 256
_MAX_FAILED = 32
_MAX_EARLY = 32
_FAILED_NOTE = "the client got no reply in time: {}"
_DEFAULT_OPTIONS = RecallTraceOptions()


class TraceRecorder:
    """Records the searches of one runtime. Thread-safe.

    Args:
        file: Where traces are written; None if nothing is recorded at all.
        default_mode: The mode of the environment, if it sets one.
        project_mode: Returns the mode of the project, if it is known.
        get_versions: Returns the versions of what is searched now, by name.
        get_prompt_version: Returns the version of the agent's prompt in a session, if it is known. Must not block.
        cloud_id: The cloud that traces are for, if any.
        metrics: Counts dropped traces.
        on_written: Called after traces were written.
    """

    def __init__(
        self,
        file: TraceFile | None,
        default_mode: TraceMode | None,
        project_mode: Callable[[], str | None],
        get_versions: Callable[[], Mapping[str, int | None]],
        get_prompt_version: Callable[[str], int | None],
        cloud_id: str | None,
        metrics: RuntimeMetrics,
        on_written: Callable[[], None],
    ) -> None:
        self._file = file
        self._default_mode = default_mode
        self._project_mode = project_mode
        self._get_versions = get_versions
        self._get_prompt_version = get_prompt_version
        self._cloud_id = cloud_id
        self._metrics = metrics
        self._on_written = on_written
        self._changed = threading.Condition()
        self._pending: deque[PendingTrace] = deque()
        self._recent_turns: OrderedDict[tuple[str, str], str | None] = OrderedDict()
        self._failed_ids: deque[str] = deque(maxlen=_MAX_FAILED)
        # A client may be faster with its words than the thread that has just sent it the reply is with the search.
        self._early: OrderedDict[str, RecallTraceRequest] = OrderedDict()
        self._tokens, self._refilled_at = float(MAX_BURST), time.monotonic()
        self._thread: threading.Thread | None = None
        self._wake_at = 0.0
        self._is_flushing = self._is_closed = False
        self._write_lock = threading.Lock()  # held while lines are written, and during an erasure
        self._generation = 0  # incremented by every erasure

    def mode_of(self, options: RecallTraceOptions | None) -> TraceMode:
        """Return what is to be kept of a search: as the request says, then the environment, then the project."""
        if self._file is None:
            return TraceMode.OFF
        requested = None if options is None else options.mode
        return requested or self._default_mode or _known_mode(self._project_mode()) or TraceMode.IDS

    def record(self, search: FinishedSearch, mode: TraceMode) -> None:
        """Take note of a search that was answered. It takes some microseconds; everything else happens later."""
        request, now = search.request, time.monotonic()
        options = request.recall_trace or _DEFAULT_OPTIONS
        with self._changed:
            if options.id in self._failed_ids:  # the client has given up on this reply, and said so already
                return
            if self._is_closed or not self._take_token(now):
                self._metrics.traces_dropped.inc()
                return
            trace = PendingTrace(
                trace_id=options.id or uuid.uuid4().hex,
                session_id=request.session_id,
                turn_id=request.turn_id,
                options=options,
                mode=mode,
                versions=self._get_versions(),
                search=search,
                due_at=now + (PREFETCH_WAIT_S if options.held else TURN_WAIT_S),
                text_due_at=now + TEXT_WAIT_S if mode is TraceMode.TEXT and request.recall_trace is not None else 0.0,
                is_held=bool(options.held),
                prompt_version=self._get_prompt_version(request.session_id),
            )
            self._complete_by_saved_turn(trace)
            self._pending.append(trace)
            if (early := self._early.pop(trace.trace_id, None)) is not None:
                self._add(trace, early)
            self._wake(now + LINGER_S)

    def amend(self, request: RecallTraceRequest) -> bool:
        """Add what only the client knows to a trace: its words, or that a prefetched result was used.

        Returns:
            Whether the trace is known and still waits to be written. If it is unknown, what was added is kept for a
            while: its search may not be noted yet.
        """
        with self._changed:
            trace = next((trace for trace in reversed(self._pending) if trace.trace_id == request.trace_id), None)
            if trace is None:
                if request.failed is None:
                    self._early[request.trace_id] = request
                    while len(self._early) > _MAX_EARLY:
                        self._early.popitem(last=False)
                    return False
                trace = self._record_failed(request.trace_id, request.turn_id, request.failed)
                if trace is None:
                    return False
            elif request.failed is not None:  # the reply came too late for the client
                trace.texts |= {"degraded": True, "notes": [_FAILED_NOTE.format(request.failed.code)]}
            self._add(trace, request)
            self._wake(time.monotonic() + LINGER_S)
            return True

    def _record_failed(self, trace_id: str, turn_id: str | None, failed: FailedSearch) -> PendingTrace | None:
        """Take note of a search that no runtime has answered; the lock is held."""
        now, mode = time.monotonic(), self.mode_of(failed.recall_trace)
        if mode is TraceMode.OFF or self._is_closed or not self._take_token(now):
            return None
        trace = PendingTrace(
            trace_id=trace_id,
            session_id=failed.session_id,
            turn_id=turn_id,
            options=failed.recall_trace,
            mode=mode,
            versions=self._get_versions(),
            search=None,
            due_at=now + TURN_WAIT_S,
            text_due_at=0.0,
            record={
                "sessionId": failed.session_id,
                "occurredAt": failed.occurred_at,
                "mode": mode.value,
                "intent": failed.intent,
                "totalMs": failed.total_ms,
                "deadlineMs": failed.deadline_ms,
                "degraded": True,
                "lanes": {name.value: {"status": status} for name, status in failed.lanes.items()},
                "notes": [_FAILED_NOTE.format(failed.code)],
            },
        )
        self._complete_by_saved_turn(trace)
        self._pending.append(trace)
        self._failed_ids.append(trace_id)
        return trace

    def _add(self, trace: PendingTrace, request: RecallTraceRequest) -> None:
        """Add what only the client knows to a trace; the lock is held."""
        if request.prefetched:
            trace.is_held, trace.due_at = False, time.monotonic() + TURN_WAIT_S
            trace.turn_id = trace.turn_id or request.turn_id
            trace.texts |= {"prefetched": True}
            self._complete_by_saved_turn(trace)
        if trace.mode is TraceMode.TEXT and request.query is not None:
            trace.texts |= {"query": request.query, "contextText": request.context_text or ""}
            trace.text_due_at = 0.0

    def _complete_by_saved_turn(self, trace: PendingTrace) -> None:
        """Give a trace the turn that it names, if that was saved before; the lock is held."""
        if (key := (trace.session_id, trace.turn_id or "")) in self._recent_turns:
            trace.turn_event_id, trace.is_complete = self._recent_turns[key], True

    def on_turn(self, session_id: str, turn_id: str, event_id: str | None) -> None:
        """Give the traces that wait for it a turn that was saved: those that name it, and those that name none."""
        with self._changed:
            key = (session_id, turn_id)
            is_new = key not in self._recent_turns
            self._recent_turns[key] = self._recent_turns.get(key) or event_id
            while len(self._recent_turns) > _MAX_RECENT_TURNS:
                self._recent_turns.popitem(last=False)
            found = False
            for trace in self._pending:
                if trace.session_id != session_id or trace.is_complete or trace.is_held:
                    continue
                # A turn that is saved again, or corrected, was answered before: the search was for a later one.
                if trace.turn_id == turn_id or (trace.turn_id is None and is_new):
                    trace.turn_id, trace.turn_event_id, trace.is_complete = turn_id, event_id, True
                    found = True
            if found:
                self._wake(time.monotonic() + LINGER_S)

    def on_session_end(self, session_id: str) -> None:
        """Let the traces of a session wait no longer for a turn."""
        with self._changed:
            for trace in self._pending:
                if trace.session_id == session_id and not trace.is_held:
                    trace.is_complete = True
            self._wake(time.monotonic())

    def flush(self, deadline: float) -> None:
        """Write what waits, without waiting for turns.

        Args:
            deadline: When to stop waiting, in monotonic seconds.
        """
        with self._changed:
            self._is_flushing = True
            self._wake(0.0)
            has_thread = self._thread is not None
            if has_thread:
                self._changed.wait_for(self._has_written_all, max(0.0, deadline - time.monotonic()))
        if not has_thread:
            self._write_ready(time.monotonic())
        self._is_flushing = False

    def erase(self) -> None:
        """Drop all traces that are not written yet, because their user is erased."""
        with self._write_lock, self._changed:
            self._generation += 1
            self._pending.clear()
            self._early.clear()
            self._recent_turns.clear()
            self._changed.notify_all()

    def close(self, deadline: float) -> None:
        """Write what waits, and record no more.

        Args:
            deadline: When to give up, in monotonic seconds.
        """
        with self._changed:
            self._is_closed = True
            thread = self._thread
            self._wake(0.0)
            is_unwritten = bool(self._pending) and self._thread is None
        if thread is not None:
            thread.join(max(0.0, deadline - time.monotonic()))
        elif is_unwritten:  # there is no thread to be had
            self._write_ready(time.monotonic())

    def retry_if_due(self) -> None:
        """Start the thread if there was none to be had for the traces that wait. To be called often."""
        if self._pending and self._thread is None:
            with self._changed:
                self._wake(self._wake_at)

    def _has_written_all(self) -> bool:
        return all(trace.is_held for trace in self._pending)

    def _take_token(self, now: float) -> bool:
        self._tokens = min(MAX_BURST, self._tokens + (now - self._refilled_at) * MAX_PER_S)
        self._refilled_at = now
        if self._tokens < 1 or len(self._pending) >= _MAX_PENDING:
            return False
        self._tokens -= 1
        return True

    def _wake(self, at: float) -> None:
        """Have the thread look at the traces at a time; start it if needed."""
        if not self._pending:
            return
        if self._thread is None:
            self._wake_at = at
            # Without a thread, the traces wait for the next call. A search has been answered by now, and stays so.
            with suppress(ThreadUnavailableError):
                self._thread = start_thread(self._run, name="recall-traces")
        elif at < self._wake_at:
            self._wake_at = at
            self._changed.notify_all()

    # In the thread, which ends when nothing waits

    def _run(self) -> None:
        run_loop(self._step, report=_report, wait=time.sleep)

    def _step(self) -> bool:
        """Wait until traces are due, and write them; return False, with the thread given up, if none is left."""
        with self._changed:
            while (pause_s := self._wake_at - time.monotonic()) > 0 and not self._is_closed and self._pending:
                self._changed.wait(pause_s)
        self._write_ready(time.monotonic())
        with self._changed:
            if not self._pending:
                self._thread = None
                return False
            self._wake_at = min(
                max(0.0 if trace.is_complete else trace.due_at, trace.text_due_at) for trace in self._pending
            )
            if any(trace.search is not None for trace in self._pending):  # recorded in between
                self._wake_at = min(self._wake_at, time.monotonic() + LINGER_S)
            return True

    def _write_ready(self, now: float) -> None:
        with self._changed:
            unbuilt = [trace for trace in self._pending if trace.search is not None]
        for trace in unbuilt:
            self._build(trace)
        with self._changed:
            generation = self._generation
            ready = [trace for trace in self._pending if self._is_ready(trace, now)]
        try:
            self._write(ready, generation)
        finally:  # what cannot be written now is dropped: it must not be tried for ever
            with self._changed:
                done = set(map(id, ready))
                self._pending = deque(trace for trace in self._pending if id(trace) not in done)
                self._changed.notify_all()

    def _is_ready(self, trace: PendingTrace, now: float) -> bool:
        if self._is_closed or (self._is_flushing and not trace.is_held):
            return True
        has_turn = trace.is_complete or now >= trace.due_at
        return has_turn and now >= trace.text_due_at

    def _build(self, trace: PendingTrace) -> None:
        search, trace.search = trace.search, None
        if search is None:
            return
        try:
            trace.record = build_record(search, trace.mode)
        except Exception as error:  # noqa: BLE001 - a defect costs this trace; its message may have words in it
            log.error("a recall trace was not built: action=trace_failed error=%s", type(error).__name__)

    def _write(self, traces: list[PendingTrace], generation: int) -> None:
        lines = [line for trace in traces if (line := self._encode(trace)) is not None]
        if not lines or self._file is None:
            return
        with self._write_lock:
            if generation != self._generation:
                return
            try:
                self._file.append(lines)
            except OSError:
                self._metrics.traces_dropped.inc(len(lines))
                return
        self._on_written()

    def _encode(self, trace: PendingTrace) -> bytes | None:
        is_from_project = trace.options.mode is None and self._default_mode is None
        is_off = is_from_project and _known_mode(self._project_mode()) is TraceMode.OFF  # known only since then
        if trace.is_held or not trace.record or is_off:
            return None
        origin = trace.options.origin or RecallOrigin.API.value
        known_origins = {member.value for member in RecallOrigin}
        record = {
            "traceId": trace.trace_id,
            "cloud": self._cloud_id,
            "turnId": trace.turn_id,
            "turnEventId": trace.turn_event_id,
            "origin": origin if origin in known_origins else RecallOrigin.API.value,
            "versions": trace.versions,
            # A search may be answered before its session is opened, which the client does behind it.
            "promptVersion": trace.prompt_version or self._get_prompt_version(trace.session_id),
            "traceparent": trace.options.traceparent,
            **trace.record,
            **trace.texts,
        }
        line = msgspec.json.encode({name: value for name, value in record.items() if value is not None})
        if len(line) > MAX_TRACE_BYTES:
            self._metrics.traces_dropped.inc()
            return None
        return line


def _report(error: Exception) -> None:
    log.error("recall traces were not written: action=trace_failed error=%s", type(error).__name__)


def _known_mode(value: str | None) -> TraceMode | None:
    """Return a mode by its name; None for one that this version does not know."""
    return TraceMode(value) if value in TraceMode._value2member_map_ else None
