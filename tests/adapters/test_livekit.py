"""The tool in LiveKit Agents: what LiveKit makes of it, and a session whose model calls it."""

import asyncio
import json
import threading
import time
import warnings
from collections.abc import Callable
from typing import Any

import anyio
import pytest
from adapters.conftest import longest_stop_s, pause
from adapters.model_server import ARGUMENTS, SPOKEN
from support.clients import PATIENT_MS
from support.timing import least

from memoair_voice import MemoAirVoiceMemory
from memoair_voice_sync import MemoAirVoiceMemorySync

with warnings.catch_warnings():  # what LiveKit and its dependencies warn of when they are imported is not ours
    warnings.simplefilter("ignore")
    from livekit.agents import Agent, AgentSession, llm
    from livekit.agents.llm.utils import build_legacy_openai_schema, build_strict_openai_schema, execute_function_call

INTENTS = ["answer_current_user", "summarise_recent", "earlier_in_call", "fallback"]


class ToolCallingLLM(llm.LLM):
    """A model as LiveKit's own tests have one: it calls the tool, and says a sentence once it was told the result."""

    def __init__(self) -> None:
        super().__init__()
        self.offered: list[Any] = []
        self.told: list[str] = []

    def chat(self, *, chat_ctx: Any, tools: Any = None, conn_options: Any, **_: Any) -> llm.LLMStream:
        return _Stream(self, chat_ctx=chat_ctx, tools=tools or [], conn_options=conn_options)


class _Stream(llm.LLMStream):
    async def _run(self) -> None:
        model = self._llm
        assert isinstance(model, ToolCallingLLM)
        model.offered.append(self._tools)
        results = [each for each in self._chat_ctx.items if each.type == "function_call_output"]
        model.told += [each.output for each in results]
        delta = llm.ChoiceDelta(role="assistant", content=SPOKEN)
        if not results:
            call = llm.FunctionToolCall(name="search_memory", arguments=json.dumps(ARGUMENTS), call_id="call_1")
            delta = llm.ChoiceDelta(role="assistant", tool_calls=[call])
        self._event_ch.send_nowait(llm.ChatChunk(id="1", delta=delta))


def call(tool: Any, arguments: dict[str, Any]) -> Any:
    """Call a tool as LiveKit does for a model."""
    asked = llm.FunctionToolCall(name="search_memory", arguments=json.dumps(arguments), call_id="call_1")
    return asyncio.run(execute_function_call(asked, llm.ToolContext([tool]))).fnc_call_out


def test_livekit_has_a_tool_with_name_description_and_all_intents(talk: Any) -> None:
    tool = talk.to_livekit_tool()
    ours = talk.to_openai_function()["function"]

    assert isinstance(tool, llm.FunctionTool)
    assert tool.info.name == tool.id == "search_memory"
    theirs = build_legacy_openai_schema(tool)["function"]
    assert (theirs["name"], theirs["description"]) == (ours["name"], ours["description"])
    assert theirs["parameters"]["required"] == ["query"]
    properties = theirs["parameters"]["properties"]
    assert set(properties) == {"query", "intent"}
    assert properties["intent"]["enum"] == INTENTS
    assert properties["intent"]["default"] == "answer_current_user"
    for name, each in ours["parameters"]["properties"].items():
        assert properties[name]["description"] == each["description"]


def test_livekit_makes_a_strict_schema_of_it(talk: Any) -> None:
    function = build_strict_openai_schema(talk.to_livekit_tool())["function"]
    assert function["strict"] is True
    assert function["parameters"]["required"] == ["query", "intent"]
    intent = function["parameters"]["properties"]["intent"]
    assert set(INTENTS) <= set(intent.get("enum") or intent["anyOf"][0]["enum"])


def test_in_a_session_the_model_calls_the_tool_and_is_told_what_was_found(talk: Any) -> None:
    model = ToolCallingLLM()
    tool = talk.to_livekit_tool(search_memory_timeout_ms=PATIENT_MS)

    async def session() -> list[Any]:
        async with AgentSession(llm=model) as session:
            await session.start(Agent(instructions="Help.", tools=[tool]))
            ran = await session.run(user_input="What colour are my boots?")
            return [event.item for event in ran.events]

    called, result, said = asyncio.run(session())
    assert (called.name, json.loads(called.arguments)) == ("search_memory", ARGUMENTS)
    assert (result.name, result.is_error) == ("search_memory", False)
    assert "the boots are red" in result.output
    assert said.text_content == SPOKEN
    assert [each.id for each in model.offered[0]] == ["search_memory"]
    assert model.told == [result.output]


@pytest.mark.parametrize("arguments", [{"query": "boots"}, {"query": "boots", "intent": None}], ids=["none", "null"])
def test_a_model_need_not_name_an_intent(talk: Any, arguments: dict[str, Any]) -> None:
    result = call(talk.to_livekit_tool(search_memory_timeout_ms=PATIENT_MS), arguments)
    assert (result.is_error, "the boots are red" in result.output) == (False, True)


@pytest.mark.parametrize("arguments", [{}, {"query": 42}, {"query": "boots", "intent": "gossip"}], ids=str)
def test_a_model_that_asks_wrongly_is_told_so_and_the_memory_is_not_asked(
    new_talk: Callable[..., Any], arguments: dict[str, Any]
) -> None:
    talk = new_talk()
    talk.search_memory = None
    result = call(talk.to_livekit_tool(), arguments)
    assert result.is_error is True
    assert "search_memory" in result.output


def test_a_memory_that_fails_does_not_fail_the_turn(talk: Any) -> None:
    tool = talk.to_livekit_tool()
    getattr(talk, "_sync", talk).close()
    result = call(tool, {"query": "boots"})
    assert (result.is_error, result.output) == (False, "")


@pytest.mark.parametrize("kind", [MemoAirVoiceMemorySync, MemoAirVoiceMemory], ids=["sync", "async"])
def test_the_event_loop_goes_on_while_the_tool_searches(new_talk: Callable[..., Any], kind: type[Any]) -> None:
    memory = new_talk(kind)
    pause(memory, lambda: time.sleep(0.5))
    tool = memory.to_livekit_tool(search_memory_timeout_ms=PATIENT_MS)

    async def search() -> None:
        assert "the boots are red" in await tool(query="what colour are the boots?")

    assert least(lambda: asyncio.run(longest_stop_s(search)), 0.4) < 0.4, "the loop stood still"


def test_a_tool_serves_one_event_loop_after_another_and_many_calls_at_once(new_talk: Callable[..., Any]) -> None:
    tool = new_talk().to_livekit_tool(search_memory_timeout_ms=4 * PATIENT_MS)

    async def many() -> list[str]:
        return await asyncio.gather(*(tool(query="boots") for _ in range(40)))

    for _ in range(2):
        assert all("the boots are red" in found for found in asyncio.run(many()))


def test_a_call_that_is_cancelled_is_given_up_at_once(new_talk: Callable[..., Any]) -> None:
    memory, may_search = new_talk(), threading.Event()
    pause(memory, lambda: may_search.wait(60))
    tool = memory.to_livekit_tool()
    took: list[float] = []

    async def give_up() -> None:
        began_at = time.monotonic()
        with anyio.move_on_after(0.05):
            await tool(query="boots")
        took.append(time.monotonic() - began_at)
        may_search.set()

    asyncio.run(give_up())
    assert took[0] < 10, "it waits for the search, which takes a minute"
