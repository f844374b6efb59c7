"""Clients that connect and hold their connections, and connect again when these are closed."""

import selectors
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from support.waiting import eventually


class Flood:
    """Many connections at once, each of which sends the same bytes and then waits.

    Attributes:
        opened: How many connections were opened so far.
        closed: How many of them the server has closed.
    """

    def __init__(self, port: int, count: int, content: bytes, more: Callable[[bytes], bytes] | None = None) -> None:
        self.opened = self.closed = 0
        self._address, self._count, self._content = ("127.0.0.1", port), count, content
        self._more = more  # what to send when something was received
        self._selector = selectors.DefaultSelector()
        self._ends = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def start(self) -> None:
        """Open the connections."""
        self._thread.start()
        eventually(lambda: self.opened >= self._count, 30)

    def close(self) -> None:
        """Close all connections."""
        self._ends.set()
        self._thread.join()
        for key in [*self._selector.get_map().values()]:
            key.fileobj.close()  # type: ignore[union-attr]
        self._selector.close()

    def _run(self) -> None:
        for _ in range(self._count):
            self._open()
        while not self._ends.is_set():
            for key, _ in self._selector.select(0.05):
                self._handle(key.fileobj)  # type: ignore[arg-type]

    def _open(self) -> None:
        connection = socket.socket()
        connection.setblocking(False)
        with suppress(BlockingIOError):
            connection.connect(self._address)
        self._selector.register(connection, selectors.EVENT_WRITE)

    def _handle(self, connection: socket.socket) -> None:
        try:
            if self._selector.get_key(connection).events == selectors.EVENT_WRITE:
                connection.send(self._content)
                self._selector.modify(connection, selectors.EVENT_READ)
                self.opened += 1
                return
            received = connection.recv(1 << 16)
            if received:
                if self._more is not None:
                    connection.send(self._more(received))
                return
        except OSError:
            pass
        self.closed += 1
        self._selector.unregister(connection)
        connection.close()
        self._open()


@contextmanager
def flooding(port: int, count: int, content: bytes, more: Callable[[bytes], bytes] | None = None) -> Iterator[Flood]:
    """Hold many connections for as long as the block runs."""
    flood = Flood(port, count, content, more)
    try:
        flood.start()
        yield flood
    finally:
        flood.close()
