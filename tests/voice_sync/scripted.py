"""A server on a raw socket with scripted answers: right, wrong, slow or none."""

import json
import socket
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

from support.runtimes import PROJECT, USER

Answer = Callable[[socket.socket, threading.Event], None]


def says(content: bytes) -> Answer:
    """Send these bytes unchanged, and close."""
    return lambda connection, _: connection.sendall(content)


def says_json(body: Any, status: int = 200) -> Answer:
    """Send a valid JSON reply."""
    return says_http(json.dumps(body).encode(), status)


def says_http(content: bytes, status: int = 200, *, promised: int | None = None, headers: str = "") -> Answer:
    """Send a reply with this body; ``promised`` is another Content-Length than its own."""
    length = len(content) if promised is None else promised
    head = f"HTTP/1.1 {status} Scripted\r\nConnection: close\r\nContent-Length: {length}\r\n{headers}\r\n"
    return says(head.encode() + content)


def hangs(connection: socket.socket, closed: threading.Event) -> None:
    """Read the request and send nothing."""
    closed.wait()


def dribbles(connection: socket.socket, closed: threading.Event) -> None:
    """Send a reply one byte at a time, each well within any timeout for a single read."""
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
    while not closed.wait(0.02):
        connection.sendall(b" ")


def cuts_off(connection: socket.socket, closed: threading.Event) -> None:
    """Read the request and close the connection."""


class ScriptedServer:
    """A server on a free loopback port. Paths without a script are answered as by a healthy runtime."""

    def __init__(self, answers: Mapping[str, Answer]) -> None:
        self._answers = {"health": says_json({"status": "ok", "workspaceId": PROJECT, "userId": USER}), **answers}
        self._closed = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self.asked: list[str] = []
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    @property
    def url(self) -> str:
        """The URL of the server."""
        return f"http://127.0.0.1:{self.port}"

    def hang_up(self) -> None:
        """Abort all answers in progress."""
        self._closed.set()

    def close(self) -> None:
        """Abort all answers in progress, and stop listening."""
        self.hang_up()
        self._listener.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()
        self._listener.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                self._threads.append(threading.Thread(target=self._serve, args=(connection,)))
                self._threads[-1].start()

    def _serve(self, connection: socket.socket) -> None:
        with connection, suppress(OSError):
            path = _request_path(connection)
            self.asked.append(path)
            self._answers.get(path, says_json({}))(connection, self._closed)
            connection.shutdown(socket.SHUT_WR)


def _request_path(connection: socket.socket) -> str:
    """Read a whole request and return its path."""
    with connection.makefile("rb") as stream:
        path = stream.readline().split()[1].decode().removeprefix("/v1/runtime/")
        length = 0
        while (line := stream.readline().strip()) != b"":
            name, _, value = line.partition(b":")
            if name.lower() == b"content-length":
                length = int(value)
        stream.read(length)
    return path
