"""How many connections a server has open, and which one is closed to make room for another."""

import logging
import time
from collections.abc import Iterable
from enum import Enum
from typing import Protocol

from memoair_protocol.processes import max_descriptors

log = logging.getLogger(__name__)

# Descriptors that are no connections: the database, files, the work of the background threads.
_OTHER_DESCRIPTORS = 96
_MAX_CONNECTIONS = 10_000
# A request that takes longer than this to arrive, or its response to be read, is half open. The newest connection must
# not be closed for the next one, only because it is the only one whose request has not arrived yet.
_MIN_HALF_OPEN_S = 1.0
# How long a connection may stay at least, so that its request can arrive, and how often to look for one to close.
_MIN_UNPROVEN_S = 1.0
_POLL_S = 0.02
# A client may still use a connection that was idle for less than this.
_MIN_IDLE_S = 5.0
_LOG_INTERVAL_S = 60.0


class Phase(Enum):
    """What a connection does."""

    HEAD = "head"  # nothing yet, or the head of a request arrives
    BODY = "body"  # the body of a request arrives
    SENDING = "sending"  # a response waits for the client to read
    IDLE = "idle"  # between two requests
    ANSWERING = "answering"  # a request is complete: it is never closed for another


class GuardedConnection(Protocol):
    """What the gate needs of a connection.

    Attributes:
        address: The address of the client.
        phase: What the connection does.
        since: Since when, in seconds of the monotonic clock.
    """

    address: str
    phase: Phase
    since: float

    @property
    def is_proven(self) -> bool:
        """Whether the client has shown a valid key."""

    def abort(self) -> None:
        """Close the connection at once."""


class ConnectionGate:
    """Bounds the connections of one server. Use it in the thread of the event loop.

    A connection is proven once a request with a valid key, or of a person who has signed in, came over it. Only a part
    of all places is for the others, and these make room first: those that are half open before all others, of the
    address that has most of them, the oldest first.

    Args:
        max_connections: How many connections may be open.
        max_unproven: How many of them may be unproven.
    """

    def __init__(self, max_connections: int, max_unproven: int) -> None:
        self.max_connections, self.max_unproven = max_connections, max_unproven
        self._connections: dict[GuardedConnection, None] = {}  # in the order in which they were opened
        self._closed = 0  # since the last log line
        self._log_at = 0.0

    @classmethod
    def for_this_process(cls) -> "ConnectionGate":
        """Return a gate for as many connections as the process has descriptors for."""
        descriptors = max_descriptors()
        others = max(_OTHER_DESCRIPTORS, descriptors // 4)
        max_connections = min(_MAX_CONNECTIONS, max(descriptors - others, descriptors // 2))
        return cls(max_connections, max(1, max_connections * 3 // 4))

    def wait_s(self, opening: int) -> float:
        """Return in how many seconds another connection may be accepted; 0 if it may be now.

        Args:
            opening: How many connections are accepted and not added yet.
        """
        unproven = [each for each in self._connections if not each.is_proven]
        victim: GuardedConnection | None = None
        if len(unproven) + opening >= self.max_unproven:
            victim = _find_unproven_victim(unproven)
        elif len(self._connections) + opening < self.max_connections:
            return 0.0
        else:
            victim = _find_unproven_victim(unproven) or _find_idle(self._connections)
        if victim is None:
            return _POLL_S
        return max(0.0, victim.since + _MIN_UNPROVEN_S - time.monotonic())

    def add(self, connection: GuardedConnection) -> None:
        """Register a new connection. It is closed at once if there is no place for it."""
        unproven = [other for other in self._connections if not other.is_proven]
        victim: GuardedConnection | None = None
        if len(unproven) >= self.max_unproven:
            victim = _find_unproven_victim(unproven) or connection
        elif len(self._connections) >= self.max_connections:
            victim = _find_unproven_victim(unproven) or _find_idle(self._connections) or connection
        self._connections[connection] = None
        if victim is not None:
            self._connections.pop(victim, None)
            victim.abort()
            self._note_closed()

    def remove(self, connection: GuardedConnection) -> None:
        """Remove a connection that is closed."""
        self._connections.pop(connection, None)

    def _note_closed(self) -> None:
        self._closed += 1
        now = time.monotonic()
        if now >= self._log_at:
            fields = {"closed": self._closed, "open": len(self._connections)}
            log.warning("connections make room for others", extra={"action": "connections_full", "fields": fields})
            self._closed, self._log_at = 0, now + _LOG_INTERVAL_S


def _find_unproven_victim(unproven: Iterable[GuardedConnection]) -> GuardedConnection | None:
    closable = [each for each in unproven if each.phase is not Phase.ANSWERING]
    latest = time.monotonic() - _MIN_HALF_OPEN_S
    half_open = [each for each in closable if each.phase is not Phase.IDLE and each.since <= latest]
    by_address: dict[str, list[GuardedConnection]] = {}
    for connection in half_open or closable:
        by_address.setdefault(connection.address, []).append(connection)
    of_one_address = max(by_address.values(), key=len, default=[])
    return min(of_one_address, key=lambda connection: connection.since, default=None)


def _find_idle(connections: Iterable[GuardedConnection]) -> GuardedConnection | None:
    latest = time.monotonic() - _MIN_IDLE_S
    idle = [each for each in connections if each.phase in (Phase.HEAD, Phase.IDLE) and each.since <= latest]
    return min(idle, key=lambda connection: connection.since, default=None)
