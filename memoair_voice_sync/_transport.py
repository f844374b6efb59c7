"""HTTP to a runtime on this machine: one warm connection for each thread that talks at a time."""

import ipaddress
import json
import os
import time
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

import urllib3

from memoair_voice_sync._connection import DeadlinePool, set_deadline
from memoair_voice_sync._errors import MemoAirVoiceMemoryError, error_from_envelope

# Connections that are kept; more threads than these open further ones, which are closed after use.
_MAX_POOLED_CONNECTIONS = 64


class RuntimeUnreachableError(Exception):
    """Nothing listens at the address, or what listened is gone."""


class ConnectionBrokenError(RuntimeUnreachableError):
    """Something listens, and twice the connection broke before there was an answer, or what came is not HTTP."""


def encode_body(body: Mapping[str, Any]) -> bytes:
    """A request's body as JSON; raises TypeError or ValueError for what JSON can't hold."""
    try:
        # A lone surrogate, as a broken transcriber may send it, must not cost the turn.
        return json.dumps(body, ensure_ascii=False, allow_nan=False).encode(errors="replace")
    except RecursionError:
        raise ValueError("an argument is nested too deep") from None


def parse_runtime_url(url: str) -> tuple[str, int]:
    """Take a runtime's address apart; raise ValueError for one that is not on this machine."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    try:
        is_loopback = host == "localhost" or ipaddress.ip_address(host).is_loopback
        port = parts.port
    except ValueError:
        is_loopback, port = False, None
    if parts.scheme != "http" or not is_loopback or port is None:
        raise ValueError(f"runtime_url must be http://127.0.0.1:PORT or another loopback address, not {url!r}")
    return "127.0.0.1" if host == "localhost" else host, port


class RuntimeTransport:
    """Calls to the runtime at one address. Safe to use from any thread, and after a fork.

    Never asks the proxies of the environment: the address is on this machine. ``pool`` is a connection pool to use
    instead of an own one; it is not closed.
    """

    def __init__(self, host: str, port: int, token: str | None, pool: urllib3.HTTPConnectionPool | None = None) -> None:
        self._host, self._port = host, port
        self._headers = {"Content-Type": "application/json"}
        if token:
            self._headers["Authorization"] = f"Bearer {token}"
        self._given_pool = pool
        self._own_pool: urllib3.HTTPConnectionPool | None = None
        self._pid = os.getpid()

    @property
    def url(self) -> str:
        """The address."""
        host = f"[{self._host}]" if ":" in self._host else self._host
        return f"http://{host}:{self._port}"

    @property
    def port(self) -> int:
        """The port."""
        return self._port

    def health(self, deadline: float) -> dict[str, Any]:
        """Ask who listens. The token is not shown: it may be a stranger."""
        return self._call("GET", "/v1/runtime/health", None, deadline, {})

    def call(self, method: str, path: str, content: bytes | None, deadline: float) -> dict[str, Any]:
        """Send a request and return the body of the reply.

        Gives up at the ``deadline`` (monotonic seconds). A connection that broke is tried once more: every call has one
        effect, however often it arrives. Raises `RuntimeUnreachableError`, or `MemoAirVoiceMemoryError` for everything else.
        """
        return self._call(method, path, content, deadline, self._headers)

    def _call(
        self, method: str, path: str, content: bytes | None, deadline: float, headers: Mapping[str, str]
    ) -> dict[str, Any]:
        try:
            return self._send(method, path, content, deadline, headers)
        except urllib3.exceptions.ProtocolError:
            try:
                return self._send(method, path, content, deadline, headers)
            except urllib3.exceptions.ProtocolError as error:
                raise ConnectionBrokenError(
                    "the connection broke before there was an answer, or it is not HTTP"
                ) from error

    def close(self) -> None:
        """Close the connections."""
        if self._own_pool is not None and self._pid == os.getpid():
            self._own_pool.close()
        self._own_pool = None

    def _send(
        self, method: str, path: str, content: bytes | None, deadline: float, headers: Mapping[str, str]
    ) -> dict[str, Any]:
        remaining_s = deadline - time.monotonic()
        if remaining_s <= 0:
            raise _timeout_error()
        set_deadline(deadline)
        try:
            response = self._pool().urlopen(
                method,
                path,
                content,
                headers,
                retries=False,
                timeout=urllib3.Timeout(total=remaining_s),
                redirect=False,
            )
        except urllib3.exceptions.NewConnectionError as error:  # before its base, which is a time-out
            raise RuntimeUnreachableError("nothing listens there") from error
        except (urllib3.exceptions.TimeoutError, TimeoutError) as error:
            raise _timeout_error() from error
        except urllib3.exceptions.ClosedPoolError as error:  # by another thread, which saw the runtime die
            raise RuntimeUnreachableError("the connection was closed") from error
        except urllib3.exceptions.ProtocolError:
            raise
        except urllib3.exceptions.HTTPError as error:
            raise MemoAirVoiceMemoryError("runtime.internal", "the runtime's answer can't be decoded") from error
        return _parse_response(response.status, response.data)

    def _pool(self) -> urllib3.HTTPConnectionPool:
        if self._given_pool is not None:
            return self._given_pool
        if self._own_pool is None or self._pid != os.getpid():  # a child's requests must not mix with its parent's
            self._pid = os.getpid()
            self._own_pool = DeadlinePool(self._host, self._port, maxsize=_MAX_POOLED_CONNECTIONS)
        return self._own_pool


def _parse_response(status: int, data: bytes) -> dict[str, Any]:
    try:
        body = json.loads(data)
    except (ValueError, RecursionError):
        body = None
    if status < 400 and isinstance(body, dict):
        return body
    envelope = body.get("error") if isinstance(body, dict) else None
    if not isinstance(envelope, dict):
        message = f"the runtime's answer can't be read (HTTP status {status})"
        raise MemoAirVoiceMemoryError("runtime.internal", message, status)
    raise error_from_envelope(envelope, "runtime", status)


def _timeout_error() -> MemoAirVoiceMemoryError:
    return MemoAirVoiceMemoryError("runtime.timeout", "the runtime did not answer in time")
