"""Calls to the cloud about the organization's indexes and users' memories, with retries where they may help.

Searches never take this path. The HTTP client is imported on the first call: an application that makes none need not
pay for it.
"""

import json
import threading
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode

import memoair_voice_sync._arguments as check
from memoair_protocol.cloud_replies import CloudReply, CloudUnreachableError
from memoair_protocol.errors import MemoAirVoiceMemoryError, error_from_envelope
from memoair_protocol.http_headers import identity_headers
from memoair_protocol.limits import MAX_DOCUMENTS, MAX_DOCUMENTS_BYTES
from memoair_protocol.telemetry import current_traceparent
from memoair_voice_sync.results import IndexBuildResult

if TYPE_CHECKING:
    from memoair_protocol.cloud_http import CloudHttp

# Retries are safe: documents are replaced by their ids, and deleting twice has the effect of deleting once.
_MAX_ATTEMPTS = 4
_TIMEOUTS_S = 5.0, 30.0  # to connect and to read
_MAX_CONNECTIONS = 10
_PAGE_SIZE = 500
_EXPORT_TIMEOUTS = 5.0, 600.0  # to connect and to read: the cloud reads a whole user before it answers


class CloudApi:
    """The cloud API, with the identity of one agent. Safe to use from any thread, and after a fork."""

    def __init__(
        self,
        base_url: str | None,
        api_key: str | None,
        project_id: str,
        agent_id: str | None,
        *,
        max_attempts: int = _MAX_ATTEMPTS,
        timeouts_s: tuple[float, float] = _TIMEOUTS_S,
    ) -> None:
        """Create the API client.

        Args:
            base_url: The URL of the cloud. Without it, every call raises ``cloud.unreachable``.
            api_key: The key.
            project_id: The project.
            agent_id: The agent.
            max_attempts: The number of attempts at a request that fails in a way that may pass.
            timeouts_s: Seconds to connect, and to wait for the next bytes of a reply.
        """
        self.agent_id = agent_id
        self._base_url = base_url
        self._api_key = api_key
        self._headers = identity_headers(project_id, agent_id) if base_url else {}
        self._max_attempts = max_attempts
        self._timeouts_s = timeouts_s
        self._lock = threading.Lock()
        self._http: CloudHttp | None = None

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

    def export_user(self, user_id: str, path: Path, *, overwrite: bool) -> int:
        """Write everything that the cloud keeps of a user to a file; return its size."""
        from memoair_protocol.cloud_http import read_body, read_chunks
        from memoair_protocol.export_file import write_export_file

        cloud = self._connect()
        try:
            with cloud.open("GET", f"{_user_path(user_id)}/export", timeouts=_EXPORT_TIMEOUTS) as response:
                if response.status_code != HTTPStatus.OK:
                    raise reply_error(
                        CloudReply(response.status_code, response.headers, read_body(response, lambda: None))
                    )
                return write_export_file(path, read_chunks(response, lambda: None), overwrite=overwrite)
        except CloudUnreachableError as error:
            raise self._describe(error) from error

    def place_hold(self, user_id: str, reason: str, by: str | None) -> dict[str, Any]:
        """Place a legal hold on a user."""
        return self._request("POST", f"{_user_path(user_id)}/holds", _hold_body(reason, by))

    def lift_hold(self, user_id: str, reason: str, by: str | None) -> dict[str, Any]:
        """Lift the legal hold on a user."""
        return self._request("POST", f"{_user_path(user_id)}/holds/lift", _hold_body(reason, by))

    def list_holds(self, user_id: str) -> list[dict[str, Any]]:
        """Return the legal holds on a user, lifted ones included."""
        return _list_of(self._request("GET", f"{_user_path(user_id)}/holds"), "holds")

    def report_outcome(self, outcome: Mapping[str, Any]) -> dict[str, Any]:
        """Report the outcome of one call. Repeating it replaces it."""
        content = json.dumps({"outcomes": [outcome]}, allow_nan=False).encode()
        return self._request("POST", "/v1/voice-sdk/outcomes", content)

    def close(self) -> None:
        """Close the connections. Calling it again has no effect."""
        with self._lock:
            cloud, self._http = self._http, None
        if cloud is not None:
            cloud.close()

    def reset_after_fork(self) -> None:
        """Drop the connections in the child of a fork: they belong to the parent."""
        self._lock, self._http = threading.Lock(), None

    def _connect(self) -> "CloudHttp":
        from memoair_protocol.cloud_http import CloudHttp

        if self._base_url is None:
            raise MemoAirVoiceMemoryError("cloud.unreachable", "this client has no cloud; set cloud_base_url")
        with self._lock:
            if self._http is None:
                self._http = CloudHttp(
                    self._base_url,
                    self._api_key,
                    self._headers,
                    connect_timeout_s=self._timeouts_s[0],
                    read_timeout_s=self._timeouts_s[1],
                    max_connections=_MAX_CONNECTIONS,
                    max_attempts=self._max_attempts,
                )
            return self._http

    def ask(self, path: str, headers: Mapping[str, str]) -> CloudReply:
        """Return the reply to a GET request as it is, whatever its status.

        Raises:
            MemoAirVoiceMemoryError: ``cloud.unreachable`` or ``cloud.timeout``: there was no reply.
        """
        return self._send("GET", path, None, headers)

    def _request(self, method: str, path: str, content: bytes | None = None) -> dict[str, Any]:
        reply = self._send(method, path, content, {})
        if reply.body is None or not reply.is_ok:
            raise reply_error(reply)
        return reply.body

    def _send(self, method: str, path: str, content: bytes | None, headers: Mapping[str, str]) -> CloudReply:
        try:
            traceparent = current_traceparent()  # the cloud's spans belong to the application's
            tracing = {} if traceparent is None else {"traceparent": traceparent}
            return self._connect().request(method, path, content, {**headers, **tracing})
        except CloudUnreachableError as error:
            raise self._describe(error) from error

    def _describe(self, error: CloudUnreachableError) -> MemoAirVoiceMemoryError:
        if error.is_timeout:
            return MemoAirVoiceMemoryError("cloud.timeout", "the cloud did not answer in time")
        return MemoAirVoiceMemoryError("cloud.unreachable", f"the cloud at {self._base_url} cannot be reached: {error}")


def reply_error(reply: CloudReply) -> MemoAirVoiceMemoryError:
    """Return the error of a reply that is not what was asked for."""
    if reply.error is not None:
        return error_from_envelope(reply.error, "cloud", reply.status)
    message = f"the cloud's reply is invalid (HTTP status {reply.status})"
    return MemoAirVoiceMemoryError("cloud.internal", message, reply.status)


def _hold_body(reason: str, by: str | None) -> bytes:
    return json.dumps({"reason": reason, **({"by": by} if by is not None else {})}).encode()


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
