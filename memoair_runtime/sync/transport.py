"""HTTP to the cloud: one persistent connection, every request bounded in time, every response checked.

This module imports ``requests``, which is slow. The fork server imports it before it forks runtimes, and a runtime
without a cloud never does.
"""

import gzip
import hashlib
import os
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from functools import lru_cache
from http import HTTPStatus
from pathlib import Path
from typing import Any, TypeVar

import attrs
import msgspec
import requests
import urllib3
from requests.adapters import HTTPAdapter
from requests.utils import DEFAULT_CA_BUNDLE_PATH
from urllib3.util.ssl_ import create_urllib3_context

from memoair_protocol.addresses import is_loopback_url
from memoair_protocol.http_headers import identity_headers, parse_retry_after
from memoair_runtime.sync import responses
from memoair_runtime.sync.errors import CloudError, FailureKind, invalid_response

CONNECT_TIMEOUT_S, READ_TIMEOUT_S = 3.0, 10.0
# Limits for a whole request, however steadily bytes arrive: a page is some megabytes, an index file may be a gigabyte.
CALL_TIMEOUT_S, DOWNLOAD_TIMEOUT_S = 60.0, 900.0
MAX_RESPONSE_BYTES = 64 << 20
_CHUNK_BYTES = 1 << 16
_GZIP_LEVEL = 4  # half the time of the highest level, output 10 % larger
_TRANSIENT_STATUSES = frozenset([HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_EARLY, HTTPStatus.TOO_MANY_REQUESTS])
_INVALID_STATUSES = frozenset(
    [HTTPStatus.BAD_REQUEST, HTTPStatus.REQUEST_ENTITY_TOO_LARGE, HTTPStatus.UNPROCESSABLE_ENTITY]
)
# Variables that name a bundle of certificate authorities, in the order in which other programs read them.
_CA_BUNDLE_VARIABLES = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE")
_API_PATH = "/v1/voice-sdk"

ResponseT = TypeVar("ResponseT")


@attrs.frozen
class CloudIdentity:
    """The identity under which the cloud is used. The key is left out of the ``repr``.

    Attributes:
        base_url: The cloud's URL, without a trailing slash.
        key: The API key.
        project_id: The project.
        agent_id: The agent, if any.
        user_id: The user; None for data of the project only.
    """

    base_url: str
    key: str = attrs.field(repr=False)
    project_id: str
    agent_id: str | None
    user_id: str | None  # None: for the project only

    def headers(self) -> dict[str, bytes]:
        """Return the identity as headers.

        Raises:
            CloudError: A header cannot hold an id unchanged.
        """
        try:
            headers = identity_headers(self.project_id, self.agent_id, self.user_id)
        except ValueError as error:
            raise CloudError(FailureKind.REJECTED, str(error)) from None
        return {name: value.encode("latin-1") for name, value in headers.items()}


@lru_cache(maxsize=1)
def ssl_context() -> ssl.SSLContext:
    """Return the TLS context with the trusted certificate authorities.

    It is created once: that takes 30 ms and 2.5 MB, which forked processes share.

    Raises:
        OSError: The environment names a certificate bundle that cannot be read.
    """
    context = create_urllib3_context()
    file = next((os.environ[name] for name in _CA_BUNDLE_VARIABLES if os.environ.get(name)), None)
    folder = os.environ.get("SSL_CERT_DIR") or None
    if file is not None and Path(file).is_dir():
        file, folder = None, file
    context.load_verify_locations(file or (None if folder else DEFAULT_CA_BUNDLE_PATH), folder)
    return context


class _SharedContextAdapter(HTTPAdapter):
    """An adapter that uses the shared TLS context instead of reading the bundle for each connection."""

    def init_poolmanager(self, *args: Any, **options: Any) -> None:
        super().init_poolmanager(*args, ssl_context=ssl_context(), **options)

    def proxy_manager_for(self, proxy: str, **options: Any) -> Any:
        return super().proxy_manager_for(proxy, ssl_context=ssl_context(), **options)

    def cert_verify(self, conn: Any, url: str, verify: Any, cert: Any) -> None:
        """Do nothing: the TLS context verifies."""

    def close(self) -> None:
        """Close the connections now. The library itself leaves that to garbage collection."""
        for manager in (self.poolmanager, *self.proxy_manager.values()):
            for key in list(manager.pools.keys()):  # it does not support iteration
                if (pool := manager.pools.get(key)) is not None:
                    pool.close()
        super().close()


