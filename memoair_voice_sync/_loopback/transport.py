"""HTTP to a runtime on this machine, over one warm connection for each thread that calls at the same time."""

import functools
import ipaddress
import json
import os
import time
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

import urllib3

from memoair_protocol.errors import MemoAirVoiceMemoryError
from memoair_protocol.starvation import is_starved
from memoair_voice_sync._diagnostics import log
from memoair_voice_sync._loopback.proven_connection import (
    HEALTH_PATH,
    ConnectionBrokenError,
    ProvenPool,
    RuntimeUnreachableError,
    UnprovenRuntimeError,
    call_deadline,
    parse_response,
)

__all__ = ["ConnectionBrokenError", "RuntimeTransport", "RuntimeUnreachableError", "encode_body", "parse_runtime_url"]

# Connections that stay open. Further threads open others, which are closed after use.
_MAX_POOLED_CONNECTIONS = 64
# How long the proof may take for which a connection of its own is opened.
_PROOF_TIMEOUT_S = 1.0


def encode_body(body: Mapping[str, Any]) -> bytes:
    """Encode the body of a request; raise TypeError or ValueError if JSON cannot hold it."""
    try:
        # A lone surrogate, which a broken transcriber may produce, must not lose the turn.
        return json.dumps(body, ensure_ascii=False, allow_nan=False).encode(errors="replace")
    except RecursionError:
        raise ValueError("an argument is nested too deeply") from None


def parse_runtime_url(url: str) -> tuple[str, int]:
    """Return host and port of a runtime's address; raise ValueError if it is not a loopback address."""
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

    With a token, the runtime must prove on each new connection that it knows the token, before anything is sent over
    it; see `memoair_protocol.token_proof`. Without a token nothing protects a port that is known to others.

    Ignores the proxies of the environment: the address is on this machine. A connection ``pool`` that is passed in is
    used, but not closed. Its connections are not checked one by one: `verify_identity` checks one of its own instead.
    """

    def __init__(self, host: str, port: int, token: str | None, pool: urllib3.HTTPConnectionPool | None = None) -> None:
        self._host, self._port, self._token = host, port, token or None
        self._headers = {"Content-Type": "application/json"}
        if token:
            self._headers["Authorization"] = f"Bearer {token}"
        self._given_pool = pool
        self._own_pool: urllib3.HTTPConnectionPool | None = None
        self._pid = os.getpid()

    @property
    def url(self) -> str:
        """The URL of the runtime."""
        host = f"[{self._host}]" if ":" in self._host else self._host
        return f"http://{host}:{self._port}"

    @property
    def port(self) -> int:
        """The port of the runtime."""
        return self._port

    def health(self, deadline: float) -> dict[str, Any]:
        """Return the health of the runtime, with its identity. The token is not sent: another program may listen."""
        return self._call("GET", HEALTH_PATH, None, deadline, {})

    def verify_identity(self, project_id: str, user_id: str, deadline: float) -> None:
        """Return if a runtime of this project and user answers. Nothing else may ever be sent to another one.

        Raises `RuntimeUnreachableError` if nothing listens, ``runtime.identity_mismatch`` if the runtime of another
        project or user does or a program that does not know the token, and other errors unchanged.
        """
        if self._token is None:
            _warn_without_token(self.url)
        try:
            self._prove_for_given_pool(deadline)
            health = self.health(deadline)
        except UnprovenRuntimeError as error:
            raise MemoAirVoiceMemoryError("runtime.identity_mismatch", str(error), 409) from error
        if (health.get("workspaceId"), health.get("userId")) != (project_id, user_id):
            message = (
                f"the runtime at {self.url} serves another project or user; "
                "use another runtime_url for each user, or port 0 for a free port"
            )
            raise MemoAirVoiceMemoryError("runtime.identity_mismatch", message, 409)

    def call(self, method: str, path: str, content: bytes | None, deadline: float) -> dict[str, Any]:
        """Send a request and return the body of the reply, by the deadline (monotonic seconds).

        A request whose connection broke is sent once more: every call is idempotent. Raises `RuntimeUnreachableError`,
        or `MemoAirVoiceMemoryError` for every other failure.
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
                    "the connection broke before a reply came, or the reply is not HTTP"
                ) from error

    def close(self) -> None:
        """Close the connections."""
        if self._own_pool is not None and self._pid == os.getpid():
            self._own_pool.close()
        self._own_pool = None

    def _prove_for_given_pool(self, deadline: float) -> None:
        """Have the runtime prove itself on a connection of its own, instead of those of the pool."""
        if self._given_pool is None or self._token is None:
            return
        own = RuntimeTransport(self._host, self._port, self._token)
        try:
            # With a query, so that it is refused if the runtime has another token; see `_ProvenConnection.request`.
            own._call("GET", f"{HEALTH_PATH}?", None, min(deadline, time.monotonic() + _PROOF_TIMEOUT_S), {})
        finally:
            own.close()

    def _send(
        self, method: str, path: str, content: bytes | None, deadline: float, headers: Mapping[str, str]
    ) -> dict[str, Any]:
        remaining_s = deadline - time.monotonic()
        if remaining_s <= 0:
            raise _timeout_error()
        call_deadline.set(deadline)
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
        except urllib3.exceptions.NewConnectionError as error:  # before its base class, which is a timeout
            if is_starved(error):  # it says nothing about the runtime, which must not be replaced for it
                message = f"this process cannot open a connection: {_reason(error)}"
                raise MemoAirVoiceMemoryError("runtime.start_failed", message) from error
            raise RuntimeUnreachableError("nothing listens there") from error
        except (urllib3.exceptions.TimeoutError, TimeoutError) as error:
            raise _timeout_error() from error
        except urllib3.exceptions.ClosedPoolError as error:  # by another thread, which noticed that the runtime died
            raise RuntimeUnreachableError("the connection was closed") from error
        except urllib3.exceptions.ProtocolError:
            raise
        except urllib3.exceptions.HTTPError as error:
            raise MemoAirVoiceMemoryError("runtime.internal", "the runtime's reply cannot be decoded") from error
        return parse_response(response.status, response.data)

    def _pool(self) -> urllib3.HTTPConnectionPool:
        if self._given_pool is not None:
            return self._given_pool
        if (
            self._own_pool is None or self._pid != os.getpid()
        ):  # the requests of a child must not mix with those of its parent
            self._pid = os.getpid()
            self._own_pool = ProvenPool(self._host, self._port, self._token, _MAX_POOLED_CONNECTIONS)
        return self._own_pool


@functools.lru_cache(maxsize=64)
def _warn_without_token(url: str) -> None:
    """Log once for each address that its runtime has no token."""
    log.warning(
        "the runtime at %s has no token: another user of this machine could listen there first, or ask it; "
        "set runtime_token, or use port 0: action=runtime_without_token",
        url,
    )


def _reason(error: BaseException) -> str:
    cause = error.__cause__
    return (cause.strerror if isinstance(cause, OSError) else None) or "it is at a limit"


def _timeout_error() -> MemoAirVoiceMemoryError:
    return MemoAirVoiceMemoryError("runtime.timeout", "the runtime did not answer in time")
