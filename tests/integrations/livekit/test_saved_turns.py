"""Saved turns: the words of both sides, each once and as heard, however the call goes and ends."""

import asyncio
import os
import signal
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest
from livekit.agents import Agent, function_tool, llm
from livekit.agents.stt import SpeechEventType
from memoair_livekit import MemoAirLiveKitAgent
from support.livekit_calls import open_call
from support.waiting import wait_until

pytestmark = pytest.mark.anyio


def text_pairs(turns: list[dict[str, Any]]) -> list[tuple[str, str]]:
    """Return what the caller and the agent said, turn by turn."""
    return [(turn["userText"], turn["assistantText"]) for turn in turns]


def find_runtime_pid() -> int:
    """Return the process id of the one runtime of this process."""
    [fork_server] = psutil.Process().children()
    pids = [child.pid for child in fork_server.children() if child.status() != psutil.STATUS_ZOMBIE]
    listening = [pid for pid in pids if is_listening(pid)]
    return listening[0]


def is_listening(pid: int) -> bool:
    """Return whether a process listens. A runtime that the fork server has started in advance does not."""
    with suppress(psutil.NoSuchProcess):
        return any(link.status == "LISTEN" for link in psutil.Process(pid).net_connections("tcp"))
    return False


async def test_both_sides_are_saved_without_wiring(new_agent: Any, saved_payloads: Any) -> None:
    agent = new_agent()
    async with open_call(agent, "In thirty days.", "You are welcome.") as call:
        await call.say("How long can I return them?")
        await call.say("Thank you.")
    await agent.on_exit()

    turns = saved_payloads()
    assert text_pairs(turns) == [("How long can I return them?", "In thirty days."), ("Thank you.", "You are welcome.")]
    assert [turn["metadata"]["interrupted"] for turn in turns] == [False, False]
    assert turns[0]["metadata"]["framework"] == "livekit"


async def test_a_turn_is_on_the_disk_during_the_call(new_agent: Any, saved_payloads: Any) -> None:
    agent = new_agent()
    async with open_call(agent, "Yes.") as call:
        await call.say("Are you there?")
        await wait_until(saved_payloads)
        assert text_pairs(saved_payloads()) == [("Are you there?", "Yes.")]
    await agent.on_exit()


async def test_redacted_text_is_saved_for_neither_side(new_agent: Any, saved_payloads: Any) -> None:
    agent = new_agent(redact=lambda text: text.replace("4111", "[card]"))
    async with open_call(agent, "I have noted 4111.") as call:
        await call.say("My card is 4111.")
    await agent.on_exit()
    assert text_pairs(saved_payloads()) == [("My card is [card].", "I have noted [card].")]


async def test_forwarding_events_as_documented_saves_each_turn_once(new_agent: Any, saved_payloads: Any) -> None:
    agent = new_agent()
    forwarded = []

    async with open_call(agent, "Yes.", "No.") as call:

        @call.session.on("conversation_item_added")
        def forward(event: Any) -> None:
            if getattr(event.item, "role", None) == "assistant":
                forwarded.append(asyncio.create_task(agent.on_agent_response_completed(agent.chat_ctx, event.item)))

        await call.say("Is it red?")
        await call.say("Is it blue?")
        await asyncio.gather(*forwarded)
    await agent.on_exit()
    # After the end of the call; the answer is already saved.
    await agent.on_agent_response_completed(agent.chat_ctx, call.items("assistant")[-1])

    assert len(forwarded) == 2
    assert text_pairs(saved_payloads()) == [("Is it red?", "Yes."), ("Is it blue?", "No.")]


async def test_an_interrupted_answer_is_saved_as_far_as_it_was_heard(new_agent: Any, saved_payloads: Any) -> None:
    agent = new_agent()
    async with open_call(agent, "It takes thirty days and a receipt.", "Sorry.") as call:
        call.audio.heard_until_interrupted = "It takes"
        call.end_turn("How long?")
        await wait_until(lambda: call.audio.is_playing)
        call.end_turn("Stop!")
        await wait_until(lambda: call.items("assistant"))
        call.audio.heard_until_interrupted = None
        await wait_until(lambda: len(call.llm.requests) == 2)
    await agent.on_exit()

    turns = saved_payloads()
    assert text_pairs(turns)[0] == ("How long?", "It takes")
    assert turns[0]["metadata"]["interrupted"] is True
    assert turns[1]["userText"] == "Stop!"


