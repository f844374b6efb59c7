"""The tool that a language model is given, by itself and in the shapes of the frameworks."""

import asyncio
import inspect
import sys
from collections.abc import Awaitable, Callable
from types import ModuleType
from typing import Any, get_args

import pytest

from memoair_voice_sync import MemoAirVoiceMemoryError, MemoAirVoiceMemorySync, MemoryToolSync, SearchResult

NewMemory = Callable[..., MemoAirVoiceMemorySync]

INTENTS = ["answer_current_user", "summarise_recent", "earlier_in_call", "fallback"]


@pytest.fixture
def talking(memory: MemoAirVoiceMemorySync) -> MemoAirVoiceMemorySync:
    """A memory in which something was said."""
    memory.start_session({"user": {"name": "Dana"}})
    memory.after_turn("the boots are red", "", "t1", timeout_s=10.0)
    return memory


def test_the_tool_returns_the_composed_text_and_keeps_the_trace(talking: MemoAirVoiceMemorySync) -> None:
    tool = talking.search_memory_tool(search_memory_timeout_ms=5_000)
    assert isinstance(tool, MemoryToolSync)
    assert (tool.name, tool.last_trace) == ("search_memory", None)

    assert "the boots are red" in tool("what colour are the boots?")
    assert tool.last_trace is not None
    assert set(tool.last_trace["lanes"]) == {"profile", "working", "permanent", "org"}


def test_the_tool_passes_the_intent_on() -> None:
    asked: list[tuple[str, str]] = []

    def search(query: str, intent: str) -> SearchResult:
        asked.append((query, intent))
        return SearchResult("found", None, [], [], [], [], {"degraded": False})

    tool = MemoryToolSync(search)
    assert tool("boots") == "found"
    assert tool("boots", intent="earlier_in_call") == "found"
    assert asked == [("boots", "answer_current_user"), ("boots", "earlier_in_call")]


def test_the_tool_searches_within_the_time_that_it_was_made_with(talking: MemoAirVoiceMemorySync) -> None:
    tool = talking.search_memory_tool(search_memory_timeout_ms=700)
    tool("boots")
    assert tool.last_trace is not None
    assert 250 < tool.last_trace["deadlineMs"] <= 700

    default = talking.search_memory_tool()
    default("boots")
    assert default.last_trace is not None
    assert default.last_trace["deadlineMs"] <= 250


def test_the_schema_is_what_openai_takes(memory: MemoAirVoiceMemorySync) -> None:
    schema = memory.search_memory_tool().schema()
    assert schema == memory.to_openai_function()
    assert schema["type"] == "function"
    function = schema["function"]
    assert function["name"] == "search_memory"
    assert "caller" in function["description"]
    parameters = function["parameters"]
    assert (parameters["type"], parameters["required"]) == ("object", ["query"])
    assert set(parameters["properties"]) == {"query", "intent"}
    assert parameters["properties"]["query"]["type"] == "string"
    assert (parameters["properties"]["intent"]["type"], parameters["properties"]["intent"]["enum"]) == (
        "string",
        INTENTS,
    )


def test_a_schema_that_one_user_changes_is_not_the_next_ones(memory: MemoAirVoiceMemorySync) -> None:
    memory.to_openai_function()["function"]["parameters"]["properties"]["intent"]["enum"].clear()
    assert memory.to_openai_function()["function"]["parameters"]["properties"]["intent"]["enum"] == INTENTS


def test_a_tool_of_a_memory_that_fails_says_so_and_keeps_no_old_trace(talking: MemoAirVoiceMemorySync) -> None:
    tool = talking.search_memory_tool(search_memory_timeout_ms=5_000)
    tool("boots")
    talking.close()

    with pytest.raises(MemoAirVoiceMemoryError):
        tool("boots")
    assert tool.last_trace is None


def test_a_tool_refuses_a_query_that_is_no_text(memory: MemoAirVoiceMemorySync) -> None:
    with pytest.raises(TypeError):
        memory.search_memory_tool()(42)  # type: ignore[arg-type]
    assert memory.runtime_pid is None


def test_a_time_out_for_the_tool_that_can_not_be_is_refused_when_it_is_made(memory: MemoAirVoiceMemorySync) -> None:
    with pytest.raises(ValueError, match="must be positive"):
        memory.search_memory_tool(search_memory_timeout_ms=0)


