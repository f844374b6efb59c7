"""What is kept of a call: each word of either side once, as it was heard, however the call goes and ends."""

import asyncio
import os
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import psutil
import pytest
from livekit.agents import Agent, function_tool, llm
from livekit.agents.stt import SpeechEventType
from memoair_livekit import MemoAirLiveKitAgent
from support.livekit_calls import calling, soon

pytestmark = pytest.mark.anyio


def pairs(turns: list[dict[str, Any]]) -> list[tuple[str, str]]:
    """What caller and agent said, turn by turn."""
    return [(turn["userText"], turn["assistantText"]) for turn in turns]


def runtime_pid() -> int:
    """The one runtime of this process."""
    [host] = psutil.Process().children()
    pids = [each.pid for each in host.children() if each.status() != psutil.STATUS_ZOMBIE]
    served = [each for each in pids if listens(each)]
    return served[0]


def listens(pid: int) -> bool:
    """Whether a process listens; the one that the host has ahead does not."""
    with suppress(psutil.NoSuchProcess):
        return any(link.status == "LISTEN" for link in psutil.Process(pid).net_connections("tcp"))
    return False


class Gated(NamedTuple):
    """A runtime that starts only once there is a switch: before, no memory can be open."""

    program: str
    switch: Path


@pytest.fixture
def gated(tmp_path: Path) -> Gated:
    """A runtime that does not start yet."""
    program, switch = tmp_path / "runtime", tmp_path / "on"
    wait = f"while ! [ -e {switch} ]; do sleep 0.01; done"
    program.write_text(f"#!/bin/sh\n{wait}\nexec {sys.executable} -m memoair_runtime\n", encoding="utf-8")
    program.chmod(0o755)
    return Gated(str(program), switch)


async def test_both_sides_are_kept_without_any_wiring(new_agent: Any, kept: Any) -> None:
    agent = new_agent()
    async with calling(agent, "In thirty days.", "You are welcome.") as call:
        await call.says("How long can I return them?")
        await call.says("Thank you.")
    await agent.on_exit()

    turns = kept()
    assert pairs(turns) == [("How long can I return them?", "In thirty days."), ("Thank you.", "You are welcome.")]
    assert [turn["metadata"]["interrupted"] for turn in turns] == [False, False]
    assert turns[0]["metadata"]["framework"] == "livekit"


async def test_a_turn_is_on_the_disk_while_the_call_goes_on(new_agent: Any, kept: Any) -> None:
    agent = new_agent()
    async with calling(agent, "Yes.") as call:
        await call.says("Are you there?")
        await soon(kept)
        assert pairs(kept()) == [("Are you there?", "Yes.")]
    await agent.on_exit()


async def test_what_an_application_takes_out_is_kept_of_neither_side(new_agent: Any, kept: Any) -> None:
    agent = new_agent(redact=lambda text: text.replace("4111", "[card]"))
    async with calling(agent, "I have noted 4111.") as call:
        await call.says("My card is 4111.")
    await agent.on_exit()
    assert pairs(kept()) == [("My card is [card].", "I have noted [card].")]


async def test_the_wiring_of_the_reference_is_no_harm(new_agent: Any, kept: Any) -> None:
    agent = new_agent()
    forwarded = []

    async with calling(agent, "Yes.", "No.") as call:

        @call.session.on("conversation_item_added")
        def forward(event: Any) -> None:
            if getattr(event.item, "role", None) == "assistant":
                forwarded.append(asyncio.create_task(agent.on_agent_response_completed(agent.chat_ctx, event.item)))

        await call.says("Is it red?")
        await call.says("Is it blue?")
        await asyncio.gather(*forwarded)
    await agent.on_exit()
    await agent.on_agent_response_completed(agent.chat_ctx, call.items("assistant")[-1])  # too late, and known

    assert len(forwarded) == 2
    assert pairs(kept()) == [("Is it red?", "Yes."), ("Is it blue?", "No.")]


async def test_an_interrupted_answer_is_kept_as_far_as_it_was_heard(new_agent: Any, kept: Any) -> None:
    agent = new_agent()
    async with calling(agent, "It takes thirty days and a receipt.", "Sorry.") as call:
        call.audio.heard_until_interrupted = "It takes"
        call.has_said("How long?")
        await soon(lambda: call.audio.is_playing)
        call.has_said("Stop!")
        await soon(lambda: call.items("assistant"))
        call.audio.heard_until_interrupted = None
        await soon(lambda: len(call.llm.asked) == 2)
    await agent.on_exit()

    turns = kept()
    assert pairs(turns)[0] == ("How long?", "It takes")
    assert turns[0]["metadata"]["interrupted"] is True
    assert turns[1]["userText"] == "Stop!"