async def test_an_answer_heard_to_its_end_is_not_interrupted_by_the_next_words(
    new_agent: Any, saved_payloads: Any
) -> None:
    agent = new_agent()
    async with open_call(agent, "Red ones.", "Sure.") as call:
        await call.say("Which boots?")
        call.start_turn("In blue, please.")  # immediately
        call.end_turn("In blue, please.")
        await wait_until(lambda: len(call.items("assistant")) == 2)
    await agent.on_exit()

    turns = saved_payloads()
    assert text_pairs(turns) == [("Which boots?", "Red ones."), ("In blue, please.", "Sure.")]
    assert [turn["metadata"]["interrupted"] for turn in turns] == [False, False]


async def test_noise_without_words_is_not_a_turn(new_agent: Any, saved_payloads: Any) -> None:
    agent = new_agent()
    async with open_call(agent) as call:
        call.stt.emit_turn(" ")
        await call.say("Hello.")
        call.stt.emit(SpeechEventType.START_OF_SPEECH)
        call.end_turn()  # without a transcript
        await call.say("Goodbye.")
    await agent.on_exit()

    assert text_pairs(saved_payloads()) == [("Hello.", "Noted."), ("Goodbye.", "Noted.")]


async def test_several_user_turns_in_a_row_are_all_saved(new_agent: Any, saved_payloads: Any) -> None:
    agent = new_agent()
    async with open_call(agent) as call:
        call.llm.gate.clear()
        for number, text in enumerate(["My name is Ada.", "I have a parcel.", "Where is it?"], start=1):
            call.end_turn(text)
            await wait_until(lambda number=number: len(call.items("user")) == number)  # type: ignore[misc]
        call.llm.gate.set()
        await wait_until(lambda: call.items("assistant"))
    await agent.on_exit()

    assert text_pairs(saved_payloads()) == [
        ("My name is Ada.", ""),
        ("I have a parcel.", ""),
        ("Where is it?", "Noted."),
    ]


class ToolAgent(MemoAirLiveKitAgent):
    """An agent with a tool."""

    @function_tool
    async def look(self) -> str:
        """Look something up."""
        await asyncio.sleep(0.05)
        return "found"


async def test_an_answer_around_a_tool_call_is_one_turn(new_agent: Any, saved_payloads: Any) -> None:
    agent = new_agent(ToolAgent)
    async with open_call(agent, ("Let me look.", "look"), "It is red.", "Bye.") as call:
        await call.session.run(user_input="What colour?")
        await call.say("Thanks.")
    await agent.on_exit()

    turns = saved_payloads()
    assert text_pairs(turns) == [("What colour?", "Let me look. It is red."), ("Thanks.", "Bye.")]
    assert turns[0]["toolCalls"] == [{"name": "look", "isError": False}]
    assert turns[1]["toolCalls"] == []


async def test_what_the_agent_says_on_its_own_is_saved(new_agent: Any, saved_payloads: Any) -> None:
    agent = new_agent()
    async with open_call(agent) as call:
        await call.session.say("Your parcel has come.")
        await call.session.say("It waits at the door.")
        await call.say("Thanks.")
    await agent.on_exit()

    assert text_pairs(saved_payloads()) == [
        ("", "Your parcel has come."),
        ("", "It waits at the door."),
        ("Thanks.", "Noted."),
    ]


# Start of a call


async def test_words_before_the_memory_is_open_are_saved(
    new_agent: Any, saved_payloads: Any, gated_runtime: Any
) -> None:
    agent = new_agent(runtime_binary=gated_runtime.program)
    async with open_call(agent) as call:
        await wait_until(lambda: agent._memoair_memory)
        assert not agent._memoair_memory._open_finished.is_set()
        call.end_turn("My name is Ada.")
        gated_runtime.switch.touch()
        await wait_until(lambda: call.items("assistant"))
    await agent.on_exit()

    assert text_pairs(saved_payloads()) == [("My name is Ada.", "Noted.")]


class Greeter(MemoAirLiveKitAgent):
    """A subclass whose hooks do not call ``super()``."""

    async def on_enter(self) -> None:
        self.greeted_at = time.monotonic()
        await self.session.say("Hello!")

    async def on_exit(self) -> None:
        self.has_left = True


async def test_hooks_of_a_subclass_need_not_call_super(new_agent: Any, saved_payloads: Any) -> None:
    agent = new_agent(Greeter)
    async with open_call(agent) as call:
        await wait_until(lambda: call.items("assistant"))
        await call.say("Are you there?")
    await MemoAirLiveKitAgent.on_exit(agent)

    assert agent.has_left
    assert text_pairs(saved_payloads()) == [("", "Hello!"), ("Are you there?", "Noted.")]


async def test_a_greeting_does_not_wait_for_the_memory(new_agent: Any, gated_runtime: Any) -> None:
    agent = new_agent(Greeter, runtime_binary=gated_runtime.program)
    async with open_call(agent):
        await wait_until(lambda: hasattr(agent, "greeted_at"))
        assert not agent._memoair_memory._open_finished.is_set()
        gated_runtime.switch.touch()
    await MemoAirLiveKitAgent.on_exit(agent)


