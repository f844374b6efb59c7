"""The life of the process: its states, and the only moves between them."""

import signal
import socket
from contextlib import suppress
from enum import Enum


class LifecycleState(Enum):
    """Where the process stands."""

    STARTING = "starting"  # the socket listens, nothing is answered yet
    SERVING = "serving"
    DRAINING = "draining"  # what is in flight is finished, nothing new is taken
    STOPPED = "stopped"


_MOVES = {
    LifecycleState.STARTING: {LifecycleState.SERVING, LifecycleState.DRAINING},
    LifecycleState.SERVING: {LifecycleState.DRAINING},
    LifecycleState.DRAINING: {LifecycleState.STOPPED},
    LifecycleState.STOPPED: set[LifecycleState](),
}


class Lifecycle:
    """The state of the process, and the wish to end it. Safe to use from any thread and from signal handlers."""

    def __init__(self) -> None:
        self.state = LifecycleState.STARTING
        self.drain_deadline_s: float | None = None  # how long the one who asked for the end gives it
        # A socket, since a signal that the system gives to another thread wakes the main thread from nothing else.
        self._wake, self._woken = socket.socketpair()
        self._wake.setblocking(False)

    def move(self, to: LifecycleState) -> None:
        """Change the state; a move that there is none of is a defect."""
        if to not in _MOVES[self.state]:
            raise RuntimeError(f"a process that is {self.state.value} can't become {to.value}")
        self.state = to

    def end_on(self, *signals: signal.Signals) -> None:
        """Take these signals as the wish to end. To be called from the main thread."""
        signal.set_wakeup_fd(self._wake.fileno(), warn_on_full_buffer=False)
        for each in signals:
            signal.signal(each, lambda *_: self.ask_to_end())

    def ask_to_end(self, deadline_s: float | None = None) -> None:
        """Ask the main thread to drain and stop, within so many seconds at most."""
        if self.drain_deadline_s is None:
            self.drain_deadline_s = deadline_s
        with suppress(BlockingIOError):  # it has been asked often enough
            self._wake.send(b"\0")

    def wait_for_end(self) -> None:
        """Wait until the end is asked for."""
        self._woken.recv(1)

    def close(self) -> None:
        """Give back what waiting takes."""
        self._wake.close()
        self._woken.close()
