"""The tool in the shapes of the voice frameworks. Each framework is imported only when its shape is asked for."""

from collections.abc import Awaitable, Callable
from typing import Any

from memoair_voice_sync._errors import MemoAirVoiceMemoryError
from memoair_voice_sync._log import log
from memoair_voice_sync._tool import DEFAULT_INTENT, TOOL_DESCRIPTION, TOOL_NAME, tool_parameters

AsyncSearch = Callable[[str, str], Awaitable[str]]


def livekit_tool(search: AsyncSearch) -> Any:
    """A LiveKit ``FunctionTool`` that searches the memory; raises ImportError where LiveKit is not installed."""
    try:
        from livekit.agents import function_tool
    except ImportError as error:
        raise ImportError("to_livekit_tool() needs LiveKit: pip install livekit-agents") from error

    async def search_memory(raw_arguments: dict[str, Any]) -> str:
        return await _found(search, raw_arguments)

    schema = {"name": TOOL_NAME, "description": TOOL_DESCRIPTION, "parameters": tool_parameters()}
    return function_tool(search_memory, raw_schema=schema)


def pipecat_tool(search: AsyncSearch) -> dict[str, Any]:
    """The tool for Pipecat: ``name``, ``schema`` (a ``FunctionSchema``) and ``handler`` to register under the name."""
    try:
        from pipecat.adapters.schemas.function_schema import FunctionSchema
    except ImportError as error:
        raise ImportError("to_pipecat_tool() needs Pipecat: pip install pipecat-ai") from error

    async def handler(params: Any) -> None:
        await params.result_callback(await _found(search, params.arguments))

    parameters = tool_parameters()
    schema = FunctionSchema(
        name=TOOL_NAME,
        description=TOOL_DESCRIPTION,
        properties=parameters["properties"],
        required=parameters["required"],
    )
    return {"name": TOOL_NAME, "schema": schema, "handler": handler}


async def _found(search: AsyncSearch, arguments: Any) -> str:
    """What the memory says, or nothing: a memory that fails must not fail the caller's turn."""
    try:
        return await search(str(arguments.get("query") or ""), str(arguments.get("intent") or DEFAULT_INTENT))
    except MemoAirVoiceMemoryError as error:
        log.warning("a tool call found no memory: action=tool_failed code=%s", error.code)
        return ""
