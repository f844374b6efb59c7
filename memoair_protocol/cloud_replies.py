"""Replies of a cloud, or the reason for getting none. `memoair_protocol.cloud_http` makes the requests."""

import json
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from memoair_protocol.http_headers import parse_retry_after

_MAX_MESSAGE_CHARS = 200


class CloudUnreachableError(Exception):
    """There was no reply, or no complete one. The message is the reason in plain words; it has no secret in it.

    Attributes:
        is_timeout: Whether the server took too long.
        is_final: Whether a retry cannot help: the address is invalid, or TLS failed.
    """

    def __init__(self, reason: str, *, is_timeout: bool = False, is_final: bool = False) -> None:
        super().__init__(reason)
        self.is_timeout = is_timeout
        self.is_final = is_final


class CloudReply:
    """A reply of a cloud, parsed.

    Attributes:
        status: The HTTP status.
        headers: The headers.
        body: The JSON object of the body, None if it is something else.
    """

    def __init__(self, status: int, headers: Mapping[str, str], content: bytes) -> None:
        self.status = status
        self.headers = headers
        try:
            body = {} if status == HTTPStatus.NO_CONTENT else json.loads(content)
        except (ValueError, RecursionError):
            body = None
        self.body: dict[str, Any] | None = body if isinstance(body, dict) else None

    @property
    def is_ok(self) -> bool:
        """Whether the request succeeded, with a body as a MemoAir cloud sends it."""
        return 200 <= self.status < 300 and self.body is not None

    @property
    def error(self) -> Mapping[str, Any] | None:
        """The envelope of the error, if the reply has one."""
        body = self.body or {}
        error = body.get("error")
        if isinstance(error, str):  # one kind of error has no envelope
            return {"code": f"cloud.{error}", "message": body.get("message")}
        return error if isinstance(error, dict) else None

    @property
    def error_message(self) -> str:
        """What went wrong, in one line."""
        error = self.error or {}
        if message := (error or self.body or {}).get("message"):
            return f"{error.get('code') or f'HTTP {self.status}'}: {str(message)[:_MAX_MESSAGE_CHARS]}"
        if 300 <= self.status < 400:
            return f"it redirects (HTTP status {self.status}); use the address that it redirects to"
        return "the server is not a MemoAir cloud" if 200 <= self.status < 300 else f"HTTP status {self.status}"

    @property
    def retry_after_s(self) -> float | None:
        """The seconds to wait before a retry, if the cloud asks for that."""
        return parse_retry_after(self.headers.get("Retry-After"))
