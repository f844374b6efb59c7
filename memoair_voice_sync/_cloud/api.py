"""Calls to the cloud about the organization's indexes and users' memories, with retries where they may help.

Searches never take this path. ``requests`` is imported on the first call: an application that makes none need not pay
for it.
"""

import json
import os
import threading
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode

from urllib3.response import BaseHTTPResponse
from urllib3.util import Retry

import memoair_voice_sync._arguments as check
from memoair_protocol.errors import MemoAirVoiceMemoryError, error_from_envelope
from memoair_protocol.http_headers import identity_headers
from memoair_protocol.limits import MAX_DOCUMENTS, MAX_DOCUMENTS_BYTES
from memoair_voice_sync.results import IndexBuildResult

if TYPE_CHECKING:
    import requests

_CONNECT_TIMEOUT_S, _READ_TIMEOUT_S = 5.0, 30.0
# Too many requests, and failures of the server or of a proxy before it. A retry is safe: documents are replaced by
# their ids, and deleting twice has the effect of deleting once.
_RETRY_STATUSES = (429, 500, 502, 503, 504)
_MAX_ATTEMPTS = 4
_PAGE_SIZE = 500
_INITIAL_BACKOFF_S = 0.25
_MAX_BACKOFF_S = 10.0


class CloudApi:
    """The cloud API, with the identity of one agent. Safe to use from any thread, and after a fork."""

    def __init__(self, base_url: str | None, api_key: str, project_id: str, agent_id: str) -> None:
        """Create the API client. Without a ``base_url`` every call raises ``cloud.unreachable``."""
        self._base_url = base_url
        self._api_key = api_key
        self._headers = {
            **(identity_headers(project_id, agent_id) if base_url else {}),
            "Content-Type": "application/json",
        }
        self._lock = threading.Lock()
        self._session: requests.Session | None = None
        self._pid = os.getpid()

    def create_index(
        self, name: str, documents: Sequence[Mapping[str, Any]], metadata: Mapping[str, Any] | None
    ) -> IndexBuildResult:
        """Build an index or append to it; a document replaces an earlier one with its id."""
        content = _index_body(name, documents, metadata)
        reply = self._request("POST", "/v1/voice-sdk/index/create", content)
        try:
            return IndexBuildResult(
                str(reply["indexName"]), int(reply["chunkCount"]), _optional_int(reply.get("version"))
            )
        except (KeyError, TypeError, ValueError):
            raise MemoAirVoiceMemoryError("cloud.internal", "the cloud's reply is invalid", 200) from None

    def list_indexes(self) -> list[dict[str, Any]]:
        """Return all indexes of the project."""
        return _list_of(self._request("GET", "/v1/voice-sdk/index/list"), "indexes")

    def get_index(self, name: str) -> dict[str, Any]:
        """Return one index."""
        return self._request("GET", f"/v1/voice-sdk/index/{_path_segment('name', name)}")

    def delete_index(self, name: str) -> dict[str, Any]:
        """Delete an index with all its documents."""
        return self._request("DELETE", f"/v1/voice-sdk/index/{_path_segment('name', name)}")

    def delete_document(self, name: str, document_id: str) -> dict[str, Any]:
        """Delete one document of an index."""
        path = (
            f"/v1/voice-sdk/index/{_path_segment('name', name)}/documents/{_path_segment('document_id', document_id)}"
        )
        return self._request("DELETE", path)

    @property
    def is_configured(self) -> bool:
        """Whether there is a cloud."""
        return self._base_url is not None

    def forget_user(self, user_id: str) -> dict[str, Any]:
        """Erase a user, even one that the cloud does not know: a machine that is off may hold their data."""
        return self._request("DELETE", _user_path(user_id))

    def list_memories(self, user_id: str, *, history: bool) -> list[dict[str, Any]]:
        """Return all memories of a user; with ``history`` also those that are no longer valid."""
        memories: list[dict[str, Any]] = []
        params = {"limit": str(_PAGE_SIZE), **({"history": "true"} if history else {})}
        cursor: str | None = None
        while True:
            query = urlencode({**params, **({"cursor": cursor} if cursor else {})})
            page = self._request("GET", f"{_user_path(user_id)}/memories?{query}")
            memories += _list_of(page, "memories")
            cursor = page.get("next")
            if not cursor:
                return memories

    def update_memory(self, user_id: str, memory_id: str, changes: Mapping[str, Any]) -> dict[str, Any]:
        """Change a memory and return it."""
        return self._request("PATCH", _memory_path(user_id, memory_id), json.dumps(changes, allow_nan=False).encode())

    def delete_memory(self, user_id: str, memory_id: str) -> dict[str, Any]:
        """Delete a memory."""
        return self._request("DELETE", _memory_path(user_id, memory_id))

    def memory_history(self, user_id: str, memory_id: str) -> list[dict[str, Any]]:
        """Return the changes of a memory, oldest first."""
        return _list_of(self._request("GET", f"{_memory_path(user_id, memory_id)}/history"), "changes")

    def close(self) -> None:
        """Close the connections. Calling it again has no effect."""
        with self._lock:
            session, self._session = self._session, None
        if session is not None and self._pid == os.getpid():
            for adapter in session.adapters.values():
                pools = getattr(getattr(adapter, "poolmanager", None), "pools", {})
                for key in list(pools.keys()):  # the library would leave them to the garbage collector
                    if (pool := pools.get(key)) is not None:
                        pool.close()
            session.close()

    def reset_after_fork(self) -> None:
        """Drop the connections in the child of a fork: they belong to the parent."""
        self._lock, self._session = threading.Lock(), None

    def _request(self, method: str, path: str, content: bytes | None = None) -> dict[str, Any]:
        import requests

        if self._base_url is None:
            raise MemoAirVoiceMemoryError("cloud.unreachable", "this client has no cloud; set cloud_base_url")
        url = self._base_url + path
        try:
            session = self._get_session()
            prepared = session.prepare_request(requests.Request(method, url, data=content, auth=self._add_api_key))
            prepared.url = url  # the library would remove an id that is "." or ".."
            settings = session.merge_environment_settings(url, {}, None, None, None)
            response = session.send(
                prepared, timeout=(_CONNECT_TIMEOUT_S, _READ_TIMEOUT_S), allow_redirects=False, **settings
            )
        except requests.Timeout as error:
            raise MemoAirVoiceMemoryError("cloud.timeout", "the cloud did not answer in time") from error
        except requests.RequestException as error:
            message = f"the cloud at {self._base_url} cannot be reached: {type(error).__name__}"
            raise MemoAirVoiceMemoryError("cloud.unreachable", message) from error
        return _parse_response(response.status_code, response.content)

    def _add_api_key(self, request: "requests.PreparedRequest") -> "requests.PreparedRequest":
        """Add the key. A session header alone would be overridden by an entry for the host in ``.netrc``."""
        request.headers["Authorization"] = f"Bearer {self._api_key}"
        return request

    def _get_session(self) -> "requests.Session":
        import requests
        from requests.adapters import HTTPAdapter

        with self._lock:
            if self._session is None:
                retries = _BoundedRetry(
                    total=_MAX_ATTEMPTS - 1,
                    status_forcelist=_RETRY_STATUSES,
                    allowed_methods=None,  # all of them: every call is idempotent
                    backoff_factor=_INITIAL_BACKOFF_S,
                    backoff_max=_MAX_BACKOFF_S,
                    backoff_jitter=_INITIAL_BACKOFF_S,
                    respect_retry_after_header=True,
                    raise_on_status=False,  # the last reply says what is wrong
                )
                self._session = requests.Session()
                self._session.headers.update(self._headers)
                for scheme in ("https://", "http://"):
                    self._session.mount(scheme, HTTPAdapter(max_retries=retries))
            return self._session


