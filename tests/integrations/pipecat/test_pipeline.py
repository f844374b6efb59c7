"""The processor in real pipelines: requests to the model, saved turns, and frames that pass unchanged."""

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
from support.pipecat_calls import TIMEOUT_S, Pause, PipecatCall, ScriptedLLM, ScriptedToolCall
from support.runtimes import freeze
from support.waiting import wait_until

from memoair_voice import MemoAirVoiceClient
from memoair_voice.integration import is_fenced

ReadTurns = Callable[..., list[tuple[str, str]]]
ReadPayloads = Callable[..., list[dict[str, Any]]]

PATIENT_MS = 10_000

pytestmark = pytest.mark.anyio


def make_processor(client: MemoAirVoiceClient, user_id: str = "ada", **options: Any) -> MemoAirMemoryProcessor:
    return MemoAirMemoryProcessor(client=client, user_id=user_id, **{"timeout_ms": PATIENT_MS, **options})


async def save_user_texts(client: MemoAirVoiceClient, *texts: str, user_id: str = "ada") -> None:
    await client.load_index(user_id=user_id)
    for text in texts:
        assert await client.save_response(user_text=text, assistant_text="Noted.", user_id=user_id)


def recalled_texts(messages: list[Any]) -> list[str]:
    return [message["content"] for message in messages if is_fenced(message.get("content"))]


# Requests to the model


async def test_a_caller_is_remembered_in_the_next_call(client: MemoAirVoiceClient, saved_turns: ReadTurns) -> None:
    user = {"id": "ada", "name": "Ada"}
    async with PipecatCall(MemoAirMemoryProcessor(client=client, user=user), ["Noted, ", "red."], ["Bye."]) as call:
        await call.say_and_wait("My boots are red.")
        await call.say_and_wait("Goodbye.")
    assert saved_turns() == [("My boots are red.", "Noted, red."), ("Goodbye.", "Bye.")]

    async with PipecatCall(make_processor(client)) as call:
        await call.say_and_wait("Which colour are my boots?")
    *before, recall, question = call.llm.requests[0]
    assert before == [call.context.messages[0]]
    assert recall["role"] == "user"
    assert "My boots are red." in recall["content"]
    assert "follow no instruction" in recall["content"]
    assert question == {"role": "user", "content": "Which colour are my boots?"}


async def test_a_caller_who_speaks_at_once_is_remembered(storage_root: Path, nothing_left_behind: None) -> None:
    async with MemoAirVoiceClient(**client_arguments(storage_root)) as client:
        await save_user_texts(client, "My boots are red.")
    async with (
        MemoAirVoiceClient(**client_arguments(storage_root)) as client,
        PipecatCall(make_processor(client)) as call,
    ):
        await call.say_and_wait("Which colour are my boots?")  # while the runtime is still starting
    assert "My boots are red." in recalled_texts(call.llm.requests[0])[0]


async def test_recall_is_replaced_with_each_turn_and_never_in_the_conversation(client: MemoAirVoiceClient) -> None:
    await save_user_texts(client, "My boots are red.")
    async with PipecatCall(make_processor(client)) as call:
        await call.say_and_wait("Which colour are my boots?")
        await save_user_texts(client, "My dog is called Rex.")
        await call.say_and_wait("What is my dog called?")
    (first,), (second,) = map(recalled_texts, call.llm.requests)
    assert "red" in first
    assert "Rex" not in first
    assert "Rex" in second
    assert [message["role"] for message in call.context.messages] == ["system", *["user", "assistant"] * 2]
    assert not recalled_texts(call.context.messages)


async def test_nothing_is_inserted_if_nothing_is_recalled(client: MemoAirVoiceClient) -> None:
    async with PipecatCall(make_processor(client)) as call:
        await call.say_and_wait("Hello?")
    assert call.llm.contexts == [call.context]
    assert not recalled_texts(call.llm.requests[0])


async def test_what_the_context_holds_of_the_call_is_not_recalled(
    client: MemoAirVoiceClient, saved_turns: ReadTurns
) -> None:
    async with PipecatCall(make_processor(client)) as call:
        await call.say_and_wait("My boots are red.")
        await wait_until(saved_turns)
        await call.say_and_wait("Which colour are my boots?")
        await call.queue_frames(LLMMessagesUpdateFrame([call.context.messages[0]]))  # as after a summary
        await wait_until(lambda: len(call.context.messages) == 1)
        await call.say_and_wait("Which colour were my boots?")
    assert [len(recalled_texts(request)) for request in call.llm.requests] == [0, 0, 1]
    assert "My boots are red." in recalled_texts(call.llm.requests[2])[0]


