"""Readiness of a lane's data, and the gate at which searches wait for it."""

import threading
import time
from enum import Enum


class Readiness(str, Enum):
    """How far a lane's data is loaded."""

    LOADING = "loading"  # being read; a search waits for it until its deadline
    READY = "ready"
    ERROR = "error"  # reading failed; the process log has the reason


class NotReadyError(Exception):
    """A lane's data was not loaded in time, or failed to load."""

    def __init__(self, readiness: Readiness) -> None:
        super().__init__(readiness.value)
        self.readiness = readiness


class ReadinessGate:
    """The gate at which searches wait until data is loaded. Thread-safe."""

    def __init__(self) -> None:
        self._opened = threading.Event()
        self.readiness = Readiness.LOADING

    def open(self, readiness: Readiness = Readiness.READY) -> None:
        """Let all searches pass or, with `Readiness.ERROR`, make all of them fail."""
        self.readiness = readiness
        self._opened.set()

    def wait(self, deadline: float) -> None:
        """Wait until the gate opens.

        Args:
            deadline: Time of the monotonic clock until which to wait, in seconds.

        Raises:
            NotReadyError: If the deadline passes first, or the data failed to load.
        """
        self._opened.wait(max(0.0, deadline - time.monotonic()))
        if self.readiness is not Readiness.READY:
            raise NotReadyError(self.readiness)
