"""Background jobs that are requested often and never run twice at the same time."""

import logging
import threading
import time
from collections.abc import Callable

from memoair_protocol.backoff import Backoff
from memoair_protocol.threads import ThreadUnavailableError, start_thread

log = logging.getLogger(__name__)

# When to repeat a run that failed for a reason that may pass.
BACKOFF = Backoff(0.5, 60.0, jitter=0)


class CoalescingJob:
    """A background job that coalesces the requests to run it.

    The job runs in its own daemon thread. Requests that arrive while it runs cause one more run afterwards. An error in
    one run is logged and does not prevent the next run. Thread-safe.
    """

    def __init__(self, name: str, job: Callable[[], bool | None]) -> None:
        """Create the job without running it.

        Args:
            name: Name of the thread, and prefix of the ``action=`` code in the log.
            job: What to run. It returns False if it has failed for a reason that may pass, to be run again later.
        """
        self._name = name
        self._job = job
        self._lock = threading.Lock()
        self._is_running = False
        self._is_requested = False
        self._failures = 0
        self._retry_at = 0.0

    def start(self) -> None:
        """Request a run and return immediately. If there is no thread for it, `retry_if_due` starts it later."""
        with self._lock:
            is_news, self._is_requested = not self._is_requested, True
            if self._is_running:
                return
            try:
                start_thread(self._run, name=self._name)  # it waits for the lock
            except ThreadUnavailableError:
                if is_news:  # it is tried again every second
                    log.warning("a background job waits for a thread: action=%s_waits", self._name)
                return
            self._is_running = True

    def retry_if_due(self) -> None:
        """Start the run that could not be started, or that failed a while ago, if there is one. To be called often."""
        if self._is_requested and not self._is_running and time.monotonic() >= self._retry_at:
            self.start()

    def _run(self) -> None:
        while True:
            with self._lock:
                if not self._is_requested:
                    self._is_running = False
                    return
                self._is_requested = False
            is_done: bool | None = True
            try:
                is_done = self._job()
            except Exception as error:  # noqa: BLE001 - logged; a later run may succeed
                log.error("a background job failed: action=%s_failed error=%s", self._name, type(error).__name__)
                is_done = not is_transient(error)
            with self._lock:
                self._failures = self._failures + 1 if is_done is False else 0
                if is_done is False and not self._is_requested:
                    self._retry_at = time.monotonic() + BACKOFF.pause_s(self._failures)
                    self._is_requested, self._is_running = True, False
                    return


def is_transient(error: BaseException) -> bool:
    """Return whether an error may pass by itself: the process or the machine is short of something."""
    return isinstance(error, OSError | MemoryError | ThreadUnavailableError)