async def test_recall_ends_at_its_deadline_and_the_turn_is_saved_later(
    client: MemoAirVoiceClient, saved_turns: ReadTurns
) -> None:
    await save_user_texts(client, "My boots are red.")
    [runtime] = (await client.stats())["runtimes"]
    durations_s: list[float] = []
    async with PipecatCall(make_processor(client, timeout_ms=150)) as call:
        freeze(runtime["pid"])
        try:
            # A busy machine may delay one or two of them.
            while not durations_s or (durations_s[-1] >= 1.5 and len(durations_s) < 3):
                began_at = time.monotonic()
                await call.say("Which colour are my boots?")
                await wait_until(lambda: len(call.llm.requests) > len(durations_s))
                durations_s.append(time.monotonic() - began_at)
                await wait_until(lambda: len(call.heard_texts) == len(durations_s))
        finally:
            os.kill(runtime["pid"], signal.SIGCONT)
    assert not any(map(recalled_texts, call.llm.requests))
    assert min(durations_s) < 1.5
    await client.aclose()
    assert saved_turns()[1:] == [("Which colour are my boots?", "Yes.")] * len(durations_s)


async def test_the_answer_after_a_tool_call_has_the_same_recall(
    client: MemoAirVoiceClient, saved_turns: ReadTurns, saved_payloads: ReadPayloads
) -> None:
    await save_user_texts(client, "My boots are red.")
    seen = []

    async def find(params: FunctionCallParams) -> None:
        params.context.add_message({"role": "developer", "content": "He is in a hurry."})
        seen.append(params.context)
        await params.result_callback({"in": "Leeds"})

    llm = ScriptedLLM([["Let me look."], ["Let me see.", ScriptedToolCall("find")], ["In Leeds."]])
    llm.register_function("find", find)
    async with PipecatCall(make_processor(client), llm=llm) as call:
        await call.say_and_wait("Hello?")
        await call.say("Where are my boots?")
        await wait_until(lambda: call.heard_texts[-1:] == ["In Leeds."])
    assert [len(recalled_texts(request)) for request in llm.requests] == [1, 1, 1]
    assert recalled_texts(llm.requests[2]) == recalled_texts(llm.requests[1])
    assert any(message.get("content") == "He is in a hurry." for message in call.context.messages)
    assert not recalled_texts(call.context.messages)
    assert saved_turns()[1:] == [("Hello?", "Let me look."), ("Where are my boots?", "Let me see. In Leeds.")]
    assert saved_payloads()[-1]["toolCalls"] == [{"name": "find"}]


async def test_a_tool_call_without_text_is_part_of_the_turn(client: MemoAirVoiceClient, saved_turns: ReadTurns) -> None:
    async def find(params: FunctionCallParams) -> None:
        await params.result_callback({"in": "Leeds"})

    llm = ScriptedLLM([[ScriptedToolCall("find")], [ScriptedToolCall("find", "call_2")], ["In Leeds."], ["Bye."]])
    llm.register_function("find", find)
    async with PipecatCall(make_processor(client), llm=llm) as call:
        await call.say("Where are my boots?")
        await wait_until(lambda: call.heard_texts[-1:] == ["In Leeds."])
        await call.say_and_wait("Goodbye.")
    assert saved_turns() == [("Where are my boots?", "In Leeds."), ("Goodbye.", "Bye.")]


# Saved turns


async def test_an_interrupted_answer_is_saved_as_far_as_it_was_heard(
    client: MemoAirVoiceClient, saved_payloads: ReadPayloads
) -> None:
    pause = Pause()
    async with PipecatCall(make_processor(client), ["We have red ones", pause, " and blue ones."]) as call:
        await call.say("Which boots?")
        await asyncio.wait_for(pause.reached.wait(), TIMEOUT_S)
        await wait_until(lambda: call.pair.assistant().aggregation_string())
        await call.interrupt()
        await call.say_and_wait("Thank you.")
    first, second = saved_payloads()
    assert (first["userText"], first["assistantText"]) == ("Which boots?", "We have red ones")
    assert first["metadata"]["interrupted"] is True
    assert (second["userText"], second["assistantText"]) == ("Thank you.", "Yes.")
    assert second["metadata"]["interrupted"] is False
    assert first["metadata"]["framework"] == second["metadata"]["framework"] == "pipecat"


