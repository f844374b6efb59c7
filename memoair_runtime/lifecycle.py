"""The lifecycle of the process: its states, the legal transitions, and the request to stop."""

import signal
import socket
from contextlib import suppress
from enum import Enum


class LifecycleState(Enum):
    """A state of the process."""

    STARTING = "starting"  # the socket listens, no request is answered yet
    SERVING = "serving"
    DRAINING = "draining"  # requests in flight are finished, new ones are rejected
    STOPPED = "stopped"


_TRANSITIONS = {
    LifecycleState.STARTING: {LifecycleState.SERVING, LifecycleState.DRAINING},
    LifecycleState.SERVING: {LifecycleState.DRAINING},
    LifecycleState.DRAINING: {LifecycleState.STOPPED},
    LifecycleState.STOPPED: set[LifecycleState](),
}


class Lifecycle:
    """The state of the process, and the request to stop it.

    Any thread and any signal handler may request the stop. The main thread waits for the request.

    Attributes:
        state: The current state.
        drain_timeout_s: Seconds that the first stop request allows for draining, or None if it did not say.
    """

    def __init__(self) -> None:
        self.state = LifecycleState.STARTING
        self.drain_timeout_s: float | None = None
        # A socket, because the system may deliver a signal to any thread: only the wakeup descriptor reliably wakes the
        # main thread then.
        self._wake_writer, self._wake_reader = socket.socketpair()
        self._wake_writer.setblocking(False)

    def transition_to(self, state: LifecycleState) -> None:
        """Change the state.

        Raises:
            RuntimeError: If the transition is not legal, which is a defect.
        """
        if state not in _TRANSITIONS[self.state]:
            raise RuntimeError(f"invalid lifecycle transition from {self.state.value} to {state.value}")
        self.state = state

    def stop_on_signals(self, *signals: signal.Signals) -> None:
        """Treat these signals as requests to stop. Must be called from the main thread."""
        signal.set_wakeup_fd(self._wake_writer.fileno(), warn_on_full_buffer=False)
        for signal_number in signals:
            signal.signal(signal_number, lambda *_: self.request_stop())

    def request_stop(self, drain_timeout_s: float | None = None) -> None:
        """Ask the main thread to drain and stop.

        Args:
            drain_timeout_s: Seconds that draining may take. Only the first value counts.
        """
        if self.drain_timeout_s is None:
            self.drain_timeout_s = drain_timeout_s
        with suppress(BlockingIOError):  # the buffer is full of earlier requests
            self._wake_writer.send(b"\0")

    def wait_for_stop_request(self, timeout_s: float | None = None) -> bool:
        """Block until a stop is requested, or for some seconds; return whether it is requested."""
        self._wake_reader.settimeout(timeout_s)
        try:
            self._wake_reader.recv(1)
        except TimeoutError:
            return False
        return True

    def close(self) -> None:
        """Close the sockets."""
        self._wake_writer.close()
        self._wake_reader.close()
