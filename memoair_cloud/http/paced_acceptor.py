"""Accept connections no faster than their requests can arrive, which asyncio's own servers do not."""

import asyncio
import logging
import os
import socket
import time
from collections.abc import Callable

from memoair_cloud.http.connection_gate import ConnectionGate

log = logging.getLogger(__name__)

_MAX_ACCEPTS = 16  # in a row, before the others have their turn
_RETRY_S = 0.1
_LOG_INTERVAL_S = 10.0


class PacedAcceptor:
    """Accepts the connections of a listening socket in place of asyncio, for as long as the gate has room.

    Asyncio accepts whatever comes. If clients connect faster than the server closes older connections, it runs out of
    descriptors, or must close connections whose request it had no time to read. These wait in the backlog instead.

    Args:
        listener: The descriptor of the socket, on which asyncio listens. It stays asyncio's.
        gate: Says whether another connection may be open.
        make_protocol: Makes the protocol of a connection.

    Raises:
        NotImplementedError: If the event loop does not watch sockets, as on Windows. Asyncio accepts then.
    """

    def __init__(
        self,
        listener: int,
        gate: ConnectionGate,
        make_protocol: Callable[[], asyncio.Protocol],
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._gate = gate
        self._make_protocol = make_protocol
        self._watched = listener
        self._loop.remove_reader(self._watched)
        self._listener = socket.socket(fileno=os.dup(self._watched))
        self._timer: asyncio.TimerHandle | None = None
        self._opening: set[asyncio.Task[object]] = set()
        self._log_at = 0.0
        self._loop.add_reader(self._watched, self._accept)

    def close(self) -> None:
        """Accept no more connections."""
        self._loop.remove_reader(self._watched)
        if self._timer is not None:
            self._timer.cancel()
        self._listener.close()

    def _accept(self) -> None:
        for _ in range(_MAX_ACCEPTS):
            wait_s = self._gate.wait_s(len(self._opening))
            if wait_s > 0:
                self._pause(wait_s)
                return
            try:
                connection, _ = self._listener.accept()
            except (BlockingIOError, ConnectionError):
                return  # there are no more, or the client has given up already
            except OSError as error:  # out of descriptors
                self._log_failure(error)
                self._pause(_RETRY_S)
                return
            connection.setblocking(False)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            opening = self._loop.create_task(self._open(connection))
            self._opening.add(opening)
            opening.add_done_callback(self._opening.discard)

    async def _open(self, connection: socket.socket) -> None:
        try:
            await self._loop.connect_accepted_socket(self._make_protocol, connection)
        except OSError:
            connection.close()  # the client has given up already

    def _pause(self, seconds: float) -> None:
        self._loop.remove_reader(self._watched)
        self._timer = self._loop.call_later(seconds, self._loop.add_reader, self._watched, self._accept)

    def _log_failure(self, error: OSError) -> None:
        now = time.monotonic()
        if now >= self._log_at:
            self._log_at = now + _LOG_INTERVAL_S
            fields = {"reason": error.strerror}
            log.error("failed to accept a connection", extra={"action": "accept_failed", "fields": fields})
