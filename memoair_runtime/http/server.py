"""The HTTP server: it listens on loopback and runs one thread for each of a bounded number of connections.

A connection gets its thread when the head of its first request has arrived. Clients that do not know the token share
some of the threads, and never hold up those that do.

The standard library parses requests. Responses are written here, so that every error has the envelope and every
response goes out in one write.
"""

import logging
import socket
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from email.message import Message
from functools import lru_cache
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from io import BytesIO
from typing import Any

import msgspec

from memoair_protocol.addresses import is_loopback_url
from memoair_protocol.limits import MAX_RUNTIME_BODY_BYTES
from memoair_protocol.processes import max_descriptors
from memoair_protocol.token_proof import CHALLENGE_HEADER, PROOF_HEADER, WRONG_TOKEN, Challenge, Ends
from memoair_runtime.errors import (
    BadRequestError,
    InternalError,
    LateBodyError,
    PayloadTooLargeError,
    RequestError,
    UnauthorizedError,
)
from memoair_runtime.http.acceptor import Acceptor
from memoair_runtime.http.connections import Connections
from memoair_runtime.http.routes import Route, Routes
from memoair_runtime.http.timed_socket import TimedSocket
from memoair_runtime.http.token_check import TokenCheck
from memoair_runtime.metrics import RuntimeMetrics

log = logging.getLogger(__name__)

# Connections with a thread, and those whose first request has not arrived yet. Each takes a descriptor, so there are
# fewer if the process may have few: a quarter of them for either, but at least _MIN_SHARE.
MAX_CONNECTIONS = 64
MAX_ARRIVING_CONNECTIONS = 256
_MIN_SHARE = 8
# Clients drop connections that were idle for 5 s. The server must keep them longer, or a request may hit a closed one.
MIN_IDLE_S = 5.5
IDLE_TIMEOUT_S = 75.0
# How long a request may take to arrive, how long a response may wait for a client that does not read, and how much of a
# rejected body is read before the connection is closed.
READ_TIMEOUT_S = 10.0
SEND_TIMEOUT_S = 10.0
# The same for clients that have not shown the token. They send what needs none, and that is short.
UNPROVEN_TIMEOUT_S = 1.0
_MAX_DISCARD_BYTES = 8 << 20
# The standard library's own limits; it answers requests that exceed them.
_MAX_HEAD_LINES = 102
_MAX_LINE_BYTES = 65_536
_MAX_CACHED_HEADS = 256
_MAX_CACHED_HEAD_BYTES = 4_096
_DISCARD_TIMEOUT_S = 1.0
# While the process has no descriptor or thread to spare: how often to try again, and how often to say so in the log.
_STARVED_RETRY_S, _STARVED_LOG_S = 0.1, 10.0


_ParsedHead = tuple[str, str, str, Message, bool]  # method, path, version, headers, and whether to close the connection


