"""A web server for tests. It serves files, and responds to chosen paths as a test says: wrongly, slowly or never."""

import ssl
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import NamedTuple

Responder = Callable[["Handler"], None]


class ReceivedRequest(NamedTuple):
    """A request that was received. Names of headers are in lower case."""

    method: str
    path: str
    headers: dict[str, str]


class FileServer:
    """Listens on a free loopback port until it is closed."""

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self._scheme = "http" if tls is None else "https"
        self.files: dict[str, bytes] = {}
        self.responders: dict[str, Responder] = {}
        self.requests: list[ReceivedRequest] = []
        self.closed = threading.Event()
        self._server = _Server(("127.0.0.1", 0), Handler)
        self._server.owner = self
        if tls is not None:
            self._server.socket = tls.wrap_socket(self._server.socket, server_side=True)
        self.port = int(self._server.server_address[1])
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def url(self) -> str:
        return f"{self._scheme}://{self.host}"

    def count_gets(self, path: str | None = None) -> int:
        """Return the number of GET requests, of one path or of all."""
        counts = Counter(each.path for each in self.requests if each.method == "GET")
        return counts[path] if path else counts.total()

    def serve(self, handler: "Handler") -> None:
        """Respond to a request."""
        path = handler.path.partition("?")[0]
        if path in self.responders:
            self.responders[path](handler)
        elif path in self.files:
            handler.reply(self.files[path])
        else:
            handler.reply(b"not found", 404)

    def close(self) -> None:
        self.closed.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class Handler(BaseHTTPRequestHandler):
    """One request."""

    protocol_version = "HTTP/1.1"
    server: "_Server"
    body = b""

    def do_GET(self) -> None:
        owner = self.server.owner
        self.body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        headers = {name.lower(): value for name, value in self.headers.items()}
        owner.requests.append(ReceivedRequest(self.command, self.path, headers))
        self.close_connection = True
        with suppress(ConnectionError):
            owner.serve(self)

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_POST(self) -> None:
        self.do_GET()

    def do_PUT(self) -> None:
        self.do_GET()

    def reply(self, content: bytes, status: int = 200, *, content_length: int | None = None, **headers: str) -> None:
        """Send a response. ``content_length`` may differ from the length of the body."""
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(content) if content_length is None else content_length))
        self.send_header("Connection", "close")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the parameter name of the base class
        """Log nothing."""


class _Server(ThreadingHTTPServer):
    daemon_threads = False
    owner: FileServer

    def handle_error(self, request: object, client_address: object) -> None:
        """Ignore errors of clients that have disconnected."""


def redirect_to(location: str, status: int = 302) -> Responder:
    return lambda handler: handler.reply(b"", status, Location=location)


def respond(content: bytes, status: int = 200, *, content_length: int | None = None, **headers: str) -> Responder:
    return lambda handler: handler.reply(content, status, content_length=content_length, **headers)


def hang(handler: Handler) -> None:
    """Never respond."""
    handler.server.owner.closed.wait()


def stall(content: bytes, after_bytes: int) -> Responder:
    """Send the first bytes of a body, then nothing more."""

    def respond_partially(handler: Handler) -> None:
        handler.reply(content[:after_bytes], content_length=len(content))
        handler.wfile.flush()
        handler.server.owner.closed.wait()

    return respond_partially


def send_slowly(handler: Handler) -> None:
    """Announce a large body and send it byte by byte."""
    handler.reply(b"", content_length=1_000_000)
    with suppress(OSError):
        while not handler.server.owner.closed.wait(0.02):
            handler.wfile.write(b"\0")


def first_then(first: Responder, others: Responder) -> Responder:
    """Respond to the first request in one way and to all others in another."""
    lock, firsts = threading.Lock(), [first]

    def respond_once(handler: Handler) -> None:
        with lock:
            respond_now = firsts.pop() if firsts else others
        respond_now(handler)

    return respond_once


@contextmanager
def file_server(tls: ssl.SSLContext | None = None) -> Iterator[FileServer]:
    server = FileServer(tls)
    try:
        yield server
    finally:
        server.close()