# End of a call


async def test_hanging_up_during_an_answer_saves_the_turn(new_agent: Any, saved_payloads: Any) -> None:
    agent = new_agent()
    async with open_call(agent, "It takes thirty days and a receipt.") as call:
        call.audio.heard_until_interrupted = "It takes"
        call.end_turn("How long?")
        await wait_until(lambda: call.audio.is_playing)
    await agent.on_exit()

    [turn] = saved_payloads()
    assert text_pairs([turn]) == [("How long?", "It takes")]
    assert turn["metadata"]["interrupted"] is True


async def test_hanging_up_before_an_answer_saves_the_turn(new_agent: Any, saved_payloads: Any) -> None:
    agent = new_agent()
    async with open_call(agent) as call:
        call.llm.gate.clear()
        call.end_turn("Tell them that I will come.")
        await wait_until(lambda: call.items("user"))
    await agent.on_exit()

    assert text_pairs(saved_payloads()) == [("Tell them that I will come.", "")]


async def test_hanging_up_while_speaking_saves_the_last_words(new_agent: Any, saved_payloads: Any) -> None:
    agent = new_agent()
    async with open_call(agent) as call:
        await call.say("Hello.")
        call.start_turn("and do not forget the blue ones")
        await wait_until(lambda: call.stt.events.empty())
        await asyncio.sleep(0)
    await agent.on_exit()

    assert text_pairs(saved_payloads()) == [("Hello.", "Noted."), ("and do not forget the blue ones", "")]


async def test_the_end_of_the_event_loop_saves_all_turns(new_agent: Any, saved_payloads: Any) -> None:
    agent = new_agent()

    async def serve() -> None:
        async with open_call(agent) as call:
            await call.say("Hello.")
            await call.say("Goodbye.")

    await asyncio.to_thread(asyncio.run, serve())  # which cancels our remaining tasks

    assert text_pairs(saved_payloads()) == [("Hello.", "Noted."), ("Goodbye.", "Noted.")]


async def test_hanging_up_during_the_start_leaves_nothing(new_agent: Any, tmp_path: Path) -> None:
    program = tmp_path / "runtime"
    program.write_text("#!/bin/sh\nexec sleep 60\n", encoding="utf-8")
    program.chmod(0o755)
    agent = new_agent(runtime_binary=str(program))
    async with open_call(agent) as call:
        await wait_until(lambda: psutil.Process().children())
        began_at = time.monotonic()
    assert call.session.history is not None
    assert time.monotonic() - began_at < 5, "hanging up waited for the memory"
    await agent.on_exit()  # the runtime process ends later, and the fixture waits for that


async def test_an_agent_that_was_never_entered_leaves_nothing(new_agent: Any) -> None:
    agent = new_agent()
    await agent.on_exit()
    await agent.on_exit()
    assert not psutil.Process().children()


# Failures


async def test_a_runtime_that_dies_during_a_call_is_replaced(new_agent: Any, saved_payloads: Any) -> None:
    agent = new_agent()
    async with open_call(agent) as call:
        await call.say("My boots are red.")
    await agent.on_exit()
    agent = new_agent()
    async with open_call(agent) as call:
        await call.say("Hello.")
        await wait_until(lambda: len(saved_payloads()) == 2)
        os.kill(find_runtime_pid(), signal.SIGKILL)
        request = await call.say("What colour are my boots?")
    await agent.on_exit()

    assert "<memory>" in request[-2][1]
    expected = ["My boots are red.", "Hello.", "What colour are my boots?"]
    assert text_pairs(saved_payloads()) == [(text, "Noted.") for text in expected]


async def test_a_hanging_runtime_delays_no_turn(new_agent: Any, saved_payloads: Any) -> None:
    agent = new_agent(search_timeout_ms=200)
    async with open_call(agent) as call:
        await call.say("My boots are red.")
        await wait_until(saved_payloads)
        await agent._memoair_memory.wait_opened()
        pid = find_runtime_pid()
        os.kill(pid, signal.SIGSTOP)
        try:
            durations_s: list[float] = []
            # A busy machine may delay one or two of them.
            while not durations_s or (durations_s[-1] >= 2 and len(durations_s) < 3):
                began_at = time.monotonic()
                request = await call.say("What colour are my boots?")
                durations_s.append(time.monotonic() - began_at)
                assert request[-1] == ("user", "What colour are my boots?")
        finally:
            os.kill(pid, signal.SIGCONT)
    await agent.on_exit()

    assert min(durations_s) < 2
    repeated_turns = [("What colour are my boots?", "Noted.")] * len(durations_s)
    assert text_pairs(saved_payloads()) == [("My boots are red.", "Noted."), *repeated_turns]


