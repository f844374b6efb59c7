"""Connections to a runtime that each prove, before anything is sent, that the runtime knows the token.

The port may pass to another program between two connections, so that the proof of one does not hold for the next. Calls
over a connection that stays open cost nothing more.
"""

import functools
import http.client
import json
import os
import socket
import time
from collections.abc import Mapping
from contextvars import ContextVar
from typing import Any

import psutil
import urllib3
import urllib3.connection

from memoair_protocol.errors import MemoAirVoiceMemoryError, error_from_envelope
from memoair_protocol.token_proof import CHALLENGE_HEADER, PROOF_HEADER, WRONG_TOKEN, Challenge, Ends

HEALTH_PATH = "/v1/runtime/health"
# Set to 1, a runtime that gives no proof is accepted: one of an older version, or behind a port that is forwarded.
ALLOW_UNPROVEN_VARIABLE = "MEMOAIR_ALLOW_UNPROVEN_RUNTIME"
_MAX_HEALTH_BYTES = 1 << 20

# The deadline (monotonic seconds) of the call in progress. Each thread has its own, and each greenlet of gevent, too.
call_deadline: ContextVar[float] = ContextVar("memoair_call_deadline")


class RuntimeUnreachableError(Exception):
    """Nothing listens at the address, or the process that listened is gone."""


class ConnectionBrokenError(RuntimeUnreachableError):
    """Something listens, but the connection broke twice before a reply came, or the reply is not HTTP."""


class UnprovenRuntimeError(ConnectionBrokenError):
    """What listens does not prove that it knows the token. Neither the token nor a request was sent to it."""


def parse_response(status: int, data: bytes) -> dict[str, Any]:
    """Return the body of a runtime's reply; raise the error that it reports."""
    try:
        body = json.loads(data)
    except (ValueError, RecursionError):
        body = None
    if status < 400 and isinstance(body, dict):
        return body
    envelope = body.get("error") if isinstance(body, dict) else None
    if not isinstance(envelope, dict):
        message = f"the runtime's reply is invalid (HTTP status {status})"
        raise MemoAirVoiceMemoryError("runtime.internal", message, status)
    raise error_from_envelope(envelope, "runtime", status)


class _DeadlineSocket(socket.socket):
    """A socket that waits for data until the deadline. A plain timeout would begin again with each byte."""

    def recv_into(self, *arguments: Any, **options: Any) -> int:
        remaining_s = call_deadline.get() - time.monotonic()
        if remaining_s <= 0:
            raise TimeoutError("the deadline has passed")
        self.settimeout(remaining_s)
        return super().recv_into(*arguments, **options)


class _ProvenConnection(urllib3.connection.HTTPConnection):
    """A connection that is not used for anything but a health check before the runtime has proven itself."""

    def __init__(self, *arguments: Any, token: str | None, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._token = token
        self._refusal: MemoAirVoiceMemoryError | None = None  # why nothing but a health check may be sent

    def connect(self) -> None:
        """Connect, and have the runtime prove itself."""
        super().connect()
        try:
            self._require_proof()
        except BaseException:
            self.close()
            raise

    def request(self, method: str, url: str, *arguments: Any, **options: Any) -> None:
        """Send a request; raise instead if the runtime has another token."""
        if self._token is not None and self.sock is None:
            self.connect()
        if self._refusal is not None and url != HEALTH_PATH:
            raise self._refusal
        super().request(method, url, *arguments, **options)

    def _new_conn(self) -> socket.socket:
        plain = super()._new_conn()
        timeout = plain.gettimeout()
        connection = _DeadlineSocket(plain.family, plain.type, plain.proto, plain.detach())
        connection.settimeout(timeout)
        return connection

    def _require_proof(self) -> None:
        self._refusal = None
        if self._token is None:
            return
        ends = Ends.seen_by_client(self.sock)
        challenge = Challenge.make(self._token, ends)
        proof, health, stays_open = self._challenge(challenge)
        if proof == WRONG_TOKEN and not _allows_unproven():
            message = "the runtime has another token, or its port is forwarded; it was sent nothing"
            self._refusal = MemoAirVoiceMemoryError("runtime.unauthorized", message, 401)
        elif not challenge.is_answered_by(proof, self._token, ends, health.get("workspaceId"), health.get("userId")):
            host, port = self.sock.getpeername()[:2]
            if not _allows_unproven() and not _is_started_here(host, port):
                raise UnprovenRuntimeError(
                    f"the program at {host}:{port} does not prove that it knows the token, and was sent nothing: it is "
                    f"no runtime of yours, or one of an older version; set {ALLOW_UNPROVEN_VARIABLE}=1 to use it "
                    "nevertheless"
                )
        if not stays_open:
            if proof and self._refusal is None:
                raise ConnectionResetError("the runtime has closed the connection")
            self.sock.close()
            self.sock = self._new_conn()  # to an older runtime, which ends each connection after its reply

    def _challenge(self, challenge: Challenge) -> tuple[str, dict[str, Any], bool]:
        """Return the runtime's proof, its health, and whether the connection stays open."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        lines = [f"GET {HEALTH_PATH} HTTP/1.1", f"Host: {host}:{self.port}"]
        lines += [f"{CHALLENGE_HEADER}: {challenge.header()}", "", ""]
        self.sock.sendall("\r\n".join(lines).encode())
        with http.client.HTTPResponse(self.sock, method="GET") as response:
            response.begin()
            content = response.read(_MAX_HEALTH_BYTES)
            health = parse_response(response.status, content)
            return response.getheader(PROOF_HEADER, ""), health, response.isclosed() and not response.will_close


class ProvenPool(urllib3.HTTPConnectionPool):
    """A pool of such connections. Replies must arrive by the thread's deadline, however slowly the peer sends.

    Args:
        host: The address of the runtime.
        port: Its port.
        token: The token. None means that nothing has to be proven.
        maxsize: How many connections stay open.
    """

    def __init__(self, host: str, port: int, token: str | None, maxsize: int) -> None:
        super().__init__(host, port, maxsize=maxsize)
        self.ConnectionCls = functools.partial(_ProvenConnection, token=token)  # type: ignore[assignment]


def _allows_unproven() -> bool:
    return os.environ.get(ALLOW_UNPROVEN_VARIABLE) == "1"


def _is_started_here(host: str, port: int) -> bool:
    """Return whether a process that this one has started listens at an address.

    It is then the runtime that was started to listen there, of a version that gives no proof. Two processes can't
    listen at one address.
    """
    addresses: Mapping[str, set[str]] = {"127.0.0.1": {host, "0.0.0.0"}, "::1": {host, "::"}}  # noqa: S104
    with_wildcard = addresses.get(host, {host})
    try:
        children = psutil.Process().children(recursive=True)
    except psutil.Error:
        return False
    for child in children:
        try:
            sockets = child.net_connections(kind="tcp")
        except psutil.Error:
            continue
        for each in sockets:
            if each.status == psutil.CONN_LISTEN and each.laddr.port == port and each.laddr.ip in with_wildcard:
                return True
    return False
