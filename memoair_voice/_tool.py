"""The tool that a language model calls to search the memory, awaited."""

from typing import Any, Literal

from memoair_voice._threads import awaited
from memoair_voice_sync import MemoryToolSync


class MemoryTool:
    """`MemoryToolSync`, awaited: searches one caller's memory and returns the composed text."""

    name: str = MemoryToolSync.name

    def __init__(self, sync: MemoryToolSync) -> None:
        self._sync = sync

    @property
    def last_trace(self) -> dict[str, Any] | None:
        """The trace of the last search; None before the first and after one that failed."""
        return self._sync.last_trace

    __call__ = awaited(MemoryToolSync.__call__, abandon=True)

    def schema(self, api: Literal["chat", "responses"] = "chat", *, strict: bool = False) -> dict[str, Any]:
        """The OpenAI-style function-tool JSON schema, as `MemoAirVoiceMemory.to_openai_function` gives it."""
        return self._sync.schema(api, strict=strict)