async def test_the_call_works_without_a_runtime(
    new_agent: Any, caplog: pytest.LogCaptureFixture, tmp_path: Any
) -> None:
    agent = new_agent(runtime_binary=str(tmp_path / "missing"))
    async with open_call(agent) as call:
        assert (await call.say("My secret is 4711."))[-1] == ("user", "My secret is 4711.")
        assert (await call.type_text("And 4712."))[-1] == ("user", "And 4712.")
    await agent.on_exit()

    records = [record for record in caplog.records if record.name.startswith("memoair")]
    assert "runtime.not_found" in " ".join(record.getMessage() for record in records)
    assert {record.levelname for record in records} <= {"WARNING", "ERROR"}


async def test_an_invalid_user_id_disables_only_the_memory(new_agent: Any, caplog: pytest.LogCaptureFixture) -> None:
    agent = new_agent(user_id="__org__")  # a reserved id, which the client rejects in each call
    async with open_call(agent) as call:
        assert await call.say("Hello.")
        await call.type_text("Hello?")
    await agent.on_exit()

    actions = [record.getMessage() for record in caplog.records if record.name == "memoair_livekit"]
    assert {message.partition("action=")[2] for message in actions} == {
        "open_failed code=ValueError",
        "search_failed code=ValueError",
        "turn_lost code=ValueError",
    }


async def test_no_words_of_a_call_are_logged(new_agent: Any, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")
    agent = new_agent()
    async with open_call(agent, ("Zebra!", "look"), "Gnu!") as call:
        await call.say("Okapi?")
        await call.type_text("Quagga?")
        os.kill(find_runtime_pid(), signal.SIGKILL)
        await call.type_text("Okapi!")
    await agent.on_exit()

    lines = [str(vars(record)) for record in caplog.records if record.name.startswith("memoair")]
    assert not [line for line in lines if any(word in line for word in ("Okapi", "Quagga", "Zebra", "Gnu"))]


# Handoffs


async def test_two_agents_with_memory_save_each_turn_once(new_agent: Any, saved_payloads: Any) -> None:
    first, second = new_agent(), new_agent(instructions="Be brief.")
    async with open_call(first) as call:
        await call.say("One.")
        call.session.update_agent(second)
        await wait_until(lambda: second._memoair_listener)
        await call.say("Two.")
        call.session.update_agent(first)
        await wait_until(lambda: not first._memoair_has_left)
        await call.say("Three.")
    await first.on_exit()
    await second.on_exit()

    # Each agent saves its turns in order. Only the timestamps order the turns of two agents.
    turns = sorted(saved_payloads(), key=lambda turn: str(turn["metadata"]["occurredAt"]))
    assert text_pairs(turns) == [("One.", "Noted."), ("Two.", "Noted."), ("Three.", "Noted.")]


async def test_turns_of_another_agent_are_not_saved(new_agent: Any, saved_payloads: Any) -> None:
    agent = new_agent()
    async with open_call(agent) as call:
        await call.say("One.")
        call.session.update_agent(Agent(instructions="I remember nothing."))
        await wait_until(lambda: call.session.current_agent is not agent and agent._activity is None)
        await call.say("Two.")
    await agent.on_exit()

    assert text_pairs(saved_payloads()) == [("One.", "Noted.")]


async def test_one_agent_serves_successive_sessions(new_agent: Any, saved_payloads: Any) -> None:
    agent = new_agent()
    for text in ("One.", "Two."):
        async with open_call(agent) as call:
            await call.say(text)
        await agent.on_exit()

    assert text_pairs(saved_payloads()) == [("One.", "Noted."), ("Two.", "Noted.")]


# No session


async def test_the_hooks_can_be_called_without_a_session(new_agent: Any, saved_payloads: Any) -> None:
    agent = new_agent()
    await agent.on_enter()
    for question, answer in (("My boots are red.", "Noted."), ("What colour are my boots?", "Red.")):
        turn_ctx = llm.ChatContext.empty()
        turn_ctx.add_message(role="system", content="Be kind.")
        message = llm.ChatMessage(role="user", content=[question])
        await agent.on_user_turn_completed(turn_ctx, message)
        turn_ctx.items.append(message)
        reply = llm.ChatMessage(role="assistant", content=[answer])
        await agent.on_agent_response_completed(turn_ctx, reply)
    assert [item.role for item in turn_ctx.items if item.type == "message"] == ["system", "system", "user"]
    assert "red" in str(turn_ctx.items[1])
    assert text_pairs(saved_payloads()) == [("My boots are red.", "Noted."), ("What colour are my boots?", "Red.")]

    await agent.on_exit()
    assert not psutil.Process().children()
    await agent.on_user_turn_completed(turn_ctx, message)  # after the end: nothing is opened again
    assert not psutil.Process().children()
