"""Background jobs that are requested often and never run twice at the same time."""

import logging
import threading
from collections.abc import Callable

log = logging.getLogger(__name__)


class CoalescingJob:
    """A background job that coalesces the requests to run it.

    The job runs in its own daemon thread. Requests that arrive while it runs cause one more run afterwards. An error in
    one run is logged and does not prevent the next run. Thread-safe.
    """

    def __init__(self, name: str, job: Callable[[], None]) -> None:
        """Create the job without running it.

        Args:
            name: Name of the thread, and prefix of the ``action=`` code in the log.
            job: What to run.
        """
        self._name = name
        self._job = job
        self._lock = threading.Lock()
        self._is_running = False
        self._must_rerun = False

    def start(self) -> None:
        """Request a run and return immediately."""
        with self._lock:
            if self._is_running:
                self._must_rerun = True
                return
            self._is_running = True
        threading.Thread(target=self._run, name=self._name, daemon=True).start()

    def _run(self) -> None:
        while True:
            try:
                self._job()
            except Exception as error:  # noqa: BLE001 - logged; a later run may succeed
                log.error("a background job failed: action=%s_failed error=%s", self._name, type(error).__name__)
            with self._lock:
                self._is_running, self._must_rerun = self._must_rerun, False
                if not self._is_running:
                    return
