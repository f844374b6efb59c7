"""Accepts connections and reads the head of their first request, without a thread for any of them.

Only a connection with a complete head gets a thread. Clients that connect and send nothing, or too slowly, cost one
descriptor for a second at most, and there is a bound of them: the oldest one is closed for the next.
"""

import logging
import selectors
import socket
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import attrs

from memoair_protocol.threads import ThreadUnavailableError, run_loop, start_thread
from memoair_runtime.http.connections import MIN_UNPROVEN_S, Connections
from memoair_runtime.http.timed_socket import TimedSocket

log = logging.getLogger(__name__)

# How long the head of a first request may take. Clients on this machine send it at once.
HEAD_TIMEOUT_S = 1.0
# A head that is larger, or has more lines, goes to a thread as it is, which answers it with an error.
MAX_HEAD_BYTES = 65_536
MAX_HEAD_LINES = 102
_RECEIVE_BYTES = 1 << 16
_MAX_ACCEPTS = 64  # in a row, before the others have their turn
# While a request waits for a slot, a descriptor or a thread: how often to try again, and how often to log that.
_RETRY_S, _LOG_INTERVAL_S = 0.02, 10.0
_BLANK_LINES = (b"\n\r\n", b"\n\n")


@attrs.define(eq=False)
class _Arrival:
    """A connection without a thread.

    Attributes:
        connection: The connection.
        address: The address of the client.
        deadline: When it is closed unless its head is complete, in seconds of the monotonic clock.
        received: What it has sent.
        is_proven: Whether its client has shown that it knows the token.
    """

    connection: TimedSocket
    address: Any
    deadline: float
    received: bytearray = attrs.field(factory=bytearray)
    is_proven: bool = False
    _lines: int = 0

    def add(self, content: bytes) -> bool:
        """Add what was received; return whether the head has arrived, or as much of it as is read here."""
        start = max(0, len(self.received) - 2)  # only there may a blank line have become complete
        self.received += content
        self._lines += content.count(b"\n")
        is_too_large = len(self.received) > MAX_HEAD_BYTES or self._lines > MAX_HEAD_LINES
        return is_too_large or any(self.received.find(line, start) >= 0 for line in _BLANK_LINES)