async def test_an_answer_that_was_heard_to_its_end_is_not_interrupted_by_the_next_words(
    new_agent: Any, kept: Any
) -> None:
    agent = new_agent()
    async with calling(agent, "Red ones.", "Sure.") as call:
        await call.says("Which boots?")
        call.begins_to_say("In blue, please.")  # at once
        call.has_said("In blue, please.")
        await soon(lambda: len(call.items("assistant")) == 2)
    await agent.on_exit()

    turns = kept()
    assert pairs(turns) == [("Which boots?", "Red ones."), ("In blue, please.", "Sure.")]
    assert [turn["metadata"]["interrupted"] for turn in turns] == [False, False]


async def test_noise_without_words_is_no_turn(new_agent: Any, kept: Any) -> None:
    agent = new_agent()
    async with calling(agent) as call:
        call.stt.says(" ")
        await call.says("Hello.")
        call.stt.hears(SpeechEventType.START_OF_SPEECH)
        call.has_said()  # without a transcript
        await call.says("Goodbye.")
    await agent.on_exit()

    assert pairs(kept()) == [("Hello.", "Noted."), ("Goodbye.", "Noted.")]


async def test_several_turns_in_a_row_are_all_kept(new_agent: Any, kept: Any) -> None:
    agent = new_agent()
    async with calling(agent) as call:
        call.llm.gate.clear()
        for number, text in enumerate(["My name is Ada.", "I have a parcel.", "Where is it?"], start=1):
            call.has_said(text)
            await soon(lambda number=number: len(call.items("user")) == number)  # type: ignore[misc]
        call.llm.gate.set()
        await soon(lambda: call.items("assistant"))
    await agent.on_exit()

    assert pairs(kept()) == [("My name is Ada.", ""), ("I have a parcel.", ""), ("Where is it?", "Noted.")]


class WithTool(MemoAirLiveKitAgent):
    """An agent that can look something up."""

    @function_tool
    async def look(self) -> str:
        """Look something up."""
        await asyncio.sleep(0.05)
        return "found"


async def test_an_answer_in_parts_around_a_tool_call_is_one_turn(new_agent: Any, kept: Any) -> None:
    agent = new_agent(WithTool)
    async with calling(agent, ("Let me look.", "look"), "It is red.", "Bye.") as call:
        await call.session.run(user_input="What colour?")
        await call.says("Thanks.")
    await agent.on_exit()

    turns = kept()
    assert pairs(turns) == [("What colour?", "Let me look. It is red."), ("Thanks.", "Bye.")]
    assert turns[0]["toolCalls"] == [{"name": "look", "isError": False}]
    assert turns[1]["toolCalls"] == []


async def test_what_the_agent_says_by_itself_is_kept(new_agent: Any, kept: Any) -> None:
    agent = new_agent()
    async with calling(agent) as call:
        await call.session.say("Your parcel has come.")
        await call.session.say("It waits at the door.")
        await call.says("Thanks.")
    await agent.on_exit()

    assert pairs(kept()) == [("", "Your parcel has come."), ("", "It waits at the door."), ("Thanks.", "Noted.")]


# Beginnings


async def test_the_first_words_are_kept_though_nothing_is_open_yet(new_agent: Any, kept: Any, gated: Gated) -> None:
    agent = new_agent(runtime_binary=gated.program)
    async with calling(agent) as call:
        await soon(lambda: agent._memoair_memory)
        assert not agent._memoair_memory._open_finished.is_set()
        call.has_said("My name is Ada.")
        gated.switch.touch()
        await soon(lambda: call.items("assistant"))
    await agent.on_exit()

    assert pairs(kept()) == [("My name is Ada.", "Noted.")]


class Greeter(MemoAirLiveKitAgent):
    """A subclass whose hooks do not call ours."""

    async def on_enter(self) -> None:
        self.greeted_at = time.monotonic()
        await self.session.say("Hello!")

    async def on_exit(self) -> None:
        self.has_left = True


