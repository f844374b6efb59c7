"""Handoffs: what was said before one is saved, and the next agent's talk too if it has a memory."""

import time
from pathlib import Path
from typing import Any

import pytest
from livekit.agents import Agent, function_tool
from memoair_livekit import MemoAirLiveKitAgent
from support.clients import logged
from support.livekit_calls import LiveKitCall, open_call
from support.livekit_speech import FakeRealtimeModel, open_speech_call
from support.waiting import wait_until

pytestmark = pytest.mark.anyio


def text_pairs(turns: list[dict[str, Any]]) -> list[tuple[str, str]]:
    """Return what the caller and the agent said, turn by turn."""
    return [(turn["userText"], turn["assistantText"]) for turn in turns]


class Greeter(MemoAirLiveKitAgent):
    """An agent that greets."""

    async def on_enter(self) -> None:
        await self.session.say("Billing here.")


class PlainGreeter(Agent):
    """The same without memory."""

    async def on_enter(self) -> None:
        await self.session.say("Billing here.")


async def drop_words_at_handoff(call: LiveKitCall, first: MemoAirLiveKitAgent, second: Agent) -> None:
    """Speak to the first agent while it hands over: LiveKit drops these words."""
    await call.say("One.")
    call.say_part("My order is 4711.")  # the turn does not end before the handoff
    await wait_until(lambda: first._memoair_listener._transcripts)
    call.session.update_agent(second)
    await wait_until(lambda: len(call.items("assistant")) == 2)
    assert [item.text_content for item in call.items("user")] == ["One."]


async def test_words_that_livekit_drops_at_a_handoff_are_saved(new_agent: Any, saved_payloads: Any) -> None:
    first, second = new_agent(), new_agent(Greeter)
    async with open_call(first) as call:
        await drop_words_at_handoff(call, first, second)
        await call.say("Two.")
    await first.on_exit()
    await second.on_exit()
    assert text_pairs(saved_payloads()) == [
        ("One.", "Noted."),
        ("My order is 4711.", "Billing here."),
        ("Two.", "Noted."),
    ]


async def test_words_before_a_handoff_to_another_agent_are_saved_and_its_talk_is_not(
    new_agent: Any, saved_payloads: Any
) -> None:
    agent = new_agent()
    async with open_call(agent) as call:
        await drop_words_at_handoff(call, agent, PlainGreeter(instructions="I remember nothing."))
        await call.say("Two.")
    await agent.on_exit()
    assert text_pairs(saved_payloads()) == [("One.", "Noted."), ("My order is 4711.", "")]


@pytest.mark.parametrize("next_kind", ["ours", "plain"])
async def test_a_transcript_that_arrives_after_the_handoff_is_saved(
    new_agent: Any, saved_payloads: Any, next_kind: str
) -> None:
    model = FakeRealtimeModel()
    first = new_agent()
    second = new_agent() if next_kind == "ours" else Agent(instructions="I remember nothing.")
    async with open_speech_call(first, model) as session:
        await wait_until(lambda: first._memoair_listener)
        spoken_at = time.time()
        session.update_agent(second)
        await wait_until(lambda: session.current_agent is second and second._activity and second._activity._started)
        model.hear("My order is 4711.", spoken_at)  # the transcript comes from the provider, later
        model.speak("Which size?")
        await wait_until(lambda: len([item for item in session.history.items if item.type == "message"]) == 2)
        model.hear("Eight.", time.time())
        model.speak("Noted.")
        await wait_until(lambda: len([item for item in session.history.items if item.type == "message"]) == 4)
    await first.on_exit()
    if isinstance(second, MemoAirLiveKitAgent):
        await second.on_exit()
        expected = [("My order is 4711.", "Which size?"), ("Eight.", "Noted.")]
    else:
        expected = [("My order is 4711.", "")]
    assert text_pairs(saved_payloads()) == expected


async def test_the_next_agent_is_heard_from_its_first_word(new_agent: Any, saved_payloads: Any) -> None:
    first, second = new_agent(), new_agent(Greeter)
    async with open_call(first) as call:
        await call.say("One.")
        call.session.update_agent(second)
        call.stt.emit_turn("Two.")  # while LiveKit changes the agent
        await wait_until(lambda: any("Billing" in (item.text_content or "") for item in call.items("assistant")))
        call.session.update_agent(first)
        await wait_until(lambda: call.session.current_agent is first and not first._memoair_has_left)
        call.stt.emit_turn("Three.")
        await wait_until(lambda: any(item.text_content == "Three." for item in call.items("user")))
    await first.on_exit()
    await second.on_exit()
    turns = text_pairs(saved_payloads())
    assert " ".join(user for user, _ in turns if user) == "One. Two. Three."
    assert sum("Billing here." in agent for _, agent in turns) == 1


