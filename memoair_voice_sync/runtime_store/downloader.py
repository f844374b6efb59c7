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
from memoair_voice_sync.runtime_store.errors import RuntimeStoreError, not_there
from memoair_voice_sync.runtime_store.reference import is_loopback

CONNECT_S, READ_S = 10.0, 30.0
_MOST_REDIRECTS = 5
_CHUNK = 1 << 16
_BROKEN = (urllib3.exceptions.HTTPError, http.client.HTTPException, OSError)

Progress = Callable[[int, int | None], None]  # bytes that are there, bytes that there will be where that is known


class Downloader:
    """One pull's connections. For one thread; close it."""

    def __init__(self, stop: CancelToken) -> None:
        self._stop = stop
        self._session = requests.Session()
        for scheme in ("https://", "http://"):
            self._session.mount(scheme, _adapter(stop))

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
        also: Collection[int] = (),
    ) -> Iterator[requests.Response]:
        """GET a URL, over redirects; the body is still to be read.

        ``authorization`` is shown to the server of the URL alone. ``allow_http`` lets a plain connection to another
        machine be: what comes is compared with a digest that came from elsewhere. Statuses in ``also`` are no fault.
        """
        with self._followed(url, accept, authorization, allow_http) as response:
            if response.status_code not in {200, *also}:
                raise _refusal(url, response.status_code)
            yield response

    def read(self, url: str, limit: int, **options: Any) -> bytes:
        """The whole body, of at most ``limit`` bytes; the rest as for `open`."""
        with self.open(url, **options) as response:
            return self.body(response, limit)

    def body(self, response: requests.Response, limit: int) -> bytes:
        """The body of an answer, of at most ``limit`` bytes."""
        return b"".join(self._chunks(response, limit))

    def download(
        self, url: str, into: IO[bytes], limit: int, *, size: int | None, progress: Progress, **options: Any
    ) -> str:
        """Write a body to a file and return its SHA-256 in hexadecimal; ``size`` is how long it must be."""
        digest, done = hashlib.sha256(), 0
        with self.open(url, **options) as response:
            promised = _promised(response)
            if size is not None and promised not in (None, size):
                raise RuntimeStoreError(f"{_shown(url)} holds {promised} bytes, where {size} were announced")
            for chunk in self._chunks(response, limit):
                digest.update(chunk)
                try:
                    into.write(chunk)
                except OSError as error:
                    raise RuntimeStoreError(f"there is no room for what is pulled: {error.strerror}") from error
                done += len(chunk)
                progress(done, size or promised)
        if size is not None and done != size:
            raise RuntimeStoreError(
                f"{_shown(url)} holds {done} bytes, where {size} were announced", may_pass=done < size
            )
        return digest.hexdigest()

    def _chunks(self, response: requests.Response, limit: int) -> Iterator[bytes]:
        where, done, promised = _shown(response.url), 0, _promised(response)
        if promised is not None and promised > limit:
            raise RuntimeStoreError(f"{where} holds {promised} bytes, and no more than {limit} are taken")
        while True:
            self._stop.check()
            try:
                # What is there, be it a single byte: who waits for more would not see how slowly it comes. As it is
                # stored: an archive that a server calls "encoded" would not be what its digest is of.
                chunk: bytes = response.raw.read1(_CHUNK, decode_content=False)
            except _BROKEN as error:
                self._stop.check()
                raise RuntimeStoreError(
                    f"{where} broke off after {done} bytes{_of(promised)}", may_pass=True
                ) from error
            if not chunk:
                break
            done += len(chunk)
            if done > limit:
                raise RuntimeStoreError(f"{where} holds more than the {limit} bytes that are taken")
            yield chunk
        self._stop.check()
        if promised is not None and done != promised:
            raise RuntimeStoreError(f"{where} broke off after {done} bytes{_of(promised)}", may_pass=True)

    @contextmanager
    def _followed(
        self, url: str, accept: str, authorization: str | None, allow_http: bool
    ) -> Iterator[requests.Response]:
        here = url
        for _ in range(_MOST_REDIRECTS + 1):
            _check_way(here, url, allow_http=allow_http)
            shown = authorization if _origin(here) == _origin(url) else None
            with self._asked(here, {"Accept": accept, "Accept-Encoding": "identity"}, shown) as response:
                location = response.headers.get("Location")
                if response.status_code not in (301, 302, 303, 307, 308) or not location:
                    yield response
                    return
            here = urljoin(here, location)
        raise RuntimeStoreError(f"{_shown(url)} redirects more than {_MOST_REDIRECTS} times")

    @contextmanager
    def _asked(self, url: str, headers: Mapping[str, str], authorization: str | None) -> Iterator[requests.Response]:
        self._stop.check()

        def show(request: requests.PreparedRequest) -> requests.PreparedRequest:
            """Without an authority of its own the library would show what ``.netrc`` has for the host."""
            if authorization is not None:
                request.headers["Authorization"] = authorization
            return request

        try:
            prepared = self._session.prepare_request(requests.Request("GET", url, headers=dict(headers), auth=show))
            settings = self._session.merge_environment_settings(url, {}, None, None, None)
            if is_loopback(urlsplit(url).hostname):
                settings["proxies"] = {}  # a proxy knows another machine by this name
            settings["stream"] = True
            response = self._session.send(prepared, timeout=(CONNECT_S, READ_S), allow_redirects=False, **settings)
        except (requests.exceptions.InvalidURL, requests.exceptions.InvalidSchema, ValueError) as error:
            raise RuntimeStoreError(f"{_shown(url)} is no URL that can be asked") from error
        except requests.exceptions.SSLError as error:
            self._stop.check()
            raise RuntimeStoreError(
                f"{_origin(url)} does not prove who it is; REQUESTS_CA_BUNDLE names authorities"
            ) from error
        except requests.Timeout as error:
            self._stop.check()
            raise RuntimeStoreError(f"{_origin(url)} did not answer within {READ_S:.0f} s", may_pass=True) from error
        except requests.RequestException as error:
            self._stop.check()
            raise RuntimeStoreError(
                f"{_origin(url)} can't be reached: {type(error).__name__}", may_pass=True
            ) from error
        try:
            yield response
        finally:
            response.close()


