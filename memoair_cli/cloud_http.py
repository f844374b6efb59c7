"""HTTP to a cloud, for all commands that speak to one: connections kept, answers read, failures told in plain words."""

import json
import os
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from typing import Any, NamedTuple
from urllib.parse import urlsplit

_CONNECT_TIMEOUT_S, _READ_TIMEOUT_S = 5.0, 60.0
_MAX_MESSAGE_CHARS = 200


class CloudUnreachableError(Exception):
    """There was no answer; the message says why, and how to mend it where that is known."""


class CloudReply(NamedTuple):
    """What a cloud answered. ``body`` is None where it is not a JSON object."""

    status: int
    body: dict[str, Any] | None
    headers: Mapping[str, str]

    @property
    def is_ok(self) -> bool:
        """Whether the cloud did as it was asked, and is one."""
        return 200 <= self.status < 300 and self.body is not None

    @property
    def code(self) -> str:
        """The code of an error, such as ``cloud.not_found``."""
        error = (self.body or {}).get("error")
        if isinstance(error, dict):
            return str(error.get("code") or f"HTTP {self.status}")
        return f"cloud.{error}" if isinstance(error, str) else f"HTTP {self.status}"

    @property
    def details(self) -> Mapping[str, Any]:
        """The details of an error."""
        error = (self.body or {}).get("error")
        details = error.get("details") if isinstance(error, dict) else None
        return details if isinstance(details, dict) else {}

    @property
    def error_message(self) -> str:
        """What went wrong, in a line."""
        body = self.body or {}
        error = body.get("error")
        message = error.get("message") if isinstance(error, dict) else body.get("message")
        if message:
            return f"{self.code}: {str(message)[:_MAX_MESSAGE_CHARS]}"
        if 300 <= self.status < 400:
            return f"it redirects ({self.status}); set the address that it redirects to"
        if self.is_ok or (200 <= self.status < 300):
            return "what answers is no MemoAir cloud"
        return f"it answers with HTTP status {self.status}"

    @property
    def retry_after_s(self) -> float | None:
        """How long the cloud asks to be left alone."""
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
    """A way to one cloud, with the proxies and certificates that the environment names. Safe to use from any thread.

    ``key`` None asks as a stranger; ``threads`` is how many will ask at once.
    """

    def __init__(self, base_url: str, key: str | None, *, max_connections: int = 1) -> None:
        import requests
        from requests.adapters import HTTPAdapter
        from requests.utils import get_environ_proxies

        self.base_url = base_url.rstrip("/")
        self._session = requests.Session()
        # What the environment says is read once and not with every request, which would take a fifth of its time. And
        # ~/.netrc not at all: what it has for the host would take the place of the key.
        self._session.trust_env = False
        self._session.proxies = get_environ_proxies(self.base_url)
        self._session.verify = os.environ.get("REQUESTS_CA_BUNDLE") or os.environ.get("CURL_CA_BUNDLE") or True
        if key is not None:
            self._session.headers["Authorization"] = f"Bearer {key}"
        for scheme in ("https://", "http://"):
            self._session.mount(scheme, HTTPAdapter(pool_maxsize=max_connections))

    @property
    def address(self) -> str:
        """Where the cloud is, without what a URL may hold of a secret."""
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
        """Send a request once; raises `CloudUnreachableError` where there is no answer."""
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
        except (requests.RequestException, ValueError) as error:  # ValueError: an address that is none
            raise CloudUnreachableError(
                f"the cloud at {self.address} can't be reached: {_describe_error(error)}"
            ) from error
        return CloudReply(response.status_code, _parse_object(response.content), response.headers)

    def close(self) -> None:
        """Close the connections."""
        self._session.close()


def _encode_header(value: str) -> str:
    return value.encode().decode("latin-1")  # headers are bytes, and ours are UTF-8


def _parse_object(content: bytes) -> dict[str, Any] | None:
    try:
        body = json.loads(content)
    except (ValueError, RecursionError):
        return None
    return body if isinstance(body, dict) else None


# By the name of the innermost error that we know, since what wraps it differs from version to version.
_REASON_BY_ERROR = {
    "NameResolutionError": "its name is not known to the DNS",
    "ProxyError": "the proxy that the environment names (HTTPS_PROXY, HTTP_PROXY) does not let us through",
    "SSLError": "TLS fails; REQUESTS_CA_BUNDLE may name a file with your company's certificates",
    "ConnectTimeoutError": f"it takes no connection within {_CONNECT_TIMEOUT_S:.0f} s; a firewall may stand between",
    "ConnectTimeout": f"it takes no connection within {_CONNECT_TIMEOUT_S:.0f} s; a firewall may stand between",
    "ReadTimeoutError": "it takes connections, but does not answer",
    "ReadTimeout": "it takes connections, but does not answer",
    "ConnectionRefusedError": "nothing listens there",
    "ConnectionResetError": "it broke the connection",
    "RemoteDisconnected": "it broke the connection",
    "InvalidSchema": "its address must begin with https:// or http://",
    "MissingSchema": "its address must begin with https:// or http://",
    "InvalidURL": "its address can't be read",
    "LocationParseError": "its address can't be read",
}


def _describe_error(error: BaseException) -> str:
    pending, seen = [error], {id(error)}
    while pending:
        current = pending.pop(0)
        if type(current).__name__ in _REASON_BY_ERROR:
            return _REASON_BY_ERROR[type(current).__name__]
        causes = [current.__cause__, current.__context__, getattr(current, "reason", None), *current.args]
        pending += [one for one in causes if isinstance(one, BaseException) and id(one) not in seen]
        seen.update(map(id, pending))
    return type(error).__name__
