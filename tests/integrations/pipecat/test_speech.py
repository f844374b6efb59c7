"""What is kept of an agent that is heard: a real speech service and a real transport play its answers."""

from collections.abc import Callable
from typing import Any

import pytest
from memoair_pipecat import MemoAirMemoryProcessor
from pipecat.frames.frames import TTSSpeakFrame
from pipecat.services.llm_service import FunctionCallParams
from support.pipecat_calls import Call, ScriptedLLM, Tool, until
from support.pipecat_speech import WORD_S, Line, SlowSpeech

from memoair_voice import MemoAirVoiceClient

Kept = Callable[..., list[tuple[str, str]]]

pytestmark = pytest.mark.anyio

# Twenty seconds, so that an answer is interrupted in its first half on a busy machine, too.
LONG = "We have red boots " + " ".join(f"and number {number}" for number in range(65))
HALF = len(LONG.split()) // 2


async def test_of_an_interrupted_answer_only_what_was_heard_is_kept(
    client: MemoAirVoiceClient, payloads: Callable[[], list[dict[str, Any]]]
) -> None:
    line = Line()
    async with Call(MemoAirMemoryProcessor(client=client, user_id="ada"), [LONG], between=[SlowSpeech(), line]) as call:
        await call.say("Which boots?")
        await until(lambda: line.played_s > 3 * WORD_S and "We have" in call.pair.assistant().aggregation_string())
        await call.interrupt()
    [turn] = payloads()
    heard = turn["assistantText"]
    assert heard.startswith("We have")
    assert len(heard.split()) < HALF
    assert (turn["userText"], turn["metadata"]["interrupted"]) == ("Which boots?", True)


async def test_of_an_answer_in_which_the_caller_hangs_up_only_what_was_heard_is_kept(
    client: MemoAirVoiceClient, payloads: Callable[[], list[dict[str, Any]]]
) -> None:
    line = Line()
    async with Call(MemoAirMemoryProcessor(client=client, user_id="ada"), [LONG], between=[SlowSpeech(), line]) as call:
        await call.say("Which boots?")
        await until(lambda: line.played_s > 3 * WORD_S and call.pair.assistant().aggregation_string())
        await call.hang_up()
    [turn] = payloads()
    assert 0 < len(turn["assistantText"].split()) < HALF
    assert turn["metadata"]["interrupted"] is True


async def test_a_greeting_and_what_is_said_while_a_tool_runs_are_kept(client: MemoAirVoiceClient, kept: Kept) -> None:
    async def find(params: FunctionCallParams) -> None:
        await params.llm.push_frame(TTSSpeakFrame("One moment."))
        await until(lambda: "One moment." in " ".join(call.heard))  # Pipecat may tell it in one part or in two
        await params.result_callback({"in": "Leeds"})

    llm = ScriptedLLM([[Tool("find")], ["In Leeds."]])
    llm.register_function("find", find)
    memory = MemoAirMemoryProcessor(client=client, user_id="ada")
    async with Call(memory, llm=llm, between=[SlowSpeech(), Line()]) as call:
        await call.tell(TTSSpeakFrame("Hello, this is Juno."))
        await until(lambda: call.heard)
        await call.say("Where are my boots?")
        await until(lambda: "In Leeds." in " ".join(call.heard))
    assert kept() == [("", "Hello, this is Juno."), ("Where are my boots?", "One moment. In Leeds.")]
