"""The tool that a language model calls to search the memory."""

from collections.abc import Callable
from typing import Any, Literal

import memoair_voice_sync._arguments as check
from memoair_voice_sync.results import SearchResult

TOOL_NAME = "search_memory"
TOOL_DESCRIPTION = (
    "Search what is known about this caller and this business: who the caller is, what was said earlier in this call "
    "and in earlier calls, and what the organization's documents say."
)
QUERY_DESCRIPTION = "What to look for, in the caller's words."
INTENT_DESCRIPTION = (
    "What the answer is for: answer_current_user (the default) to answer what was just asked, summarise_recent to sum "
    "up what was said lately, earlier_in_call to go back to this call, fallback where nothing else fits."
)
Intent = Literal["answer_current_user", "summarise_recent", "earlier_in_call", "fallback"]
INTENTS: tuple[Intent, ...] = ("answer_current_user", "summarise_recent", "earlier_in_call", "fallback")
DEFAULT_INTENT: Intent = "answer_current_user"
OpenAIApi = Literal["chat", "responses", "realtime"]
_APIS = ("chat", "responses", "realtime")


def tool_parameters() -> dict[str, Any]:
    """Return the JSON schema of the tool's parameters."""
    return {
        "type": "object",
        "properties": {
            "query": {"type": "string", "description": QUERY_DESCRIPTION},
            "intent": {"type": "string", "enum": list(INTENTS), "description": INTENT_DESCRIPTION},
        },
        "required": ["query"],
        "additionalProperties": False,
    }


def openai_function(api: OpenAIApi = "chat", *, strict: bool = False) -> dict[str, Any]:
    """Return the tool's schema for OpenAI's Chat Completions, Responses or Realtime API."""
    check.choice("api", api, _APIS)
    check.flag("strict", strict)
    if strict and api == "realtime":  # the session would be refused: its tools have no such key
        raise ValueError("strict is not available in the Realtime API")
    parameters = tool_parameters()
    if strict:  # strict mode demands that every property is required
        parameters["required"] = list(parameters["properties"])
    function = {"name": TOOL_NAME, "description": TOOL_DESCRIPTION, "parameters": parameters}
    if api == "realtime":
        return {"type": "function", **function}
    if api == "responses":
        # Always given: without it, the Responses API tries to make the schema strict by itself.
        return {"type": "function", **function, "strict": strict}
    return {"type": "function", "function": {**function, "strict": True} if strict else function}


class MemoryToolSync:
    """A tool with which a language model searches one user's memory.

    Calling it returns the composed text. Safe to use from any thread.

    Attributes:
        name: The name of the tool, ``search_memory``.
        last_trace: The trace of the last search; None before the first one and after one that raised.
    """

    name: str = TOOL_NAME
    last_trace: dict[str, Any] | None

    def __init__(self, search: Callable[[str, str], SearchResult]) -> None:
        self._search = search
        self.last_trace = None

    def __call__(self, query: str, *, intent: str = DEFAULT_INTENT) -> str:
        """Search the memory and return the ``contextText``; ``last_trace`` is then the trace of this search.

        Args:
            query: What to look for.
            intent: What the answer is for, such as ``answer_current_user``.

        Returns:
            The text composed from all hits, which may be empty.

        Raises:
            MemoAirVoiceMemoryError: If the memory cannot be searched.
        """
        self.last_trace = None
        # Models write null for arguments that they omit, and applications pass on what a model wrote.
        result = self._search(query, intent or DEFAULT_INTENT)
        self.last_trace = result.trace
        return result.contextText

    def schema(self, api: OpenAIApi = "chat", *, strict: bool = False) -> dict[str, Any]:
        """Return the tool's schema for OpenAI, as `MemoAirVoiceMemorySync.to_openai_function` does.

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
        return openai_function(api, strict=strict)
