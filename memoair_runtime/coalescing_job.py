"""Work behind the requests that is begun again and again, and never twice at a time."""

import logging
import threading
from collections.abc import Callable

log = logging.getLogger(__name__)


class CoalescingJob:
    """A job that runs in a thread of its own; asked for while it runs, it runs once more afterwards. Thread-safe."""

    def __init__(self, name: str, job: Callable[[], None]) -> None:
        self._name = name
        self._job = job
        self._lock = threading.Lock()
        self._is_running = False
        self._must_rerun = False

    def start(self) -> None:
        """Run the job soon; returns at once."""
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
            except Exception as error:  # noqa: BLE001 - the next run is another one; what failed is told
                log.error("a background job failed: action=%s_failed error=%s", self._name, type(error).__name__)
            with self._lock:
                self._is_running, self._must_rerun = self._must_rerun, False
                if not self._is_running:
                    return
