"""Upkeep: small writes that nobody should wait for, done one after another behind the requests."""

import logging
import threading
import time
from collections.abc import Callable

log = logging.getLogger(__name__)


# How long a job waits for a later one to take its place: turns come every few seconds, batches every millisecond.
_DEBOUNCE_S = 0.2


class BackgroundWriter:
    """One thread that runs the latest job of each key. What it writes can be made anew from the logs."""

    def __init__(self) -> None:
        self._condition = threading.Condition()
        self._jobs: dict[str, Callable[[], None]] = {}
        self._is_busy = False
        self._is_closed = False
        self._waiting_flushes = 0  # how many wait for the jobs to be done
        self._thread = threading.Thread(target=self._run, name="upkeep", daemon=True)
        self._thread.start()

    def schedule(self, key: str, job: Callable[[], None]) -> None:
        """Run a job in a moment; it takes the place of one of the same key that has not begun."""
        with self._condition:
            if not self._is_closed:
                self._jobs[key] = job
                self._condition.notify_all()

    def flush(self, deadline: float) -> int:
        """Wait until nothing is left to do, or until the deadline (monotonic seconds); return what is left."""
        with self._condition:
            self._waiting_flushes += 1
            self._condition.notify_all()
            self._condition.wait_for(
                lambda: not self._jobs and not self._is_busy, max(0.0, deadline - time.monotonic())
            )
            self._waiting_flushes -= 1
            return len(self._jobs) + self._is_busy

    def close(self, deadline: float) -> None:
        """Do what is left, and end the thread, by the deadline."""
        self.flush(deadline)
        with self._condition:
            self._is_closed = True
            self._jobs.clear()
            self._condition.notify_all()
        self._thread.join(max(0.0, deadline - time.monotonic()))

    def _run(self) -> None:
        while job := self._next_job():
            try:
                job()
            except Exception as error:  # noqa: BLE001 - the next job is another one; what failed is told
                log.warning("upkeep failed: action=upkeep_failed error=%s", type(error).__name__)

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