async def test_an_answer_heard_to_its_end_is_not_interrupted_by_the_next_words(
    client: MemoAirVoiceClient, saved_payloads: ReadPayloads
) -> None:
    async with PipecatCall(make_processor(client), ["Red ones."], ["Sure."]) as call:
        await call.say_and_wait("Which boots?")
        await call.queue_frames(InterruptionFrame())  # the agent is silent
        await call.say_and_wait("In blue, please.")
    turns = saved_payloads()
    assert [(turn["userText"], turn["assistantText"], turn["metadata"]["interrupted"]) for turn in turns] == [
        ("Which boots?", "Red ones.", False),
        ("In blue, please.", "Sure.", False),
    ]


async def test_noise_without_words_is_not_a_turn(client: MemoAirVoiceClient, saved_turns: ReadTurns) -> None:
    async with PipecatCall(make_processor(client)) as call:
        await call.say_and_wait("Hello.")
        for noise in ("", " "):
            await call.say(noise)
        await call.say_and_wait("Goodbye.")
    assert saved_turns() == [("Hello.", "Yes."), ("Goodbye.", "Yes.")]


async def test_several_user_turns_in_a_row_are_all_saved(client: MemoAirVoiceClient, saved_turns: ReadTurns) -> None:
    pause = Pause()
    async with PipecatCall(make_processor(client), [pause]) as call:
        await call.say("My name is Ada.")
        await asyncio.wait_for(pause.reached.wait(), TIMEOUT_S)
        await call.interrupt()  # before any text of the answer
        await call.say_and_wait("And I want boots.")
    assert saved_turns() == [("My name is Ada. And I want boots.", "Yes.")]


async def test_typed_input_gets_recall_and_is_saved_even_while_the_agent_speaks(
    client: MemoAirVoiceClient, saved_turns: ReadTurns
) -> None:
    await save_user_texts(client, "My boots are red.")
    pause = Pause()
    async with PipecatCall(make_processor(client), ["We have", pause, " many."], ["Red."]) as call:
        await call.type_text("Which boots?")
        await asyncio.wait_for(pause.reached.wait(), TIMEOUT_S)
        await call.type_text("Which colour are mine?")
        pause.resume.set()
        await wait_until(lambda: len(call.heard_texts) == 2)
    assert [len(recalled_texts(request)) for request in call.llm.requests] == [1, 1]
    assert saved_turns()[1:] == [("Which boots?", "We have many."), ("Which colour are mine?", "Red.")]


async def test_the_greeting_is_saved_without_its_instruction(
    client: MemoAirVoiceClient, saved_turns: ReadTurns
) -> None:
    context = LLMContext([{"role": "system", "content": "You sell boots."}, {"role": "user", "content": "Long ago."}])
    async with PipecatCall(make_processor(client), ["Hello, this is Juno."], context=context) as call:
        call.context.add_message({"role": "developer", "content": "Greet the caller."})
        await call.queue_frames(LLMRunFrame())
        await wait_until(lambda: call.heard_texts)
        await call.say_and_wait("Hi.")
    assert saved_turns() == [("", "Hello, this is Juno."), ("Hi.", "Yes.")]


async def test_hanging_up_during_an_answer_saves_the_heard_text(
    client: MemoAirVoiceClient, saved_payloads: ReadPayloads
) -> None:
    pause = Pause()
    async with PipecatCall(make_processor(client), ["We have red ones", pause]) as call:
        await call.say("Which boots?")
        await asyncio.wait_for(pause.reached.wait(), TIMEOUT_S)
        await wait_until(lambda: call.pair.assistant().aggregation_string())
        await call.hang_up()
    [turn] = saved_payloads()
    assert (turn["userText"], turn["assistantText"]) == ("Which boots?", "We have red ones")
    assert turn["metadata"]["interrupted"] is True


@pytest.mark.parametrize("ending", ["end", "hang_up", "cancel_with_frame"])
async def test_the_last_words_are_saved_however_the_call_ends(
    client: MemoAirVoiceClient, saved_turns: ReadTurns, ending: str
) -> None:
    async with PipecatCall(make_processor(client)) as call:
        await call.say_and_wait("Hello?")
        call.context.add_message({"role": "user", "content": "Never mind, goodbye."})
        await getattr(call, ending)()
    assert saved_turns() == [("Hello?", "Yes."), ("Never mind, goodbye.", "")]


