"""HTTP to a cloud or a registry, the same for all who need it: proxies, certificates, keys, errors and their reasons.

The only module of this package with a dependency, ``requests``, whose import takes 0.1 s. Its users import it when they
are about to make a request: the SDK, whose import stays fast, and a runtime without a cloud never pay for it.
"""

import http.client
import os
import ssl
import time
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import requests
import urllib3
from requests.adapters import HTTPAdapter
from requests.utils import DEFAULT_CA_BUNDLE_PATH, default_headers, get_environ_proxies
from urllib3.response import BaseHTTPResponse
from urllib3.util import Retry
from urllib3.util.ssl_ import ALPN_PROTOCOLS, create_urllib3_context

from memoair_protocol.addresses import is_loopback_url
from memoair_protocol.cloud_replies import CloudReply, CloudUnreachableError

MAX_REPLY_BYTES = 64 << 20
_CHUNK_BYTES = 1 << 16
# A limit for a whole reply, however steadily its bytes arrive.
_REPLY_TIMEOUT_S = 60.0
# Variables that name a bundle of certificate authorities, in the order in which other programs read them.
_CA_BUNDLE_VARIABLES = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE")
# Too many requests, and failures of the server or of a proxy before it.
_RETRY_STATUSES = (429, 500, 502, 503, 504)
_INITIAL_BACKOFF_S, _MAX_BACKOFF_S = 0.25, 10.0


