"""One caller's memory, awaited."""

from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal

from memoair_voice._threads import awaited, same_parameters
from memoair_voice._tool import MemoryTool
from memoair_voice_sync import MemoAirVoiceMemorySync

if TYPE_CHECKING:
    from typing_extensions import Self


class MemoAirVoiceMemory:
    """`MemoAirVoiceMemorySync` for asyncio and trio: the same arguments, methods and errors, awaited.

    A search that is cancelled is given up at once. A save, a start or an end that is cancelled still happens; the
    cancellation comes after it. Use it in an ``async with`` block, or await `aclose`.
    """

    @same_parameters(MemoAirVoiceMemorySync.__init__)
    def __init__(self, **arguments: Any) -> None:
        self._sync = MemoAirVoiceMemorySync(**arguments)

    def __repr__(self) -> str:
        return f"<MemoAirVoiceMemory {self._sync!r}>"

    @property
    def session_id(self) -> str:
        """The id of the session (the call) that this object speaks for."""
        return self._sync.session_id

    @property
    def runtime_pid(self) -> int | None:
        """The process id of the runtime, where it was started here and lives."""
        return self._sync.runtime_pid

    runtime_url = awaited(MemoAirVoiceMemorySync.runtime_url)
    start_session = awaited(MemoAirVoiceMemorySync.start_session)
    end_session = awaited(MemoAirVoiceMemorySync.end_session)
    search_memory = awaited(MemoAirVoiceMemorySync.search_memory, abandon=True)
    after_turn = awaited(MemoAirVoiceMemorySync.after_turn)
    flush = awaited(MemoAirVoiceMemorySync.flush)
    aclose = awaited(MemoAirVoiceMemorySync.close)

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

    async def __aenter__(self) -> "Self":
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()
