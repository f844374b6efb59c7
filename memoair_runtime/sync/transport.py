"""HTTP to the cloud: one persistent connection, every request bounded in time, every response checked.

This module imports ``requests``, which is slow. The fork server imports it before it forks runtimes, and a runtime
without a cloud never does.
"""

import copy
import gzip
import hashlib
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from email.utils import parsedate_to_datetime
from functools import partial
from http import HTTPStatus
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import requests

from memoair_protocol.cloud_http import CloudHttp, read_body, read_chunks
from memoair_protocol.cloud_replies import CloudReply, CloudUnreachableError
from memoair_protocol.erasure_marks import DEVICE_CLOCK_HEADER, SERVER_TIME_HEADER, DeviceClock, DeviceTime
from memoair_protocol.http_headers import identity_headers
from memoair_protocol.private_files import create_private_file
from memoair_protocol.timestamps import format_utc, parse_timestamp, to_utc, utc_now
from memoair_runtime.sync import responses
from memoair_runtime.sync.errors import CloudError, FailureKind, IdentityPart, invalid_response, rejected_identity

CONNECT_TIMEOUT_S, READ_TIMEOUT_S = 3.0, 10.0
# Limits for a whole request, however steadily bytes arrive: a page is some megabytes, an index file may be a gigabyte.
CALL_TIMEOUT_S, DOWNLOAD_TIMEOUT_S = 60.0, 900.0
_GZIP_LEVEL = 4  # half the time of the highest level, output 10 % larger
_TRANSIENT_STATUSES = frozenset([HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_EARLY, HTTPStatus.TOO_MANY_REQUESTS])
_INVALID_STATUSES = frozenset(
    [HTTPStatus.BAD_REQUEST, HTTPStatus.REQUEST_ENTITY_TOO_LARGE, HTTPStatus.UNPROCESSABLE_ENTITY]
)
# A difference of clocks up to this is the time that a reply takes, and the rounding of its date.
_SAME_TIME = timedelta(seconds=10)
_API_PATH = "/v1/voice-sdk"

ResponseT = TypeVar("ResponseT")


