"""How a pull is called off from another thread, wherever it waits at the moment."""

import socket
import threading
import time
from contextlib import suppress

from memoair_voice_sync.runtime_store.errors import PullCancelledError, RuntimeStoreError


class CancelToken:
    """Set once, it ends all waiting of the pull that it was given to; and so does the moment by which that must end.

    Safe to use from any thread.
    """

    def __init__(self, timeout_s: float) -> None:
        self._deadline = time.monotonic() + timeout_s
        self._timeout_s = timeout_s
        self._lock = threading.Lock()
        self._event = threading.Event()
        self._sockets: list[socket.socket] = []

    def cancel(self) -> None:
        """Call it off."""
        self._event.set()
        with self._lock:
            sockets, self._sockets = self._sockets, []
        for connection in sockets:
            with suppress(OSError):  # it is closed already
                connection.shutdown(socket.SHUT_RDWR)

    def register_socket(self, connection: socket.socket) -> None:
        """Let nobody wait on a connection any more once it is called off."""
        with self._lock:
            self._sockets = [sock for sock in self._sockets if sock.fileno() >= 0]
            self._sockets.append(connection)
        if self._event.is_set():
            self.cancel()

    def check(self) -> None:
        """Raise `PullCancelledError` where it was called off, a `RuntimeStoreError` where it has taken too long."""
        if self._event.is_set():
            raise PullCancelledError
        if time.monotonic() > self._deadline:
            raise RuntimeStoreError(f"it was not done within {self._timeout_s / 60:.0f} minutes")

    def sleep(self, seconds: float) -> None:
        """Wait, and `check`."""
        self._event.wait(seconds)
        self.check()
