"""Request bodies: limit their size, decompress them, and decode strict JSON before anything else reads them."""

import json
import zlib
from collections.abc import Callable, Coroutine
from typing import Any

import msgspec
from fastapi import Request, Response
from fastapi.routing import APIRoute
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect

from memoair_cloud.errors import ApiError, BatchTooLargeError, DocumentBatchTooLargeError, InvalidRequestError
from memoair_cloud.http.dependencies import admit_request
from memoair_protocol.json_guards import is_deeper_than
from memoair_protocol.limits import (
    MAX_CASES_BYTES,
    MAX_CLOUD_JSON_DEPTH,
    MAX_DOCUMENTS_BYTES,
    MAX_EVENTS_BYTES,
    MAX_OUTCOMES_BYTES,
    MAX_TRACES_BYTES,
)
from memoair_protocol.prompt_template import MAX_PROMPT_CHARS

MAX_BODY_BYTES = 64 << 10
# 500 events contain about ten thousand commas. A body of nothing but commas and values would take a hundred times its
# size in memory when decoded.
_MAX_COMMAS = 500_000
_INVALID_JSON = "the body is invalid JSON, or not in UTF-8"
_GZIP_WINDOW_BITS = 16 + zlib.MAX_WBITS


class _DecodedRequest(Request):
    """A request whose body has been read and decoded already."""

    def __init__(self, request: Request, content: bytes, decoded: Any) -> None:
        super().__init__(request.scope, request.receive)
        self._body = content
        self._decoded = decoded

    async def json(self) -> Any:
        """Return the decoded body."""
        return self._decoded


class JsonRoute(APIRoute):
    """A route that accepts JSON of at most `max_bytes`, plain or compressed with gzip."""

    max_bytes = MAX_BODY_BYTES
    too_large_error: type[ApiError] = BatchTooLargeError

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return a handler that decodes the body first.

        An invalid body is thus reported in the error envelope, before the request has any effect.
        """
        handler = super().get_route_handler()
        if not self.body_field:
            return handler

        async def handle(request: Request) -> Response:
            await run_in_threadpool(admit_request, request)  # reject unauthenticated requests before reading their body
            content = await self._read_body(request)
            # In a thread, so that a large body does not block other requests.
            decoded = await run_in_threadpool(self._decode_body, content)
            return await handler(_DecodedRequest(request, content, decoded))

        return handle

    def _decode_body(self, content: bytes) -> Any:
        if is_deeper_than(MAX_CLOUD_JSON_DEPTH, content):
            raise InvalidRequestError(f"the body is nested deeper than {MAX_CLOUD_JSON_DEPTH} levels")
        return _decode_json(content)

    async def _read_body(self, request: Request) -> bytes:
        encoding = request.headers.get("content-encoding", "identity").strip().lower()
        if encoding not in ("identity", "gzip"):
            raise InvalidRequestError("unsupported Content-Encoding: use identity or gzip", field="Content-Encoding")
        decompressor = zlib.decompressobj(_GZIP_WINDOW_BITS) if encoding == "gzip" else None
        content = bytearray()
        try:
            async for block in request.stream():
                # Decompress at most one byte more than allowed, however much the body would expand to.
                content += decompressor.decompress(block, self.max_bytes + 1 - len(content)) if decompressor else block
                if len(content) > self.max_bytes:
                    raise self.too_large_error(f"the body exceeds {self.max_bytes} bytes")
        except zlib.error:
            raise InvalidRequestError("the body is invalid gzip") from None
        except ClientDisconnect:
            raise InvalidRequestError("the body is incomplete") from None
        if decompressor is not None and content and (not decompressor.eof or decompressor.unused_data):
            raise InvalidRequestError("the body must be exactly one complete gzip member")
        return bytes(content)


class EventsRoute(JsonRoute):
    """A route that accepts a batch of events. Each event stays undecoded, so that it can be parsed by itself."""

    max_bytes = MAX_EVENTS_BYTES

    def _decode_body(self, content: bytes) -> Any:
        if content.count(b",") > _MAX_COMMAS:
            raise BatchTooLargeError("the body contains too many values")
        try:
            return {"events": [bytes(event) for event in _decode_batch(content).events]}
        except (msgspec.ValidationError, UnicodeDecodeError):
            return _decode_json(content)  # not a batch: the route's own validation reports it
        except (msgspec.DecodeError, RecursionError):
            return {"events": _split_batch(content)}


class TracesRoute(JsonRoute):
    """A route that accepts a batch of recall traces."""

    max_bytes = MAX_TRACES_BYTES


class OutcomesRoute(JsonRoute):
    """A route that accepts a batch of outcomes."""

    max_bytes = MAX_OUTCOMES_BYTES


class CasesRoute(JsonRoute):
    """A route that accepts a batch of cases of an evaluation."""

    max_bytes = MAX_CASES_BYTES

    def _decode_body(self, content: bytes) -> Any:
        if content.count(b",") > _MAX_COMMAS:
            raise BatchTooLargeError("the body contains too many values")
        return super()._decode_body(content)


class DocumentsRoute(JsonRoute):
    """A route that accepts a batch of documents."""

    max_bytes = MAX_DOCUMENTS_BYTES
    too_large_error = DocumentBatchTooLargeError


class PromptRoute(JsonRoute):
    """A route that accepts a prompt. JSON may write a character with twelve bytes."""

    max_bytes = 12 * MAX_PROMPT_CHARS + MAX_BODY_BYTES


class _RawBatch(msgspec.Struct):
    events: list[msgspec.Raw]


_decode_batch = msgspec.json.Decoder(_RawBatch).decode


def _split_batch(content: bytes) -> list[bytes]:
    """Split a batch in which an event contains a lone surrogate: valid in JSON, but rejected by msgspec."""
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