class CloudTransport:
    """Requests to the cloud for one identity. For one thread; `abort` is safe to call from any.

    Every ``deadline`` is in monotonic seconds. Every method that makes a request raises `CloudError`, and nothing else
    unless it says so. ``since`` is a version; the response is then None if nothing has changed since.

    Args:
        base_url: The cloud's URL.
        key: The API key.
        project_id: The project.
        agent_id: The agent, if any.
        user_id: The user; None for data of the project only.
    """

    def __init__(self, base_url: str, key: str, project_id: str, agent_id: str | None, user_id: str | None) -> None:
        self._ids = project_id, agent_id, user_id
        self._connection = _Connection(base_url, key)
        self._aborted = threading.Event()
        self._is_unabortable = False  # a push is not aborted half way

    @property
    def agent_id(self) -> str | None:
        """The agent of the requests, if any."""
        return self._ids[1]

    def as_user(self, user_id: str) -> "CloudTransport":
        """Return a transport for another user of the project, over the same connection, which it does not close."""
        other = copy.copy(self)
        other._ids = (*self._ids[:2], user_id)  # noqa: SLF001 - of the same class
        return other

    def fetch_bootstrap(self, etag: str | None, deadline: float) -> tuple[responses.Bootstrap, str] | None:
        """Fetch the versions of everything.

        Args:
            etag: The tag of the last response, if any.
            deadline: When to give up.

        Returns:
            The versions, and the tag for the next request; None if they have not changed since ``etag``.
        """
        headers = {} if etag is None else {"If-None-Match": etag}
        with self._request("GET", "/bootstrap", deadline, headers=headers, is_handshake=True) as reply:
            if _is_not_modified(reply):
                return None
            bootstrap = responses.parse_bootstrap(read_body(reply, partial(self._check, deadline)))
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

    def fetch_retention(self, deadline: float) -> responses.RetentionResponse | None:
        """Fetch how long turns are kept."""
        return self._fetch_projection("retention", None, deadline, responses.parse_retention)

    def report_erasures(self, erasures: Mapping[str, datetime], deadline: float) -> None:
        """Tell the cloud of erasures that it has lost, at most `MAX_ERASURES`.

        Args:
            erasures: The time of each by the digest of the user.
            deadline: When to give up.
        """
        users = [{"digest": digest, "forgottenAt": format_utc(at)} for digest, at in erasures.items()]
        content = msgspec.json.encode({"users": users})
        with self._request("POST", "/erasures", deadline, content=content) as reply:
            read_body(reply, partial(self._check, deadline))

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
        with (
            self._request("GET", f"/projections/org/file/{file.sha256}", deadline) as reply,
            create_private_file(path) as target,
        ):
            for chunk in read_chunks(reply, partial(self._check, deadline)):
                size += len(chunk)
                if size > file.size:
                    break
                digest.update(chunk)
                target.write(chunk)
        if size != file.size or digest.hexdigest() != file.sha256:
            raise invalid_response("the index file does not match its size and checksum")

    def push_events(
        self, events: Sequence[bytes], deadline: float, agent_id: str | None = None
    ) -> responses.IngestReceipt:
        """Send events.

        Args:
            events: JSON objects.
            deadline: When to give up.
            agent_id: The agent that logged them, if it is not the agent of the transport.

        Returns:
            The outcome for each event.
        """
        content = gzip.compress(b'{"events":[' + b",".join(events) + b"]}", _GZIP_LEVEL)
        headers = {"Content-Type": "application/json", "Content-Encoding": "gzip"}
        headers[DEVICE_CLOCK_HEADER] = DeviceClock.now().to_header()
        with (
            self.unabortable(),
            self._request("POST", "/events", deadline, content=content, headers=headers, agent_id=agent_id) as reply,
        ):
            return responses.parse_receipt(read_body(reply, partial(self._check, deadline)))

    def push_traces(self, traces: Sequence[bytes], deadline: float) -> int:
        """Send recall traces.

        Args:
            traces: JSON objects.
            deadline: When to give up.

        Returns:
            How many of them the cloud has now; it refuses the others.
        """
        content = gzip.compress(b'{"traces":[' + b",".join(traces) + b"]}", _GZIP_LEVEL)
        headers = {"Content-Type": "application/json", "Content-Encoding": "gzip"}
        with (
            self.unabortable(),
            self._request("POST", "/recall-traces", deadline, content=content, headers=headers) as reply,
        ):
            return responses.parse_trace_receipt(read_body(reply, partial(self._check, deadline)))

    def abort(self) -> None:
        """Let a running pull fail soon, and start no other. A running push continues. Thread-safe."""
        self._aborted.set()

    @contextmanager
    def unabortable(self) -> Iterator[None]:
        """Make requests within the block that `abort` does not stop."""
        before, self._is_unabortable = self._is_unabortable, True
        try:
            yield
        finally:
            self._is_unabortable = before

    def to_local_time(self, at: datetime) -> tuple[datetime, DeviceTime]:
        """Return the clocks of this machine at a time that the cloud names: its clock and ours may differ by hours.

        The time since then is measured by the cloud's clock alone, with its last reply. A time in its future counts as
        now.
        """
        now, device_now = utc_now(), DeviceTime.now()
        since = max(timedelta(0), self._connection.cloud_time(device_now) - at)
        return now - since, DeviceTime(device_now.boot, max(0.0, device_now.uptime_s - since.total_seconds()))

    def close(self) -> None:
        """Close the connection. Calling it again has no effect."""
        self._connection.close()

    def _fetch_projection(
        self, name: str, since: int | None, deadline: float, parse: Callable[[bytes], ResponseT]
    ) -> ResponseT | None:
        query = "" if since is None else f"?since={since}"
        with self._request("GET", f"/projections/{name}{query}", deadline) as reply:
            return None if _is_not_modified(reply) else parse(read_body(reply, partial(self._check, deadline)))

    @contextmanager
    def _request(
        self,
        method: str,
        path: str,
        deadline: float,
        *,
        content: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        agent_id: str | None = None,
        is_handshake: bool = False,
    ) -> Iterator[requests.Response]:
        """Make a request and yield its response, which is 2xx or 304, to be read within the block."""
        time_left_s = deadline - time.monotonic()
        self._check(deadline)
        timeouts = min(CONNECT_TIMEOUT_S, time_left_s), min(READ_TIMEOUT_S, time_left_s)
        headers = {**self._identity(agent_id), **(headers or {})}
        http = self._connection.get()
        try:
            with http.open(method, f"{_API_PATH}{path}", content, headers, timeouts=timeouts) as reply:
                self._connection.note_time(reply.headers)
                self._raise_for_status(reply, deadline, has_content=content is not None, is_handshake=is_handshake)
                yield reply
        except CloudUnreachableError as error:
            message = "the cloud did not answer in time" if error.is_timeout else f"cannot reach the cloud: {error}"
            raise CloudError(FailureKind.TRANSIENT, message) from None

    def _check(self, deadline: float) -> None:
        if time.monotonic() >= deadline or (self._aborted.is_set() and not self._is_unabortable):
            raise CloudError(FailureKind.TRANSIENT, "the cloud's response took too long")

    def _identity(self, agent_id: str | None) -> Mapping[str, str]:
        project_id, own_agent_id, user_id = self._ids
        try:
            return identity_headers(project_id, agent_id or own_agent_id, user_id)
        except ValueError as error:
            raise CloudError(FailureKind.REJECTED, str(error)) from None

    def _raise_for_status(
        self, reply: requests.Response, deadline: float, *, has_content: bool, is_handshake: bool
    ) -> None:
        status = reply.status_code
        if HTTPStatus.OK <= status < HTTPStatus.MULTIPLE_CHOICES or status == HTTPStatus.NOT_MODIFIED:
            return
        error = CloudReply(status, reply.headers, read_body(reply, partial(self._check, deadline)))
        code = str((error.error or {}).get("code", ""))
        if not (code.startswith("cloud.") and code.replace(".", "").replace("_", "").isalpha()):
            code = ""  # it does not look like ours
        message = f"the cloud answered {status} {code}".rstrip()
        if status >= HTTPStatus.INTERNAL_SERVER_ERROR or status in _TRANSIENT_STATUSES:
            raise CloudError(FailureKind.TRANSIENT, message, status=status, retry_after_s=error.retry_after_s)
        if (part := _find_rejected_part(code, error.error or {})) is not None:
            raise rejected_identity(part, status)
        kind = FailureKind.REJECTED
        if not has_content and not is_handshake and status != HTTPStatus.UNAUTHORIZED:
            kind = FailureKind.ONE_REQUEST  # the handshake has succeeded, so we are not unwanted
        if has_content and status in _INVALID_STATUSES:
            # A proxy between us and the cloud may reject a request, too. It must not decide that an event is
            # permanently invalid, unless the request is too large for it: that will not change.
            kind = (
                FailureKind.INVALID if code or status == HTTPStatus.REQUEST_ENTITY_TOO_LARGE else FailureKind.TRANSIENT
            )
        raise CloudError(kind, message, status=status)