async def test_agents_of_one_caller_share_the_call(new_agent: Any, storage_root: Path) -> None:
    first, second = new_agent(), new_agent(instructions="Be brief.")
    async with open_call(first) as call:
        await call.say("One.")
        call.session.update_agent(second)
        await wait_until(lambda: second._memoair_listener)
        await call.say("Two.")
        assert first._memoair_memory is second._memoair_memory
    await first.on_exit()
    await second.on_exit()
    events = logged(storage_root, "ada")
    assert [event["type"] for event in events] == ["session_start", "turn", "turn", "session_end"]
    assert len({event["sessionId"] for event in events}) == 1


async def test_the_next_agent_is_reminded_of_what_its_context_does_not_hold(
    new_agent: Any, saved_payloads: Any
) -> None:
    first, second = new_agent(), new_agent(instructions="Be brief.")
    async with open_call(first) as call:
        await call.say("My boots are red.")
        await wait_until(saved_payloads)
        call.session.update_agent(second)
        await wait_until(lambda: second._memoair_listener)
        await second._memoair_memory.wait_drained()
        request = await call.say("What colour are my boots?")
    await first.on_exit()
    await second.on_exit()
    assert "My boots are red." in request[-2][1]


async def test_what_a_task_of_the_agent_asks_is_saved(new_agent: Any, saved_payloads: Any) -> None:
    from livekit.agents import AgentTask  # since 1.2

    class OrderTask(AgentTask[str]):
        """A task of LiveKit: an agent that returns a result."""

        async def on_enter(self) -> None:
            await self.session.say("Which order?")

        @function_tool
        async def found(self) -> None:
            """Take the answer."""
            self.complete("4711")

    class AskingAgent(MemoAirLiveKitAgent):
        """An agent that lets a task ask something."""

        @function_tool
        async def ask(self) -> str:
            """Ask for the order number."""
            return await OrderTask(instructions="Ask for the order number.")

    agent = new_agent(AskingAgent)
    async with open_call(agent, ("One moment.", "ask"), ("Thanks.", "found"), "It is in Leeds.") as call:
        call.stt.emit_turn("Where is my order?")
        await wait_until(lambda: any("Which order?" in (item.text_content or "") for item in call.items("assistant")))
        call.stt.emit_turn("4711.")
        await wait_until(lambda: any("Leeds" in (item.text_content or "") for item in call.items("assistant")))
    await agent.on_exit()
    said = text_pairs(saved_payloads())
    assert [user for user, _ in said if user] == ["Where is my order?", "4711."]
    assert "Which order?" in " ".join(text for _, text in said)
    assert said[-1][1].endswith("It is in Leeds.")


async def test_an_agent_that_has_left_does_not_end_the_call(new_agent: Any, saved_payloads: Any) -> None:
    first, second = new_agent(), new_agent(instructions="Be brief.")
    async with open_call(first) as call:
        await call.say("One.")
        call.session.update_agent(second)
        await wait_until(lambda: second._memoair_listener)
        await first.on_exit()  # as an application may call it
        await call.say("Two.")
    await first.on_exit()
    await second.on_exit()
    assert text_pairs(saved_payloads()) == [("One.", "Noted."), ("Two.", "Noted.")]


async def test_agents_with_different_settings_keep_them(new_agent: Any, saved_payloads: Any) -> None:
    first, second = new_agent(), new_agent(redact=lambda text: text.replace("4711", "[number]"))
    async with open_call(first) as call:
        await call.say("One: 4711.")
        call.session.update_agent(second)
        await wait_until(lambda: second._memoair_listener)
        await call.say("Two: 4711.")
    await first.on_exit()
    await second.on_exit()
    turns = sorted(saved_payloads(), key=lambda turn: str(turn["metadata"]["occurredAt"]))
    assert [turn["userText"] for turn in turns] == ["One: 4711.", "Two: [number]."]
