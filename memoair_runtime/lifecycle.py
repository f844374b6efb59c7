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


_TRANSITIONS = {
    LifecycleState.STARTING: {LifecycleState.SERVING, LifecycleState.DRAINING},
    LifecycleState.SERVING: {LifecycleState.DRAINING},
    LifecycleState.DRAINING: {LifecycleState.STOPPED},
    LifecycleState.STOPPED: set[LifecycleState](),
}


class Lifecycle:
    """The state of the process, and the wish to end it. Safe to use from any thread and from signal handlers."""

    def __init__(self) -> None:
        self.state = LifecycleState.STARTING
        self.drain_timeout_s: float | None = None  # how long the one who asked for the end gives it
        # A socket, since a signal that the system gives to another thread wakes the main thread from nothing else.
        self._wake_writer, self._wake_reader = socket.socketpair()
        self._wake_writer.setblocking(False)

    def transition_to(self, state: LifecycleState) -> None:
        """Change the state; a move that there is none of is a defect."""
        if state not in _TRANSITIONS[self.state]:
            raise RuntimeError(f"a process that is {self.state.value} can't become {state.value}")
        self.state = state

    def stop_on_signals(self, *signals: signal.Signals) -> None:
        """Take these signals as the wish to end. To be called from the main thread."""
        signal.set_wakeup_fd(self._wake_writer.fileno(), warn_on_full_buffer=False)
        for signal_number in signals:
            signal.signal(signal_number, lambda *_: self.request_stop())

    def request_stop(self, drain_timeout_s: float | None = None) -> None:
        """Ask the main thread to drain and stop, within so many seconds at most."""
        if self.drain_timeout_s is None:
            self.drain_timeout_s = drain_timeout_s
        with suppress(BlockingIOError):  # it has been asked often enough
            self._wake_writer.send(b"\0")

    def wait_for_stop_request(self) -> None:
        """Wait until the end is asked for."""
        self._wake_reader.recv(1)

    def close(self) -> None:
        """Give back what waiting takes."""
        self._wake_writer.close()
        self._wake_reader.close()
