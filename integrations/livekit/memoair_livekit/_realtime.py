"""Models that listen and speak by themselves: their briefing at the start, and the tool with which they search.

LiveKit calls no hook before such a model answers, so nothing can be recalled for a turn.
"""

from collections.abc import Awaitable, Callable
from typing import Annotated, Any, Literal

from livekit.agents import function_tool, llm
from pydantic import Field

from memoair_voice.integration import (
    TOOL_DESCRIPTION,
    TOOL_INTENT_DESCRIPTION,
    TOOL_NAME,
    TOOL_QUERY_DESCRIPTION,
    fence_text,
)

Intent = Literal["answer_current_user", "summarise_recent", "earlier_in_call", "fallback"]
SearchFunction = Callable[[str, str], Awaitable[str]]
# What a briefing says: who the caller is, and what was said in earlier calls.
BRIEFING_LANES = ("profile", "permanent")
_SPEECH_MODELS: tuple[type, ...] = tuple(
    getattr(llm, name) for name in ("RealtimeModel", "DuplexModel") if hasattr(llm, name)
)


def is_speech_model(model: Any) -> bool:
    """Return whether a model listens and speaks by itself. A session wraps a duplex model as a realtime one."""
    return isinstance(model, _SPEECH_MODELS)


def make_search_tool(search: SearchFunction) -> Any:
    """Return a LiveKit tool with which the model searches the caller's memory.

    Args:
        search: Called with the query and the intent. It returns "" if the memory fails.
    """

    # LiveKit derives the schema from this signature.
    async def search_memory(
        query: Annotated[str, Field(description=TOOL_QUERY_DESCRIPTION)],
        intent: Annotated[Intent, Field(description=TOOL_INTENT_DESCRIPTION)] = "answer_current_user",
    ) -> str:
        return await search(query, intent)

    return function_tool(search_memory, name=TOOL_NAME, description=TOOL_DESCRIPTION)


def has_search_tool(tools: list[Any]) -> bool:
    """Return whether one of the tools has the name of the search tool."""
    return any(_tool_name(tool) == TOOL_NAME for tool in tools)


def vars_of_class(agent_class: type) -> list[Any]:
    """Return the attributes of a class, among which LiveKit finds the tools that its methods are."""
    return [member for base in agent_class.__mro__ for member in vars(base).values()]


def can_change(model: Any, part: str) -> bool:
    """Return whether a model accepts another ``chat_context``, ``instructions`` or ``tools`` while it is running.

    Models of LiveKit versions that do not say so accept it.
    """
    return bool(getattr(model.capabilities, f"mutable_{part}", True))


def add_briefing(instructions: str, context_text: str) -> str:
    """Return instructions with what is known about the caller, which replaces an earlier briefing."""
    plain = remove_briefing(instructions)
    return f"{plain}\n\n{fence_text(context_text)}".strip() if context_text.strip() else plain


def remove_briefing(instructions: str) -> str:
    """Return instructions without a briefing."""
    start = instructions.find(_FENCE_START)
    return instructions if start < 0 else instructions[:start].rstrip()


def is_briefed(instructions: str) -> bool:
    """Return whether instructions contain a briefing."""
    return _FENCE_START in instructions


def _tool_name(tool: Any) -> str:
    for attribute in ("info", "__livekit_tool_info", "__livekit_raw_tool_info", "__livekit_agents_ai_callable"):
        if (info := getattr(tool, attribute, None)) is not None:
            return str(getattr(info, "name", ""))
    return ""


_FENCE_START = fence_text("").partition("\n")[0]
