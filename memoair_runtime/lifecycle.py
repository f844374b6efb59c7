"""The life of the process: its states, and the only moves between them."""

import os
import queue
from enum import Enum


class ProcessState(Enum):
    """Where the process stands."""

    STARTING = "starting"  # the socket listens, nothing is answered yet
    SERVING = "serving"
    DRAINING = "draining"  # what is in flight is finished, nothing new is taken
    STOPPED = "stopped"


_MOVES = {
    ProcessState.STARTING: {ProcessState.SERVING, ProcessState.DRAINING},
    ProcessState.SERVING: {ProcessState.DRAINING},
    ProcessState.DRAINING: {ProcessState.STOPPED},
    ProcessState.STOPPED: set[ProcessState](),
}


class Lifecycle:
    """The state of the process, and the wish to end it. Safe to use from any thread and from signal handlers."""

    def __init__(self) -> None:
        self.state = ProcessState.STARTING
        self.drain_deadline_s: float | None = None  # how long the one who asked for the end gives it
        # A queue, since an event can't be set by a signal handler that interrupts the wait for it.
        self._end_asked: queue.SimpleQueue[None] = queue.SimpleQueue()

    def move(self, to: ProcessState) -> None:
        """Change the state; a move that there is none of is a defect."""
        if to not in _MOVES[self.state]:
            raise RuntimeError(f"a process that is {self.state.value} can't become {to.value}")
        self.state = to

    def ask_to_end(self, deadline_s: float | None = None) -> None:
        """Ask the main thread to drain and stop, within so many seconds at most."""
        if self.drain_deadline_s is None:
            self.drain_deadline_s = deadline_s
        self._end_asked.put(None)

    def wait_for_end(self) -> None:
        """Wait until the end is asked for. Signals are handled meanwhile."""
        limit_s = 1 if os.name == "nt" else None  # Windows does not interrupt a wait without a limit for Ctrl-C
        while True:
            try:
                return self._end_asked.get(timeout=limit_s)
            except queue.Empty:
                continue
