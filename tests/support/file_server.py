"""A web server that keeps files, and answers for some paths as a test says: rightly, wrongly, slowly or never."""

import ssl
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import NamedTuple

Answer = Callable[["Handler"], None]


class Asked(NamedTuple):
    """A request that came; ``headers`` by lower-case name."""

    method: str
    path: str
    headers: dict[str, str]


class FileServer:
    """Listens on a free loopback port, as long as it is not closed."""

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self._scheme = "http" if tls is None else "https"
        self.files: dict[str, bytes] = {}
        self.answers: dict[str, Answer] = {}
        self.asked: list[Asked] = []
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

    def gets(self, path: str | None = None) -> int:
        """How often a path was asked for, or any."""
        counted = Counter(each.path for each in self.asked if each.method == "GET")
        return counted[path] if path else counted.total()

    def serve(self, handler: "Handler") -> None:
        """Answer a request."""
        path = handler.path.partition("?")[0]
        if path in self.answers:
            self.answers[path](handler)
        elif path in self.files:
            handler.reply(self.files[path])
        else:
            handler.reply(b"there is nothing here", 404)

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
        owner.asked.append(Asked(self.command, self.path, headers))
        self.close_connection = True
        with suppress(ConnectionError):
            owner.serve(self)

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_POST(self) -> None:
        self.do_GET()

    def do_PUT(self) -> None:
        self.do_GET()

    def reply(self, content: bytes, status: int = 200, *, promised: int | None = None, **headers: str) -> None:
        """Send this body, of which the head may promise more or less."""
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(content) if promised is None else promised))
        self.send_header("Connection", "close")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name that the library gave it
        """Be silent."""


class _Server(ThreadingHTTPServer):
    daemon_threads = False
    owner: FileServer

    def handle_error(self, request: object, client_address: object) -> None:
        """Who has hung up wants no answer."""


def redirects(to: str, status: int = 302) -> Answer:
    return lambda handler: handler.reply(b"", status, Location=to)


def says(content: bytes, status: int = 200, *, promised: int | None = None, **headers: str) -> Answer:
    return lambda handler: handler.reply(content, status, promised=promised, **headers)


def hangs(handler: Handler) -> None:
    """Take the request and say nothing."""
    handler.server.owner.closed.wait()


def stalls(content: bytes, after: int) -> Answer:
    """Send a part, and then nothing more."""

    def answer(handler: Handler) -> None:
        handler.reply(content[:after], promised=len(content))
        handler.wfile.flush()
        handler.server.owner.closed.wait()

    return answer


def dribbles(handler: Handler) -> None:
    """Promise much, and send a byte at a time."""
    handler.reply(b"", promised=1_000_000)
    with suppress(OSError):
        while not handler.server.owner.closed.wait(0.02):
            handler.wfile.write(b"\0")


def once(first: Answer, then: Answer) -> Answer:
    """Answer the first request so, and all others otherwise."""
    lock, answers = threading.Lock(), [first]

    def answer(handler: Handler) -> None:
        with lock:
            chosen = answers.pop() if answers else then
        chosen(handler)

    return answer


@contextmanager
def file_server(tls: ssl.SSLContext | None = None) -> Iterator[FileServer]:
    server = FileServer(tls)
    try:
        yield server
    finally:
        server.close()
