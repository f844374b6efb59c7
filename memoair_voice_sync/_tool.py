"""The tool that a language model calls to search the memory."""

from collections.abc import Callable
from typing import Any

from memoair_voice_sync._results import SearchResult

TOOL_NAME = "search_memory"
TOOL_DESCRIPTION = (
    "Search what is known about this caller and this business: who the caller is, what was said earlier in this call "
    "and in earlier calls, and what the organisation's documents say."
)
INTENTS = ("answer_current_user", "summarise_recent", "earlier_in_call", "fallback")
DEFAULT_INTENT = "answer_current_user"


def tool_parameters() -> dict[str, Any]:
    """The JSON schema of the tool's parameters."""
    return {
        "type": "object",
        "properties": {
            "query": {"type": "string", "description": "What to look for, in the caller's words."},
            "intent": {"type": "string", "enum": list(INTENTS), "description": "What the answer is for."},
        },
        "required": ["query"],
        "additionalProperties": False,
    }


def openai_function() -> dict[str, Any]:
    """The tool's schema as OpenAI's Chat Completions take it."""
    return {
        "type": "function",
        "function": {"name": TOOL_NAME, "description": TOOL_DESCRIPTION, "parameters": tool_parameters()},
    }


class MemoryToolSync:
    """A callable that searches one caller's memory and returns the composed text. Safe to use from any thread.

    Raises `MemoAirVoiceMemoryError` where the memory can't be asked.
    """

    name: str = TOOL_NAME
    last_trace: dict[str, Any] | None

    def __init__(self, search: Callable[[str, str], SearchResult]) -> None:
        self._search = search
        self.last_trace = None

    def __call__(self, query: str, *, intent: str = DEFAULT_INTENT) -> str:
        """Search for ``query`` and return the ``contextText``; the trace of the search is then in ``last_trace``."""
        self.last_trace = None
        result = self._search(query, intent)
        self.last_trace = result.trace
        return result.contextText

    def schema(self) -> dict[str, Any]:
        """The OpenAI-style function-tool JSON schema."""
        return openai_function()
