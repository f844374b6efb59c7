"""HTTP downloads with limits on time and size. Redirects neither leak credentials nor lead to unsafe places."""

import hashlib
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from typing import IO, Any
from urllib.parse import urljoin, urlsplit

import requests

from memoair_protocol.addresses import is_loopback
from memoair_protocol.cloud_http import CloudHttp, read_chunks
from memoair_protocol.cloud_replies import CloudUnreachableError
from memoair_runtime_store.cancel_token import CancelToken
from memoair_runtime_store.errors import RuntimeStoreError, not_found

CONNECT_TIMEOUT_S, READ_TIMEOUT_S = 10.0, 30.0
_MAX_REDIRECTS, _REDIRECT_STATUSES = 5, (301, 302, 303, 307, 308)
_LOGIN_STATUSES = (401, 403)
# Called with the bytes received, and the total if it is known.
ProgressCallback = Callable[[int, int | None], None]


class Downloader:
    """The HTTP connections of one pull. Not thread-safe; the owner closes it.

    Args:
        cancel_token: Cancels requests, also while they wait for the network.
    """

    def __init__(self, cancel_token: CancelToken) -> None:
        self._cancel_token = cancel_token
        self._http = CloudHttp("", None, connect_timeout_s=CONNECT_TIMEOUT_S, read_timeout_s=READ_TIMEOUT_S)
        # Connections through a proxy are not cancelled; they end by their timeouts.
        pool_classes = self._http.adapter.poolmanager.pool_classes_by_scheme
        self._http.adapter.poolmanager.pool_classes_by_scheme = {
            scheme: _cancellable(pool_class, cancel_token) for scheme, pool_class in pool_classes.items()
        }

    def close(self) -> None:
        """Close all connections."""
        self._http.close()

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
        """GET a URL, following redirects, and yield the response before its body is read.

        Args:
            url: The URL to request.
            accept: The value of the Accept header.
            authorization: The value of the Authorization header. Sent only to the origin of ``url``, and not after a
                redirect has led away from it.
            allow_http: Whether a plain connection to another machine is acceptable. It is if the content is verified
                against a digest from elsewhere.
            allowed_statuses: Statuses besides 200 that do not raise, if the origin of ``url`` itself sends them.

        Raises:
            RuntimeStoreError: The request failed, was redirected to an unsafe place, or the status is not allowed.
            PullCancelledError: The pull was cancelled.
        """
        current_url, has_left = url, False
        for _ in range(_MAX_REDIRECTS + 1):
            _check_url_security(current_url, url, allow_http=allow_http)
            # Once elsewhere, another server chooses the way: also one back to the origin gets no credentials.
            has_left = has_left or origin_of(current_url) != origin_of(url)
            with self._send(current_url, accept, None if has_left else authorization) as response:
                location = response.headers.get("Location")
                if response.status_code not in _REDIRECT_STATUSES or not location:
                    if has_left and response.status_code in _LOGIN_STATUSES:
                        raise _login_elsewhere(url, current_url, response.status_code)
                    if response.status_code not in {200, *(() if has_left else allowed_statuses)}:
                        raise _error_of_status(url, response.status_code)
                    yield response
                    return
            try:
                current_url = urljoin(current_url, location)
            except ValueError as error:
                raise RuntimeStoreError(f"{origin_of(current_url)} redirects to an invalid URL") from error
        raise RuntimeStoreError(f"{_without_query(url)} redirects more than {_MAX_REDIRECTS} times")

    def read(self, url: str, max_bytes: int, **options: Any) -> bytes:
        """Return the whole body, of at most ``max_bytes``. The options are those of `open`."""
        with self.open(url, **options) as response:
            return self.read_body(response, max_bytes)

    def read_body(self, response: requests.Response, max_bytes: int) -> bytes:
        """Return the body of a response, of at most ``max_bytes``."""
        return b"".join(self._read_chunks(response, max_bytes))

    def download(
        self, url: str, file: IO[bytes], max_bytes: int, *, size: int | None, progress: ProgressCallback, **options: Any
    ) -> str:
        """Write a body to a file and return its SHA-256 in hexadecimal.

        Args:
            url: The URL to request.
            file: The file to write to.
            max_bytes: The largest body to accept.
            size: The expected size in bytes, None if it is unknown.
            progress: Called after each chunk.
            **options: Options of `open`.

        Raises:
            RuntimeStoreError: The download failed, or the body has another size than expected.
            PullCancelledError: The pull was cancelled.
        """
        digest, done = hashlib.sha256(), 0
        with self.open(url, **options) as response:
            content_length = _content_length(response)
            if size is not None and content_length not in (None, size):
                raise RuntimeStoreError(f"{_without_query(url)} has {content_length} bytes, expected {size}")
            for chunk in self._read_chunks(response, max_bytes):
                digest.update(chunk)
                try:
                    file.write(chunk)
                except OSError as error:
                    raise RuntimeStoreError(f"the download cannot be written to disk: {error.strerror}") from error
                done += len(chunk)
                progress(done, size or content_length)
        if size is not None and done != size:
            raise RuntimeStoreError(f"{_without_query(url)} has {done} bytes, expected {size}", retryable=done < size)
        return digest.hexdigest()

    def _read_chunks(self, response: requests.Response, max_bytes: int) -> Iterator[bytes]:
        source, done, content_length = _without_query(response.url), 0, _content_length(response)
        if content_length is not None and content_length > max_bytes:
            raise RuntimeStoreError(f"{source} has {content_length} bytes, more than the limit of {max_bytes}")
        try:
            # Content is not decoded: if a server labels an archive as "encoded", the digest is still that of the bytes
            # as stored.
            for chunk in read_chunks(response, self._cancel_token.check, is_decoded=False):
                done += len(chunk)
                if done > max_bytes:
                    raise RuntimeStoreError(f"{source} has more than the limit of {max_bytes} bytes")
                yield chunk
            is_complete = content_length in (None, done)
        except CloudUnreachableError:
            is_complete = False
        self._cancel_token.check()
        if not is_complete:
            of_total = "" if content_length is None else f" of {content_length}"
            raise RuntimeStoreError(f"{source} closed the connection after {done}{of_total} bytes", retryable=True)

    def _send(self, url: str, accept: str, authorization: str | None) -> requests.Response:
        self._cancel_token.check()
        try:
            headers = {"Accept": accept, "Accept-Encoding": "identity"}
            if authorization is not None:
                headers["Authorization"] = authorization
            return self._http.open("GET", url, headers=headers)
        except CloudUnreachableError as error:
            self._cancel_token.check()
            message = f"{origin_of(url)} is unreachable: {error}"
            raise RuntimeStoreError(message, retryable=not error.is_final) from error