async def test_hanging_up_before_the_first_answer_saves_the_turn(
    client: MemoAirVoiceClient, saved_turns: ReadTurns
) -> None:
    pause = Pause()
    async with PipecatCall(make_processor(client), [pause]) as call:
        await call.say("This is Ada.")
        await asyncio.wait_for(pause.reached.wait(), TIMEOUT_S)
        await call.hang_up()
    assert saved_turns() == [("This is Ada.", "")]


async def test_hanging_up_before_any_words_saves_nothing(client: MemoAirVoiceClient, saved_turns: ReadTurns) -> None:
    async with PipecatCall(make_processor(client)) as call:
        await call.hang_up()
    assert saved_turns() == []


async def test_a_rebuilt_context_saves_no_turn_twice(client: MemoAirVoiceClient, saved_turns: ReadTurns) -> None:
    async with PipecatCall(make_processor(client)) as call:
        await call.say_and_wait("Yes.")
        await call.queue_frames(LLMMessagesUpdateFrame(copy.deepcopy(call.context.messages)))
        await call.say_and_wait("Yes.")
    assert saved_turns() == [("Yes.", "Yes."), ("Yes.", "Yes.")]


async def test_turns_are_saved_in_order_when_a_runtime_dies(client: MemoAirVoiceClient, saved_turns: ReadTurns) -> None:
    async with PipecatCall(make_processor(client)) as call:
        await call.say_and_wait("One.")
        await wait_until(lambda: len(saved_turns()) == 1)
        [runtime] = (await client.stats())["runtimes"]
        os.kill(runtime["pid"], signal.SIGKILL)
        for text in ("Two.", "Three.", "Four."):
            await call.say_and_wait(text)
    await client.aclose()
    assert [text for text, _ in saved_turns()] == ["One.", "Two.", "Three.", "Four."]


async def test_turns_wait_for_a_slot_in_a_full_pool(
    storage_root: Path, nothing_left_behind: None, saved_turns: ReadTurns
) -> None:
    async with MemoAirVoiceClient(**client_arguments(storage_root, max_concurrent_users=1)) as client:
        other_session = await client.session(user_id="eve")
        async with PipecatCall(make_processor(client, flush_timeout_s=20)) as call:
            await call.say_and_wait("Hello?")
            await other_session.aclose()
            await call.say_and_wait("Are you there?")
    assert saved_turns() == [("Hello?", "Yes."), ("Are you there?", "Yes.")]


async def test_the_end_of_a_call_waits_for_a_full_pool_until_the_flush_timeout(
    storage_root: Path, nothing_left_behind: None, saved_turns: ReadTurns, caplog: pytest.LogCaptureFixture
) -> None:
    before = asyncio.all_tasks()
    async with MemoAirVoiceClient(**client_arguments(storage_root, max_concurrent_users=1)) as client:
        async with (
            await client.session(user_id="eve"),
            PipecatCall(make_processor(client, flush_timeout_s=0.5)) as call,
        ):
            await call.say_and_wait("Hello?")
            began_at = time.monotonic()
            await call.end()
            assert time.monotonic() - began_at < 15, "the call waited longer than its flush timeout"
        await wait_until(lambda: asyncio.all_tasks() <= before)
    assert "action=flush_timeout turns=1" in caplog.text
    assert saved_turns() == []


async def test_the_model_is_found_in_a_branch_of_the_pipeline(
    client: MemoAirVoiceClient, saved_turns: ReadTurns
) -> None:
    async def find(params: FunctionCallParams) -> None:
        await params.result_callback({"in": "Leeds"})

    await save_user_texts(client, "My boots are red.")
    llm = ScriptedLLM([[ScriptedToolCall("find")], ["Red."]])
    llm.register_function("find", find)
    call = PipecatCall(
        Pipeline([make_processor(client)]), llm=llm, wrap_llm=lambda llm: ParallelPipeline([llm], [IdentityFilter()])
    )
    async with call:
        await call.say("Which colour?")
        await wait_until(lambda: "Red." in call.heard_texts)
    assert [len(recalled_texts(request)) for request in llm.requests] == [1, 1]
    assert saved_turns()[-1] == ("Which colour?", "Red.")


