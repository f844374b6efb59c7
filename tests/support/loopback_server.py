"""An HTTP server on a free loopback port, for all stand-ins of tests. A subclass says what it answers."""

import socket
import ssl
import threading
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from typing_extensions import Self


class LoopbackHandler(BaseHTTPRequestHandler):
    """One request, with its ``body``."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: "_HttpServer"
    body = b""

    def do_GET(self) -> None:
        """Answer a request of any method."""
        self.body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        with suppress(ConnectionError):  # the client may be gone
            self.server.owner.answer(self)

    do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = do_GET  # noqa: N815

    def reply(self, content: bytes, status: int = 200, *, content_length: int | None = None, **headers: str) -> None:
        """Send a response. ``content_length`` may differ from the length of the body."""
        self.send_response_only(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(content) if content_length is None else content_length))
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the parameter name of the base class
        """Log nothing."""


class LoopbackServer:
    """Serves in a thread, from its construction until it is closed, which aborts the replies in progress.

    Attributes:
        port: The port.
        closed: Set once the server is being closed. A handler that hangs waits for it.
    """

    handler_type = LoopbackHandler

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self._scheme = "http" if tls is None else "https"
        self.closed = threading.Event()
        self._http = _HttpServer(("127.0.0.1", 0), self.handler_type)
        self._http.owner = self
        if tls is not None:
            self._http.socket = tls.wrap_socket(self._http.socket, server_side=True)
        self.port = int(self._http.server_address[1])
        self._thread = threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()

    @property
    def host(self) -> str:
        """The host and the port."""
        return f"127.0.0.1:{self.port}"

    @property
    def url(self) -> str:
        """The URL of the server."""
        return f"{self._scheme}://{self.host}"

    def answer(self, handler: Any) -> None:
        """Answer a request, whose body has been read. Called in a thread for each connection."""
        raise NotImplementedError

    def close(self) -> None:
        """Stop listening, and wait until no thread is left."""
        self.closed.set()
        self._http.shutdown()
        self._http.close_connections()
        self._http.server_close()
        self._thread.join()

    def __enter__(self) -> "Self":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


class _HttpServer(ThreadingHTTPServer):
    daemon_threads = False
    owner: LoopbackServer

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._connections: set[socket.socket] = set()

    def process_request(self, request: Any, client_address: Any) -> None:
        self._connections.add(request)
        super().process_request(request, client_address)

    def close_connections(self) -> None:
        for connection in self._connections:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request: object, client_address: object) -> None:
        """Ignore errors of clients that have disconnected."""