class LoopbackServer:
    """Serves one set of routes on a listening socket."""

    def __init__(self, listener: socket.socket, routes: Routes, metrics: RuntimeMetrics, token: str | None) -> None:
        """Create the server; it accepts no connection before `start`.

        Args:
            listener: Listening socket, owned by the server from now on.
            routes: The endpoints.
            metrics: Counts the requests.
            token: Bearer token that requests must carry, or None to trust every local client.
        """
        self.routes = routes
        self.metrics = metrics
        self.token_check = TokenCheck(token)
        share = max(_MIN_SHARE, max_descriptors() // 4)
        max_connections = min(MAX_CONNECTIONS, share)
        self.connections = Connections(max_connections, max_connections - max_connections * 5 // 8, MIN_IDLE_S)
        self._acceptor = Acceptor(
            listener,
            self.connections,
            min(MAX_ARRIVING_CONNECTIONS, share),
            self.token_check.shows_token,
            self._serve_connection,
        )

    def start(self) -> None:
        """Start to accept connections in a thread.

        Raises:
            ThreadUnavailableError: If there is no thread for it.
        """
        self._acceptor.start()

    def drain(self, deadline: float) -> None:
        """Stop accepting connections, finish the requests in progress, and close.

        Args:
            deadline: Time of the monotonic clock by which to finish, in seconds.
        """
        self._acceptor.stop()
        self.connections.drain(deadline)
        self._acceptor.join(max(0.1, deadline - time.monotonic()))

    def _serve_connection(self, connection: TimedSocket, address: Any) -> None:
        try:
            _Handler(connection, address, self)  # type: ignore[arg-type]
        except OSError:
            log.debug("a connection was lost: action=connection_lost")
        finally:
            self.connections.remove(connection)
            connection.close()


class _Handler(BaseHTTPRequestHandler):
    """Handles the requests of one connection, one after another."""

    connection: TimedSocket
    server: LoopbackServer  # type: ignore[assignment]  # the library only stores it

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def setup(self) -> None:
        """Prepare for the first request."""
        super().setup()
        self._parsed_heads: dict[bytes, _ParsedHead] = {}
        self._thread_id = threading.get_ident()
        self._is_answered = False  # whether the current request has its response
        self._is_proven = self.server.token_check.token is None  # whether the client has shown the token

    def handle_one_request(self) -> None:
        """Read and answer one request."""
        self.close_connection = True
        self.connection.start_timeout(IDLE_TIMEOUT_S)
        try:
            self.raw_requestline = self.rfile.readline(_MAX_LINE_BYTES + 1)
            if self.raw_requestline in (b"\r\n", b"\n"):  # some clients send an extra line break after a body
                self.raw_requestline = self.rfile.readline(_MAX_LINE_BYTES + 1)
        except TimeoutError:
            return
        if not self.raw_requestline:
            return
        self.server.connections.mark_receiving(self.connection)
        self.connection.start_timeout(READ_TIMEOUT_S if self._is_proven else UNPROVEN_TIMEOUT_S)
        try:
            if len(self.raw_requestline) > _MAX_LINE_BYTES:
                self.requestline, self.request_version, self.command = "", "", ""
                self.send_error(HTTPStatus.REQUEST_URI_TOO_LONG)
                return
            if not self._parse_head():
                return
            # The library takes a malformed line for the end of the headers; other parsers don't (request smuggling).
            if self.headers.defects:
                self.send_error(HTTPStatus.BAD_REQUEST)
                return
            self._handle_request()
        except TimeoutError:
            self.close_connection = True
            return
        self.close_connection |= not self.server.connections.mark_idle(self.connection)

    def _parse_head(self) -> bool:
        """Read and parse the rest of a request's head; return False if it is invalid and was answered with an error.

        The requests of a connection look alike, so parsed heads are cached: parsing takes a tenth of the time of a
        search.
        """
        lines = [self.raw_requestline]
        while (
            lines[-1] not in (b"\r\n", b"\n", b"")
            and len(lines) <= _MAX_HEAD_LINES
            and len(lines[-1]) <= _MAX_LINE_BYTES
        ):
            lines.append(self.rfile.readline(_MAX_LINE_BYTES + 1))
        raw = b"".join(lines)
        cached = self._parsed_heads.get(raw)
        if cached is not None:
            self.command, self.path, self.request_version, self.headers, self.close_connection = cached
            return True
        stream, self.rfile = self.rfile, BytesIO(b"".join(lines[1:]))
        try:
            is_request = self.parse_request()
        finally:
            self.rfile = stream
        # Requests with `Expect: 100-continue` are not cached: the library must send its interim response each time.
        # A challenge never comes twice.
        if (
            is_request
            and "Expect" not in self.headers
            and CHALLENGE_HEADER not in self.headers
            and len(self._parsed_heads) < _MAX_CACHED_HEADS
            and len(raw) < _MAX_CACHED_HEAD_BYTES
        ):
            self._parsed_heads[raw] = self.command, self.path, self.request_version, self.headers, self.close_connection
        return is_request

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:  # noqa: ARG002
        """Answer a request that the standard library rejects, without the parts of it that the library would quote."""
        status = HTTPStatus(code)
        if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            status = HTTPStatus.BAD_REQUEST
        self.close_connection = True
        error = BadRequestError(f"malformed request: {HTTPStatus(code).phrase.lower()}")
        self._write_response(status, error.envelope())

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        """Log nothing per request; the metrics count them."""

    def _handle_request(self) -> None:
        path = self.path.partition("?")[0]
        self._is_answered = False
        has_token = self.server.token_check.admits(self.headers.get_all("Authorization", []))
        challenge = Challenge.parse(self.headers.get(CHALLENGE_HEADER, ""))
        if not self._is_proven and (has_token or self.server.token_check.proves(challenge, self.connection)):
            self._is_proven = True
            self.server.connections.mark_proven(self.connection)
            self.connection.start_timeout(READ_TIMEOUT_S)
        try:
            content = self._read_body()
            self.server.connections.mark_answering(self.connection)
            self._check_host_and_origin()
            route = self._find_route(path, has_token=has_token)
            route.handle(
                content,
                lambda body: self._send_reply(path, route.status, body, self._proof_headers(route, challenge, body)),
            )
        except RequestError as error:
            headers = {"Allow": error.details["allow"]} if "allow" in error.details else {}
            self._send_reply(path, error.status, error.envelope(), headers)
        except Exception as error:
            if self._is_answered:
                raise  # the client is gone
            # Log only the error's type and location: its message may contain what the user said.
            log.error(
                "a request failed: action=request_failed path=%s error=%s",
                self.server.routes.metric_label(path),
                _error_location(error),
            )
            self._send_reply(
                path,
                InternalError.status,
                InternalError("the runtime failed to handle the request; see its log").envelope(),
            )

    def _send_reply(
        self, path: str, status: HTTPStatus, body: Mapping[str, Any] | bytes, headers: Mapping[str, str] | None = None
    ) -> None:
        self._is_answered = True
        is_other_thread = threading.get_ident() != self._thread_id
        # This connection's own thread is stuck in the search: there is no thread to read the next request.
        self.close_connection |= is_other_thread
        self.server.metrics.requests.labels(self.server.routes.metric_label(path), status.value).inc()
        self._write_response(status, body, headers)
        if is_other_thread:
            self.server.connections.remove(self.connection)

    def _find_route(self, path: str, *, has_token: bool) -> Route:
        """Return the route of a request; without the token, raise `UnauthorizedError` unless it is public."""
        if has_token:
            return self.server.routes.find(self.command, path)
        with suppress(RequestError):
            route = self.server.routes.find(self.command, path)
            if route.is_public:
                return route
        raise UnauthorizedError("the bearer token is missing or invalid")

    def _proof_headers(
        self, route: Route, challenge: Challenge | None, body: Mapping[str, Any] | bytes
    ) -> dict[str, str]:
        """Return the answer to a challenge: that this runtime knows the token, and its user.

        Only a client that knows the token gets it. Anyone else could search for a weak token with it, offline.
        """
        token = self.server.token_check.token
        if challenge is None or token is None or not route.is_public or isinstance(body, bytes):
            return {}
        if not self.server.token_check.proves(challenge, self.connection):
            return {PROOF_HEADER: WRONG_TOKEN}
        ends = Ends.seen_by_runtime(self.connection)
        return {PROOF_HEADER: challenge.runtime_proof(token, ends, body.get("workspaceId"), body.get("userId"))}

    def _check_host_and_origin(self) -> None:
        """Reject requests that a web page can make a browser send: a foreign Host (DNS rebinding) or an Origin."""
        hosts = self.headers.get_all("Host", [])
        if len(hosts) > 1 or (not hosts and self.request_version != "HTTP/1.0"):
            raise BadRequestError("exactly one Host header is required")
        if hosts and not _is_loopback_host(hosts[0]):
            raise BadRequestError("the Host header must be a loopback name or address")
        if "Origin" in self.headers:
            raise BadRequestError("requests from web pages (with an Origin header) are not allowed")

    def _read_body(self) -> bytes:
        if "Transfer-Encoding" in self.headers or self.headers.get("Content-Encoding", "identity") != "identity":
            self.close_connection = True
            raise BadRequestError("send the body without an encoding, with a Content-Length header")
        lengths = self.headers.get_all("Content-Length", ["0"])
        if len(lengths) != 1 or not (lengths[0].isascii() and lengths[0].isdigit()):
            self.close_connection = True
            raise BadRequestError("invalid Content-Length header: exactly one number is required")
        length = int(lengths[0][:20])
        if length > MAX_RUNTIME_BODY_BYTES:
            self.close_connection = True
            self._discard_body(length)
            raise PayloadTooLargeError(
                f"the body is larger than {MAX_RUNTIME_BODY_BYTES} bytes", limit=MAX_RUNTIME_BODY_BYTES
            )
        try:
            content = self.rfile.read(length) if length else b""
        except TimeoutError:
            self.close_connection = True
            raise LateBodyError("the body did not arrive in time") from None
        if len(content) < length:
            self.close_connection = True
            raise BadRequestError("the body is shorter than its Content-Length")
        return content

    def _discard_body(self, length: int) -> None:
        """Read and drop a rejected body for a while: a client that is still sending would not see the response."""
        deadline = time.monotonic() + _DISCARD_TIMEOUT_S
        remaining = min(length, _MAX_DISCARD_BYTES)
        self.connection.start_timeout(_DISCARD_TIMEOUT_S)
        while remaining > 0 and time.monotonic() < deadline:
            try:
                chunk = self.rfile.read1(min(remaining, 1 << 16))
            except OSError:
                return
            if not chunk:
                return
            remaining -= len(chunk)

    def _write_response(
        self, status: HTTPStatus, body: Mapping[str, Any] | bytes, headers: Mapping[str, str] | None = None
    ) -> None:
        self.close_connection |= self.server.connections.is_draining
        is_text = isinstance(body, bytes)
        content = body if isinstance(body, bytes) else msgspec.json.encode(body)
        head_lines = [
            f"HTTP/1.1 {status.value} {status.phrase}",
            f"Content-Type: {'text/plain; version=0.0.4; charset=utf-8' if is_text else 'application/json'}",
            f"Content-Length: {len(content)}",
            f"Connection: {'close' if self.close_connection else 'keep-alive'}",
            *(f"{name}: {value}" for name, value in (headers or {}).items()),
        ]
        head_bytes = "\r\n".join([*head_lines, "", ""]).encode("latin-1")
        # One write. With two, the second waits for the delayed acknowledgement of the first, about 40 ms.
        # The socket still has the remaining time of the read as timeout.
        self.connection.settimeout(SEND_TIMEOUT_S if self._is_proven else UNPROVEN_TIMEOUT_S)
        self.wfile.write(head_bytes if self.command == "HEAD" else head_bytes + content)


@lru_cache(maxsize=64)
def _is_loopback_host(host_header: str) -> bool:
    return is_loopback_url(f"//{host_header}")


def _error_location(error: BaseException) -> str:
    """Return the type of an error, and the function and line that raised it."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    location = f" at {trace.tb_frame.f_code.co_name}:{trace.tb_lineno}" if trace is not None else ""
    return type(error).__name__ + location