def _cancellable(pool_class: Any, cancel_token: CancelToken) -> Any:
    """Return a class of connection pools whose connections can be cancelled."""

    class Connection(pool_class.ConnectionCls):  # type: ignore[misc]
        def connect(self) -> None:
            super().connect()
            cancel_token.register_socket(self.sock)

    class Pool(pool_class):  # type: ignore[misc]
        ConnectionCls = Connection

    return Pool


def _check_url_security(url: str, first_url: str, *, allow_http: bool) -> None:
    scheme, host = urlsplit(url).scheme.lower(), urlsplit(url).hostname
    redirected_by = "" if url == first_url else f" (redirected from {origin_of(first_url)})"
    if is_loopback(host) and not is_loopback(urlsplit(first_url).hostname):
        raise RuntimeStoreError(
            f"{origin_of(url)}{redirected_by} is this machine; a remote server must not redirect to it"
        )
    if scheme == "https" or (scheme == "http" and (allow_http or is_loopback(host))):
        return
    raise RuntimeStoreError(f"{origin_of(url)}{redirected_by} does not use https")


def _error_of_status(url: str, status: int) -> RuntimeStoreError:
    shown_url = _without_query(url)
    if status in _LOGIN_STATUSES:
        return not_found(
            f"access to {shown_url} is denied (HTTP status {status}); log in to the registry with `docker login`"
        )
    if status in (404, 410):
        return not_found(f"{shown_url} does not exist (HTTP status {status})")
    return RuntimeStoreError(f"{shown_url} returned HTTP status {status}", retryable=status == 429 or status >= 500)


def _login_elsewhere(url: str, redirected_to: str, status: int) -> RuntimeStoreError:
    """Return the error for a server that another one redirects to, and that requires a login."""
    return not_found(
        f"{origin_of(url)} redirects to {origin_of(redirected_to)}, which denies access (HTTP status {status});"
        " credentials are not sent to a server that another one redirects to"
    )


def _content_length(response: requests.Response) -> int | None:
    header = response.headers.get("Content-Length", "")
    return int(header) if header.isascii() and header.isdigit() and len(header) < 20 else None


def origin_of(url: str) -> str:
    """Return scheme, host and port of a URL, without user and password."""
    parts = urlsplit(url)
    try:
        port = parts.port or {"https": 443, "http": 80}.get(parts.scheme.lower())
    except ValueError:
        port = None
    return f"{parts.scheme.lower()}://{parts.hostname}:{port}"


def _without_query(url: str) -> str:
    """Remove the query, which may contain a signature."""
    return url.partition("?")[0]
