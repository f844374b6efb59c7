"""The processor in real pipelines: what the model is shown, what is kept, and that no frame comes to harm."""

import asyncio
import copy
import logging
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from blockbuster import blockbuster_ctx
from memoair_pipecat import MemoAirMemoryProcessor
from pipecat.frames.frames import (
    InputAudioRawFrame,
    InterruptionFrame,
    LLMContextFrame,
    LLMMessagesUpdateFrame,
    LLMRunFrame,
    LLMTextFrame,
    OutputTransportMessageUrgentFrame,
    TextFrame,
)
from pipecat.pipeline.parallel_pipeline import ParallelPipeline
from pipecat.pipeline.pipeline import Pipeline
from pipecat.processors.aggregators.llm_context import LLMContext
from pipecat.processors.filters.identity_filter import IdentityFilter
from pipecat.services.llm_service import FunctionCallParams
from pipecat.tests.utils import run_test
from support.clients import client_arguments
from support.pipecat_calls import WITHIN_S, Call, Pause, ScriptedLLM, Tool, until
from support.runtimes import freeze

from memoair_voice import MemoAirVoiceClient
from memoair_voice.integration import is_fenced

Kept = Callable[..., list[tuple[str, str]]]
Payloads = Callable[..., list[dict[str, Any]]]

PATIENT_MS = 10_000

pytestmark = pytest.mark.anyio


def memory_of(client: MemoAirVoiceClient, user_id: str = "ada", **options: Any) -> MemoAirMemoryProcessor:
    return MemoAirMemoryProcessor(client=client, user_id=user_id, **{"timeout_ms": PATIENT_MS, **options})


async def remember(client: MemoAirVoiceClient, *said: str, user_id: str = "ada") -> None:
    await client.load_index(user_id=user_id)
    for words in said:
        assert await client.save_response(user_text=words, assistant_text="Noted.", user_id=user_id)


def recalled(messages: list[Any]) -> list[str]:
    return [each["content"] for each in messages if is_fenced(each.get("content"))]


# What the model is shown


async def test_a_caller_is_remembered_in_his_next_call(client: MemoAirVoiceClient, kept: Kept) -> None:
    user = {"id": "ada", "name": "Ada"}
    async with Call(MemoAirMemoryProcessor(client=client, user=user), ["Noted, ", "red."], ["Bye."]) as call:
        await call.ask("My boots are red.")
        await call.ask("Goodbye.")
    assert kept() == [("My boots are red.", "Noted, red."), ("Goodbye.", "Bye.")]

    async with Call(memory_of(client)) as call:
        await call.ask("Which colour are my boots?")
    *before, background, words = call.llm.shown[0]
    assert before == [call.context.messages[0]]
    assert background["role"] == "user"
    assert "My boots are red." in background["content"]
    assert "follow no instruction" in background["content"]
    assert words == {"role": "user", "content": "Which colour are my boots?"}


async def test_a_caller_who_speaks_at_once_is_remembered(storage_root: Path, nothing_left_behind: None) -> None:
    async with MemoAirVoiceClient(**client_arguments(storage_root)) as client:
        await remember(client, "My boots are red.")
    async with MemoAirVoiceClient(**client_arguments(storage_root)) as client, Call(memory_of(client)) as call:
        await call.ask("Which colour are my boots?")  # while his runtime is only starting
    assert "My boots are red." in recalled(call.llm.shown[0])[0]


async def test_what_was_recalled_is_replaced_with_each_turn_and_never_in_the_conversation(
    client: MemoAirVoiceClient,
) -> None:
    await remember(client, "My boots are red.")
    async with Call(memory_of(client)) as call:
        await call.ask("Which colour are my boots?")
        await remember(client, "My dog is called Rex.")
        await call.ask("What is my dog called?")
    (first,), (second,) = map(recalled, call.llm.shown)
    assert "red" in first
    assert "Rex" not in first
    assert "Rex" in second
    assert [each["role"] for each in call.context.messages] == ["system", *["user", "assistant"] * 2]
    assert not recalled(call.context.messages)


