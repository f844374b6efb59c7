"""HTTP for pulls: bounded in time and size, with redirects that carry no secrets and lead nowhere unsafe."""

import hashlib
import http.client
import socket
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import IO, Any
from urllib.parse import urljoin, urlsplit

import requests
import urllib3
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

from memoair_voice_sync.runtime_store.cancel_token import CancelToken
from memoair_voice_sync.runtime_store.errors import RuntimeStoreError, not_found
from memoair_voice_sync.runtime_store.reference import is_loopback

CONNECT_TIMEOUT_S, READ_TIMEOUT_S = 10.0, 30.0
_MAX_REDIRECTS = 5
_CHUNK_BYTES = 1 << 16
_TRANSFER_ERRORS = (urllib3.exceptions.HTTPError, http.client.HTTPException, OSError)

ProgressCallback = Callable[
    [int, int | None], None
]  # bytes that are there, bytes that there will be where that is known


class Downloader:
    """One pull's connections. For one thread; close it."""

    def __init__(self, cancel_token: CancelToken) -> None:
        self._cancel_token = cancel_token
        self._session = requests.Session()
        for scheme in ("https://", "http://"):
            self._session.mount(scheme, _make_adapter(cancel_token))

    def close(self) -> None:
        """Close every connection."""
        for adapter in self._session.adapters.values():
            pools = getattr(getattr(adapter, "poolmanager", None), "pools", {})
            for key in list(pools.keys()):  # left to the library, they are closed when they happen to be collected
                if (pool := pools.get(key)) is not None:
                    pool.close()
        self._session.close()

    @contextmanager
    def open(
        self,
        url: str,
        *,
        accept: str = "*/*",
        authorization: str | None = None,
        allow_http: bool = False,
        allowed_statuses: Collection[int] = (),
    ) -> Iterator[requests.Response]:
        """GET a URL, over redirects; the body is still to be read.

        ``authorization`` is shown to the server of the URL alone. ``allow_http`` lets a plain connection to another
        machine be: what comes is compared with a digest that came from elsewhere. Statuses in ``also`` are no fault.
        """
        with self._follow_redirects(url, accept, authorization, allow_http) as response:
            if response.status_code not in {200, *allowed_statuses}:
                raise _error_of_status(url, response.status_code)
            yield response

    def read(self, url: str, max_bytes: int, **options: Any) -> bytes:
        """The whole body, of at most ``limit`` bytes; the rest as for `open`."""
        with self.open(url, **options) as response:
            return self.read_body(response, max_bytes)

    def read_body(self, response: requests.Response, max_bytes: int) -> bytes:
        """The body of an answer, of at most ``limit`` bytes."""
        return b"".join(self._read_chunks(response, max_bytes))

    def download(
        self, url: str, file: IO[bytes], max_bytes: int, *, size: int | None, progress: ProgressCallback, **options: Any
    ) -> str:
        """Write a body to a file and return its SHA-256 in hexadecimal; ``size`` is how long it must be."""
        digest, done = hashlib.sha256(), 0
        with self.open(url, **options) as response:
            content_length = _content_length(response)
            if size is not None and content_length not in (None, size):
                raise RuntimeStoreError(
                    f"{_without_query(url)} holds {content_length} bytes, where {size} were announced"
                )
            for chunk in self._read_chunks(response, max_bytes):
                digest.update(chunk)
                try:
                    file.write(chunk)
                except OSError as error:
                    raise RuntimeStoreError(f"there is no room for what is pulled: {error.strerror}") from error
                done += len(chunk)
                progress(done, size or content_length)
        if size is not None and done != size:
            raise RuntimeStoreError(
                f"{_without_query(url)} holds {done} bytes, where {size} were announced", retryable=done < size
            )
        return digest.hexdigest()

    def _read_chunks(self, response: requests.Response, max_bytes: int) -> Iterator[bytes]:
        source, done, content_length = _without_query(response.url), 0, _content_length(response)
        if content_length is not None and content_length > max_bytes:
            raise RuntimeStoreError(f"{source} holds {content_length} bytes, and no more than {max_bytes} are taken")
        while True:
            self._cancel_token.check()
            try:
                # What is there, be it a single byte: who waits for more would not see how slowly it comes. As it is
                # stored: an archive that a server calls "encoded" would not be what its digest is of.
                chunk: bytes = response.raw.read1(_CHUNK_BYTES, decode_content=False)
            except _TRANSFER_ERRORS as error:
                self._cancel_token.check()
                raise RuntimeStoreError(
                    f"{source} broke off after {done} bytes{_of_total(content_length)}", retryable=True
                ) from error
            if not chunk:
                break
            done += len(chunk)
            if done > max_bytes:
                raise RuntimeStoreError(f"{source} holds more than the {max_bytes} bytes that are taken")
            yield chunk
        self._cancel_token.check()
        if content_length is not None and done != content_length:
            raise RuntimeStoreError(f"{source} broke off after {done} bytes{_of_total(content_length)}", retryable=True)

    @contextmanager
    def _follow_redirects(
        self, url: str, accept: str, authorization: str | None, allow_http: bool
    ) -> Iterator[requests.Response]:
        current_url = url
        for _ in range(_MAX_REDIRECTS + 1):
            _check_url_security(current_url, url, allow_http=allow_http)
            credentials = authorization if _origin(current_url) == _origin(url) else None
            with self._send(current_url, {"Accept": accept, "Accept-Encoding": "identity"}, credentials) as response:
                location = response.headers.get("Location")
                if response.status_code not in (301, 302, 303, 307, 308) or not location:
                    yield response
                    return
            current_url = urljoin(current_url, location)
        raise RuntimeStoreError(f"{_without_query(url)} redirects more than {_MAX_REDIRECTS} times")

    @contextmanager
    def _send(self, url: str, headers: Mapping[str, str], authorization: str | None) -> Iterator[requests.Response]:
        self._cancel_token.check()

        def add_authorization(request: requests.PreparedRequest) -> requests.PreparedRequest:
            """Without an authority of its own the library would show what ``.netrc`` has for the host."""
            if authorization is not None:
                request.headers["Authorization"] = authorization
            return request

        try:
            prepared = self._session.prepare_request(
                requests.Request("GET", url, headers=dict(headers), auth=add_authorization)
            )
            settings = self._session.merge_environment_settings(url, {}, None, None, None)
            if is_loopback(urlsplit(url).hostname):
                settings["proxies"] = {}  # a proxy knows another machine by this name
            settings["stream"] = True
            response = self._session.send(
                prepared, timeout=(CONNECT_TIMEOUT_S, READ_TIMEOUT_S), allow_redirects=False, **settings
            )
        except (requests.exceptions.InvalidURL, requests.exceptions.InvalidSchema, ValueError) as error:
            raise RuntimeStoreError(f"{_without_query(url)} is no URL that can be asked") from error
        except requests.exceptions.SSLError as error:
            self._cancel_token.check()
            raise RuntimeStoreError(
                f"{_origin(url)} does not prove who it is; REQUESTS_CA_BUNDLE names authorities"
            ) from error
        except requests.Timeout as error:
            self._cancel_token.check()
            raise RuntimeStoreError(
                f"{_origin(url)} did not answer within {READ_TIMEOUT_S:.0f} s", retryable=True
            ) from error
        except requests.RequestException as error:
            self._cancel_token.check()
            raise RuntimeStoreError(
                f"{_origin(url)} can't be reached: {type(error).__name__}", retryable=True
            ) from error
        try:
            yield response
        finally:
            response.close()


