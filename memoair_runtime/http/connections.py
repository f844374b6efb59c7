"""The open connections of a server: how many there may be, which are idle, and how they end."""

import socket
import threading
import time


class Connections:
    """Counts and closes connections. Safe to use from any thread; decides under its lock, closes outside it."""

    def __init__(self, max_connections: int, min_idle_s: float) -> None:
        self._max_connections = max_connections
        self._min_idle_s = min_idle_s
        self._changed = threading.Condition()
        self._idle_since: dict[socket.socket, float | None] = {}  # None while a request is being answered
        self._is_draining = False

    def wait_for_capacity(self) -> None:
        """Wait until another connection may be opened, or until it no longer matters.

        Where all places are taken, the connection that has been idle longest is closed, but none that its client may
        be about to use: a client that drops its own idle connections does so earlier.
        """
        while True:
            with self._changed:
                if len(self._idle_since) < self._max_connections or self._is_draining:
                    return
                idle = [(since, each) for each, since in self._idle_since.items() if since is not None]
                since, oldest = min(idle, key=lambda each: each[0], default=(None, None))
                wait_s = 1.0 if since is None else since + self._min_idle_s - time.monotonic()
                if wait_s > 0:
                    self._changed.wait(wait_s)
                    continue
            if oldest is not None:
                _shut_down(oldest)
                with self._changed:
                    self._changed.wait_for(lambda gone=oldest: gone not in self._idle_since, 1.0)  # type: ignore[misc]

    @property
    def is_draining(self) -> bool:
        """Whether each connection ends with the answer that is being given."""
        return self._is_draining

    def add(self, connection: socket.socket) -> None:
        """Count a new connection."""
        with self._changed:
            self._idle_since[connection] = time.monotonic()
            is_too_late = self._is_draining
        if is_too_late:
            _shut_down(connection)

    def mark_busy(self, connection: socket.socket) -> None:
        """A request has begun to arrive."""
        with self._changed:
            self._idle_since[connection] = None

    def mark_idle(self, connection: socket.socket) -> bool:
        """A request has been answered; tell whether the connection may be kept for the next."""
        with self._changed:
            self._idle_since[connection] = time.monotonic()
            self._changed.notify_all()
            return not self._is_draining

    def remove(self, connection: socket.socket) -> None:
        """A connection is gone."""
        with self._changed:
            self._idle_since.pop(connection, None)
            self._changed.notify_all()

    def drain(self, deadline: float) -> None:
        """Close what is idle, wait for the rest until the deadline (monotonic seconds), then close that too."""
        with self._changed:
            self._is_draining = True
            self._changed.notify_all()
            idle = [each for each, since in self._idle_since.items() if since is not None]
        for connection in idle:
            _shut_down(connection)
        with self._changed:
            self._changed.wait_for(lambda: not self._idle_since, max(0.0, deadline - time.monotonic()))
            remaining = list(self._idle_since)
        for connection in remaining:
            _shut_down(connection)


def _shut_down(connection: socket.socket) -> None:
    """Wake the thread that reads from the connection; it closes it."""
    try:
        connection.shutdown(socket.SHUT_RDWR)
    except OSError:
        return  # the client was faster