def _find_rejected_part(code: str, error: Mapping[str, Any]) -> IdentityPart | None:
    """Return the part of the identity that the cloud rejects, if its error names one."""
    if code == "cloud.unauthorized":
        return IdentityPart.KEY
    details = error.get("details")
    resource = details.get("resource") if isinstance(details, dict) else None
    if code != "cloud.not_found" or resource not in (IdentityPart.PROJECT, IdentityPart.AGENT):
        return None
    return IdentityPart(resource)


class _Connection:
    """The connection to a cloud, which is made with the first request."""

    def __init__(self, base_url: str, key: str) -> None:
        self._base_url = base_url
        self._key = key
        self._http: CloudHttp | None = None
        self._cloud_time: tuple[DeviceTime, datetime] | None = None  # of the last reply

    def note_time(self, headers: Mapping[str, str]) -> None:
        """Note the time of the cloud from a reply; its ``Date`` has whole seconds, and may be some seconds old."""
        now = utc_now()
        try:
            if exact := headers.get(SERVER_TIME_HEADER):
                self._cloud_time = DeviceTime.now(), parse_timestamp(exact)
                return
            cloud_now = to_utc(parsedate_to_datetime(headers.get("Date") or ""))
        except ValueError:
            return
        self._cloud_time = DeviceTime.now(), cloud_now if abs(cloud_now - now) > _SAME_TIME else now

    def cloud_time(self, device_now: DeviceTime) -> datetime:
        """Return the time of the cloud, as far as is known; our clock may have been set since the last reply."""
        if self._cloud_time is None:
            return utc_now()
        noted_at, cloud_time = self._cloud_time
        return cloud_time + timedelta(seconds=device_now.uptime_s - noted_at.uptime_s)

    def get(self) -> CloudHttp:
        if self._http is None:
            self._http = CloudHttp(self._base_url, self._key, {"User-Agent": "memoair-runtime"})
        return self._http

    def close(self) -> None:
        cloud, self._http = self._http, None
        if cloud is not None:
            cloud.close()


def _is_not_modified(reply: requests.Response) -> bool:
    if reply.status_code != HTTPStatus.NOT_MODIFIED:
        return False
    reply.raw.drain_conn()
    return True