@pytest.mark.parametrize(
    ("method", "module", "package"),
    [("to_livekit_tool", "livekit", "livekit-agents"), ("to_pipecat_tool", "pipecat", "pipecat-ai")],
)
def test_a_framework_that_is_missing_is_named_with_what_to_install(
    memory: MemoAirVoiceMemorySync, monkeypatch: pytest.MonkeyPatch, method: str, module: str, package: str
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ImportError, match=f"pip install {package}"):
        getattr(memory, method)()


# The frameworks are too large to be installed for these tests. What stands in for them has of livekit-agents 1.8.9 and
# pipecat-ai 1.14.0 what the adapters touch, as seen there: where it lies, what it takes and what comes of it.


class FunctionTool:
    """`livekit.agents.llm.FunctionTool`: its schema is made of the function's signature, its calls go by keyword."""

    def __init__(self, function: Callable[..., Awaitable[Any]], name: str, description: str) -> None:
        self.id = name
        self.description = description
        self.signature = inspect.signature(function)
        self._function = function

    async def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return await self._function(*args, **kwargs)


def function_tool(function: Any = None, *, name: str, description: str) -> FunctionTool:
    """`livekit.agents.function_tool`, as far as functions go."""
    return FunctionTool(function, name, description)


class FunctionSchema:
    """`pipecat.adapters.llm.schemas.function_schema.FunctionSchema`."""

    def __init__(self, name: str, description: str, properties: dict[str, Any], required: list[str]) -> None:
        self.name, self.description, self.properties, self.required = name, description, properties, required


class FunctionCallParams:
    """`pipecat.services.llm_service.FunctionCallParams`: the result goes to a callback."""

    def __init__(self, arguments: dict[str, Any]) -> None:
        self.arguments = arguments
        self.results: list[Any] = []

    async def result_callback(self, result: Any, *, properties: Any = None) -> None:
        self.results.append(result)


@pytest.fixture
def frameworks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the stand-ins be imported as the frameworks would be."""
    contents: dict[str, dict[str, Any]] = {
        "livekit": {},
        "livekit.agents": {"function_tool": function_tool},
        "pipecat": {},
        "pipecat.adapters": {},
        "pipecat.adapters.schemas": {},
        "pipecat.adapters.schemas.function_schema": {"FunctionSchema": FunctionSchema},
        "pipecat.adapters.llm": {},
        "pipecat.adapters.llm.schemas": {},
        "pipecat.adapters.llm.schemas.function_schema": {"FunctionSchema": FunctionSchema},
    }
    for name, members in contents.items():
        module = ModuleType(name)
        module.__dict__.update(members)
        monkeypatch.setitem(sys.modules, name, module)


def test_livekit_is_given_the_tool_by_its_name_with_its_description_and_intents(
    talking: MemoAirVoiceMemorySync, frameworks: None
) -> None:
    tool = talking.to_livekit_tool()

    function = talking.to_openai_function()["function"]
    assert (tool.id, tool.description) == (function["name"], function["description"])
    assert list(tool.signature.parameters) == ["query", "intent"]
    assert tool.signature.parameters["query"].default is inspect.Parameter.empty
    assert list(get_args(tool.signature.parameters["intent"].annotation)) == INTENTS
    found = asyncio.run(tool(query="what colour are the boots?", intent="fallback"))
    assert "the boots are red" in found


def test_pipecat_is_given_a_schema_and_a_handler_that_calls_back(
    talking: MemoAirVoiceMemorySync, frameworks: None
) -> None:
    tool = talking.to_pipecat_tool()

    assert set(tool) == {"name", "schema", "handler"}
    assert tool["name"] == tool["schema"].name == "search_memory"
    assert tool["schema"].properties["intent"]["enum"] == INTENTS
    assert tool["schema"].required == ["query"]
    params = FunctionCallParams({"query": "what colour are the boots?"})
    assert asyncio.run(tool["handler"](params)) is None
    assert len(params.results) == 1
    assert "the boots are red" in params.results[0]


@pytest.mark.parametrize("arguments", [{"query": "boots"}, {}, {"query": None, "intent": None}], ids=str)
def test_a_memory_that_fails_does_not_fail_the_turn_of_a_framework(
    talking: MemoAirVoiceMemorySync, frameworks: None, arguments: dict[str, Any]
) -> None:
    talking.close()
    params = FunctionCallParams(arguments)
    asyncio.run(talking.to_pipecat_tool()["handler"](params))

    assert params.results == [""]
    assert asyncio.run(talking.to_livekit_tool()(query="boots")) == ""
