"""The open connections of a server: how many may be open, which are idle, and how they are closed."""

import socket
import threading
import time


class Connections:
    """Tracks and closes connections. Thread-safe: it decides under its lock and closes sockets outside of it."""

    def __init__(self, max_connections: int, min_idle_s: float) -> None:
        """Create the registry without any connection.

        Args:
            max_connections: How many connections may be open.
            min_idle_s: Seconds for which a connection must have been idle before it may be closed to free its slot.
        """
        self._max_connections = max_connections
        self._min_idle_s = min_idle_s
        self._changed = threading.Condition()
        self._idle_since: dict[socket.socket, float | None] = {}  # None while a request is being answered
        self._is_draining = False

    def wait_for_capacity(self) -> None:
        """Wait until another connection may be opened, or until draining begins.

        If all slots are taken, close the connection that has been idle longest, but only after ``min_idle_s``. Until
        then its client may still use it: clients drop their own idle connections earlier than that.
        """
        while True:
            with self._changed:
                if len(self._idle_since) < self._max_connections or self._is_draining:
                    return
                idle = [(since, connection) for connection, since in self._idle_since.items() if since is not None]
                since, oldest = min(idle, key=lambda entry: entry[0], default=(None, None))
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
        """Whether every connection is closed after its current reply."""
        return self._is_draining

    def add(self, connection: socket.socket) -> None:
        """Register a new connection."""
        with self._changed:
            self._idle_since[connection] = time.monotonic()
            is_too_late = self._is_draining
        if is_too_late:
            _shut_down(connection)

    def mark_busy(self, connection: socket.socket) -> None:
        """Record that a request has begun to arrive."""
        with self._changed:
            self._idle_since[connection] = None

    def mark_idle(self, connection: socket.socket) -> bool:
        """Record that a request is answered; return whether the connection may stay open."""
        with self._changed:
            self._idle_since[connection] = time.monotonic()
            self._changed.notify_all()
            return not self._is_draining

    def remove(self, connection: socket.socket) -> None:
        """Remove a connection that is closed."""
        with self._changed:
            self._idle_since.pop(connection, None)
            self._changed.notify_all()

    def drain(self, deadline: float) -> None:
        """Close idle connections, wait for the others, and close those that remain at the deadline.

        Args:
            deadline: Time of the monotonic clock until which to wait, in seconds.
        """
        with self._changed:
            self._is_draining = True
            self._changed.notify_all()
            idle = [connection for connection, since in self._idle_since.items() if since is not None]
        for connection in idle:
            _shut_down(connection)
        with self._changed:
            self._changed.wait_for(lambda: not self._idle_since, max(0.0, deadline - time.monotonic()))
            remaining = list(self._idle_since)
        for connection in remaining:
            _shut_down(connection)


def _shut_down(connection: socket.socket) -> None:
    """Shut down the socket. This wakes the thread that reads from it, and that thread closes it."""
    try:
        connection.shutdown(socket.SHUT_RDWR)
    except OSError:
        return  # the client has closed it already
