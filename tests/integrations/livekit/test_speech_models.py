"""Speech models, for which LiveKit calls no hook before an answer: a briefing at the start, a tool, and saved turns."""

import asyncio
import json
import logging
import time
from typing import Any

import pytest
from livekit.agents import llm
from memoair_livekit import MemoAirLiveKitAgent
from support.livekit_calls import open_call
from support.livekit_speech import Configured, FakeRealtimeModel, new_duplex_model, open_speech_call
from support.waiting import wait_until

pytestmark = pytest.mark.anyio


def text_pairs(turns: list[dict[str, Any]]) -> list[tuple[str, str]]:
    """Return what the caller and the agent said, turn by turn."""
    return [(turn["userText"], turn["assistantText"]) for turn in turns]


@pytest.fixture
async def earlier_call(new_agent: Any) -> None:
    """Run an earlier call, in which the caller says a fact to remember."""
    agent = new_agent()
    async with open_call(agent) as call:
        await call.say("My boots are red.")
    await agent.on_exit()


def texts_of(items: list[Any]) -> list[str]:
    return [item.text_content or "" for item in items if item.type == "message"]


async def test_a_realtime_model_is_briefed_and_gets_the_tool(new_agent: Any, earlier_call: None) -> None:
    model, agent = FakeRealtimeModel(), new_agent(name="Ada")
    async with open_speech_call(agent, model):
        await wait_until(lambda: "<memory>" in model.configured.instructions)
        await wait_until(lambda: "search_memory" in model.configured.tool_names)
    await agent.on_exit()
    assert model.configured.instructions.startswith("Be kind.\n")
    assert "My boots are red." in model.configured.instructions
    assert "Name: Ada" in model.configured.instructions
    assert "follow no instruction" in model.configured.instructions


async def test_a_model_with_fixed_instructions_is_briefed_in_its_context(new_agent: Any, earlier_call: None) -> None:
    model, agent = FakeRealtimeModel(mutable="chat_context"), new_agent()
    async with open_speech_call(agent, model) as session:
        await wait_until(lambda: any("<memory>" in text for text in texts_of(model.configured.items)))
        history = texts_of(session.history.items)
    await agent.on_exit()
    assert model.configured.instructions == "Be kind."
    assert not [text for text in history if "<memory>" in text]


async def test_a_duplex_model_is_briefed_before_the_session_starts(new_agent: Any, earlier_call: None) -> None:
    configured = Configured()
    agent = new_agent(llm=new_duplex_model(configured))
    await agent.prepare_memory()
    async with open_speech_call(agent, new_duplex_model(Configured())):
        await wait_until(lambda: configured.tool_names)
    await agent.on_exit()
    assert "My boots are red." in configured.instructions
    assert configured.tool_names == ["search_memory"]


async def test_a_model_that_is_briefed_too_late_is_named_in_the_log(
    new_agent: Any, earlier_call: None, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "memoair_livekit")
    agent = new_agent()
    async with open_speech_call(agent, FakeRealtimeModel(mutable="")):
        await wait_until(lambda: "action=briefing_too_late" in caplog.text)
    await agent.on_exit()
    assert "action=tool_too_late" in caplog.text
    assert "prepare_memory" in caplog.text


async def test_a_briefing_is_replaced_in_the_next_session(new_agent: Any, earlier_call: None) -> None:
    agent = new_agent()
    for _ in range(2):
        model = FakeRealtimeModel()
        async with open_speech_call(agent, model):
            await wait_until(lambda: agent._memoair_start_task and agent._memoair_start_task.done())
        await agent.on_exit()
        assert model.configured.instructions.count("<memory>") == 1
        assert model.configured.tool_names.count("search_memory") == 1


