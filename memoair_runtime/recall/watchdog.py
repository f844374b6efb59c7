"""A watchdog that detects stuck work, at almost no cost for work that is not stuck."""

import logging
import math
import threading
import time
from contextlib import suppress
from typing import Protocol

from memoair_protocol.threads import ThreadUnavailableError, run_loop, start_thread

log = logging.getLogger(__name__)

# Work without progress for this long counts as stuck.
STALL_S = 0.02
_MIN_CHECK_INTERVAL_S = 0.001
# How long the thread keeps checking after the last piece of work before it sleeps. Waking it costs the work that begins
# some 50 microseconds, and the searches of a session come in bursts.
_SLEEP_AFTER_S = 1.0


class Watched(Protocol):
    """A piece of work that can be watched. Its members are used from any thread."""

    @property
    def due_at(self) -> float:
        """Time of the monotonic clock by which there must be progress, in seconds."""

    def take_over(self) -> None:
        """Continue in another thread if the current one has made no progress. Must not block."""


class Watchdog:
    """Watches pieces of work from its own thread. Thread-safe."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._watched: set[Watched] = set()
        self._next_check_at = 0.0  # infinite while the thread sleeps
        self._last_work_at = time.monotonic()
        self._thread: threading.Thread | None = None
        self._is_closed = False

    def watch(self, work: Watched) -> None:
        """Watch a piece of work until `unwatch`, and call its `take_over` whenever it is overdue."""
        due_at = min(work.due_at, time.monotonic() + STALL_S)
        with self._changed:
            self._watched.add(work)
            if self._thread is None and not self._is_closed:
                # Without a thread, the work goes on unwatched: a lane that hangs then costs the search its answer.
                with suppress(ThreadUnavailableError):
                    self._thread = start_thread(self._run, name="watch")
            elif due_at < self._next_check_at:
                self._next_check_at = due_at
                self._changed.notify()

    def unwatch(self, work: Watched) -> None:
        """Stop watching a piece of work."""
        with self._changed:
            self._watched.discard(work)

    def close(self) -> None:
        """Stop watching and end the thread. Does not wait for it."""
        with self._changed:
            self._is_closed = True
            self._changed.notify()

    def _run(self) -> None:
        run_loop(self._check, report=_report, wait=time.sleep)

    def _check(self) -> bool:
        """Take over overdue work, then wait until the next check; return False once closed."""
        with self._changed:
            now = time.monotonic()
            if self._watched:
                self._last_work_at = now
            for work in [watched for watched in self._watched if watched.due_at <= now]:
                work.take_over()
            if now - self._last_work_at > _SLEEP_AFTER_S:
                self._next_check_at = math.inf
            else:
                next_due_at = min((work.due_at for work in self._watched), default=math.inf)
                self._next_check_at = now + min(max(next_due_at - now, _MIN_CHECK_INTERVAL_S), STALL_S)
            if not self._is_closed:
                self._changed.wait(None if self._next_check_at == math.inf else self._next_check_at - now)
            return not self._is_closed


def _report(error: Exception) -> None:
    log.error("the watchdog failed, and goes on: action=watchdog_failed error=%s", type(error).__name__)