class _BoundedRetry(Retry):
    """A retry policy that obeys ``Retry-After`` up to a limit: a thread of the application waits in this call."""

    def get_retry_after(self, response: BaseHTTPResponse) -> float | None:
        retry_after_s = super().get_retry_after(response)
        return None if retry_after_s is None else min(retry_after_s, _MAX_BACKOFF_S)


def _index_body(name: str, documents: Sequence[Mapping[str, Any]], metadata: Mapping[str, Any] | None) -> bytes:
    """Return the body of a build. The limits are the server's: exceeding them here saves a round trip."""
    if isinstance(documents, str | Mapping) or not isinstance(documents, Sequence):
        raise TypeError("documents must be a list of dicts")
    for position, document in enumerate(documents):
        checked = check.mapping(f"documents[{position}]", document)
        check.identifier(f'documents[{position}]["id"]', checked.get("id"))
        check.text(f'documents[{position}]["text"]', checked.get("text"))
    body: dict[str, Any] = {
        "name": check.identifier("name", name),
        "documents": [dict(document) for document in documents],
    }
    if metadata is not None:
        body["metadata"] = check.mapping("metadata", metadata)
    content = json.dumps(body, ensure_ascii=False, allow_nan=False).encode(errors="replace")
    if len(documents) > MAX_DOCUMENTS or len(content) > MAX_DOCUMENTS_BYTES:
        message = (
            f"{len(documents)} documents of {len(content)} bytes: a call accepts at most {MAX_DOCUMENTS} documents and "
            f"{MAX_DOCUMENTS_BYTES} bytes; split them into several calls"
        )
        raise MemoAirVoiceMemoryError("cloud.batch_too_large", message, 413)
    return content


def _path_segment(name: str, value: str) -> str:
    """Quote an id as one path segment, also one of dots only, which would change the path."""
    quoted = quote(check.identifier(name, value), safe="")
    return quoted if quoted.strip(".") else quoted.replace(".", "%2E")


def _user_path(user_id: str) -> str:
    return f"/v1/voice-sdk/users/{_path_segment('user_id', user_id)}"


def _memory_path(user_id: str, memory_id: str) -> str:
    return f"{_user_path(user_id)}/memories/{_path_segment('memory_id', memory_id)}"


def _list_of(reply: Mapping[str, Any], name: str) -> list[dict[str, Any]]:
    items = reply.get(name)
    if not isinstance(items, list):
        raise MemoAirVoiceMemoryError("cloud.internal", "the cloud's reply is invalid", 200)
    return items


def _optional_int(value: Any) -> int | None:
    return None if value is None else int(value)


def _parse_response(status: int, content: bytes) -> dict[str, Any]:
    try:
        body = json.loads(content) if content else {}
    except (ValueError, RecursionError):
        body = None
    if 200 <= status < 300 and isinstance(body, dict):
        return body
    error = body.get("error") if isinstance(body, dict) else None
    if isinstance(error, str):  # one kind of error has no envelope
        message = body.get("message") if isinstance(body, dict) else None
        raise MemoAirVoiceMemoryError(f"cloud.{error}", str(message or "the cloud gave no reason"), status)
    if isinstance(error, dict):
        raise error_from_envelope(error, "cloud", status)
    raise MemoAirVoiceMemoryError("cloud.internal", f"the cloud's reply is invalid (HTTP status {status})", status)
