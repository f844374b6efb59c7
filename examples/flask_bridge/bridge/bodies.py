"""Request bodies: received in parts up to a limit, on disk if they are large. No error reply quotes one."""

import json
import re
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import IO, Any

import msgspec
from flask import request
from werkzeug.exceptions import BadRequest, RequestEntityTooLarge

_CALL_ID_PATTERN = re.compile(r"[A-Za-z0-9_.:-]{1,128}")
_CHUNK_BYTES = 64 * 1024
# Up to here, a body is in memory before its signature is checked. Larger ones are written to a file, so that anyone who
# can reach the server cannot fill its memory.
_MAX_UNVERIFIED_BYTES = 256 * 1024
# A sender that is cut off in the middle of its body does not read the reply. So the rest is read, up to this much.
_MAX_DISCARDED_BYTES = 64 * 1024 * 1024


class ReceivedBody:
    """A body that has been received, before anything is known of its sender."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file

    def chunks(self) -> Iterator[bytes]:
        """Yield the body in parts, to compute its signature."""
        self._file.seek(0)
        while chunk := self._file.read(_CHUNK_BYTES):
            yield chunk

    def parse(self) -> Mapping[str, Any]:
        """Return the body as a JSON object. Reply 400 if it is not one."""
        self._file.seek(0)
        content = _decode(self._file.read())
        if not isinstance(content, dict):
            raise BadRequest("the body is not a JSON object")
        return content


@contextmanager
def receive_body(max_bytes: int) -> Iterator[ReceivedBody]:
    """Receive the body of the current request. Reply 413 if it is larger."""
    with tempfile.SpooledTemporaryFile(_MAX_UNVERIFIED_BYTES) as file:
        received = 0
        while chunk := request.stream.read(_CHUNK_BYTES):
            received += len(chunk)
            if received > max_bytes:
                _discard(max_bytes + _MAX_DISCARDED_BYTES - received)
                raise RequestEntityTooLarge(f"the body is larger than {max_bytes} bytes")
            file.write(chunk)
        yield ReceivedBody(file)


def find_call_id(value: object) -> str | None:
    """Return a platform's id of a call, None if it is missing or invalid."""
    return value if isinstance(value, str) and _CALL_ID_PATTERN.fullmatch(value) else None


def require_call_id(value: object) -> str:
    """Return a platform's id of a call. Reply 400 if it is missing or invalid."""
    call_id = find_call_id(value)
    if call_id is None:
        raise BadRequest("the id of the call is missing or invalid")
    return call_id


def _decode(body: bytes) -> Any:
    """Return decoded JSON, None if it is invalid. Half an emoji, cut off by a platform, becomes a question mark."""
    try:
        return msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        pass
    try:
        return json.loads(json.dumps(json.loads(body), ensure_ascii=False).encode(errors="replace"))
    except (ValueError, RecursionError):
        return None


def _discard(max_bytes: int) -> None:
    while max_bytes > 0 and (chunk := request.stream.read(_CHUNK_BYTES)):
        max_bytes -= len(chunk)
