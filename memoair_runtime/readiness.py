"""Where searches wait until what they need has been read."""

import threading
import time
from enum import Enum


class Readiness(str, Enum):
    """How far a lane's data has come."""

    LOADING = "loading"  # being read; a search waits for it as long as it may
    READY = "ready"
    ERROR = "error"  # could not be read; the reason is in the log of the process


class NotReadyError(Exception):
    """A lane's data did not come in time, or can't come at all."""

    def __init__(self, readiness: Readiness) -> None:
        super().__init__(readiness.value)
        self.readiness = readiness


class ReadinessGate:
    """Where searches wait until what they need has been read."""

    def __init__(self) -> None:
        self._opened = threading.Event()
        self.readiness = Readiness.LOADING

    def open(self, readiness: Readiness = Readiness.READY) -> None:
        """Let everybody through, or, with `Readiness.ERROR`, turn everybody away."""
        self.readiness = readiness
        self._opened.set()

    def wait(self, deadline: float) -> None:
        """Wait until the gate opens; raise `NotReadyError` at the deadline (monotonic seconds) or where it never will."""
        self._opened.wait(max(0.0, deadline - time.monotonic()))
        if self.readiness is not Readiness.READY:
            raise NotReadyError(self.readiness)
