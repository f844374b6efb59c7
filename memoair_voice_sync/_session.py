"""A caller's runtime, pinned for many calls."""

import threading
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any

import memoair_voice_sync._arguments as check
from memoair_voice_sync._memory import DEFAULT_TIMEOUT_MS
from memoair_voice_sync._results import SearchResult
from memoair_voice_sync._tool import DEFAULT_INTENT, MemoryToolSync
from memoair_voice_sync._tool_shapes import ToolAdapters

if TYPE_CHECKING:
    from typing_extensions import Self


class VoiceSessionSync(ToolAdapters):
    """The calls of `MemoAirVoiceClientSync` for one caller, whose runtime is not evicted meanwhile.

    Safe to use from any thread. Use it in a ``with`` block, or call `close`.
    """

    def __init__(
        self,
        search: Callable[..., SearchResult],
        prefetch: Callable[..., None],
        save: Callable[..., str | None],
        release: Callable[[], None],
    ) -> None:
        self._search = search
        self._prefetch = prefetch
        self._save = save
        self._release = release
        self._close_lock = threading.Lock()
        self._is_closed = False

    def search_memory(
        self,
        query: str,
        *,
        lanes: Sequence[str] | None = None,
        intent: str = DEFAULT_INTENT,
        top_k: Mapping[str, int] | None = None,
        timeout_ms: float = DEFAULT_TIMEOUT_MS,
        filter: Mapping[str, Any] | None = None,  # noqa: A002 - the name on the wire
    ) -> SearchResult:
        """As `MemoAirVoiceClientSync.search_memory`."""
        return self._search(query, lanes=lanes, intent=intent, top_k=top_k, timeout_ms=timeout_ms, filter=filter)

    def prefetch(
        self,
        query_so_far: str,
        *,
        lanes: Sequence[str] | None = None,
        intent: str = DEFAULT_INTENT,
        top_k: Mapping[str, int] | None = None,
        filter: Mapping[str, Any] | None = None,  # noqa: A002 - the name on the wire
    ) -> None:
        """As `MemoAirVoiceClientSync.prefetch`."""
        self._prefetch(query_so_far, lanes=lanes, intent=intent, top_k=top_k, filter=filter)

    def save_response(
        self,
        *,
        user_text: str,
        assistant_text: str,
        turn_id: str | None = None,
        tool_calls: list[dict[str, Any]] | None = None,
        metadata: dict[str, Any] | None = None,
    ) -> str | None:
        """As `MemoAirVoiceClientSync.save_response`."""
        return self._save(
            user_text=user_text,
            assistant_text=assistant_text,
            turn_id=turn_id,
            tool_calls=tool_calls,
            metadata=metadata,
        )

    def search_memory_tool(self, *, search_memory_timeout_ms: float | None = None) -> MemoryToolSync:
        """Return a tool that a language model can be given to search this caller's memory; one that fails is empty."""
        return make_tool(self.search_memory, search_memory_timeout_ms)

    def close(self) -> None:
        """Unpin the runtime. Twice is no harm."""
        with self._close_lock:
            if not self._is_closed:
                self._is_closed = True
                self._release()

    def __enter__(self) -> "Self":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


def make_tool(search: Callable[..., SearchResult], search_memory_timeout_ms: float | None) -> MemoryToolSync:
    """The tool over a search of one caller; None is the time that every search has."""
    timeout_ms = DEFAULT_TIMEOUT_MS if search_memory_timeout_ms is None else search_memory_timeout_ms
    check.seconds("search_memory_timeout_ms", timeout_ms, 1e-3)
    return MemoryToolSync(lambda query, intent: search(query, intent=intent, timeout_ms=timeout_ms))
