"""Heard answers: a real speech service and a real transport output them."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from memoair_pipecat import MemoAirMemoryProcessor
from pipecat.frames.frames import TTSSpeakFrame
from pipecat.services.llm_service import FunctionCallParams
from support.pipecat_calls import PipecatCall, ScriptedLLM, ScriptedToolCall
from support.pipecat_speech import WORD_DURATION_S, RealTimeOutput, SlowTTS
from support.waiting import wait_until

from memoair_voice import MemoAirVoiceClient

ReadTurns = Callable[..., list[tuple[str, str]]]

pytestmark = pytest.mark.anyio

# Twenty seconds, so that the interruption falls in the first half on a busy machine, too.
LONG_ANSWER = "We have red boots " + " ".join(f"and number {number}" for number in range(65))
HALF_OF_THE_WORDS = len(LONG_ANSWER.split()) // 2


@asynccontextmanager
async def call_during_the_answer(client: MemoAirVoiceClient) -> AsyncIterator[PipecatCall]:
    """Open a call, ask, and go on once some words of the long answer have been heard."""
    output = RealTimeOutput()
    async with PipecatCall(
        MemoAirMemoryProcessor(client=client, user_id="ada"), [LONG_ANSWER], after_llm=[SlowTTS(), output]
    ) as call:
        await call.say("Which boots?")
        await wait_until(
            lambda: (
                output.output_duration_s > 3 * WORD_DURATION_S
                and "We have" in call.pair.assistant().aggregation_string()
            )
        )
        yield call


async def test_an_interrupted_answer_is_saved_as_far_as_it_was_heard(
    client: MemoAirVoiceClient, saved_payloads: Callable[[], list[dict[str, Any]]]
) -> None:
    async with call_during_the_answer(client) as call:
        await call.interrupt()
    [turn] = saved_payloads()
    heard_text = turn["assistantText"]
    assert heard_text.startswith("We have")
    assert len(heard_text.split()) < HALF_OF_THE_WORDS
    assert (turn["userText"], turn["metadata"]["interrupted"]) == ("Which boots?", True)


async def test_hanging_up_during_an_answer_saves_only_the_heard_text(
    client: MemoAirVoiceClient, saved_payloads: Callable[[], list[dict[str, Any]]]
) -> None:
    async with call_during_the_answer(client) as call:
        await call.hang_up()
    [turn] = saved_payloads()
    assert 0 < len(turn["assistantText"].split()) < HALF_OF_THE_WORDS
    assert turn["metadata"]["interrupted"] is True


async def test_a_greeting_and_speech_during_a_tool_call_are_saved(
    client: MemoAirVoiceClient, saved_turns: ReadTurns
) -> None:
    async def find(params: FunctionCallParams) -> None:
        await params.llm.push_frame(TTSSpeakFrame("One moment."))
        # Pipecat may report it in one part or in two.
        await wait_until(lambda: "One moment." in " ".join(call.heard_texts))
        await params.result_callback({"in": "Leeds"})

    llm = ScriptedLLM([[ScriptedToolCall("find")], ["In Leeds."]])
    llm.register_function("find", find)
    memory = MemoAirMemoryProcessor(client=client, user_id="ada")
    async with PipecatCall(memory, llm=llm, after_llm=[SlowTTS(), RealTimeOutput()]) as call:
        await call.queue_frames(TTSSpeakFrame("Hello, this is Juno."))
        await wait_until(lambda: call.heard_texts)
        await call.say("Where are my boots?")
        await wait_until(lambda: "In Leeds." in " ".join(call.heard_texts))
    assert saved_turns() == [("", "Hello, this is Juno."), ("Where are my boots?", "One moment. In Leeds.")]