class CloudHttp:
    """Connections to a cloud. Safe to use from any thread.

    Proxies are those of the environment when a server is first asked; this machine is reached without one. No redirect
    is followed: that would send the key to another server. No cookies and no credentials of ``~/.netrc`` or of the URL
    are sent: they would replace the key.

    Args:
        base_url: The URL of the cloud. If it is empty, paths are whole URLs of any servers.
        key: The API key, None for requests that need none.
        headers: Headers of every request, ready to send (see `memoair_protocol.http_headers`).
        connect_timeout_s: Seconds to connect.
        read_timeout_s: Seconds to wait for the next bytes of a reply.
        max_connections: The number of threads that will use it at once.
        max_attempts: The number of attempts at a request that fails in a way that may pass. More than one is for
            requests that may arrive twice.
    """

    def __init__(
        self,
        base_url: str,
        key: str | None,
        headers: Mapping[str, str] | None = None,
        *,
        connect_timeout_s: float = 5.0,
        read_timeout_s: float = 30.0,
        max_connections: int = 1,
        max_attempts: int = 1,
    ) -> None:
        self._base_url = base_url.strip().rstrip("/")
        self._headers = {**default_headers(), **(headers or {})}
        if key is not None:
            self._headers["Authorization"] = f"Bearer {key}"
        self._timeouts = connect_timeout_s, read_timeout_s
        self._proxies: dict[str, dict[str, str]] = {}  # by origin: reading the environment takes a fifth of a request
        self.adapter = _Adapter(pool_maxsize=max_connections, max_retries=_make_retries(max_attempts))

    @property
    def address(self) -> str:
        """The address of the cloud, without secrets that its URL may contain."""
        parts = urlsplit(self._base_url)
        return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"

    def open(
        self,
        method: str,
        path: str,
        content: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        *,
        timeouts: tuple[float, float] | None = None,
    ) -> requests.Response:
        """Send a request and return its response before its body is read. The caller closes it.

        Args:
            method: The method.
            path: The path, quoted. It is sent as it is, even if an id in it is ``..``.
            content: The body.
            headers: Further headers, ready to send.
            timeouts: Other timeouts than those of the client, to connect and to read.

        Raises:
            CloudUnreachableError: There was no reply.
        """
        url = self._base_url + path
        content_type = {} if content is None else {"Content-Type": "application/json"}
        all_headers = {**self._headers, **content_type, **(headers or {})}
        timeouts = timeouts or self._timeouts
        try:
            if not url.lower().startswith(("https://", "http://")):
                raise requests.exceptions.InvalidSchema
            # Without the function the library would send the credentials of the URL.
            request = requests.Request(method, url, all_headers, data=content, auth=lambda request: request).prepare()
            request.url = url  # the library would remove an id that is "." or ".."
            return self.adapter.send(request, stream=True, timeout=timeouts, proxies=self._find_proxies(url))
        except ValueError as error:  # its message may contain the key
            raise _describe(error) from None
        except (OSError, urllib3.exceptions.HTTPError) as error:  # all errors of the library are an OSError
            raise _describe(error, timeouts[0]) from error

    def request(
        self, method: str, path: str, content: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> CloudReply:
        """Send a request and return the reply. See `open`.

        Raises:
            CloudUnreachableError: There was no reply.
        """
        with self.open(method, path, content, headers) as response:
            deadline = time.monotonic() + _REPLY_TIMEOUT_S

            def check() -> None:
                if time.monotonic() > deadline:
                    raise CloudUnreachableError("its reply took too long", is_timeout=True)

            return CloudReply(response.status_code, response.headers, read_body(response, check))

    def close(self) -> None:
        """Close the connections."""
        self.adapter.close()

    def _find_proxies(self, url: str) -> dict[str, str]:
        origin = "/".join(url.split("/", 3)[:3])
        if origin not in self._proxies:
            self._proxies[origin] = {} if is_loopback_url(origin) else get_environ_proxies(origin)
        return self._proxies[origin]


def read_chunks(response: requests.Response, check: Callable[[], None], *, is_decoded: bool = True) -> Iterator[bytes]:
    """Yield the body of a response as it arrives: a server that sends single bytes must not hold the caller forever.

    Args:
        response: The response.
        check: Called before each read. It raises to give up.
        is_decoded: Whether to undo the compression that the server names in Content-Encoding.

    Raises:
        CloudUnreachableError: The connection failed.
    """
    while True:
        check()
        try:
            chunk: bytes = response.raw.read1(_CHUNK_BYTES, decode_content=is_decoded)
            if not chunk:
                response.raw.drain_conn()  # nothing is left, but only this frees the connection for reuse
                return
        except (urllib3.exceptions.HTTPError, http.client.HTTPException, OSError) as error:
            raise _describe(error) from error
        yield chunk


def read_body(response: requests.Response, check: Callable[[], None]) -> bytes:
    """Return the whole body of a response. See `read_chunks`.

    Raises:
        CloudUnreachableError: The connection failed, or the body is too long.
    """
    content = bytearray()
    for chunk in read_chunks(response, check):
        content += chunk
        if len(content) > MAX_REPLY_BYTES:
            raise CloudUnreachableError("its reply is too long")
    return bytes(content)


def ssl_context() -> ssl.SSLContext:
    """Return the TLS context with the certificate authorities that the environment names.

    It is created once: that takes 30 ms and 2.5 MB, which forked processes share.

    Raises:
        OSError: The environment names a certificate bundle that cannot be read.
    """
    file = next((os.environ[name] for name in _CA_BUNDLE_VARIABLES if os.environ.get(name)), None)
    return _create_ssl_context(file, os.environ.get("SSL_CERT_DIR") or None)


def _require_ssl_context() -> ssl.SSLContext:
    try:
        return ssl_context()
    except OSError as error:
        message = f"the certificate bundle ({', '.join(_CA_BUNDLE_VARIABLES)}) cannot be read: {error.strerror}"
        raise CloudUnreachableError(message, is_final=True) from error


@lru_cache(maxsize=1)
def _create_ssl_context(file: str | None, folder: str | None) -> ssl.SSLContext:
    context = create_urllib3_context()
    if file is not None and Path(file).is_dir():
        file, folder = None, file
    context.load_verify_locations(file or (None if folder else DEFAULT_CA_BUNDLE_PATH), folder)
    # The library would set them for each connection, which frees memory that a handshake in another thread may be
    # reading: OpenSSL allows threads to share a context only if none of them changes it.
    context.set_alpn_protocols(ALPN_PROTOCOLS)
    context.set_alpn_protocols = lambda alpn_protocols: None  # type: ignore[method-assign]  # noqa: ARG005
    return context


class _Adapter(HTTPAdapter):
    """An adapter that uses the shared TLS context instead of reading the bundle for each connection."""

    def cert_verify(self, conn: Any, url: str, verify: Any, cert: Any) -> None:  # noqa: ARG002 - the context verifies
        """Give the shared TLS context to the connections to a server."""
        if url.lower().startswith("https://"):
            conn.conn_kw["ssl_context"] = _require_ssl_context()

    def proxy_manager_for(self, proxy: str, **options: Any) -> Any:
        """Use the shared TLS context also to a proxy that is reached over TLS."""
        if proxy.lower().startswith("https://"):
            options["proxy_ssl_context"] = _require_ssl_context()
        return super().proxy_manager_for(proxy, **options)

    def close(self) -> None:
        """Close the connections now. The library itself leaves that to garbage collection."""
        for manager in (self.poolmanager, *self.proxy_manager.values()):
            for key in list(manager.pools.keys()):  # it does not support iteration
                if (pool := manager.pools.get(key)) is not None:
                    pool.close()
        super().close()


class _BoundedRetry(Retry):
    """A retry policy that obeys ``Retry-After`` up to a limit: a thread of the application waits in this call."""

    def get_retry_after(self, response: BaseHTTPResponse) -> float | None:
        retry_after_s = super().get_retry_after(response)
        return None if retry_after_s is None else min(retry_after_s, _MAX_BACKOFF_S)


def _make_retries(max_attempts: int) -> Retry:
    if max_attempts == 1:
        return Retry(0, read=False)
    return _BoundedRetry(
        total=max_attempts - 1,
        status_forcelist=_RETRY_STATUSES,
        allowed_methods=None,  # all of them
        backoff_factor=_INITIAL_BACKOFF_S,
        backoff_max=_MAX_BACKOFF_S,
        backoff_jitter=_INITIAL_BACKOFF_S,
        raise_on_status=False,  # the last reply says what is wrong
    )


_FINAL_ERRORS = ("SSLError", "InvalidSchema", "MissingSchema", "InvalidURL", "LocationParseError")
# By the names of errors, the outermost known one first: what wraps it differs between versions of the libraries.
_REASONS = {
    ("NameResolutionError",): "its host name cannot be resolved",
    ("ProxyError",): "the proxy (HTTPS_PROXY, HTTP_PROXY) rejects the connection",
    ("SSLError",): "TLS failed; if your company has its own certificates, set REQUESTS_CA_BUNDLE to a file with them",
    (
        "ConnectTimeoutError",
        "ConnectTimeout",
    ): "no connection within {connect_timeout_s:.0f} s; a firewall may block it",
    ("ReadTimeoutError", "ReadTimeout", "TimeoutError"): "it accepts connections, but does not reply",
    ("ConnectionRefusedError",): "nothing listens there",
    ("ConnectionResetError", "RemoteDisconnected", "IncompleteRead"): "it closed the connection",
    ("InvalidSchema", "MissingSchema"): "its address must begin with https:// or http://",
    ("InvalidURL", "LocationParseError"): "its address is invalid",
}
_REASON_BY_ERROR = {name: reason for names, reason in _REASONS.items() for name in names}


def _describe(error: BaseException, connect_timeout_s: float = 0.0) -> CloudUnreachableError:
    pending, seen = [error], {id(error)}
    while pending:
        current = pending.pop(0)
        name = type(current).__name__
        if name in _REASON_BY_ERROR:
            reason = _REASON_BY_ERROR[name].format(connect_timeout_s=connect_timeout_s)
            return CloudUnreachableError(reason, is_timeout="Timeout" in name, is_final=name in _FINAL_ERRORS)
        causes = [current.__cause__, current.__context__, getattr(current, "reason", None), *current.args]
        pending += [one for one in causes if isinstance(one, BaseException) and id(one) not in seen]
        seen.update(map(id, pending))
    return CloudUnreachableError(type(error).__name__)
