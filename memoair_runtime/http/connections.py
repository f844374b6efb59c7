"""The connections that have a thread: how many there may be, which one makes room for another, and their end."""

import socket
import threading
import time
from enum import Enum

import attrs

# How long a connection without the token is safe at least. A client that does know it sends its first request at once.
MIN_UNPROVEN_S = 0.05
# The body of a request that takes longer than this may be closed to make room: clients on this machine send it at once.
MIN_RECEIVING_S = 1.0


class _Activity(Enum):
    IDLE = "idle"  # between two requests
    RECEIVING = "receiving"  # a request has begun to arrive
    ANSWERING = "answering"  # a request is complete


@attrs.define(eq=False)
class _OpenConnection:
    is_proven: bool
    opened_at: float
    activity: _Activity
    since: float
    is_closing: bool = False


class Connections:
    """Tracks and closes connections. Thread-safe: it decides under its lock and closes sockets outside of it.

    A connection is proven once its client has shown that it knows the token. Only some slots are for the others, and
    these connections are closed first.
    """

    def __init__(self, max_connections: int, max_unproven: int, min_idle_s: float) -> None:
        """Create the registry without any connection.

        Args:
            max_connections: How many connections may be open.
            max_unproven: How many of them may be unproven.
            min_idle_s: Seconds for which a proven connection must have been idle before it may be closed to free its
                slot. Until then its client may still use it: clients drop idle connections earlier than that.
        """
        self._max_connections = max_connections
        self._max_unproven = max_unproven
        self._min_idle_s = min_idle_s
        self._changed = threading.Condition()
        self._entries: dict[socket.socket, _OpenConnection] = {}
        self._is_draining = False

    @property
    def is_draining(self) -> bool:
        """Whether every connection is closed after its current reply."""
        return self._is_draining

    def try_add(self, connection: socket.socket, *, is_proven: bool) -> bool:
        """Register a connection whose first request has arrived, if a slot is free.

        If none is, close another connection to free one, if there is any that may be closed.
        """
        now = time.monotonic()
        with self._changed:
            unproven = sum(not entry.is_proven for entry in self._entries.values())
            has_slot = len(self._entries) < self._max_connections and (is_proven or unproven < self._max_unproven)
            if has_slot and not self._is_draining:
                self._entries[connection] = _OpenConnection(is_proven, now, _Activity.RECEIVING, now)
                return True
        self.free_slot(is_proven=is_proven)
        return False

    def free_slot(self, *, is_proven: bool) -> None:
        """Close a connection, if there is one that may be closed. Its thread frees its slot in a moment.

        Args:
            is_proven: Whether a proven connection needs the slot. Others make only unproven ones close.
        """
        with self._changed:
            victim = self._find_victim(time.monotonic(), is_proven=is_proven)
            if victim is None:
                return
            self._entries[victim].is_closing = True
        _shut_down(victim)

    def mark_proven(self, connection: socket.socket) -> None:
        """Record that the client has shown that it knows the token."""
        with self._changed:
            if (entry := self._entries.get(connection)) is not None:
                entry.is_proven = True

    def mark_receiving(self, connection: socket.socket) -> None:
        """Record that a request has begun to arrive."""
        self._set(connection, _Activity.RECEIVING)

    def mark_answering(self, connection: socket.socket) -> None:
        """Record that a request has arrived."""
        self._set(connection, _Activity.ANSWERING)

    def mark_idle(self, connection: socket.socket) -> bool:
        """Record that a request is answered; return whether the connection may stay open."""
        self._set(connection, _Activity.IDLE)
        return not self._is_draining

    def remove(self, connection: socket.socket) -> None:
        """Remove a connection that is closed."""
        with self._changed:
            self._entries.pop(connection, None)
            self._changed.notify_all()

    def drain(self, deadline: float) -> None:
        """Close idle connections, wait for the others, and close those that remain at the deadline.

        Args:
            deadline: Time of the monotonic clock until which to wait, in seconds.
        """
        with self._changed:
            self._is_draining = True
            idle = [connection for connection, entry in self._entries.items() if entry.activity is _Activity.IDLE]
        for connection in idle:
            _shut_down(connection)
        with self._changed:
            self._changed.wait_for(lambda: not self._entries, max(0.0, deadline - time.monotonic()))
            remaining = list(self._entries)
        for connection in remaining:
            _shut_down(connection)

    def _set(self, connection: socket.socket, activity: _Activity) -> None:
        with self._changed:
            if (entry := self._entries.get(connection)) is not None:
                entry.activity, entry.since = activity, time.monotonic()

    def _find_victim(self, now: float, *, is_proven: bool) -> socket.socket | None:
        """Return the connection to close: the oldest unproven one, else one that stalls, else the longest idle one."""
        entries = [(connection, entry) for connection, entry in self._entries.items() if not entry.is_closing]
        ranked: list[tuple[int, float, socket.socket]] = []
        for connection, entry in entries:
            if not entry.is_proven:
                if now - entry.opened_at >= MIN_UNPROVEN_S:
                    ranked.append((0, entry.opened_at, connection))
            elif not is_proven:
                continue
            elif entry.activity is _Activity.RECEIVING and now - entry.since >= MIN_RECEIVING_S:
                ranked.append((1, entry.since, connection))
            elif entry.activity is _Activity.IDLE and now - entry.since >= self._min_idle_s:
                ranked.append((2, entry.since, connection))
        return min(ranked, key=lambda item: item[:2])[2] if ranked else None


def _shut_down(connection: socket.socket) -> None:
    """Shut down the socket. This wakes the thread that reads from it, and that thread closes it."""
    try:
        connection.shutdown(socket.SHUT_RDWR)
    except OSError:
        return  # the client has closed it already
