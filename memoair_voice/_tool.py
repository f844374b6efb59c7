"""The tool that a language model calls to search the memory, for asyncio and trio."""

from typing import Any

from memoair_voice._threads import async_method
from memoair_voice_sync import MemoAirVoiceMemorySync, MemoryToolSync, VoiceSessionSync
from memoair_voice_sync._tools.tool import OpenAIApi
from memoair_voice_sync._tools.tool_shapes import ToolAdapters


class MemoryTool:
    """A tool with which a language model searches one user's memory, for asyncio and trio.

    Awaiting a call of it returns the composed text.

    Attributes:
        name: The name of the tool, ``search_memory``.
    """

    name: str = MemoryToolSync.name

    def __init__(self, sync: MemoryToolSync) -> None:
        self._sync = sync

    @property
    def last_trace(self) -> dict[str, Any] | None:
        """The trace of the last search; None before the first one and after one that raised."""
        return self._sync.last_trace

    __call__ = async_method(MemoryToolSync.__call__, abandon_on_cancel=True)

    def schema(self, api: OpenAIApi = "chat", *, strict: bool = False) -> dict[str, Any]:
        """Return the tool's schema for OpenAI, as `MemoAirVoiceMemory.to_openai_function` does.

        Args:
            api: ``chat`` for the Chat Completions API, ``responses`` for the Responses API, ``realtime`` for the
                Realtime API.
            strict: Whether OpenAI enforces the schema. The model must then also choose an intent. The Realtime API
                does not offer it.

        Returns:
            The schema, to be passed in ``tools``.

        Raises:
            ValueError: If ``api`` is unknown, or ``strict`` is True for the Realtime API.
        """
        return self._sync.schema(api, strict=strict)


class AsyncToolAdapters(ToolAdapters):
    """A mixin that offers the tools of a sync object (``_sync``) on its async counterpart."""

    _sync: MemoAirVoiceMemorySync | VoiceSessionSync

    def search_memory_tool(self, *, search_memory_timeout_ms: float | None = None) -> MemoryTool:
        """Return a tool with which a language model can search this memory.

        Args:
            search_memory_timeout_ms: The time that a search may take, in milliseconds. None means the default.

        Returns:
            The tool, whose calls are awaited.
        """
        return MemoryTool(self._sync_tool(search_memory_timeout_ms))

    def _sync_tool(self, search_memory_timeout_ms: float | None) -> MemoryToolSync:
        return self._sync.search_memory_tool(search_memory_timeout_ms=search_memory_timeout_ms)
