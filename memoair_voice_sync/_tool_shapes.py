"""The search tool in all its shapes, for whoever has one."""

from typing import Any

from memoair_voice_sync._adapters import langchain_tool, livekit_tool, pipecat_tool
from memoair_voice_sync._tool import MemoryToolSync, OpenAIApi, openai_function


class ToolAdapters:
    """What makes of ``search_memory_tool()`` the tools of the frameworks. Any thread may call its methods."""

    def search_memory_tool(self, *, search_memory_timeout_ms: float | None = None) -> MemoryToolSync:
        """Return a tool that a language model can be given to search this memory."""
        raise NotImplementedError

    def to_openai_function(self, api: OpenAIApi = "chat", *, strict: bool = False) -> dict[str, Any]:
        """The search tool's schema for OpenAI's Chat Completions, or with ``api="responses"`` for their Responses.

        ``strict`` has the model held to the schema; it must then name an intent. Raises ValueError for another API.
        """
        return openai_function(api, strict=strict)

    def to_livekit_tool(self, *, search_memory_timeout_ms: float | None = None) -> Any:
        """The search tool as a LiveKit ``FunctionTool``; it searches in a thread and never blocks the event loop.

        A memory that fails finds nothing, here and in the other frameworks. Raises ImportError without LiveKit.
        """
        return livekit_tool(self.search_memory_tool(search_memory_timeout_ms=search_memory_timeout_ms))

    def to_pipecat_tool(self, *, search_memory_timeout_ms: float | None = None) -> dict[str, Any]:
        """The search tool for Pipecat, ``{"name", "schema", "handler"}``; it searches in a thread.

        Raises ImportError without Pipecat.
        """
        return pipecat_tool(self.search_memory_tool(search_memory_timeout_ms=search_memory_timeout_ms))

    def to_langchain_tool(self, *, search_memory_timeout_ms: float | None = None) -> Any:
        """The search tool as a LangChain ``StructuredTool``, also for LangGraph; awaited, it searches in a thread.

        Raises ImportError without LangChain.
        """
        return langchain_tool(self.search_memory_tool(search_memory_timeout_ms=search_memory_timeout_ms))