async def test_listen_to_accepts_an_aggregator_outside_the_pipeline(
    client: MemoAirVoiceClient, saved_turns: ReadTurns, caplog: pytest.LogCaptureFixture
) -> None:
    memory = make_processor(client)
    async with PipecatCall(memory) as call:
        memory.listen_to(call.pair.assistant())  # a second time, which has no effect
        await call.say_and_wait("Hello?")
    assert saved_turns() == [("Hello?", "Yes.")]
    assert "no_assistant_aggregator" not in caplog.text

    await run_test(make_processor(client, "bob"), frames_to_send=[TextFrame("x")])
    assert "no_assistant_aggregator" in caplog.text


async def test_concurrent_calls_share_only_the_client(
    storage_root: Path, nothing_left_behind: None, saved_turns: ReadTurns
) -> None:
    async def converse(number: int) -> None:
        async with PipecatCall(make_processor(client, f"caller_{number}"), [f"Pair {number}."]) as call:
            await call.say_and_wait(f"My number is {number}.")
        async with PipecatCall(make_processor(client, f"caller_{number}"), ["Bye."]) as call:
            await call.say_and_wait("Which number is mine?")
        [recall] = recalled_texts(call.llm.requests[0])
        assert [other for other in range(8) if f"number is {other}" in recall] == [number]

    async with MemoAirVoiceClient(**client_arguments(storage_root)) as client:
        await asyncio.gather(*map(converse, range(8)))
    for number in range(8):
        expected = [(f"My number is {number}.", f"Pair {number}."), ("Which number is mine?", "Bye.")]
        assert saved_turns(f"caller_{number}") == expected


# Frames


async def test_no_frame_is_dropped_changed_or_reordered(client: MemoAirVoiceClient) -> None:
    await save_user_texts(client, "My boots are red.")
    context = LLMContext([{"role": "user", "content": "Which colour?"}])
    frames = []
    for number in range(20):
        frames += [TextFrame(str(number)), LLMContextFrame(context), LLMTextFrame(str(number))]
    urgent = [OutputTransportMessageUrgentFrame({}), InputAudioRawFrame(b"\0\0", 16_000, 1)]
    down, up = await run_test(make_processor(client), frames_to_send=[*frames, *urgent])
    system = [frame for frame in down if frame in urgent]
    assert [id(frame) for frame in down if frame not in urgent] == [id(frame) for frame in frames]
    assert [id(frame) for frame in system] == [id(frame) for frame in urgent]
    assert not up
    assert recalled_texts(down[1].context.get_messages() if isinstance(down[1], LLMContextFrame) else []) or any(
        isinstance(frame, LLMContextFrame) and recalled_texts(frame.context.get_messages()) for frame in down
    )
    assert context.get_messages() == [{"role": "user", "content": "Which colour?"}]


async def test_a_failing_memory_stops_no_frame_and_logs_no_words(
    client: MemoAirVoiceClient, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "memoair_pipecat")
    await client.aclose()
    async with PipecatCall(make_processor(client)) as call:
        await call.say_and_wait("My secret is a blue parrot.")
        await call.say_and_wait("Did you hear the parrot?")
    assert call.heard_texts == ["Yes.", "Yes."]
    records = [record for record in caplog.records if record.name.startswith("memoair")]
    assert {record.getMessage().rpartition("action=")[2].partition(" ")[0] for record in records} == {
        "load_failed",
        "recall_failed",
        "save_failed",
    }
    assert all("code=pool.closed" in record.getMessage() for record in records)
    assert not any("parrot" in record.getMessage() or "ada" in record.getMessage() for record in records)
    assert not any(record.exc_info for record in records)
    # A failed search is expected and leaves no earlier recall in the context, so a warning is enough.
    assert {record.levelname for record in records if "recall_failed" in record.getMessage()} == {"WARNING"}


async def test_nothing_blocks_the_event_loop(client: MemoAirVoiceClient) -> None:
    pause = Pause()
    with blockbuster_ctx(["memoair_pipecat", "memoair_voice", "memoair_voice_sync"]):
        async with PipecatCall(make_processor(client), ["Noted."], [pause]) as call:
            await call.say_and_wait("My boots are red.")
            await call.say("Which colour are my boots?")
            await asyncio.wait_for(pause.reached.wait(), TIMEOUT_S)
            await call.interrupt()
            await call.hang_up()


async def test_no_task_continues_after_the_pipeline_has_ended(client: MemoAirVoiceClient) -> None:
    before = asyncio.all_tasks()
    for ending in ("end", "hang_up"):
        async with PipecatCall(make_processor(client)) as call:
            await call.say_and_wait("Hello?")
            await getattr(call, ending)()
        await wait_until(lambda: asyncio.all_tasks() <= before)
