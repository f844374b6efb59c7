"""The methods that offer the search tool in the formats of the agent frameworks."""

from collections.abc import Callable
from typing import Any

from memoair_voice_sync._tools.adapters import langchain_tool, livekit_tool, pipecat_tool
from memoair_voice_sync._tools.tool import MemoryToolSync, OpenAIApi, openai_function


class ToolAdapters:
    """A mixin that converts ``search_memory_tool()`` for the agent frameworks. Any thread may call its methods."""

    search_memory_tool: Callable[..., Any]

    def _sync_tool(self, search_memory_timeout_ms: float | None) -> MemoryToolSync:
        """Return the tool, which blocks: the adapters search in threads."""
        tool: MemoryToolSync = self.search_memory_tool(search_memory_timeout_ms=search_memory_timeout_ms)
        return tool

    def to_openai_function(self, api: OpenAIApi = "chat", *, strict: bool = False) -> dict[str, Any]:
        """Return the search tool's schema for OpenAI.

        Args:
            api: ``chat`` for the Chat Completions API, ``responses`` for the Responses API, ``realtime`` for the
                Realtime API.
            strict: Whether OpenAI enforces the schema. The model must then also choose an intent. The Realtime API
                does not offer it.

        Returns:
            The schema, to be passed in ``tools``: of a request, or of the session in the Realtime API.

        Raises:
            ValueError: If ``api`` is unknown, or ``strict`` is True for the Realtime API.
        """
        return openai_function(api, strict=strict)

    def to_livekit_tool(self, *, search_memory_timeout_ms: float | None = None) -> Any:
        """Return the search tool for LiveKit.

        Args:
            search_memory_timeout_ms: The time that a search may take, in milliseconds. None means the default.

        Returns:
            A ``FunctionTool``. It searches in a thread, so that it never blocks the event loop, and returns an empty
                text if the memory fails.

        Raises:
            ImportError: If LiveKit Agents is not installed.
        """
        return livekit_tool(self._sync_tool(search_memory_timeout_ms))

    def to_pipecat_tool(self, *, search_memory_timeout_ms: float | None = None) -> dict[str, Any]:
        """Return the search tool for Pipecat.

        Args:
            search_memory_timeout_ms: The time that a search may take, in milliseconds. None means the default.

        Returns:
            A dict ``{"name", "schema", "handler"}``; register the handler under the name. It searches in a thread, so
                that it never blocks the event loop, and returns an empty text if the memory fails.

        Raises:
            ImportError: If Pipecat is not installed.
        """
        return pipecat_tool(self._sync_tool(search_memory_timeout_ms))

    def to_langchain_tool(self, *, search_memory_timeout_ms: float | None = None) -> Any:
        """Return the search tool for LangChain and LangGraph.

        Args:
            search_memory_timeout_ms: The time that a search may take, in milliseconds. None means the default.

        Returns:
            A ``StructuredTool``, to be invoked or awaited; awaited, it searches in a thread. It returns an empty text
                if the memory fails.

        Raises:
            ImportError: If langchain-core is not installed.
        """
        return langchain_tool(self._sync_tool(search_memory_timeout_ms))
