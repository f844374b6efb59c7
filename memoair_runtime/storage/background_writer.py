"""A thread that writes derived files in the background, so that no request waits for them."""

import logging
import threading
import time
from collections.abc import Callable

from memoair_protocol.threads import ThreadUnavailableError, start_thread

log = logging.getLogger(__name__)


# How long a job waits for a later one to replace it: in a call turns come every few seconds, in a batch import every
# millisecond.
_DEBOUNCE_S = 0.2


class BackgroundWriter:
    """Run the latest job of each key, one at a time, in one thread. Thread-safe.

    For files that can be rebuilt from the session logs. A job that fails is logged, and the thread goes on. The thread
    starts with the first job. If none can be had, the jobs wait for the next call, and a flush runs them itself.
    """

    def __init__(self) -> None:
        self._condition = threading.Condition()
        self._jobs: dict[str, Callable[[], None]] = {}
        self._is_busy = False
        self._is_closed = False
        self._waiting_flushes = 0  # calls of `flush` that are waiting; jobs do not wait for a later one then
        self._thread: threading.Thread | None = None

    def schedule(self, key: str, job: Callable[[], None]) -> None:
        """Run a job shortly, in place of one with the same key that has not started. Does nothing once closed.

        Args:
            key: Identifies the job, such as the file that it writes.
            job: Called without arguments in the writer's thread.
        """
        with self._condition:
            if not self._is_closed:
                self._jobs[key] = job
                self._ensure_thread()
                self._condition.notify_all()

    def retry_if_due(self) -> None:
        """Start the thread if there was none to be had for the jobs that wait. To be called often."""
        if self._jobs and self._thread is None:
            with self._condition:
                self._ensure_thread()

    def flush(self, deadline: float) -> int:
        """Wait until every job is done.

        Args:
            deadline: When to stop waiting, in monotonic seconds.

        Returns:
            The number of jobs that are not done.
        """
        with self._condition:
            self._waiting_flushes += 1
            has_thread = not self._jobs or self._ensure_thread()
            self._condition.notify_all()
        while not has_thread and time.monotonic() < deadline and (job := self._take_job()):
            self._run_job(job)
        with self._condition:
            self._condition.wait_for(
                lambda: not self._jobs and not self._is_busy, max(0.0, deadline - time.monotonic())
            )
            self._waiting_flushes -= 1
            return len(self._jobs) + self._is_busy

    def close(self, deadline: float) -> None:
        """Run the remaining jobs and stop the thread.

        Args:
            deadline: When to give up, in monotonic seconds. Jobs that have not started by then are dropped.
        """
        self.flush(deadline)
        with self._condition:
            self._is_closed = True
            self._jobs.clear()
            self._condition.notify_all()
            thread = self._thread
        if thread is not None:
            thread.join(max(0.0, deadline - time.monotonic()))

    def _ensure_thread(self) -> bool:
        """Start the thread unless it runs; return whether it does. Requires the lock."""
        if self._thread is None:
            try:
                self._thread = start_thread(self._run, name="background-writer")
            except ThreadUnavailableError:
                log.debug("background writes wait for a thread: action=upkeep_waits")
        return self._thread is not None

    def _run(self) -> None:
        while job := self._next_job():
            self._run_job(job)

    def _run_job(self, job: Callable[[], None]) -> None:
        try:
            job()
        except Exception as error:  # noqa: BLE001 - one failed job must not stop the others
            log.warning("background write failed: action=upkeep_failed error=%s", type(error).__name__)

    def _next_job(self) -> Callable[[], None] | None:
        with self._condition:
            self._is_busy = False
            self._condition.notify_all()
            self._condition.wait_for(lambda: self._jobs or self._is_closed)
            self._condition.wait_for(lambda: self._waiting_flushes or self._is_closed, _DEBOUNCE_S)
            if self._is_closed:
                return None
            self._is_busy = True
            return self._jobs.pop(next(iter(self._jobs)))

    def _take_job(self) -> Callable[[], None] | None:
        with self._condition:
            return self._jobs.pop(next(iter(self._jobs))) if self._jobs else None
