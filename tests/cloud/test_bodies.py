"""Request bodies: what a compressed one may cost, however much it would expand to."""

import asyncio
import tracemalloc
import zlib
from collections.abc import AsyncIterator
from functools import lru_cache
from typing import Any, cast

import pytest

from memoair_cloud.errors import ApiError
from memoair_cloud.http.body_parsing import DocumentsRoute, EventsRoute, JsonRoute, TracesRoute

EXPANDED_MB = 128


@lru_cache(maxsize=1)
def make_bomb() -> bytes:
    packing = zlib.compressobj(9, wbits=16 + zlib.MAX_WBITS)
    return b"".join(packing.compress(bytes(1 << 20)) for _ in range(EXPANDED_MB)) + packing.flush()


class CompressedRequest:
    """A request whose whole body arrives at once."""

    headers = {"content-encoding": "gzip"}

    async def stream(self) -> AsyncIterator[bytes]:
        yield make_bomb()


@pytest.mark.parametrize("route", [JsonRoute, EventsRoute, TracesRoute, DocumentsRoute])
def test_a_decompression_bomb_takes_no_more_memory_than_the_largest_body(route: type[JsonRoute]) -> None:
    request = cast("Any", CompressedRequest())
    assert len(make_bomb()) < 1 << 20
    tracemalloc.start()
    try:
        with pytest.raises(ApiError, match="exceeds"):
            asyncio.run(route("/", lambda: None)._read_body(request))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 4 * route.max_bytes + (8 << 20)
