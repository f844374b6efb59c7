"""The search tool in the formats of the agent frameworks.

Each framework is imported only when its tool is requested. A memory that fails must not fail the model's turn: the tool
then returns an empty text, and the log says why.
"""

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Annotated, Any

from memoair_protocol.installing import install_command
from memoair_voice_sync._diagnostics import log
from memoair_voice_sync._tools.tool import (
    DEFAULT_INTENT,
    INTENT_DESCRIPTION,
    QUERY_DESCRIPTION,
    TOOL_DESCRIPTION,
    TOOL_NAME,
    Intent,
    MemoryToolSync,
    tool_parameters,
)
from memoair_voice_sync.errors import MemoAirVoiceMemoryError

_MAX_THREADS = 16


def livekit_tool(tool: MemoryToolSync) -> Any:
    """Return a LiveKit ``FunctionTool`` that searches the memory; raise ImportError without LiveKit."""
    try:
        from livekit.agents import function_tool
        from pydantic import Field
    except ImportError as error:
        raise _missing_dependency("to_livekit_tool", "LiveKit Agents", "livekit") from error
    search = _search_in_thread(tool)

    # LiveKit derives the schema from this signature.
    async def search_memory(
        query: Annotated[str, Field(description=QUERY_DESCRIPTION)],
        intent: Annotated[Intent, Field(description=INTENT_DESCRIPTION)] = DEFAULT_INTENT,
    ) -> str:
        return await search(query, intent)

    return function_tool(search_memory, name=TOOL_NAME, description=TOOL_DESCRIPTION)


def pipecat_tool(tool: MemoryToolSync) -> dict[str, Any]:
    """Return the tool for Pipecat: ``name``, ``schema`` (a ``FunctionSchema``) and ``handler``."""
    try:
        try:
            from pipecat.adapters.llm.schemas.function_schema import FunctionSchema
        except ImportError:  # before Pipecat 1.14
            from pipecat.adapters.schemas.function_schema import FunctionSchema
    except ImportError as error:
        raise _missing_dependency("to_pipecat_tool", "Pipecat", "pipecat") from error
    search = _search_in_thread(tool)

    async def handler(params: Any) -> None:
        # Pipecat passes on the arguments of the model unchecked.
        query, intent = params.arguments.get("query"), params.arguments.get("intent")
        await params.result_callback(await search(str(query or ""), str(intent or DEFAULT_INTENT)))

    parameters = tool_parameters()
    schema = FunctionSchema(
        name=TOOL_NAME,
        description=TOOL_DESCRIPTION,
        properties=parameters["properties"],
        required=parameters["required"],
    )
    return {"name": TOOL_NAME, "schema": schema, "handler": handler}


def langchain_tool(tool: MemoryToolSync) -> Any:
    """Return a LangChain ``StructuredTool``, sync and async; raise ImportError without langchain-core."""
    try:
        from langchain_core.tools import StructuredTool
        from pydantic import Field, create_model
    except ImportError as error:
        raise _missing_dependency("to_langchain_tool", "LangChain", "langchain") from error
    arguments = create_model(
        "SearchMemory",
        query=(str, Field(description=QUERY_DESCRIPTION)),
        intent=(Intent, Field(DEFAULT_INTENT, description=INTENT_DESCRIPTION)),
    )
    search = _search_in_thread(tool)

    def search_memory(query: str, intent: str = DEFAULT_INTENT) -> str:
        return _search_or_empty(tool, query, intent)

    async def search_memory_in_thread(query: str, intent: str = DEFAULT_INTENT) -> str:
        return await search(query, intent)

    return StructuredTool.from_function(
        search_memory,
        search_memory_in_thread,
        name=TOOL_NAME,
        description=TOOL_DESCRIPTION,
        args_schema=arguments,
    )


def _missing_dependency(method: str, framework: str, extra: str) -> ImportError:
    return ImportError(f"{method}() needs {framework}: {install_command(extra)}")


def _search_in_thread(tool: MemoryToolSync) -> Callable[[str, str], Awaitable[str]]:
    """Return the search as a coroutine function that runs in a thread, so that it never blocks the event loop.

    A search that is cancelled is abandoned immediately.
    """
    from anyio import CapacityLimiter, to_thread
    from anyio.lowlevel import RunVar

    # One limiter for each event loop that calls the tool. The default limiter of the loop is shared with other code,
    # which a search would have to wait for.
    loop_limiter: RunVar[CapacityLimiter] = RunVar("memoair_voice_tool_limiter")

    async def search(query: str, intent: str) -> str:
        limiter = loop_limiter.get(None)
        if limiter is None:
            limiter = CapacityLimiter(_MAX_THREADS)
            loop_limiter.set(limiter)
        call = partial(_search_or_empty, tool, query, intent)
        return await to_thread.run_sync(call, abandon_on_cancel=True, limiter=limiter)

    return search


def _search_or_empty(tool: MemoryToolSync, query: str, intent: str) -> str:
    """Search the memory; return an empty text if it fails."""
    try:
        return tool(query, intent=intent)
    except MemoAirVoiceMemoryError as error:
        log.warning("a tool call could not search the memory: action=tool_failed code=%s", error.code)
        return ""
