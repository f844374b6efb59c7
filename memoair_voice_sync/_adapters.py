"""The tool in the shapes of the voice frameworks. Each framework is imported only when its shape is asked for."""

from collections.abc import Awaitable, Callable
from typing import Any, Literal

from memoair_voice_sync._errors import MemoAirVoiceMemoryError
from memoair_voice_sync._log import log
from memoair_voice_sync._tool import DEFAULT_INTENT, TOOL_DESCRIPTION, TOOL_NAME, tool_parameters

_Intent = Literal["answer_current_user", "summarise_recent", "earlier_in_call", "fallback"]
AsyncSearch = Callable[[str, str], Awaitable[str]]


def livekit_tool(search: AsyncSearch) -> Any:
    """A LiveKit ``FunctionTool`` that searches the memory; raises ImportError where LiveKit is not installed."""
    try:
        from livekit.agents import function_tool
    except ImportError as error:
        raise ImportError("to_livekit_tool() needs LiveKit: pip install livekit-agents") from error

    # LiveKit makes the schema of this signature and docstring.
    async def search_memory(query: str, intent: _Intent = "answer_current_user") -> str:
        """Search the memory.

        Args:
            query: What to look for, in the caller's words.
            intent: What the answer is for.
        """
        return await _found(search, query, intent)

    return function_tool(search_memory, name=TOOL_NAME, description=TOOL_DESCRIPTION)


def pipecat_tool(search: AsyncSearch) -> dict[str, Any]:
    """The tool for Pipecat: ``name``, ``schema`` (a ``FunctionSchema``) and ``handler`` to register under the name."""
    try:
        try:
            from pipecat.adapters.llm.schemas.function_schema import FunctionSchema
        except ImportError:  # before Pipecat 1.14
            from pipecat.adapters.schemas.function_schema import FunctionSchema
    except ImportError as error:
        raise ImportError("to_pipecat_tool() needs Pipecat: pip install pipecat-ai") from error

    async def handler(params: Any) -> None:
        query, intent = params.arguments.get("query"), params.arguments.get("intent")
        await params.result_callback(await _found(search, str(query or ""), str(intent or DEFAULT_INTENT)))

    parameters = tool_parameters()
    schema = FunctionSchema(
        name=TOOL_NAME,
        description=TOOL_DESCRIPTION,
        properties=parameters["properties"],
        required=parameters["required"],
    )
    return {"name": TOOL_NAME, "schema": schema, "handler": handler}


async def _found(search: AsyncSearch, query: str, intent: str) -> str:
    """What the memory says, or nothing: a memory that fails must not fail the caller's turn."""
    try:
        return await search(query, intent)
    except MemoAirVoiceMemoryError as error:
        log.warning("a tool call found no memory: action=tool_failed code=%s", error.code)
        return ""