async def test_hooks_of_a_subclass_need_not_call_ours(new_agent: Any, kept: Any) -> None:
    agent = new_agent(Greeter)
    async with calling(agent) as call:
        await soon(lambda: call.items("assistant"))
        await call.says("Are you there?")
    await MemoAirLiveKitAgent.on_exit(agent)

    assert agent.has_left
    assert pairs(kept()) == [("", "Hello!"), ("Are you there?", "Noted.")]


async def test_a_greeting_does_not_wait_for_the_memory(new_agent: Any, gated: Gated) -> None:
    agent = new_agent(Greeter, runtime_binary=gated.program)
    async with calling(agent):
        await soon(lambda: hasattr(agent, "greeted_at"))
        assert not agent._memoair_memory._open_finished.is_set()
        gated.switch.touch()
    await MemoAirLiveKitAgent.on_exit(agent)


# Ends


async def test_who_hangs_up_in_the_middle_of_an_answer_is_kept(new_agent: Any, kept: Any) -> None:
    agent = new_agent()
    async with calling(agent, "It takes thirty days and a receipt.") as call:
        call.audio.heard_until_interrupted = "It takes"
        call.has_said("How long?")
        await soon(lambda: call.audio.is_playing)
    await agent.on_exit()

    [turn] = kept()
    assert pairs([turn]) == [("How long?", "It takes")]
    assert turn["metadata"]["interrupted"] is True


async def test_who_hangs_up_before_an_answer_is_kept(new_agent: Any, kept: Any) -> None:
    agent = new_agent()
    async with calling(agent) as call:
        call.llm.gate.clear()
        call.has_said("Tell them that I will come.")
        await soon(lambda: call.items("user"))
    await agent.on_exit()

    assert pairs(kept()) == [("Tell them that I will come.", "")]


async def test_the_last_words_of_who_hangs_up_while_speaking_are_kept(new_agent: Any, kept: Any) -> None:
    agent = new_agent()
    async with calling(agent) as call:
        await call.says("Hello.")
        call.begins_to_say("and do not forget the blue ones")
        await soon(lambda: call.stt.heard.empty())
        await asyncio.sleep(0)
    await agent.on_exit()

    assert pairs(kept()) == [("Hello.", "Noted."), ("and do not forget the blue ones", "")]


async def test_the_end_of_the_loop_is_an_end_as_well(new_agent: Any, kept: Any) -> None:
    agent = new_agent()

    async def serve() -> None:
        async with calling(agent) as call:
            await call.says("Hello.")
            await call.says("Goodbye.")

    await asyncio.to_thread(asyncio.run, serve())  # which cancels what is left of us

    assert pairs(kept()) == [("Hello.", "Noted."), ("Goodbye.", "Noted.")]


async def test_who_hangs_up_during_the_start_leaves_nothing(new_agent: Any, tmp_path: Path) -> None:
    slow = tmp_path / "runtime"
    slow.write_text("#!/bin/sh\nexec sleep 60\n", encoding="utf-8")
    slow.chmod(0o755)
    agent = new_agent(runtime_binary=str(slow))
    async with calling(agent) as call:
        await soon(lambda: psutil.Process().children())
        began_at = time.monotonic()
    assert call.session.history is not None
    assert time.monotonic() - began_at < 5, "hanging up waits for no memory"
    await agent.on_exit()  # its process is ended behind it, and the fixture waits for that


async def test_an_agent_that_was_never_entered_leaves_nothing(new_agent: Any) -> None:
    agent = new_agent()
    await agent.on_exit()
    await agent.on_exit()
    assert not psutil.Process().children()


# A memory that fails


async def test_a_runtime_that_dies_in_mid_call_is_replaced(new_agent: Any, kept: Any) -> None:
    agent = new_agent()
    async with calling(agent) as call:
        await call.says("My boots are red.")
        await soon(kept)
        os.kill(runtime_pid(), signal.SIGKILL)
        request = await call.says("What colour are my boots?")
    await agent.on_exit()

    assert "<memory>" in request[-2][1]
    assert pairs(kept()) == [("My boots are red.", "Noted."), ("What colour are my boots?", "Noted.")]


async def test_a_runtime_that_hangs_delays_nobody(new_agent: Any, kept: Any) -> None:
    agent = new_agent(search_timeout_ms=200)
    async with calling(agent) as call:
        await call.says("My boots are red.")
        await soon(kept)
        await agent._memoair_memory.wait_opened()
        pid = runtime_pid()
        os.kill(pid, signal.SIGSTOP)
        try:
            took_s: list[float] = []
            while not took_s or (took_s[-1] >= 2 and len(took_s) < 3):  # a busy machine may draw out one or another
                began_at = time.monotonic()
                request = await call.says("What colour are my boots?")
                took_s.append(time.monotonic() - began_at)
                assert request[-1] == ("user", "What colour are my boots?")
        finally:
            os.kill(pid, signal.SIGCONT)
    await agent.on_exit()

    assert min(took_s) < 2
    asked = [("What colour are my boots?", "Noted.")] * len(took_s)
    assert pairs(kept()) == [("My boots are red.", "Noted."), *asked]


