"""Cancel a pull from another thread, wherever it is waiting."""

import socket
import threading
import time
from contextlib import suppress

from memoair_runtime_store.errors import PullCancelledError, RuntimeStoreError


class CancelToken:
    """A one-shot signal that ends all waiting of one pull. It also enforces the deadline of the pull.

    Safe to use from any thread.

    Args:
        timeout_s: Seconds until `check` raises by itself.
    """

    def __init__(self, timeout_s: float) -> None:
        self._deadline = time.monotonic() + timeout_s
        self._timeout_s = timeout_s
        self._lock = threading.Lock()
        self._event = threading.Event()
        self._sockets: list[socket.socket] = []

    def cancel(self) -> None:
        """Cancel the pull and shut down its connections."""
        self._event.set()
        with self._lock:
            sockets, self._sockets = self._sockets, []
        for connection in sockets:
            with suppress(OSError):  # already closed
                connection.shutdown(socket.SHUT_RDWR)

    def register_socket(self, connection: socket.socket) -> None:
        """Register a socket, so that `cancel` interrupts a thread that is blocked on it."""
        with self._lock:
            self._sockets = [sock for sock in self._sockets if sock.fileno() >= 0]
            self._sockets.append(connection)
        if self._event.is_set():
            self.cancel()

    def check(self) -> None:
        """Raise `PullCancelledError` after `cancel`, and `RuntimeStoreError` after the deadline."""
        if self._event.is_set():
            raise PullCancelledError
        if time.monotonic() > self._deadline:
            raise RuntimeStoreError(f"the pull did not finish within {self._timeout_s / 60:.0f} minutes")

    def sleep(self, seconds: float) -> None:
        """Sleep, then `check`. `cancel` ends the sleep early."""
        self._event.wait(seconds)
        self.check()
