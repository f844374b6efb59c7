"""The HTTP surface: a loopback server with a thread for each of a bounded number of connections.

The standard library reads the requests; everything that leaves is written here, so that each error has the envelope
and each reply goes out in one piece.
"""

import hmac
import ipaddress
import logging
import selectors
import socket
import threading
import time
from collections.abc import Mapping
from email.message import Message
from functools import lru_cache
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from io import BytesIO
from typing import Any
from urllib.parse import urlsplit

import msgspec

from memoair_runtime.errors import BadRequestError, InternalError, PayloadTooLargeError, RequestError, UnauthorizedError
from memoair_runtime.http.connections import Connections
from memoair_runtime.http.routes import Route, Routes
from memoair_runtime.metrics import RuntimeMetrics

log = logging.getLogger(__name__)

MAX_BODY_BYTES = 1 << 20
MAX_CONNECTIONS = 64
# Clients drop connections that were idle for 5 s; the server must not be the one that hangs up first.
KEPT_IDLE_S = 5.5
IDLE_TIMEOUT_S = 75.0
# How long a request may be on its way in, how long an answer may wait for a client that does not read, and how much of
# a body that is refused is read before hanging up.
READ_TIMEOUT_S = 10.0
SEND_TIMEOUT_S = 10.0
_DISCARD_BYTES = 8 << 20
# As the standard library's own limits: it answers what goes beyond.
_MOST_LINES = 102
_LONGEST_LINE = 65_536
_KEPT_HEADS = 256
_KEPT_BYTES = 4_096
_DISCARD_S = 1.0


_Head = tuple[str, str, str, Message, bool]  # method, path, version, headers, and whether to hang up after the answer


class LoopbackServer:
    """Serves one set of routes on a socket that listens already."""

    def __init__(self, listener: socket.socket, routes: Routes, metrics: RuntimeMetrics, token: str | None) -> None:
        self._listener = listener
        self.routes = routes
        self.metrics = metrics
        self.token = token.encode() if token else None
        self.connections = Connections(MAX_CONNECTIONS, KEPT_IDLE_S)
        self._wake, self._woken = socket.socketpair()
        self._thread = threading.Thread(target=self._accept, name="accept", daemon=True)

    def start(self) -> None:
        """Begin to accept connections, in a thread."""
        self._thread.start()

    def drain(self, deadline: float) -> None:
        """Accept nothing more, finish what is being answered by the deadline (monotonic seconds), and close."""
        self._wake.close()
        self.connections.drain(deadline)
        self._thread.join(max(0.1, deadline - time.monotonic()))

    def _accept(self) -> None:
        with self._listener, self._woken, selectors.DefaultSelector() as selector:
            self._listener.setblocking(False)
            selector.register(self._listener, selectors.EVENT_READ)
            selector.register(self._woken, selectors.EVENT_READ)
            while True:
                self.connections.wait_for_room()
                ready = [key.fileobj for key, _ in selector.select()]
                if self._woken in ready:
                    return
                try:
                    connection, address = self._listener.accept()
                except (BlockingIOError, ConnectionError):
                    continue  # the client was faster than we
                except OSError as error:
                    # Out of descriptors: whoever waits in the backlog is served when there are some again.
                    log.error("no connection can be accepted: action=accept_failed errno=%s", error.errno)
                    time.sleep(0.1)
                    continue
                timed = _TimedSocket(connection.family, connection.type, connection.proto, connection.detach())
                self.connections.opened(timed)
                threading.Thread(target=self._serve, args=(timed, address), name="connection", daemon=True).start()

    def _serve(self, connection: "_TimedSocket", address: Any) -> None:
        try:
            _Handler(connection, address, self)
        except OSError:
            log.debug("a connection broke: action=connection_lost")
        finally:
            self.connections.closed(connection)
            connection.close()


class _TimedSocket(socket.socket):
    """A socket that gives its client until a deadline, and not for so long from each byte to the next."""

    deadline = 0.0

    def wait_for(self, seconds: float) -> None:
        """Give the client so much time from now."""
        self.deadline = time.monotonic() + seconds

    def recv_into(self, *arguments: Any, **options: Any) -> int:
        left = self.deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError("the client took too long")
        self.settimeout(left)
        return super().recv_into(*arguments, **options)


