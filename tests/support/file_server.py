"""A web server for tests. It serves files, and responds to chosen paths as a test says: wrongly, slowly or never."""

import ssl
import threading
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from typing import NamedTuple

from support.loopback_server import LoopbackHandler, LoopbackServer

Responder = Callable[[LoopbackHandler], None]


class ReceivedRequest(NamedTuple):
    """A request that was received. Names of headers are in lower case."""

    method: str
    path: str
    headers: dict[str, str]


class FileServer(LoopbackServer):
    """Listens on a free loopback port until it is closed."""

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self.files: dict[str, bytes] = {}
        self.responders: dict[str, Responder] = {}
        self.requests: list[ReceivedRequest] = []
        super().__init__(tls)

    def count_gets(self, path: str | None = None) -> int:
        """Return the number of GET requests, of one path or of all."""
        counts = Counter(each.path for each in self.requests if each.method == "GET")
        return counts[path] if path else counts.total()

    def answer(self, handler: LoopbackHandler) -> None:
        """Record a request and respond to it."""
        headers = {name.lower(): value for name, value in handler.headers.items()}
        self.requests.append(ReceivedRequest(handler.command, handler.path, headers))
        handler.close_connection = True
        self.serve(handler)

    def serve(self, handler: LoopbackHandler) -> None:
        """Respond to a request."""
        path = handler.path.partition("?")[0]
        if path in self.responders:
            self.responders[path](handler)
        elif path in self.files:
            handler.reply(self.files[path])
        else:
            handler.reply(b"not found", 404)


def redirect_to(location: str, status: int = 302) -> Responder:
    return lambda handler: handler.reply(b"", status, Location=location)


def respond(content: bytes, status: int = 200, *, content_length: int | None = None, **headers: str) -> Responder:
    return lambda handler: handler.reply(content, status, content_length=content_length, **headers)


def hang(handler: LoopbackHandler) -> None:
    """Never respond."""
    handler.server.owner.closed.wait()


def stall(content: bytes, after_bytes: int) -> Responder:
    """Send the first bytes of a body, then nothing more."""

    def respond_partially(handler: LoopbackHandler) -> None:
        handler.reply(content[:after_bytes], content_length=len(content))
        handler.wfile.flush()
        handler.server.owner.closed.wait()

    return respond_partially


def send_slowly(handler: LoopbackHandler) -> None:
    """Announce a large body and send it byte by byte."""
    handler.reply(b"", content_length=1_000_000)
    with suppress(OSError):
        while not handler.server.owner.closed.wait(0.02):
            handler.wfile.write(b"\0")


def first_then(first: Responder, others: Responder) -> Responder:
    """Respond to the first request in one way and to all others in another."""
    lock, firsts = threading.Lock(), [first]

    def respond_once(handler: LoopbackHandler) -> None:
        with lock:
            respond_now = firsts.pop() if firsts else others
        respond_now(handler)

    return respond_once
