"""HTTP client of the commands that use a cloud: persistent connections, parsed replies, and plain error messages."""

import json
import os
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from typing import Any, NamedTuple
from urllib.parse import urlsplit

_CONNECT_TIMEOUT_S, _READ_TIMEOUT_S = 5.0, 60.0
_MAX_MESSAGE_CHARS = 200


class CloudUnreachableError(Exception):
    """The cloud did not reply. The message says why, and how to fix it if that is known."""


class CloudReply(NamedTuple):
    """A reply of a cloud. A body that is not a JSON object is left out."""

    status: int
    body: dict[str, Any] | None
    headers: Mapping[str, str]

    @property
    def is_ok(self) -> bool:
        """Whether the request succeeded, with a body as a MemoAir cloud sends it."""
        return 200 <= self.status < 300 and self.body is not None

    @property
    def code(self) -> str:
        """The error code, such as ``cloud.not_found``."""
        error = (self.body or {}).get("error")
        if isinstance(error, dict):
            return str(error.get("code") or f"HTTP {self.status}")
        return f"cloud.{error}" if isinstance(error, str) else f"HTTP {self.status}"

    @property
    def details(self) -> Mapping[str, Any]:
        """The error details."""
        error = (self.body or {}).get("error")
        details = error.get("details") if isinstance(error, dict) else None
        return details if isinstance(details, dict) else {}

    @property
    def error_message(self) -> str:
        """What went wrong, in one line."""
        body = self.body or {}
        error = body.get("error")
        message = error.get("message") if isinstance(error, dict) else body.get("message")
        if message:
            return f"{self.code}: {str(message)[:_MAX_MESSAGE_CHARS]}"
        if 300 <= self.status < 400:
            return f"it redirects (HTTP status {self.status}); use the address that it redirects to"
        if self.is_ok or (200 <= self.status < 300):
            return "the server is not a MemoAir cloud"
        return f"HTTP status {self.status}"

    @property
    def retry_after_s(self) -> float | None:
        """The seconds to wait before a retry, if the cloud asks for that."""
        header = self.headers.get("retry-after", "")
        return float(header) if header.isascii() and header.isdigit() else None

    @property
    def date_s(self) -> float | None:
        """The cloud's clock, in seconds since the epoch."""
        try:
            return parsedate_to_datetime(self.headers["date"]).timestamp()
        except (KeyError, ValueError, OverflowError):
            return None


class CloudHttp:
    """A client for one cloud, with the proxies and certificates of the environment. Safe to use from any thread.

    Args:
        base_url: The URL of the cloud.
        key: The API key, None for requests that need none.
        max_connections: The number of threads that use the client concurrently.
    """

    def __init__(self, base_url: str, key: str | None, *, max_connections: int = 1) -> None:
        import requests
        from requests.adapters import HTTPAdapter
        from requests.utils import get_environ_proxies

        self.base_url = base_url.rstrip("/")
        self._session = requests.Session()
        # Proxies and certificates are read from the environment once: per request, it takes a fifth of the time.
        # ~/.netrc is not read at all: its entry for the host would replace the key.
        self._session.trust_env = False
        self._session.proxies = get_environ_proxies(self.base_url)
        self._session.verify = os.environ.get("REQUESTS_CA_BUNDLE") or os.environ.get("CURL_CA_BUNDLE") or True
        if key is not None:
            self._session.headers["Authorization"] = f"Bearer {key}"
        for scheme in ("https://", "http://"):
            self._session.mount(scheme, HTTPAdapter(pool_maxsize=max_connections))

    @property
    def address(self) -> str:
        """The address of the cloud, without secrets that its URL may contain."""
        parts = urlsplit(self.base_url)
        return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"

    def request(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        *,
        read_timeout_s: float = _READ_TIMEOUT_S,
    ) -> CloudReply:
        """Send a request, without retries.

        Raises:
            CloudUnreachableError: There was no reply.
        """
        import requests

        content_type = {} if body is None else {"Content-Type": "application/json"}
        try:
            response = self._session.request(
                method,
                self.base_url + path,
                data=body,
                headers={**content_type, **{name: _encode_header(value) for name, value in (headers or {}).items()}},
                timeout=(_CONNECT_TIMEOUT_S, read_timeout_s),
                allow_redirects=False,
            )
        except (requests.RequestException, ValueError) as error:  # ValueError: an invalid URL
            raise CloudUnreachableError(
                f"the cloud at {self.address} is unreachable: {_describe_error(error)}"
            ) from error
        return CloudReply(response.status_code, _parse_object(response.content), response.headers)

    def close(self) -> None:
        """Close the connections."""
        self._session.close()


def _encode_header(value: str) -> str:
    return value.encode().decode("latin-1")  # headers are bytes; these are encoded in UTF-8


def _parse_object(content: bytes) -> dict[str, Any] | None:
    try:
        body = json.loads(content)
    except (ValueError, RecursionError):
        return None
    return body if isinstance(body, dict) else None


# By the name of the innermost known error: the errors that wrap it differ between versions of the libraries.
_REASON_BY_ERROR = {
    "NameResolutionError": "its host name cannot be resolved",
    "ProxyError": "the proxy (HTTPS_PROXY, HTTP_PROXY) rejects the connection",
    "SSLError": "TLS failed; if your company has its own certificates, set REQUESTS_CA_BUNDLE to a file with them",
    "ConnectTimeoutError": f"no connection within {_CONNECT_TIMEOUT_S:.0f} s; a firewall may block it",
    "ConnectTimeout": f"no connection within {_CONNECT_TIMEOUT_S:.0f} s; a firewall may block it",
    "ReadTimeoutError": "it accepts connections, but does not reply",
    "ReadTimeout": "it accepts connections, but does not reply",
    "ConnectionRefusedError": "nothing listens there",
    "ConnectionResetError": "it closed the connection",
    "RemoteDisconnected": "it closed the connection",
    "InvalidSchema": "its address must begin with https:// or http://",
    "MissingSchema": "its address must begin with https:// or http://",
    "InvalidURL": "its address is invalid",
    "LocationParseError": "its address is invalid",
}


def _describe_error(error: BaseException) -> str:
    pending, seen = [error], {id(error)}
    while pending:
        current = pending.pop(0)
        if type(current).__name__ in _REASON_BY_ERROR:
            return _REASON_BY_ERROR[type(current).__name__]
        causes = [current.__cause__, current.__context__, getattr(current, "reason", None), *current.args]
        pending += [cause for cause in causes if isinstance(cause, BaseException) and id(cause) not in seen]
        seen.update(map(id, pending))
    return type(error).__name__