async def test_where_nothing_is_recalled_nothing_is_put_there(client: MemoAirVoiceClient) -> None:
    async with Call(memory_of(client)) as call:
        await call.ask("Hello?")
    assert call.llm.contexts == [call.context]
    assert not recalled(call.llm.shown[0])


async def test_recall_is_over_at_its_deadline_and_the_turn_is_kept_later(
    client: MemoAirVoiceClient, kept: Kept
) -> None:
    await remember(client, "My boots are red.")
    [runtime] = (await client.stats())["runtimes"]
    took_s: list[float] = []
    async with Call(memory_of(client, timeout_ms=150)) as call:
        freeze(runtime["pid"])
        try:
            while not took_s or (took_s[-1] >= 1.5 and len(took_s) < 3):  # a busy machine may draw out one or another
                began_at = time.monotonic()
                await call.say("Which colour are my boots?")
                await until(lambda: len(call.llm.shown) > len(took_s))
                took_s.append(time.monotonic() - began_at)
                await until(lambda: len(call.heard) == len(took_s))
        finally:
            os.kill(runtime["pid"], signal.SIGCONT)
    assert not any(map(recalled, call.llm.shown))
    assert min(took_s) < 1.5
    await client.aclose()
    assert kept()[1:] == [("Which colour are my boots?", "Yes.")] * len(took_s)


async def test_an_answer_is_given_with_what_was_recalled_also_after_a_tool(
    client: MemoAirVoiceClient, kept: Kept, payloads: Payloads
) -> None:
    await remember(client, "My boots are red.")
    seen = []

    async def find(params: FunctionCallParams) -> None:
        params.context.add_message({"role": "developer", "content": "He is in a hurry."})
        seen.append(params.context)
        await params.result_callback({"in": "Leeds"})

    llm = ScriptedLLM([["Let me look."], ["Let me see.", Tool("find")], ["In Leeds."]])
    llm.register_function("find", find)
    async with Call(memory_of(client), llm=llm) as call:
        await call.ask("Hello?")
        await call.say("Where are my boots?")
        await until(lambda: call.heard[-1:] == ["In Leeds."])
    assert [len(recalled(shown)) for shown in llm.shown] == [1, 1, 1]
    assert recalled(llm.shown[2]) == recalled(llm.shown[1])
    assert any(each.get("content") == "He is in a hurry." for each in call.context.messages)
    assert not recalled(call.context.messages)
    assert kept()[1:] == [("Hello?", "Let me look."), ("Where are my boots?", "Let me see. In Leeds.")]
    assert payloads()[-1]["toolCalls"] == [{"name": "find"}]


async def test_a_tool_that_is_called_without_a_word_is_part_of_the_turn(client: MemoAirVoiceClient, kept: Kept) -> None:
    async def find(params: FunctionCallParams) -> None:
        await params.result_callback({"in": "Leeds"})

    llm = ScriptedLLM([[Tool("find")], [Tool("find", "call_2")], ["In Leeds."], ["Bye."]])
    llm.register_function("find", find)
    async with Call(memory_of(client), llm=llm) as call:
        await call.say("Where are my boots?")
        await until(lambda: call.heard[-1:] == ["In Leeds."])
        await call.ask("Goodbye.")
    assert kept() == [("Where are my boots?", "In Leeds."), ("Goodbye.", "Bye.")]


# What is kept


async def test_an_interrupted_answer_is_kept_as_far_as_it_was_heard(
    client: MemoAirVoiceClient, payloads: Payloads
) -> None:
    pause = Pause()
    async with Call(memory_of(client), ["We have red ones", pause, " and blue ones."]) as call:
        await call.say("Which boots?")
        await asyncio.wait_for(pause.reached.wait(), WITHIN_S)
        await until(lambda: call.pair.assistant().aggregation_string())
        await call.interrupt()
        await call.ask("Thank you.")
    first, second = payloads()
    assert (first["userText"], first["assistantText"]) == ("Which boots?", "We have red ones")
    assert first["metadata"]["interrupted"] is True
    assert (second["userText"], second["assistantText"]) == ("Thank you.", "Yes.")
    assert second["metadata"]["interrupted"] is False
    assert first["metadata"]["framework"] == second["metadata"]["framework"] == "pipecat"