def _adapter(stop: CancelToken) -> HTTPAdapter:
    """An adapter whose connections can be called off; those through a proxy end by their time-outs."""

    class Plain(HTTPConnection):
        def connect(self) -> None:
            super().connect()
            _watch(stop, self.sock)

    class Secure(HTTPSConnection):
        def connect(self) -> None:
            super().connect()
            _watch(stop, self.sock)

    class PlainPool(HTTPConnectionPool):
        ConnectionCls = Plain

    class SecurePool(HTTPSConnectionPool):
        ConnectionCls = Secure

    adapter = HTTPAdapter(max_retries=0)
    adapter.poolmanager.pool_classes_by_scheme = {"http": PlainPool, "https": SecurePool}
    return adapter


def _watch(stop: CancelToken, connection: Any) -> None:
    if isinstance(connection, socket.socket):
        stop.watch(connection)


def _check_way(url: str, first: str, *, allow_http: bool) -> None:
    scheme, host = urlsplit(url).scheme.lower(), urlsplit(url).hostname
    came_from = "" if url == first else f", where {_origin(first)} redirects to"
    if is_loopback(host) and not is_loopback(urlsplit(first).hostname):
        raise RuntimeStoreError(
            f"{_origin(url)}{came_from}, is this machine, of which a server elsewhere knows nothing"
        )
    if scheme == "https" or (scheme == "http" and (allow_http or is_loopback(host))):
        return
    raise RuntimeStoreError(f"{_origin(url)}{came_from}, is not https")


def _refusal(url: str, status: int) -> RuntimeStoreError:
    where = _shown(url)
    if status in (401, 403):
        return not_there(
            f"{where} is refused to us (HTTP status {status}); `docker login` keeps what registries ask for"
        )
    if status in (404, 410):
        return not_there(f"{where} is not there (HTTP status {status})")
    return RuntimeStoreError(f"{where} answers with HTTP status {status}", may_pass=status == 429 or status >= 500)


def _promised(response: requests.Response) -> int | None:
    told = response.headers.get("Content-Length", "")
    return int(told) if told.isascii() and told.isdigit() and len(told) < 20 else None


def _of(promised: int | None) -> str:
    return "" if promised is None else f" of {promised}"


def _origin(url: str) -> str:
    parts = urlsplit(url)
    try:
        port = parts.port or {"https": 443, "http": 80}.get(parts.scheme.lower())
    except ValueError:
        port = None
    return f"{parts.scheme.lower()}://{parts.hostname}:{port}"


def _shown(url: str) -> str:
    """Without the query: it may hold a signature."""
    return url.partition("?")[0]
