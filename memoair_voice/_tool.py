"""The tool that a language model calls to search the memory, awaited."""

from typing import Any, Literal

from memoair_voice._threads import async_method
from memoair_voice_sync import MemoAirVoiceMemorySync, MemoryToolSync, VoiceSessionSync


class MemoryTool:
    """`MemoryToolSync`, awaited: searches one caller's memory and returns the composed text."""

    name: str = MemoryToolSync.name

    def __init__(self, sync: MemoryToolSync) -> None:
        self._sync = sync

    @property
    def last_trace(self) -> dict[str, Any] | None:
        """The trace of the last search; None before the first and after one that failed."""
        return self._sync.last_trace

    __call__ = async_method(MemoryToolSync.__call__, abandon_on_cancel=True)

    def schema(self, api: Literal["chat", "responses"] = "chat", *, strict: bool = False) -> dict[str, Any]:
        """The OpenAI-style function-tool JSON schema, as `MemoAirVoiceMemory.to_openai_function` gives it."""
        return self._sync.schema(api, strict=strict)


class AsyncToolAdapters:
    """What makes the tools of a sync object (``_sync``) those of its async twin."""

    _sync: MemoAirVoiceMemorySync | VoiceSessionSync

    def search_memory_tool(self, *, search_memory_timeout_ms: float | None = None) -> MemoryTool:
        """Return a tool that a language model can be given to search this memory."""
        return MemoryTool(self._sync.search_memory_tool(search_memory_timeout_ms=search_memory_timeout_ms))

    def to_openai_function(self, api: Literal["chat", "responses"] = "chat", *, strict: bool = False) -> dict[str, Any]:
        """The search tool's schema for OpenAI's Chat Completions, or with ``api="responses"`` for their Responses."""
        return self._sync.to_openai_function(api, strict=strict)

    def to_livekit_tool(self, *, search_memory_timeout_ms: float | None = None) -> Any:
        """The search tool as a LiveKit ``FunctionTool``; raises ImportError without LiveKit."""
        return self._sync.to_livekit_tool(search_memory_timeout_ms=search_memory_timeout_ms)

    def to_pipecat_tool(self, *, search_memory_timeout_ms: float | None = None) -> dict[str, Any]:
        """The search tool for Pipecat, ``{"name", "schema", "handler"}``; raises ImportError without Pipecat."""
        return self._sync.to_pipecat_tool(search_memory_timeout_ms=search_memory_timeout_ms)

    def to_langchain_tool(self, *, search_memory_timeout_ms: float | None = None) -> Any:
        """The search tool as a LangChain ``StructuredTool``, to be invoked or awaited; raises ImportError without."""
        return self._sync.to_langchain_tool(search_memory_timeout_ms=search_memory_timeout_ms)