class Acceptor:
    """Accepts connections in a thread of its own, and starts a thread for each whose first request arrives.

    Attributes:
        connections: The connections that have a thread.
    """

    def __init__(
        self,
        listener: socket.socket,
        connections: Connections,
        max_arriving: int,
        shows_token: Callable[[bytearray, socket.socket], bool],
        serve: Callable[[TimedSocket, Any], None],
    ) -> None:
        """Create the acceptor; it accepts no connection before `start`.

        Args:
            listener: Listening socket, owned by the acceptor from now on.
            connections: The connections that have a thread.
            max_arriving: How many connections may be open without a thread.
            shows_token: Says whether the head of a request shows the token. Such requests are served first.
            serve: Serves a connection, in a thread. It removes the connection from ``connections`` at the end.
        """
        self.connections = connections
        self._listener = listener
        self._max_arriving = max_arriving
        self._shows_token = shows_token
        self._serve = serve
        self._wake_writer, self._wake_reader = socket.socketpair()
        self._selector = selectors.DefaultSelector()  # here, because it takes a descriptor
        self._selector.register(self._wake_reader, selectors.EVENT_READ)
        # By age. Only the acceptor's thread uses the following.
        self._arriving: dict[TimedSocket, _Arrival] = {}
        self._waiting: dict[bool, deque[_Arrival]] = {True: deque(), False: deque()}  # for a slot, by `is_proven`
        self._paused_until: float | None = 0.0  # None while the listener is watched
        self._log_at = 0.0
        self._is_stopping = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Start to accept connections.

        Raises:
            ThreadUnavailableError: If there is no thread for it.
        """
        self._listener.setblocking(False)
        self._thread = start_thread(self._run, name="accept")

    def stop(self) -> None:
        """Accept no more connections, and close those without a thread; return at once."""
        self._is_stopping.set()
        self._wake_writer.close()

    def join(self, timeout_s: float) -> None:
        """Wait until the listener is closed."""
        if self._thread is not None:
            self._thread.join(timeout_s)

    def _run(self) -> None:
        with self._listener, self._wake_reader, self._selector:
            run_loop(self._step, report=self._log_failure, wait=self._is_stopping.wait)
            for arrival in (*self._arriving.values(), *self._waiting[True], *self._waiting[False]):
                arrival.connection.close()

    def _step(self) -> bool:
        """Wait until something happens, and handle it; return whether to go on."""
        now = time.monotonic()
        if self._paused_until is not None and now >= self._paused_until:
            self._paused_until = None
            self._selector.register(self._listener, selectors.EVENT_READ)
        for key, _ in self._selector.select(self._wait_s(now)):
            if key.fileobj is self._listener:
                self._accept()
            elif isinstance(key.fileobj, TimedSocket) and (arrival := self._arriving.get(key.fileobj)):
                self._receive(arrival)  # unless it was closed just now, for another
        self._close_late_arrivals(time.monotonic())
        for is_proven in (True, False):
            self._start_threads(self._waiting[is_proven])
        return not self._is_stopping.is_set()

    def _wait_s(self, now: float) -> float | None:
        if self._waiting[True] or self._waiting[False]:
            return _RETRY_S
        times = [arrival.deadline for arrival in [*self._arriving.values()][:1]]
        times += [] if self._paused_until is None else [self._paused_until]
        return max(0.0, min(times) - now) if times else None

    def _accept(self) -> None:
        for _ in range(_MAX_ACCEPTS):
            now = time.monotonic()
            is_full = len(self._arriving) + sum(map(len, self._waiting.values())) >= self._max_arriving
            if is_full and not self._close_oldest(now):
                self._pause(now)
                return
            try:
                plain, address = self._listener.accept()
            except (BlockingIOError, ConnectionError):
                return  # there are no more, or the client has given up already
            except OSError as error:
                # Out of descriptors. Clients in the backlog are served when there are some again.
                self._log_failure(error)
                if not self._close_oldest(now):
                    self.connections.free_slot(is_proven=True)
                    self._pause(now)
                    return
                continue
            connection = TimedSocket(plain.family, plain.type, plain.proto, plain.detach())
            connection.setblocking(False)
            arrival = _Arrival(connection, address, now + HEAD_TIMEOUT_S)
            self._arriving[connection] = arrival
            self._selector.register(connection, selectors.EVENT_READ)
            self._receive(arrival)  # most clients have sent their request by now

    def _receive(self, arrival: _Arrival) -> None:
        try:
            content = arrival.connection.recv(_RECEIVE_BYTES)
        except BlockingIOError:
            return
        except OSError:
            self._drop(arrival)
            return
        is_complete = arrival.add(content)
        if not arrival.received:
            self._drop(arrival)  # closed without a request
        elif not content or is_complete:
            self._forget(arrival)
            try:
                arrival.is_proven = self._shows_token(arrival.received, arrival.connection)
            except OSError:  # the client has gone
                arrival.connection.close()
                return
            self._waiting[arrival.is_proven].append(arrival)

    def _start_threads(self, waiting: deque[_Arrival]) -> None:
        """Start the threads of connections for as long as there are slots."""
        while waiting:
            arrival = waiting[0]
            if not self.connections.try_add(arrival.connection, is_proven=arrival.is_proven):
                return
            arrival.connection.received = arrival.received
            try:
                start_thread(self._serve, name="connection", args=(arrival.connection, arrival.address))
            except ThreadUnavailableError as error:
                self.connections.remove(arrival.connection)
                self._log_failure(error)
                return
            waiting.popleft()

    def _close_late_arrivals(self, now: float) -> None:
        """Close connections whose request has not arrived in time, or without the token has found no slot."""
        for arrival in [*self._arriving.values()]:
            if arrival.deadline > now:
                break
            self._drop(arrival)
        unproven = self._waiting[False]
        while unproven and unproven[0].deadline <= now:
            unproven.popleft().connection.close()

    def _close_oldest(self, now: float) -> bool:
        """Close the oldest connection that has not shown the token; return False if all are too young for that."""
        oldest = next(iter(self._arriving.values()), None)
        unproven = self._waiting[False]
        if oldest is None and unproven:
            unproven.popleft().connection.close()
            return True
        if oldest is None or now - (oldest.deadline - HEAD_TIMEOUT_S) < MIN_UNPROVEN_S:
            return False
        self._drop(oldest)
        return True

    def _drop(self, arrival: _Arrival) -> None:
        self._forget(arrival)
        arrival.connection.close()

    def _forget(self, arrival: _Arrival) -> None:
        del self._arriving[arrival.connection]
        with suppress(KeyError):
            self._selector.unregister(arrival.connection)

    def _pause(self, now: float) -> None:
        """Let further connections wait in the backlog for a moment."""
        if self._paused_until is None:
            self._selector.unregister(self._listener)
        self._paused_until = now + _RETRY_S

    def _log_failure(self, error: Exception) -> None:
        """Log an error, once in a while: it comes again with each attempt."""
        now = time.monotonic()
        if now >= self._log_at:
            self._log_at = now + _LOG_INTERVAL_S
            reason = getattr(error, "strerror", None) or type(error).__name__
            log.error("failed to accept a connection, trying again: action=accept_failed why=%s", reason)
