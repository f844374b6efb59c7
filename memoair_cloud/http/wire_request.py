"""The body of a request: limited, unpacked, and strict JSON, before anything looks into it."""

import re
import zlib
from collections.abc import Callable, Coroutine
from typing import Any

import msgspec
from fastapi import Request, Response
from fastapi.routing import APIRoute
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect

from memoair_cloud.faults import DocumentsTooLarge, Fault, Invalid, TooLarge
from memoair_cloud.http.dependencies import admit

# 500 turns of ten minutes each are about 8 MB.
MAX_EVENTS_BYTES = 16 << 20
MAX_DOCUMENTS_BYTES = 1 << 20
MAX_BODY_BYTES = 64 << 10
# What a runtime takes is nested 64 deep at most, and stands within an event here. Far deeper readers give up.
_MAX_DEPTH = 80
_BRACKETS = re.compile(rb'"(?:[^"\\]|\\.)*(?:"|\\?\Z)|[\[\]{}]', re.DOTALL)
_GZIP = 16 + zlib.MAX_WBITS


class _WireRequest(Request):
    """A request whose body was read already; its JSON is decoded strictly."""

    def __init__(self, request: Request, content: bytes) -> None:
        super().__init__(request.scope, request.receive)
        self._body = content

    async def json(self) -> Any:
        """The body; it was checked, so this can't fail."""
        return msgspec.json.decode(self._body)


class WireRoute(APIRoute):
    """A route that takes JSON of at most `MAX_BODY_BYTES`, as it is or packed with gzip."""

    max_bytes = MAX_BODY_BYTES
    too_large: type[Fault] = TooLarge

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Read the body first, so that what is wrong with it is refused in our words and never half used."""
        answer = super().get_route_handler()
        if not self.body_field:
            return answer

        async def handle(request: Request) -> Response:
            await run_in_threadpool(admit, request)  # a stranger's body is not worth reading
            return await answer(_WireRequest(request, await self._read(request)))

        return handle

    async def _read(self, request: Request) -> bytes:
        packing = request.headers.get("content-encoding", "identity").strip().lower()
        if packing not in ("identity", "gzip"):
            raise Invalid("the body can be plain or packed with gzip", field="Content-Encoding")
        unpack = zlib.decompressobj(_GZIP) if packing == "gzip" else None
        content = bytearray()
        try:
            async for block in request.stream():
                # One byte more than is allowed is enough to know, however much a packed body would unfold to.
                content += unpack.decompress(block, self.max_bytes + 1 - len(content)) if unpack else block
                if len(content) > self.max_bytes:
                    raise self.too_large(f"the body is over {self.max_bytes} bytes")
        except zlib.error:
            raise Invalid("the body is not valid gzip") from None
        except ClientDisconnect:
            raise Invalid("the body ended too early") from None
        if unpack is not None and content and (not unpack.eof or unpack.unused_data):
            raise Invalid("the body is not one whole gzip member")
        _check_json(bytes(content))
        return bytes(content)


class EventsRoute(WireRoute):
    """A route that takes a batch of events."""

    max_bytes = MAX_EVENTS_BYTES


class DocumentsRoute(WireRoute):
    """A route that takes a batch of documents."""

    max_bytes = MAX_DOCUMENTS_BYTES
    too_large = DocumentsTooLarge


def _check_json(content: bytes) -> None:
    if content.count(b"[") + content.count(b"{") > _MAX_DEPTH and _depth(content) > _MAX_DEPTH:
        raise Invalid(f"the body is nested deeper than {_MAX_DEPTH} levels")
    try:
        msgspec.json.decode(content)
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise Invalid("the body is not valid JSON in UTF-8") from None


def _depth(content: bytes) -> int:
    """How deep the brackets of a JSON text are nested, those in its strings left out."""
    depth = deepest = 0
    for sign in _BRACKETS.findall(content):
        if sign in b"[{":
            depth += 1
            deepest = max(deepest, depth)
        elif sign in b"]}":
            depth -= 1
    return deepest
