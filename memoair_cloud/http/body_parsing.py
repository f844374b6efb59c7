"""The body of a request: limited, unpacked, and strict JSON, before anything looks into it."""

import json
import zlib
from collections.abc import Callable, Coroutine
from typing import Any

import msgspec
from fastapi import Request, Response
from fastapi.routing import APIRoute
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect

from memoair_cloud.calls.event_parsing import MAX_DEPTH, nesting_depth
from memoair_cloud.errors import ApiError, BatchTooLargeError, DocumentBatchTooLargeError, InvalidRequestError
from memoair_cloud.http.dependencies import admit_request

# 500 turns of ten minutes each are about 8 MB.
MAX_EVENTS_BYTES = 16 << 20
MAX_DOCUMENTS_BYTES = 1 << 20
MAX_BODY_BYTES = 64 << 10
# 500 events have some ten thousand; a body that is made of them alone would take a hundred times its size.
_MAX_COMMAS = 500_000
_INVALID_JSON = "the body is not valid JSON in UTF-8"
_GZIP_WINDOW_BITS = 16 + zlib.MAX_WBITS


class _DecodedRequest(Request):
    """A request whose body was read already, and decoded strictly."""

    def __init__(self, request: Request, content: bytes, decoded: Any) -> None:
        super().__init__(request.scope, request.receive)
        self._body = content
        self._decoded = decoded

    async def json(self) -> Any:
        """The body."""
        return self._decoded


class JsonRoute(APIRoute):
    """A route that takes JSON of at most `MAX_BODY_BYTES`, as it is or packed with gzip."""

    max_bytes = MAX_BODY_BYTES
    too_large_error: type[ApiError] = BatchTooLargeError

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Read the body first, so that what is wrong with it is refused in our words and never half used."""
        handler = super().get_route_handler()
        if not self.body_field:
            return handler

        async def handle(request: Request) -> Response:
            await run_in_threadpool(admit_request, request)  # a stranger's body is not worth reading
            content = await self._read_body(request)
            decoded = await run_in_threadpool(self._decode_body, content)  # others must not wait for a large one
            return await handler(_DecodedRequest(request, content, decoded))

        return handle

    def _decode_body(self, content: bytes) -> Any:
        if content.count(b"[") + content.count(b"{") > MAX_DEPTH and nesting_depth(content) > MAX_DEPTH:
            raise InvalidRequestError(f"the body is nested deeper than {MAX_DEPTH} levels")
        return _decode_json(content)

    async def _read_body(self, request: Request) -> bytes:
        encoding = request.headers.get("content-encoding", "identity").strip().lower()
        if encoding not in ("identity", "gzip"):
            raise InvalidRequestError("the body can be plain or packed with gzip", field="Content-Encoding")
        decompressor = zlib.decompressobj(_GZIP_WINDOW_BITS) if encoding == "gzip" else None
        content = bytearray()
        try:
            async for block in request.stream():
                # One byte more than is allowed is enough to know, however much a packed body would unfold to.
                content += decompressor.decompress(block, self.max_bytes + 1 - len(content)) if decompressor else block
                if len(content) > self.max_bytes:
                    raise self.too_large_error(f"the body is over {self.max_bytes} bytes")
        except zlib.error:
            raise InvalidRequestError("the body is not valid gzip") from None
        except ClientDisconnect:
            raise InvalidRequestError("the body ended too early") from None
        if decompressor is not None and content and (not decompressor.eof or decompressor.unused_data):
            raise InvalidRequestError("the body is not one whole gzip member")
        return bytes(content)


class EventsRoute(JsonRoute):
    """A route that takes a batch of events. These are left in one piece each, for who reads them by themselves."""

    max_bytes = MAX_EVENTS_BYTES

    def _decode_body(self, content: bytes) -> Any:
        if content.count(b",") > _MAX_COMMAS:
            raise BatchTooLargeError("the body holds too many values")
        try:
            return {"events": [bytes(event) for event in _decode_batch(content).events]}
        except (msgspec.ValidationError, UnicodeDecodeError):
            return _decode_json(content)  # it is no batch, which is told by who knows what a batch is
        except (msgspec.DecodeError, RecursionError):
            return {"events": _split_batch(content)}


class DocumentsRoute(JsonRoute):
    """A route that takes a batch of documents."""

    max_bytes = MAX_DOCUMENTS_BYTES
    too_large_error = DocumentBatchTooLargeError


class _RawBatch(msgspec.Struct):
    events: list[msgspec.Raw]


_decode_batch = msgspec.json.Decoder(_RawBatch).decode


def _split_batch(content: bytes) -> list[bytes]:
    """The events of a batch of which one holds half a surrogate pair, which is no text but may be written in JSON."""
    try:
        events = json.loads(content, parse_constant=_reject_constant)["events"]
        return [json.dumps(event).encode() for event in events]
    except (ValueError, TypeError, KeyError, RecursionError):
        raise InvalidRequestError(_INVALID_JSON) from None


def _reject_constant(constant: str) -> None:
    raise ValueError(constant)


def _decode_json(content: bytes) -> Any:
    try:
        return msgspec.json.decode(content)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise InvalidRequestError(_INVALID_JSON) from None