class _BearerAuth(requests.auth.AuthBase):
    """Authentication by the key. A plain header would be overridden by an entry for the host in ``.netrc``."""

    def __init__(self, key: str) -> None:
        self._key = key

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        request.headers["Authorization"] = f"Bearer {self._key}"
        return request


class CloudTransport:
    """Requests to the cloud for one identity. For one thread; `abort` is safe to call from any.

    Every ``deadline`` is in monotonic seconds. Every method that makes a request raises `CloudError`, and nothing else
    unless it says so. ``since`` is a version; the response is then None if nothing has changed since.
    """

    def __init__(self, identity: CloudIdentity) -> None:
        self._identity = identity
        self._aborted = threading.Event()
        self._is_pushing = False  # a push is not aborted half way
        self._session: requests.Session | None = None

    def fetch_bootstrap(self, etag: str | None, deadline: float) -> tuple[responses.Bootstrap, str] | None:
        """Fetch the versions of everything.

        Args:
            etag: The tag of the last response, if any.
            deadline: When to give up.

        Returns:
            The versions, and the tag for the next request; None if they have not changed since ``etag``.
        """
        headers = {} if etag is None else {"If-None-Match": etag}
        with self._request("GET", "/bootstrap", deadline, headers=headers) as reply:
            if _is_not_modified(reply):
                return None
            bootstrap = responses.parse_bootstrap(self._read_body(reply, deadline))
            return bootstrap, reply.headers.get("ETag") or f'"{bootstrap.sync_token}"'

    def fetch_profile(self, since: int | None, deadline: float) -> responses.ProfileResponse | None:
        """Fetch the user's profile."""
        return self._fetch_projection("profile", since, deadline, responses.parse_profile)

    def fetch_permanent(self, since: int | None, deadline: float) -> responses.PermanentResponse | None:
        """Fetch a page of events and facts."""
        return self._fetch_projection("permanent", since, deadline, responses.parse_permanent)

    def fetch_org(self, since: int | None, deadline: float) -> responses.OrgResponse | None:
        """Fetch a page of documents."""
        return self._fetch_projection("org", since, deadline, responses.parse_org)

    def fetch_erasures(self, since: int | None, deadline: float) -> responses.ErasuresResponse | None:
        """Fetch a page of the list of erasures."""
        return self._fetch_projection("forgotten", since, deadline, responses.parse_erasures)

    def download_org_file(self, file: responses.OrgFileInfo, path: Path, deadline: float) -> None:
        """Download an index file of documents.

        Args:
            file: Its size and checksum, which are verified.
            path: Where to write it.
            deadline: When to give up.

        Raises:
            CloudError: The download failed, or the file is not the expected one.
            OSError: The file cannot be written.
        """
        digest, size = hashlib.sha256(), 0
        with self._request("GET", f"/projections/org/file/{file.sha256}", deadline) as reply, path.open("wb") as target:
            for chunk in self._iterate_body(reply, deadline):
                size += len(chunk)
                if size > file.size:
                    break
                digest.update(chunk)
                target.write(chunk)
        if size != file.size or digest.hexdigest() != file.sha256:
            raise invalid_response("the index file does not match its size and checksum")

    def push_events(self, events: Sequence[bytes], deadline: float) -> responses.IngestReceipt:
        """Send events.

        Args:
            events: JSON objects.
            deadline: When to give up.

        Returns:
            The outcome for each event.
        """
        content = gzip.compress(b'{"events":[' + b",".join(events) + b"]}", _GZIP_LEVEL)
        headers = {"Content-Type": "application/json", "Content-Encoding": "gzip"}
        self._is_pushing = True
        try:
            with self._request("POST", "/events", deadline, content=content, headers=headers) as reply:
                return responses.parse_receipt(self._read_body(reply, deadline))
        finally:
            self._is_pushing = False

    def abort(self) -> None:
        """Let a running pull fail soon, and start no other. A running push continues. Thread-safe."""
        self._aborted.set()

    def _is_expired(self, deadline: float) -> bool:
        return time.monotonic() >= deadline or (self._aborted.is_set() and not self._is_pushing)

    def close(self) -> None:
        """Close the connection. Calling it again has no effect."""
        session, self._session = self._session, None
        if session is not None:
            session.close()

    def _fetch_projection(
        self, name: str, since: int | None, deadline: float, parse: Callable[[bytes], ResponseT]
    ) -> ResponseT | None:
        query = "" if since is None else f"?since={since}"
        with self._request("GET", f"/projections/{name}{query}", deadline) as reply:
            return None if _is_not_modified(reply) else parse(self._read_body(reply, deadline))

    @contextmanager
    def _request(
        self,
        method: str,
        path: str,
        deadline: float,
        *,
        content: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Iterator[requests.Response]:
        """Make a request and yield its response, which is 2xx or 304, to be read within the block."""
        try:
            time_left_s = deadline - time.monotonic()
            if self._is_expired(deadline):
                raise CloudError(FailureKind.TRANSIENT, "no time left for the request")
            reply = self._get_session().request(
                method,
                f"{self._identity.base_url}{_API_PATH}{path}",
                data=content,
                headers=headers,
                timeout=(min(CONNECT_TIMEOUT_S, time_left_s), min(READ_TIMEOUT_S, time_left_s)),
                allow_redirects=False,  # a redirect would send the key to another server
                stream=True,
            )
            with closing(reply):
                self._raise_for_status(reply, deadline, has_content=content is not None)
                yield reply
        except requests.Timeout:
            raise CloudError(FailureKind.TRANSIENT, "the cloud did not answer in time") from None
        except (requests.RequestException, urllib3.exceptions.HTTPError, ssl.SSLError, ConnectionError) as error:
            raise CloudError(FailureKind.TRANSIENT, f"cannot reach the cloud: {type(error).__name__}") from None

    def _get_session(self) -> requests.Session:
        if self._session is None:
            headers = self._identity.headers()
            session = requests.Session()
            session.headers["User-Agent"] = "memoair-runtime"
            session.auth = _BearerAuth(self._identity.key)
            session.headers.update(headers)  # type: ignore[arg-type]  # bytes are sent unchanged
            # Read the proxies from the environment here, once and not for each request. A cloud on this machine is
            # reached directly, even if there is a proxy.
            session.trust_env = False
            if not is_loopback_url(self._identity.base_url):
                session.proxies = requests.utils.get_environ_proxies(self._identity.base_url)
            try:
                adapter = _SharedContextAdapter(pool_connections=1, pool_maxsize=1)
            except OSError as error:
                message = f"cannot read the certificate bundle: {error.strerror}"
                raise CloudError(FailureKind.TRANSIENT, message) from None
            for scheme in ("https://", "http://"):
                session.mount(scheme, adapter)
            self._session = session
        return self._session

    def _raise_for_status(self, reply: requests.Response, deadline: float, *, has_content: bool) -> None:
        status = reply.status_code
        if HTTPStatus.OK <= status < HTTPStatus.MULTIPLE_CHOICES or status == HTTPStatus.NOT_MODIFIED:
            return
        retry_after_s = parse_retry_after(reply.headers.get("Retry-After"))
        code = _read_error_code(self._read_body(reply, deadline))
        message = f"the cloud answered {status} {code}".rstrip()
        if status >= HTTPStatus.INTERNAL_SERVER_ERROR or status in _TRANSIENT_STATUSES:
            raise CloudError(FailureKind.TRANSIENT, message, status=status, retry_after_s=retry_after_s)
        kind = FailureKind.REJECTED
        if has_content and status in _INVALID_STATUSES:
            # A proxy between us and the cloud may reject a request, too. It must not decide that an event is
            # permanently invalid, unless the request is too large for it: that will not change.
            kind = (
                FailureKind.INVALID if code or status == HTTPStatus.REQUEST_ENTITY_TOO_LARGE else FailureKind.TRANSIENT
            )
        raise CloudError(kind, message, status=status)

    def _read_body(self, reply: requests.Response, deadline: float) -> bytes:
        content = bytearray()
        for chunk in self._iterate_body(reply, deadline):
            content += chunk
            if len(content) > MAX_RESPONSE_BYTES:
                raise invalid_response("too long")
        return bytes(content)

    def _iterate_body(self, reply: requests.Response, deadline: float) -> Iterator[bytes]:
        """Yield the body as it arrives: a server that sends one byte at a time must not hold us forever."""
        while chunk := reply.raw.read1(_CHUNK_BYTES, decode_content=True):
            if self._is_expired(deadline):
                raise CloudError(FailureKind.TRANSIENT, "the cloud's response took too long")
            yield chunk
        reply.raw.drain_conn()  # nothing is left, but only this frees the connection for reuse


def _is_not_modified(reply: requests.Response) -> bool:
    if reply.status_code != HTTPStatus.NOT_MODIFIED:
        return False
    reply.raw.drain_conn()
    return True


def _read_error_code(content: bytes) -> str:
    """Return the code from an error's envelope, if it has one that looks like ours."""
    try:
        error = msgspec.json.decode(content, type=responses.ErrorResponse).error
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return ""
    code = str(error.get("code", ""))
    return code if code.startswith("cloud.") and code.replace(".", "").replace("_", "").isalpha() else ""
