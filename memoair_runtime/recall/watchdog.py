"""The watch: notices work that has got stuck, at next to no cost for work that has not."""

import math
import threading
import time
from typing import Protocol

# Work that shows no progress for this long is taken to be stuck.
STALL_S = 0.02
_MIN_CHECK_INTERVAL_S = 0.001
# So long after the last piece of work the watch goes on looking before it goes to sleep: waking it costs the work that
# begins some 50 microseconds, and a call's searches come in bursts.
_SLEEP_AFTER_S = 1.0


class Watched(Protocol):
    """A piece of work. Its methods may be called from any thread."""

    @property
    def due_at(self) -> float:
        """By when (monotonic seconds) there must be progress."""

    def take_over(self) -> None:
        """Go on in another thread, where this one shows no progress. Must not block."""


class Watchdog:
    """Looks after pieces of work from a thread of its own. Safe to use from any thread."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._watched: set[Watched] = set()
        self._next_check_at = 0.0  # when the thread looks next; never, where it sleeps
        self._thread: threading.Thread | None = None
        self._is_closed = False

    def watch(self, work: Watched) -> None:
        """Look after a piece of work until `end`."""
        due_at = min(work.due_at, time.monotonic() + STALL_S)
        with self._changed:
            self._watched.add(work)
            if self._thread is None and not self._is_closed:
                self._thread = threading.Thread(target=self._run, name="watch", daemon=True)
                self._thread.start()
            elif due_at < self._next_check_at:
                self._next_check_at = due_at
                self._changed.notify()

    def unwatch(self, work: Watched) -> None:
        """Look after it no longer."""
        with self._changed:
            self._watched.discard(work)

    def close(self) -> None:
        """Look after nothing more."""
        with self._changed:
            self._is_closed = True
            self._changed.notify()

    def _run(self) -> None:
        last_work_at = time.monotonic()
        with self._changed:
            while not self._is_closed:
                now = time.monotonic()
                if self._watched:
                    last_work_at = now
                for work in [each for each in self._watched if each.due_at <= now]:
                    work.take_over()
                if now - last_work_at > _SLEEP_AFTER_S:
                    self._next_check_at = math.inf
                    self._changed.wait()
                    continue
                next_due_at = min((work.due_at for work in self._watched), default=math.inf)
                self._next_check_at = now + min(max(next_due_at - now, _MIN_CHECK_INTERVAL_S), STALL_S)
                self._changed.wait(self._next_check_at - now)