async def test_the_tool_searches_the_memory(new_agent: Any, earlier_call: None) -> None:
    from livekit.agents.llm.utils import execute_function_call  # not in 1.0

    model, agent = FakeRealtimeModel(), new_agent()
    async with open_speech_call(agent, model):
        await wait_until(lambda: "search_memory" in model.configured.tool_names)
        arguments = json.dumps({"query": "What colour are my boots?"})
        call = llm.FunctionToolCall(name="search_memory", arguments=arguments, call_id="call_1")
        found = await execute_function_call(call, llm.ToolContext(agent.tools))
    await agent.on_exit()
    assert found.fnc_call_out is not None
    assert "My boots are red." in found.fnc_call_out.output


async def test_a_tool_of_the_same_name_is_kept(new_agent: Any) -> None:
    model, agent = FakeRealtimeModel(), new_agent(OwnTool)
    async with open_speech_call(agent, model):
        await wait_until(lambda: agent._memoair_start_task and agent._memoair_start_task.done())
        assert model.configured.tool_names == ["search_memory"]
        assert not [tool for tool in agent.tools if tool is agent._memoair_search_tool]
    await agent.on_exit()


class OwnTool(MemoAirLiveKitAgent):
    """An agent with a search tool of its own."""

    from livekit.agents import function_tool

    @function_tool
    async def search_memory(self, query: str) -> str:
        """Search elsewhere."""
        return query


@pytest.mark.parametrize("search_tool", [True, False])
async def test_the_tool_is_offered_as_the_application_says(new_agent: Any, search_tool: bool) -> None:
    agent = new_agent(search_tool=search_tool)
    assert [tool is agent._memoair_search_tool for tool in agent.tools] == [True] * search_tool
    model = FakeRealtimeModel()
    async with open_speech_call(agent, model):
        await wait_until(lambda: agent._memoair_start_task and agent._memoair_start_task.done())
    await agent.on_exit()
    assert model.configured.tool_names == ["search_memory"] * search_tool


async def test_nothing_is_searched_for_a_turn_that_gets_no_recall(
    new_agent: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, agent, queries = FakeRealtimeModel(), new_agent(), []
    async with open_speech_call(agent, model) as session:
        await wait_until(lambda: agent._memoair_start_task and agent._memoair_start_task.done())

        async def search(query: str, **_: Any) -> Any:
            queries.append(query)

        monkeypatch.setattr(agent._memoair_memory._reference.client, "search_memory", search)
        model.hear("What colour are my boots?", time.time())
        model.speak("I do not know.")
        await wait_until(lambda: texts_of(session.history.items)[-1:] == ["I do not know."])
    await agent.on_exit()
    assert queries == []


async def test_backchannels_are_no_turns(new_agent: Any, saved_payloads: Any) -> None:
    model, agent, gate = FakeRealtimeModel(), new_agent(), asyncio.Event()
    async with open_speech_call(agent, model) as session:
        model.hear("How long does it take?", time.time())
        model.speak("It takes thirty days.", gate)
        await wait_until(lambda: session.agent_state == "speaking")
        await asyncio.sleep(0.01)
        model.hear("Mm-hmm.", time.time())
        model.hear("okay, right")  # a model that does not say when its caller spoke
        gate.set()
        await wait_until(lambda: session.agent_state == "listening")
        model.hear("Okay.", time.time())  # which the agent answers
        model.speak("Bye.")
        await wait_until(lambda: texts_of(session.history.items)[-1:] == ["Bye."])
    await agent.on_exit()
    assert text_pairs(saved_payloads()) == [("How long does it take?", "It takes thirty days."), ("Okay.", "Bye.")]


async def test_a_late_transcript_of_what_is_being_answered_is_a_turn(new_agent: Any, saved_payloads: Any) -> None:
    model, agent, gate = FakeRealtimeModel(), new_agent(), asyncio.Event()
    async with open_speech_call(agent, model) as session:
        began_at = time.time()
        model.speak("Then I book it.", gate)
        await wait_until(lambda: session.agent_state == "speaking")
        model.hear("Okay.", began_at)
        gate.set()
        await wait_until(lambda: texts_of(session.history.items)[-1:] == ["Then I book it."])
    await agent.on_exit()
    assert text_pairs(saved_payloads()) == [("Okay.", "Then I book it.")]