class _Handler(BaseHTTPRequestHandler):
    """One connection, request after request."""

    connection: _TimedSocket

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def __init__(self, connection: _TimedSocket, address: Any, server: LoopbackServer) -> None:
        self._owner = server
        self._parsed: dict[bytes, _Head] = {}
        self._thread = threading.get_ident()
        self._answered = False  # whether the request that came last was
        super().__init__(connection, address, server)  # type: ignore[arg-type]  # it only hands the server on

    def handle_one_request(self) -> None:
        """Read one request and answer it."""
        self.close_connection = True
        self.connection.wait_for(IDLE_TIMEOUT_S)
        try:
            self.raw_requestline = self.rfile.readline(_LONGEST_LINE + 1)
            if self.raw_requestline in (b"\r\n", b"\n"):  # some clients end a body with one line feed too many
                self.raw_requestline = self.rfile.readline(_LONGEST_LINE + 1)
        except TimeoutError:
            return
        if not self.raw_requestline:
            return
        self._owner.connections.busy(self.connection)
        self.connection.wait_for(READ_TIMEOUT_S)
        try:
            if len(self.raw_requestline) > _LONGEST_LINE:
                self.requestline, self.request_version, self.command = "", "", ""
                self.send_error(HTTPStatus.REQUEST_URI_TOO_LONG)
                return
            if not self._parse():
                return
            if self.headers.defects:  # a line that is no header ends the headers for the library, but not for others
                self.send_error(HTTPStatus.BAD_REQUEST)
                return
            self._answer()
        except TimeoutError:
            self.close_connection = True
            return
        self.close_connection |= not self._owner.connections.idle(self.connection)

    def _parse(self) -> bool:
        """Read the rest of a request's head; tell whether there is a request, and else answer what came.

        The requests of a connection look alike: a head that came before is not taken apart again, which would take a
        tenth of a search.
        """
        lines = [self.raw_requestline]
        while lines[-1] not in (b"\r\n", b"\n", b"") and len(lines) <= _MOST_LINES and len(lines[-1]) <= _LONGEST_LINE:
            lines.append(self.rfile.readline(_LONGEST_LINE + 1))
        raw = b"".join(lines)
        known = self._parsed.get(raw)
        if known is not None:
            self.command, self.path, self.request_version, self.headers, self.close_connection = known
            return True
        stream, self.rfile = self.rfile, BytesIO(b"".join(lines[1:]))
        try:
            is_request = self.parse_request()
        finally:
            self.rfile = stream
        # Whoever expects a word before he sends the body is answered by the library, each time.
        if is_request and "Expect" not in self.headers and len(self._parsed) < _KEPT_HEADS and len(raw) < _KEPT_BYTES:
            self._parsed[raw] = self.command, self.path, self.request_version, self.headers, self.close_connection
        return is_request

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:  # noqa: ARG002
        """Answer a request that the standard library could not read; what it quotes of it is left out."""
        status = HTTPStatus(code)
        if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            status = HTTPStatus.BAD_REQUEST
        self.close_connection = True
        self._send(status, BadRequestError(f"the request can't be read: {HTTPStatus(code).phrase.lower()}").envelope())

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        """Log nothing per request: the metrics count them."""

    def _answer(self) -> None:
        path = self.path.partition("?")[0]
        self._answered = False
        try:
            content = self._read_body()
            self._check_sender()
            route = self._owner.routes.find(self.command, path) if self._is_trusted() else self._open_route(path)
            route.answer(content, lambda body: self._reply(path, route.status, body))
        except RequestError as fault:
            headers = {"Allow": fault.details["allow"]} if "allow" in fault.details else {}
            self._reply(path, fault.status, fault.envelope(), headers)
        except Exception as error:
            if self._answered:
                raise  # the client is gone
            # Only the kind of error and where: its message may hold what a caller said.
            log.error("a request failed: action=request_failed path=%s error=%s", path, _where(error))
            self._reply(path, InternalError.status, InternalError("the runtime failed on this request").envelope())

    def _reply(
        self, path: str, status: HTTPStatus, body: Mapping[str, Any] | bytes, headers: Mapping[str, str] | None = None
    ) -> None:
        self._answered = True
        is_stranded = threading.get_ident() != self._thread
        # Our own thread is stuck in the work: nobody would read the next request.
        self.close_connection |= is_stranded
        self._owner.metrics.requests.labels(self._owner.routes.label(path), status.value).inc()
        self._send(status, body, headers)
        if is_stranded:
            self._owner.connections.closed(self.connection)

    def _open_route(self, path: str) -> Route:
        """The endpoint for a request without the token: one that is open, or none."""
        try:
            route = self._owner.routes.find(self.command, path)
        except RequestError:
            route = None
        if route is None or not route.is_open:
            raise UnauthorizedError("the bearer token is missing or wrong")
        return route

    def _is_trusted(self) -> bool:
        if self._owner.token is None:
            return True
        scheme, _, token = self.headers.get("Authorization", "").partition(" ")
        # The header was decoded as Latin-1, which gives each byte back as it came.
        return scheme.lower() == "bearer" and hmac.compare_digest(token.strip().encode("latin-1"), self._owner.token)

    def _check_sender(self) -> None:
        """Refuse what a web page can make a browser send: another host name for this address, an origin."""
        hosts = self.headers.get_all("Host", [])
        if len(hosts) > 1 or (not hosts and self.request_version != "HTTP/1.0"):
            raise BadRequestError("the request needs one Host header")
        if hosts and not _is_loopback(hosts[0]):
            raise BadRequestError("the Host header is not a loopback name")
        if "Origin" in self.headers:
            raise BadRequestError("requests from web pages are not taken")

    def _read_body(self) -> bytes:
        if "Transfer-Encoding" in self.headers or self.headers.get("Content-Encoding", "identity") != "identity":
            self.close_connection = True
            raise BadRequestError("the body must be sent plain, with a Content-Length")
        lengths = self.headers.get_all("Content-Length", ["0"])
        if len(lengths) != 1 or not (lengths[0].isascii() and lengths[0].isdigit()):
            self.close_connection = True
            raise BadRequestError("the Content-Length is not one number")
        length = int(lengths[0][:20])
        if length > MAX_BODY_BYTES:
            self.close_connection = True
            self._discard(length)
            raise PayloadTooLargeError(f"the body is over {MAX_BODY_BYTES} bytes", limit=MAX_BODY_BYTES)
        content = self.rfile.read(length) if length else b""
        if len(content) < length:
            self.close_connection = True
            raise BadRequestError("the body is shorter than its Content-Length")
        return content

    def _discard(self, length: int) -> None:
        """Read a refused body for a while: a client that is still sending would not see the refusal."""
        deadline = time.monotonic() + _DISCARD_S
        left = min(length, _DISCARD_BYTES)
        self.connection.wait_for(_DISCARD_S)
        while left > 0 and time.monotonic() < deadline:
            try:
                chunk = self.rfile.read1(min(left, 1 << 16))
            except OSError:
                return
            if not chunk:
                return
            left -= len(chunk)

    def _send(
        self, status: HTTPStatus, body: Mapping[str, Any] | bytes, headers: Mapping[str, str] | None = None
    ) -> None:
        self.close_connection |= self._owner.connections.is_draining
        is_text = isinstance(body, bytes)
        content = body if isinstance(body, bytes) else msgspec.json.encode(body)
        head = [
            f"HTTP/1.1 {status.value} {status.phrase}",
            f"Content-Type: {'text/plain; version=0.0.4; charset=utf-8' if is_text else 'application/json'}",
            f"Content-Length: {len(content)}",
            f"Connection: {'close' if self.close_connection else 'keep-alive'}",
            *(f"{name}: {value}" for name, value in (headers or {}).items()),
        ]
        packet = "\r\n".join([*head, "", ""]).encode("latin-1")
        # One write: in two, the second waits for the first one's acknowledgement, 40 ms of it.
        self.connection.settimeout(SEND_TIMEOUT_S)  # what stands there is the rest of the time for reading
        self.wfile.write(packet if self.command == "HEAD" else packet + content)


@lru_cache(maxsize=64)
def _is_loopback(host_header: str) -> bool:
    try:
        host = urlsplit(f"//{host_header}").hostname or ""
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _where(error: BaseException) -> str:
    """The kind of error and the line that raised it."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    place = f" at {trace.tb_frame.f_code.co_name}:{trace.tb_lineno}" if trace is not None else ""
    return type(error).__name__ + place
