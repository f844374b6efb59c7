"""The tool in LiveKit Agents: its schemas, and a session whose model calls it."""

import asyncio
import json
import threading
import time
import warnings
from collections.abc import Callable
from typing import Any

import anyio
import pytest
from adapters.conftest import delay_searches, measure_loop_stall_s
from adapters.model_server import ANSWER, ARGUMENTS
from support.clients import PATIENT_MS
from support.timing import least

from memoair_voice import MemoAirVoiceMemory
from memoair_voice_sync import MemoAirVoiceMemorySync

with warnings.catch_warnings():  # import warnings of LiveKit and its dependencies
    warnings.simplefilter("ignore")
    from livekit.agents import Agent, AgentSession, llm
    from livekit.agents.llm.utils import build_legacy_openai_schema, build_strict_openai_schema, execute_function_call

INTENTS = ["answer_current_user", "summarise_recent", "earlier_in_call", "fallback"]


class ToolCallingLLM(llm.LLM):
    """A scripted model, as in LiveKit's own tests: it calls the tool, then answers with a sentence."""

    def __init__(self) -> None:
        super().__init__()
        self.offered: list[Any] = []
        self.tool_outputs: list[str] = []

    def chat(self, *, chat_ctx: Any, tools: Any = None, conn_options: Any, **_: Any) -> llm.LLMStream:
        return _Stream(self, chat_ctx=chat_ctx, tools=tools or [], conn_options=conn_options)


class _Stream(llm.LLMStream):
    async def _run(self) -> None:
        model = self._llm
        assert isinstance(model, ToolCallingLLM)
        model.offered.append(self._tools)
        results = [item for item in self._chat_ctx.items if item.type == "function_call_output"]
        model.tool_outputs += [result.output for result in results]
        delta = llm.ChoiceDelta(role="assistant", content=ANSWER)
        if not results:
            call = llm.FunctionToolCall(name="search_memory", arguments=json.dumps(ARGUMENTS), call_id="call_1")
            delta = llm.ChoiceDelta(role="assistant", tool_calls=[call])
        self._event_ch.send_nowait(llm.ChatChunk(id="1", delta=delta))


def call_tool(tool: Any, arguments: dict[str, Any]) -> Any:
    """Call a tool as LiveKit does for a model."""
    function_call = llm.FunctionToolCall(name="search_memory", arguments=json.dumps(arguments), call_id="call_1")
    return asyncio.run(execute_function_call(function_call, llm.ToolContext([tool]))).fnc_call_out


def test_the_livekit_tool_has_name_description_and_all_intents(memory: Any) -> None:
    tool = memory.to_livekit_tool()
    openai_function = memory.to_openai_function()["function"]

    assert isinstance(tool, llm.FunctionTool)
    assert tool.info.name == tool.id == "search_memory"
    livekit_function = build_legacy_openai_schema(tool)["function"]
    assert (livekit_function["name"], livekit_function["description"]) == (
        openai_function["name"],
        openai_function["description"],
    )
    assert livekit_function["parameters"]["required"] == ["query"]
    properties = livekit_function["parameters"]["properties"]
    assert set(properties) == {"query", "intent"}
    assert properties["intent"]["enum"] == INTENTS
    assert properties["intent"]["default"] == "answer_current_user"
    for name, property_ in openai_function["parameters"]["properties"].items():
        assert properties[name]["description"] == property_["description"]


def test_livekit_builds_a_strict_schema_from_the_tool(memory: Any) -> None:
    function = build_strict_openai_schema(memory.to_livekit_tool())["function"]
    assert function["strict"] is True
    assert function["parameters"]["required"] == ["query", "intent"]
    intent = function["parameters"]["properties"]["intent"]
    assert set(INTENTS) <= set(intent.get("enum") or intent["anyOf"][0]["enum"])


def test_in_a_session_the_model_calls_the_tool_and_gets_the_result(memory: Any) -> None:
    model = ToolCallingLLM()
    tool = memory.to_livekit_tool(search_memory_timeout_ms=PATIENT_MS)

    async def session() -> list[Any]:
        async with AgentSession(llm=model) as session:
            await session.start(Agent(instructions="Help.", tools=[tool]))
            result = await session.run(user_input="What colour are my boots?")
            return [event.item for event in result.events]

    called, result, message = asyncio.run(session())
    assert (called.name, json.loads(called.arguments)) == ("search_memory", ARGUMENTS)
    assert (result.name, result.is_error) == ("search_memory", False)
    assert "the boots are red" in result.output
    assert message.text_content == ANSWER
    assert [tool.id for tool in model.offered[0]] == ["search_memory"]
    assert model.tool_outputs == [result.output]


@pytest.mark.parametrize("arguments", [{"query": "boots"}, {"query": "boots", "intent": None}], ids=["none", "null"])
def test_the_intent_is_optional(memory: Any, arguments: dict[str, Any]) -> None:
    result = call_tool(memory.to_livekit_tool(search_memory_timeout_ms=PATIENT_MS), arguments)
    assert (result.is_error, "the boots are red" in result.output) == (False, True)


@pytest.mark.parametrize("arguments", [{}, {"query": 42}, {"query": "boots", "intent": "gossip"}], ids=str)
def test_invalid_arguments_return_an_error_without_a_search(
    new_memory: Callable[..., Any], arguments: dict[str, Any]
) -> None:
    memory = new_memory()
    memory.search_memory = None
    result = call_tool(memory.to_livekit_tool(), arguments)
    assert result.is_error is True
    assert "search_memory" in result.output


def test_a_failing_memory_does_not_fail_the_turn(memory: Any) -> None:
    tool = memory.to_livekit_tool()
    getattr(memory, "_sync", memory).close()
    result = call_tool(tool, {"query": "boots"})
    assert (result.is_error, result.output) == (False, "")


@pytest.mark.parametrize("kind", [MemoAirVoiceMemorySync, MemoAirVoiceMemory], ids=["sync", "async"])
def test_the_event_loop_keeps_running_during_a_search(new_memory: Callable[..., Any], kind: type[Any]) -> None:
    memory = new_memory(kind)
    delay_searches(memory, lambda: time.sleep(0.5))
    tool = memory.to_livekit_tool(search_memory_timeout_ms=PATIENT_MS)

    async def search() -> None:
        assert "the boots are red" in await tool(query="what colour are the boots?")

    assert least(lambda: asyncio.run(measure_loop_stall_s(search)), 0.4) < 0.4, "the event loop stalled"


def test_a_tool_works_in_successive_event_loops_and_in_concurrent_calls(new_memory: Callable[..., Any]) -> None:
    tool = new_memory().to_livekit_tool(search_memory_timeout_ms=4 * PATIENT_MS)

    async def search_many_times() -> list[str]:
        return await asyncio.gather(*(tool(query="boots") for _ in range(40)))

    for _ in range(2):
        assert all("the boots are red" in found for found in asyncio.run(search_many_times()))


def test_a_cancelled_call_returns_at_once(new_memory: Callable[..., Any]) -> None:
    memory, may_search = new_memory(), threading.Event()
    delay_searches(memory, lambda: may_search.wait(60))
    tool = memory.to_livekit_tool()
    durations_s: list[float] = []

    async def cancel_call() -> None:
        began_at = time.monotonic()
        with anyio.move_on_after(0.05):
            await tool(query="boots")
        durations_s.append(time.monotonic() - began_at)
        may_search.set()

    asyncio.run(cancel_call())
    assert durations_s[0] < 10, "the cancelled call waited for its search, which takes a minute"
