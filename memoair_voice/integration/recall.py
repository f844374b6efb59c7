"""A search that never takes longer than an answer may wait.

Below 40 lines, but the one place of its limits for every integration.
"""

import asyncio
from collections.abc import Mapping
from typing import Any

from memoair_voice import MemoAirVoiceClient, SearchResult

# A pasted text may be longer. Its end is what the caller asks, and a search with more words takes longer.
_MAX_QUERY_CHARS = 4_000
# The client keeps the deadline itself, but may have to wait for a free thread first.
_THREAD_GRACE_S = 0.05


async def search_in_time(
    client: MemoAirVoiceClient, query: str, *, user: Mapping[str, Any], timeout_ms: float
) -> SearchResult:
    """Search with the end of what the caller has said, within a time limit.

    Raises:
        TimeoutError: If no thread was free in time.
        MemoAirVoiceMemoryError: Whatever ``search_memory`` raises. The caller of this function logs it by its code.
    """
    search = client.search_memory(query[-_MAX_QUERY_CHARS:], user=user, timeout_ms=timeout_ms)
    return await asyncio.wait_for(search, timeout_ms / 1e3 + _THREAD_GRACE_S)