def _make_adapter(cancel_token: CancelToken) -> HTTPAdapter:
    """An adapter whose connections can be called off; those through a proxy end by their time-outs."""

    class CancellableHttpConnection(HTTPConnection):
        def connect(self) -> None:
            super().connect()
            _register_socket(cancel_token, self.sock)

    class CancellableHttpsConnection(HTTPSConnection):
        def connect(self) -> None:
            super().connect()
            _register_socket(cancel_token, self.sock)

    class CancellableHttpPool(HTTPConnectionPool):
        ConnectionCls = CancellableHttpConnection

    class CancellableHttpsPool(HTTPSConnectionPool):
        ConnectionCls = CancellableHttpsConnection

    adapter = HTTPAdapter(max_retries=0)
    adapter.poolmanager.pool_classes_by_scheme = {"http": CancellableHttpPool, "https": CancellableHttpsPool}
    return adapter


def _register_socket(cancel_token: CancelToken, connection: Any) -> None:
    if isinstance(connection, socket.socket):
        cancel_token.register_socket(connection)


def _check_url_security(url: str, first_url: str, *, allow_http: bool) -> None:
    scheme, host = urlsplit(url).scheme.lower(), urlsplit(url).hostname
    redirected_by = "" if url == first_url else f", where {_origin(first_url)} redirects to"
    if is_loopback(host) and not is_loopback(urlsplit(first_url).hostname):
        raise RuntimeStoreError(
            f"{_origin(url)}{redirected_by}, is this machine, of which a server elsewhere knows nothing"
        )
    if scheme == "https" or (scheme == "http" and (allow_http or is_loopback(host))):
        return
    raise RuntimeStoreError(f"{_origin(url)}{redirected_by}, is not https")


def _error_of_status(url: str, status: int) -> RuntimeStoreError:
    shown_url = _without_query(url)
    if status in (401, 403):
        return not_found(
            f"{shown_url} is refused to us (HTTP status {status}); `docker login` keeps what registries ask for"
        )
    if status in (404, 410):
        return not_found(f"{shown_url} is not there (HTTP status {status})")
    return RuntimeStoreError(f"{shown_url} answers with HTTP status {status}", retryable=status == 429 or status >= 500)


def _content_length(response: requests.Response) -> int | None:
    header = response.headers.get("Content-Length", "")
    return int(header) if header.isascii() and header.isdigit() and len(header) < 20 else None


def _of_total(total: int | None) -> str:
    return "" if total is None else f" of {total}"


def _origin(url: str) -> str:
    parts = urlsplit(url)
    try:
        port = parts.port or {"https": 443, "http": 80}.get(parts.scheme.lower())
    except ValueError:
        port = None
    return f"{parts.scheme.lower()}://{parts.hostname}:{port}"


def _without_query(url: str) -> str:
    """Without the query: it may hold a signature."""
    return url.partition("?")[0]