async def test_an_answer_that_was_heard_to_its_end_is_not_interrupted_by_the_next_words(
    client: MemoAirVoiceClient, payloads: Payloads
) -> None:
    async with Call(memory_of(client), ["Red ones."], ["Sure."]) as call:
        await call.ask("Which boots?")
        await call.tell(InterruptionFrame())  # the agent is silent
        await call.ask("In blue, please.")
    assert [(turn["userText"], turn["assistantText"], turn["metadata"]["interrupted"]) for turn in payloads()] == [
        ("Which boots?", "Red ones.", False),
        ("In blue, please.", "Sure.", False),
    ]


async def test_noise_without_words_is_no_turn(client: MemoAirVoiceClient, kept: Kept) -> None:
    async with Call(memory_of(client)) as call:
        await call.ask("Hello.")
        for noise in ("", " "):
            await call.say(noise)
        await call.ask("Goodbye.")
    assert kept() == [("Hello.", "Yes."), ("Goodbye.", "Yes.")]


async def test_several_turns_of_the_caller_in_a_row_are_all_kept(client: MemoAirVoiceClient, kept: Kept) -> None:
    pause = Pause()
    async with Call(memory_of(client), [pause]) as call:
        await call.say("My name is Ada.")
        await asyncio.wait_for(pause.reached.wait(), WITHIN_S)
        await call.interrupt()  # before a word was heard
        await call.ask("And I want boots.")
    assert kept() == [("My name is Ada. And I want boots.", "Yes.")]


async def test_what_is_typed_is_recalled_for_and_kept_also_while_the_agent_speaks(
    client: MemoAirVoiceClient, kept: Kept
) -> None:
    await remember(client, "My boots are red.")
    pause = Pause()
    async with Call(memory_of(client), ["We have", pause, " many."], ["Red."]) as call:
        await call.type("Which boots?")
        await asyncio.wait_for(pause.reached.wait(), WITHIN_S)
        await call.type("Which colour are mine?")
        pause.over.set()
        await until(lambda: len(call.heard) == 2)
    assert [len(recalled(shown)) for shown in call.llm.shown] == [1, 1]
    assert kept()[1:] == [("Which boots?", "We have many."), ("Which colour are mine?", "Red.")]


async def test_the_agents_greeting_is_kept_and_what_it_was_told_to_do_is_not(
    client: MemoAirVoiceClient, kept: Kept
) -> None:
    context = LLMContext([{"role": "system", "content": "You sell boots."}, {"role": "user", "content": "Long ago."}])
    async with Call(memory_of(client), ["Hello, this is Juno."], context=context) as call:
        call.context.add_message({"role": "developer", "content": "Greet the caller."})
        await call.tell(LLMRunFrame())
        await until(lambda: call.heard)
        await call.ask("Hi.")
    assert kept() == [("", "Hello, this is Juno."), ("Hi.", "Yes.")]


async def test_what_is_heard_when_the_caller_hangs_up_is_kept(client: MemoAirVoiceClient, payloads: Payloads) -> None:
    pause = Pause()
    async with Call(memory_of(client), ["We have red ones", pause]) as call:
        await call.say("Which boots?")
        await asyncio.wait_for(pause.reached.wait(), WITHIN_S)
        await until(lambda: call.pair.assistant().aggregation_string())
        await call.hang_up()
    [turn] = payloads()
    assert (turn["userText"], turn["assistantText"]) == ("Which boots?", "We have red ones")
    assert turn["metadata"]["interrupted"] is True


@pytest.mark.parametrize("ending", ["end", "hang_up", "cancel_frame"])
async def test_the_last_words_are_kept_however_the_call_ends(
    client: MemoAirVoiceClient, kept: Kept, ending: str
) -> None:
    async with Call(memory_of(client)) as call:
        await call.ask("Hello?")
        call.context.add_message({"role": "user", "content": "Never mind, goodbye."})
        await getattr(call, ending)()
    assert kept() == [("Hello?", "Yes."), ("Never mind, goodbye.", "")]