async def test_without_a_runtime_the_call_goes_on(
    new_agent: Any, caplog: pytest.LogCaptureFixture, tmp_path: Any
) -> None:
    agent = new_agent(runtime_binary=str(tmp_path / "missing"))
    async with calling(agent) as call:
        assert (await call.says("My secret is 4711."))[-1] == ("user", "My secret is 4711.")
        assert (await call.types("And 4712."))[-1] == ("user", "And 4712.")
    await agent.on_exit()

    told = [record for record in caplog.records if record.name.startswith("memoair")]
    assert "runtime.not_found" in " ".join(record.getMessage() for record in told)
    assert {record.levelname for record in told} <= {"WARNING", "ERROR"}


async def test_a_caller_who_can_not_be_is_served_without_memory(
    new_agent: Any, caplog: pytest.LogCaptureFixture
) -> None:
    agent = new_agent(user_id="__org__")  # which names no caller; the client refuses it with each call
    async with calling(agent) as call:
        assert await call.says("Hello.")
        await call.types("Hello?")
    await agent.on_exit()

    actions = [record.getMessage() for record in caplog.records if record.name == "memoair_livekit"]
    assert {message.partition("action=")[2] for message in actions} == {
        "open_failed code=ValueError",
        "search_failed code=ValueError",
        "turn_lost code=ValueError",
    }


async def test_nobodys_words_are_in_a_log(new_agent: Any, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")
    agent = new_agent()
    async with calling(agent, ("Zebra!", "look"), "Gnu!") as call:
        await call.says("Okapi?")
        await call.types("Quagga?")
        os.kill(runtime_pid(), signal.SIGKILL)
        await call.types("Okapi!")
    await agent.on_exit()

    told = [str(vars(record)) for record in caplog.records if record.name.startswith("memoair")]
    assert not [line for line in told if any(word in line for word in ("Okapi", "Quagga", "Zebra", "Gnu"))]


# Handing on


async def test_two_agents_of_ours_keep_each_turn_once(new_agent: Any, kept: Any) -> None:
    first, second = new_agent(), new_agent(instructions="Be brief.")
    async with calling(first) as call:
        await call.says("One.")
        call.session.update_agent(second)
        await soon(lambda: second._memoair_listener)
        await call.says("Two.")
        call.session.update_agent(first)
        await soon(lambda: not first._memoair_has_left)
        await call.says("Three.")
    await first.on_exit()
    await second.on_exit()

    # Each agent keeps its turns in their order; between two agents, it is the time that tells it.
    turns = sorted(kept(), key=lambda turn: str(turn["metadata"]["occurredAt"]))
    assert pairs(turns) == [("One.", "Noted."), ("Two.", "Noted."), ("Three.", "Noted.")]


async def test_what_is_said_to_another_agent_is_not_ours(new_agent: Any, kept: Any) -> None:
    agent = new_agent()
    async with calling(agent) as call:
        await call.says("One.")
        call.session.update_agent(Agent(instructions="I remember nothing."))
        await soon(lambda: call.session.current_agent is not agent and agent._activity is None)
        await call.says("Two.")
    await agent.on_exit()

    assert pairs(kept()) == [("One.", "Noted.")]


async def test_one_agent_may_serve_one_session_after_another(new_agent: Any, kept: Any) -> None:
    agent = new_agent()
    for text in ("One.", "Two."):
        async with calling(agent) as call:
            await call.says(text)
        await agent.on_exit()

    assert pairs(kept()) == [("One.", "Noted."), ("Two.", "Noted.")]


# Without a session


async def test_the_hooks_can_be_called_by_hand(new_agent: Any, kept: Any) -> None:
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
    assert pairs(kept()) == [("My boots are red.", "Noted."), ("What colour are my boots?", "Red.")]

    await agent.on_exit()
    assert not psutil.Process().children()
    await agent.on_user_turn_completed(turn_ctx, message)  # too late: nothing is opened again
    assert not psutil.Process().children()
