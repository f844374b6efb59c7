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

from memoair_cloud.calls.event_parsing import MAX_DEPTH, depth
from memoair_cloud.errors import ApiError, BatchTooLargeError, DocumentBatchTooLargeError, InvalidRequestError
from memoair_cloud.http.dependencies import admit

# 500 turns of ten minutes each are about 8 MB.
MAX_EVENTS_BYTES = 16 << 20
MAX_DOCUMENTS_BYTES = 1 << 20
MAX_BODY_BYTES = 64 << 10
# 500 events have some ten thousand; a body that is made of them alone would take a hundred times its size.
_MOST_COMMAS = 500_000
_NO_JSON = "the body is not valid JSON in UTF-8"
_GZIP = 16 + zlib.MAX_WBITS


class _WireRequest(Request):
    """A request whose body was read already, and decoded strictly."""

    def __init__(self, request: Request, content: bytes, decoded: Any) -> None:
        super().__init__(request.scope, request.receive)
        self._body = content
        self._decoded = decoded

    async def json(self) -> Any:
        """The body."""
        return self._decoded


class WireRoute(APIRoute):
    """A route that takes JSON of at most `MAX_BODY_BYTES`, as it is or packed with gzip."""

    max_bytes = MAX_BODY_BYTES
    too_large: type[ApiError] = BatchTooLargeError

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Read the body first, so that what is wrong with it is refused in our words and never half used."""
        answer = super().get_route_handler()
        if not self.body_field:
            return answer

        async def handle(request: Request) -> Response:
            await run_in_threadpool(admit, request)  # a stranger's body is not worth reading
            content = await self._read(request)
            decoded = await run_in_threadpool(self._decoded, content)  # others must not wait for a large one
            return await answer(_WireRequest(request, content, decoded))

        return handle

    def _decoded(self, content: bytes) -> Any:
        if content.count(b"[") + content.count(b"{") > MAX_DEPTH and depth(content) > MAX_DEPTH:
            raise InvalidRequestError(f"the body is nested deeper than {MAX_DEPTH} levels")
        return _decoded(content)

    async def _read(self, request: Request) -> bytes:
        packing = request.headers.get("content-encoding", "identity").strip().lower()
        if packing not in ("identity", "gzip"):
            raise InvalidRequestError("the body can be plain or packed with gzip", field="Content-Encoding")
        unpack = zlib.decompressobj(_GZIP) if packing == "gzip" else None
        content = bytearray()
        try:
            async for block in request.stream():
                # One byte more than is allowed is enough to know, however much a packed body would unfold to.
                content += unpack.decompress(block, self.max_bytes + 1 - len(content)) if unpack else block
                if len(content) > self.max_bytes:
                    raise self.too_large(f"the body is over {self.max_bytes} bytes")
        except zlib.error:
            raise InvalidRequestError("the body is not valid gzip") from None
        except ClientDisconnect:
            raise InvalidRequestError("the body ended too early") from None
        if unpack is not None and content and (not unpack.eof or unpack.unused_data):
            raise InvalidRequestError("the body is not one whole gzip member")
        return bytes(content)


class EventsRoute(WireRoute):
    """A route that takes a batch of events. These are left in one piece each, for who reads them by themselves."""

    max_bytes = MAX_EVENTS_BYTES

    def _decoded(self, content: bytes) -> Any:
        if content.count(b",") > _MOST_COMMAS:
            raise BatchTooLargeError("the body holds too many values")
        try:
            return {"events": [bytes(event) for event in _batch(content).events]}
        except (msgspec.ValidationError, UnicodeDecodeError):
            return _decoded(content)  # it is no batch, which is told by who knows what a batch is
        except (msgspec.DecodeError, RecursionError):
            return {"events": _split(content)}


class DocumentsRoute(WireRoute):
    """A route that takes a batch of documents."""

    max_bytes = MAX_DOCUMENTS_BYTES
    too_large = DocumentBatchTooLargeError


class _Batch(msgspec.Struct):
    events: list[msgspec.Raw]


_batch = msgspec.json.Decoder(_Batch).decode


def _split(content: bytes) -> list[bytes]:
    """The events of a batch of which one holds half a surrogate pair, which is no text but may be written in JSON."""
    try:
        events = json.loads(content, parse_constant=_refuse)["events"]
        return [json.dumps(event).encode() for event in events]
    except (ValueError, TypeError, KeyError, RecursionError):
        raise InvalidRequestError(_NO_JSON) from None


def _refuse(constant: str) -> None:
    raise ValueError(constant)


def _decoded(content: bytes) -> Any:
    try:
        return msgspec.json.decode(content)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise InvalidRequestError(_NO_JSON) from None
