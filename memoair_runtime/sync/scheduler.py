"""The sync thread: it pulls at intervals, pushes new events, and does both on request.

This module decides when; `memoair_runtime.sync.session` does the work.
"""

import logging
import math
import random
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, suppress
from datetime import datetime
from typing import TYPE_CHECKING, Any

from memoair_protocol.enums import EventType, LaneName
from memoair_protocol.threads import ThreadUnavailableError, run_loop, start_thread
from memoair_runtime.errors import StorageUnavailableError
from memoair_runtime.metrics import RuntimeMetrics
from memoair_runtime.storage.events import Event
from memoair_runtime.storage.rejected_events import RejectedEvents
from memoair_runtime.sync.errors import CloudError, FailureKind
from memoair_runtime.sync.interface import health_report
from memoair_runtime.sync.outbox import Outbox
from memoair_runtime.sync.request import ALL_SCOPES, USER_SCOPES, SyncRequest
from memoair_runtime.sync.status import SyncState, SyncStatus
from memoair_runtime.sync.trace_schedule import TraceSchedule

if TYPE_CHECKING:
    from memoair_runtime.sync.session import SyncSession

log = logging.getLogger(__name__)

# The first answer that a caller waits for comes before the first request to the cloud, which needs the processor too.
STARTUP_DELAY_S = 0.1
# How long to collect the turns of a burst into one push; hardly a delay.
LINGER_S = 0.3
_JITTER = 0.2
# When to try again while another process holds the lock.
LOCK_RETRY_S = 1.0
# The final push: the time that the drain leaves for it, and how recent a failure must be to expect another one.
FINAL_PUSH_TIMEOUT_S, _RECENT_FAILURE_S = 1.0, 10.0
MAX_CLOSE_S = 1.1
# The pauses between pulls after the last turn or search of a call in which another machine takes part, or may do so.
_SHARED_CALL_PAUSES_S = (1.0,) * 60
_NAMED_CALL_PAUSES_S = (2.0, 2.0, 2.0, 4.0, 6.0, 16.0)