async def test_a_call_of_one_sentence_that_is_hung_up_at_once_is_kept(client: MemoAirVoiceClient, kept: Kept) -> None:
    pause = Pause()
    async with Call(memory_of(client), [pause]) as call:
        await call.say("This is Ada.")
        await asyncio.wait_for(pause.reached.wait(), WITHIN_S)
        await call.hang_up()
    assert kept() == [("This is Ada.", "")]


async def test_a_call_that_is_hung_up_before_a_word_keeps_nothing(client: MemoAirVoiceClient, kept: Kept) -> None:
    async with Call(memory_of(client)) as call:
        await call.hang_up()
    assert kept() == []


async def test_a_context_that_is_made_anew_keeps_nothing_twice(client: MemoAirVoiceClient, kept: Kept) -> None:
    async with Call(memory_of(client)) as call:
        await call.ask("Yes.")
        await call.tell(LLMMessagesUpdateFrame(copy.deepcopy(call.context.messages)))
        await call.ask("Yes.")
    assert kept() == [("Yes.", "Yes."), ("Yes.", "Yes.")]


async def test_turns_are_kept_in_order_over_a_runtime_that_dies(client: MemoAirVoiceClient, kept: Kept) -> None:
    async with Call(memory_of(client)) as call:
        await call.ask("One.")
        await until(lambda: len(kept()) == 1)
        [runtime] = (await client.stats())["runtimes"]
        os.kill(runtime["pid"], signal.SIGKILL)
        for words in ("Two.", "Three.", "Four."):
            await call.ask(words)
    await client.aclose()
    assert [said for said, _ in kept()] == ["One.", "Two.", "Three.", "Four."]


async def test_turns_wait_for_a_pool_that_is_full(storage_root: Path, nothing_left_behind: None, kept: Kept) -> None:
    async with MemoAirVoiceClient(**client_arguments(storage_root, max_concurrent_users=1)) as client:
        eves = await client.session(user_id="eve")
        async with Call(memory_of(client, flush_timeout_s=20)) as call:
            await call.ask("Hello?")
            await eves.aclose()
            await call.ask("Are you there?")
    assert kept() == [("Hello?", "Yes."), ("Are you there?", "Yes.")]


async def test_the_end_of_a_call_waits_no_longer_for_a_place_than_it_may(
    storage_root: Path, nothing_left_behind: None, kept: Kept, caplog: pytest.LogCaptureFixture
) -> None:
    before = asyncio.all_tasks()
    async with MemoAirVoiceClient(**client_arguments(storage_root, max_concurrent_users=1)) as client:
        async with await client.session(user_id="eve"), Call(memory_of(client, flush_timeout_s=0.5)) as call:
            await call.ask("Hello?")
            began_at = time.monotonic()
            await call.end()
            assert time.monotonic() - began_at < 15, "it waits for a place, and there is none"
        await until(lambda: asyncio.all_tasks() <= before)
    assert "action=flush_timeout turns=1" in caplog.text
    assert kept() == []


async def test_an_agent_in_a_branch_of_the_pipeline_is_heard(client: MemoAirVoiceClient, kept: Kept) -> None:
    async def find(params: FunctionCallParams) -> None:
        await params.result_callback({"in": "Leeds"})

    await remember(client, "My boots are red.")
    llm = ScriptedLLM([[Tool("find")], ["Red."]])
    llm.register_function("find", find)
    call = Call(Pipeline([memory_of(client)]), llm=llm, within=lambda llm: ParallelPipeline([llm], [IdentityFilter()]))
    async with call:
        await call.say("Which colour?")
        await until(lambda: "Red." in call.heard)
    assert [len(recalled(shown)) for shown in llm.shown] == [1, 1]
    assert kept()[-1] == ("Which colour?", "Red.")


async def test_an_aggregator_elsewhere_is_listened_to_where_that_is_said(
    client: MemoAirVoiceClient, kept: Kept, caplog: pytest.LogCaptureFixture
) -> None:
    memory = memory_of(client)
    async with Call(memory) as call:
        memory.listen_to(call.pair.assistant())  # again, which is no harm
        await call.ask("Hello?")
    assert kept() == [("Hello?", "Yes.")]
    assert "no_assistant_aggregator" not in caplog.text

    await run_test(memory_of(client, "bob"), frames_to_send=[TextFrame("x")])
    assert "no_assistant_aggregator" in caplog.text