class SyncScheduler:
    """Sync of one runtime with its cloud, in one thread; see `memoair_runtime.sync.interface.SyncInterface`.

    Args:
        interval_s: Seconds between two pulls.
        outbox: The user's unsent events.
        rejected_events: Where rejected events are recorded.
        open_session: Opens the connection to the cloud. It is called in the thread, because it may take long.
        metrics: The runtime's metrics.
    """

    def __init__(
        self,
        interval_s: float,
        outbox: Outbox,
        rejected_events: RejectedEvents,
        open_session: "Callable[[], SyncSession]",
        metrics: RuntimeMetrics,
    ) -> None:
        self._interval_s = interval_s
        self._outbox = outbox
        self._rejected_events = rejected_events
        self._open_session = open_session
        self._metrics = metrics
        self._session: SyncSession | None = None  # used by the sync thread
        self._condition = threading.Condition()
        # Its lock guards everything below. It is held to read and write that, never during a request or disk access.
        self._status = SyncStatus()
        self._requests: list[SyncRequest] = []
        self._pull_at = 0.0
        self._pull_user_at = math.inf  # of the user's data alone
        self._follow_pauses: Iterator[float] = iter(())  # between the next pulls of the user's data
        self._push_at = math.inf
        self._scan_at = 0.0  # not before
        self._traces = TraceSchedule()
        self._is_startup_delay_over = False
        self._has_pulled = False
        self._pushes_first = False  # the last pull has failed: turns do not wait until one succeeds
        self._pending_erasures: list[tuple[datetime | None, str | None]] = []  # for the thread to record
        self._close_deadline: float | None = None
        self._thread: threading.Thread | None = None
        metrics.events_unsynced.set_function(lambda: outbox.count)

    @property
    def sync_token(self) -> str | None:
        """The cloud's token for the state that it reported last."""
        return self._session.user.sync_token if self._session else None

    @property
    def project_trace_mode(self) -> str | None:
        """What the project says is to be kept of searches; see `SyncInterface.project_trace_mode`."""
        return self._session.user.trace_mode if self._session else None

    def start(self) -> None:
        """Start the thread. Calling it again has no effect, unless there was no thread to be had."""
        with self._condition, suppress(ThreadUnavailableError):
            if self._thread is None and self._close_deadline is None:
                self._thread = start_thread(self._run, name="cloud-sync")

    def end_startup_delay(self) -> None:
        """Allow the first request to the cloud: a search or session start has been answered."""
        if not self._is_startup_delay_over:
            with self._condition:
                self._is_startup_delay_over = True
                self._condition.notify_all()

    def record_logged(self, events: Sequence[Event]) -> None:
        """Schedule a push of logged events. The end of a session is pushed immediately."""
        is_first = self._outbox.record_logged(events)
        is_urgent = any(event.type is EventType.SESSION_END for event in events)
        with self._condition:
            push_at = time.monotonic() + (0.0 if is_urgent else LINGER_S)
            if is_first or push_at < self._push_at:  # else it need not wake up for each turn of a burst
                self._push_at = min(self._push_at, push_at)
                self._condition.notify_all()

    def on_traces_written(self) -> None:
        """Schedule a push of recall traces, behind the events."""
        with self._condition:
            if self._traces.on_written():
                self._condition.notify_all()

    def pull_user_soon(self) -> None:
        """Pull the user's data as soon as possible; see `SyncInterface.pull_user_soon`."""
        with self._condition:
            self._pull_user_at = 0.0
            self._condition.notify_all()

    def follow_call(self, *, is_known_elsewhere: bool) -> None:
        """Pull the user's data more often for a while; see `SyncInterface.follow_call`."""
        with self._condition:
            self._follow_pauses = iter(_SHARED_CALL_PAUSES_S if is_known_elsewhere else _NAMED_CALL_PAUSES_S)
            pull_at = time.monotonic() + next(self._follow_pauses)
            if pull_at < self._pull_user_at:
                self._pull_user_at = pull_at
                self._condition.notify_all()

    def pull(self, scopes: Sequence[LaneName], deadline: float) -> str:
        """Pull now and wait for it; see `SyncInterface.pull`."""
        request = self._submit_and_wait(SyncRequest(frozenset(scopes), deadline))
        return "ok" if request.is_fulfilled else "partial"

    def flush(self, deadline: float) -> int:
        """Push now and wait for it; see `SyncInterface.flush`."""
        if self._outbox.count:
            self._submit_and_wait(SyncRequest(None, deadline))
        return self._outbox.count

    def on_erased(self, at: datetime | None, mark: str | None) -> None:
        """Reset the counts, and have the thread record the erasure."""
        self._outbox.clear()
        self._rejected_events.reset()
        with self._condition:
            self._pending_erasures.append((at, mark))
            self._pull_at = 0.0
            self._condition.notify_all()

    def health(self) -> dict[str, Any]:
        """Return the ``sync`` part of the health report. Uses neither disk nor network."""
        return health_report(
            self._status.state,
            self._outbox.count,
            self._outbox.oldest_ms,
            self._rejected_events.count,
            has_pulled=self._has_pulled,
            rejection=self.rejection,
        )

    @property
    def rejection(self) -> dict[str, Any] | None:
        """Why the cloud rejects this runtime; see `SyncInterface.rejection`."""
        return self._status.describe_rejection()

    def close(self, deadline: float) -> None:
        """Stop, after one more attempt to push. A thread that hangs in a request to the cloud is left behind."""
        with self._condition:
            self._close_deadline = deadline
            for request in self._requests:
                request.is_done = True
            self._condition.notify_all()
            thread, session = self._thread, self._session
        if session is not None:
            session.transport.abort()
        if thread is not None:
            thread.join(min(max(0.0, deadline - time.monotonic()), MAX_CLOSE_S))

    def _submit_and_wait(self, request: SyncRequest) -> SyncRequest:
        self.start()
        with self._condition:
            if self._close_deadline is None and self._thread is not None:
                self._requests.append(request)
                self._condition.notify_all()
                self._condition.wait_for(lambda: request.is_done, max(0.0, request.deadline - time.monotonic()))
                if request in self._requests:
                    self._requests.remove(request)
        return request

    def _run(self) -> None:
        with self._condition:
            self._condition.wait_for(
                lambda: self._is_startup_delay_over or self._close_deadline is not None or self._requests,
                STARTUP_DELAY_S,
            )
        run_loop(self._take_step, report=self._fail_step, wait=time.sleep)
        session = self._session
        if session is None:  # it was closed, and could not be opened
            return
        with closing(session.transport):
            has_failed = self._status.failed_since(time.monotonic() - _RECENT_FAILURE_S)
            if self._status.state is not SyncState.REFUSED and not has_failed and self._outbox.count:
                self._push_last(session)
            if self._status.is_authorized and self._status.state is SyncState.OK and not self._outbox.count:
                self._push_traces(session, min(self._close_deadline or 0.0, time.monotonic() + FINAL_PUSH_TIMEOUT_S))

    def _take_step(self) -> bool:
        """Open the session, or take the next step; return False at the end."""
        if self._session is None:
            if self._close_deadline is not None and time.monotonic() > self._close_deadline:
                return False
            session = self._open_session()
            self._scan(session, all_sessions=True)
            self._session = session
        step = self._next_step()
        if step is not None:
            step(self._session)
        return step is not None

    def _fail_step(self, error: Exception) -> None:
        """Log an error that no step expects. It must not end the thread: nothing would be sent any more."""
        log.error("cloud sync failed, and goes on: action=sync_failed error=%s", type(error).__name__)

    def _next_step(self) -> "Callable[[SyncSession], None] | None":
        """Wait for the next step and return it; return None at the end."""
        with self._condition:
            while True:
                now = time.monotonic()
                if self._close_deadline is not None:
                    return None
                step = self._due_step(now)
                if step is not None:
                    return step
                self._condition.wait(max(0.0, self._next_due_at() - now))

    def _due_step(self, now: float) -> "Callable[[SyncSession], None] | None":
        status = self._status
        if self._pending_erasures:
            return self._apply_erasures
        if self._requests and not status.may_try(now, is_manual=True):
            if self._outbox.has_uncounted and now >= self._scan_at:
                return self._scan
            self._complete(list(self._requests), is_fulfilled=False)
        if any(request.scopes is not None or not status.is_authorized for request in self._requests):
            return self._pull
        if self._requests:
            return self._push
        if status.may_try(now):
            is_push_due = now >= self._push_at and self._outbox.count and status.is_authorized
            if now >= min(self._pull_at, self._pull_user_at) and not (is_push_due and self._pushes_first):
                return self._pull
            if is_push_due:
                return self._push
            if now >= self._traces.due_at and not self._outbox.count and status.is_authorized:
                return self._push_traces
        return self._scan if now >= self._push_at and self._outbox.has_uncounted else None

    def _next_due_at(self) -> float:
        # Recall traces wait until there are no events to push.
        push_at = self._push_at if self._outbox.count else self._traces.due_at
        cloud_call_at = max(
            self._status.paused_until,
            min(self._pull_at, self._pull_user_at, push_at if self._status.is_authorized else math.inf),
        )
        return min(cloud_call_at, self._push_at if self._outbox.has_uncounted else math.inf)

    def _push_last(self, session: "SyncSession") -> None:
        """Push at the end. A process that lived too short for its first pull has not been authorized yet."""
        if not self._status.is_authorized:
            deadline = min(self._close_deadline or math.inf, time.monotonic() + FINAL_PUSH_TIMEOUT_S)
            _, error = self._attempt(lambda: session.authorize(deadline, self._record_authorization))
            if error is not None or not self._outbox.count:
                return
        self._push(session)

    def _scan(self, session: "SyncSession", *, all_sessions: bool = False) -> None:
        """Count unsent events while they cannot be sent."""
        session.scan(all_sessions=all_sessions)
        if self._outbox.has_uncounted:  # not all could be read
            self._push_at = self._scan_at = time.monotonic() + LOCK_RETRY_S

    def _apply_erasures(self, session: "SyncSession") -> None:
        while self._pending_erasures:  # one that cannot be recorded now stays
            session.user.record_erasure(*self._pending_erasures[0])
            with self._condition:
                del self._pending_erasures[0]

    def _pull(self, session: "SyncSession") -> None:
        with self._condition:
            requests = [request for request in self._requests if request.scopes is not None]
            began_at = time.monotonic()
            is_due = began_at >= self._pull_at
            requested = frozenset[LaneName]().union(*(request.scopes or () for request in requests))
            if began_at >= self._pull_user_at:
                requested |= USER_SCOPES
                self._pull_user_at = math.inf
            scopes = ALL_SCOPES if is_due else requested
            lock_deadline = max([request.deadline for request in requests], default=0.0)
        is_complete, error = self._attempt(lambda: session.pull(scopes, lock_deadline, self._record_authorization))
        now = time.monotonic()
        with self._condition:
            self._pushes_first = error is not None
            if self._outbox.count:
                self._push_at = min(self._push_at, now)
            if error is not None:
                self._metrics.pull_failures.inc()
                self._pull_at = max(self._status.paused_until, now)
                requests = list(self._requests)  # a push would fail as well
            else:
                retry_in_s = session.attempts.retry_in_s()  # of a pull that the cloud has rejected
                self._has_pulled |= (is_complete or retry_in_s > 0) and scopes == ALL_SCOPES
                self._pull_user_at = min(self._pull_user_at, now + next(self._follow_pauses, math.inf))
                if is_due:
                    interval_s = self._interval_s * random.uniform(1 - _JITTER, 1 + _JITTER)
                    self._pull_at = now + (interval_s if is_complete else min(interval_s, LOCK_RETRY_S + retry_in_s))
            self._complete(requests, is_fulfilled=is_complete)

    def _push(self, session: "SyncSession") -> None:
        with self._condition:
            requests = [request for request in self._requests if request.scopes is None]
            close_deadline, self._push_at, self._pushes_first = self._close_deadline, math.inf, False
        deadline = math.inf if close_deadline is None else min(close_deadline, time.monotonic() + FINAL_PUSH_TIMEOUT_S)
        has_pushed, error = self._attempt(lambda: session.pusher.push(deadline))
        with self._condition:
            if error is not None:
                self._metrics.push_failures.inc()
            if self._outbox.count:
                pause_s = LOCK_RETRY_S if error is None and not has_pushed else 0.0
                self._push_at = min(self._push_at, time.monotonic() + pause_s)
            if session.pusher.has_seen_erasure:
                self._pull_at = 0.0
            self._complete(requests, is_fulfilled=has_pushed)

    def _push_traces(self, session: "SyncSession", deadline: float = math.inf) -> None:
        with self._condition:
            self._traces.due_at = math.inf
        self._traces.push(session.traces, deadline)

    def _complete(self, requests: Sequence[SyncRequest], *, is_fulfilled: bool) -> None:
        for request in requests:
            request.is_done, request.is_fulfilled = True, is_fulfilled
            if request in self._requests:
                self._requests.remove(request)
        self._condition.notify_all()

    def _attempt(self, action: Callable[[], bool]) -> tuple[bool, CloudError | None]:
        """Run an action; return whether it was completed, and its error. No error ends the thread."""
        is_complete, failure = False, None
        try:
            is_complete = action()
        except CloudError as error:
            failure = error.without_traceback()  # it would keep the connection alive
        except StorageUnavailableError as error:
            failure = CloudError(FailureKind.TRANSIENT, error.message)
        except OSError as error:
            failure = CloudError(FailureKind.TRANSIENT, f"disk error: {error.strerror}")
        except Exception as error:  # noqa: BLE001 - the next request may succeed
            failure = CloudError(FailureKind.TRANSIENT, f"internal error: {type(error).__name__}")
            log.error("cloud sync failed: action=sync_failed error=%s", type(error).__name__)
        with self._condition:
            if failure is None:
                self._set_status(self._status.after_success())
            else:
                self._set_status(self._status.after_failure(failure, time.monotonic()), failure)
        return is_complete, failure

    def _record_authorization(self) -> None:
        with self._condition:
            self._set_status(self._status.after_success(authorizes=True))

    def _set_status(self, status: SyncStatus, error: CloudError | None = None) -> None:
        """Set the status, and log a change of state once."""
        old_state, self._status = self._status.state, status
        if old_state is status.state:
            return
        if status.state is SyncState.RETRYING and error:
            log.warning("cloud sync failed, will retry: action=sync_retrying why=%s", error.message)
        elif status.state is SyncState.REFUSED and error:
            log.error(
                "the cloud rejects this runtime, events stay on this machine: action=sync_refused why=%s", error.message
            )
        elif old_state is not SyncState.CONNECTING:
            log.warning("cloud sync works again: action=sync_ok")