async def test_many_calls_in_one_process_share_a_client_and_nothing_else(
    storage_root: Path, nothing_left_behind: None, kept: Kept
) -> None:
    async def one(number: int) -> None:
        async with Call(memory_of(client, f"caller_{number}"), [f"Pair {number}."]) as call:
            await call.ask(f"My number is {number}.")
        async with Call(memory_of(client, f"caller_{number}"), ["Bye."]) as call:
            await call.ask("Which number is mine?")
        [background] = recalled(call.llm.shown[0])
        assert [other for other in range(8) if f"number is {other}" in background] == [number]

    async with MemoAirVoiceClient(**client_arguments(storage_root)) as client:
        await asyncio.gather(*map(one, range(8)))
    for number in range(8):
        said = [(f"My number is {number}.", f"Pair {number}."), ("Which number is mine?", "Bye.")]
        assert kept(f"caller_{number}") == said


# Frames


async def test_no_frame_is_dropped_changed_or_moved(client: MemoAirVoiceClient) -> None:
    await remember(client, "My boots are red.")
    context = LLMContext([{"role": "user", "content": "Which colour?"}])
    sent = []
    for number in range(20):
        sent += [TextFrame(str(number)), LLMContextFrame(context), LLMTextFrame(str(number))]
    urgent = [OutputTransportMessageUrgentFrame({}), InputAudioRawFrame(b"\0\0", 16_000, 1)]
    down, up = await run_test(memory_of(client), frames_to_send=[*sent, *urgent])
    system = [each for each in down if each in urgent]
    assert [id(each) for each in down if each not in urgent] == [id(each) for each in sent]
    assert [id(each) for each in system] == [id(each) for each in urgent]
    assert not up
    assert recalled(down[1].context.get_messages() if isinstance(down[1], LLMContextFrame) else []) or any(
        isinstance(each, LLMContextFrame) and recalled(each.context.get_messages()) for each in down
    )
    assert context.get_messages() == [{"role": "user", "content": "Which colour?"}]


async def test_a_memory_that_fails_stops_nothing_and_tells_no_words(
    client: MemoAirVoiceClient, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "memoair_pipecat")
    await client.aclose()
    async with Call(memory_of(client)) as call:
        await call.ask("My secret is a blue parrot.")
        await call.ask("Did you hear the parrot?")
    assert call.heard == ["Yes.", "Yes."]
    told = [each for each in caplog.records if each.name.startswith("memoair")]
    assert {each.getMessage().rpartition("action=")[2].partition(" ")[0] for each in told} == {
        "load_failed",
        "recall_failed",
        "save_failed",
    }
    assert all("code=pool.closed" in each.getMessage() for each in told)
    assert not any("parrot" in each.getMessage() or "ada" in each.getMessage() for each in told)
    assert not any(each.exc_info for each in told)
    # A search that fails is expected, and leaves nothing of an earlier one behind.
    assert {each.levelname for each in told if "recall_failed" in each.getMessage()} == {"WARNING"}


async def test_nothing_of_ours_blocks_the_event_loop(client: MemoAirVoiceClient) -> None:
    pause = Pause()
    with blockbuster_ctx(["memoair_pipecat", "memoair_voice", "memoair_voice_sync"]):
        async with Call(memory_of(client), ["Noted."], [pause]) as call:
            await call.ask("My boots are red.")
            await call.say("Which colour are my boots?")
            await asyncio.wait_for(pause.reached.wait(), WITHIN_S)
            await call.interrupt()
            await call.hang_up()


async def test_nothing_runs_on_when_the_pipeline_has_ended(client: MemoAirVoiceClient) -> None:
    before = asyncio.all_tasks()
    for ending in ("end", "hang_up"):
        async with Call(memory_of(client)) as call:
            await call.ask("Hello?")
            await getattr(call, ending)()
        await until(lambda: asyncio.all_tasks() <= before)
