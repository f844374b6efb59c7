"""Summaries of the context: the caller has not said them, and what they replace is saved."""

from collections.abc import Callable
from typing import Any

import pytest
from memoair_pipecat import MemoAirMemoryProcessor
from pipecat.frames.frames import LLMMessagesUpdateFrame, LLMSummarizeContextFrame
from pipecat.processors.aggregators.llm_response_universal import LLMAssistantAggregatorParams
from pipecat.utils.context.llm_context_summarization import (
    LLMAutoContextSummarizationConfig,
    LLMContextSummaryConfig,
)
from support.pipecat_calls import PipecatCall, ScriptedLLM
from support.waiting import wait_until

from memoair_voice import MemoAirVoiceClient

ReadTurns = Callable[..., list[tuple[str, str]]]

pytestmark = pytest.mark.anyio

SUMMARY = "The caller looks for boots."


class SummarizingLLM(ScriptedLLM):
    """A language model that gives the same summary of every conversation."""

    async def run_inference(self, *_: Any, **__: Any) -> str:
        return SUMMARY


def summarizing(keep: int, **config: Any) -> LLMAssistantAggregatorParams:
    """Return the settings with which a context is summarized on request, except its last messages."""
    summary_config = LLMContextSummaryConfig(min_messages_after_summary=keep, target_context_tokens=100, **config)
    return LLMAssistantAggregatorParams(
        auto_context_summarization_config=LLMAutoContextSummarizationConfig(summary_config=summary_config)
    )


def has_summary(call: PipecatCall) -> bool:
    return any(SUMMARY in str(message.get("content")) for message in call.context.messages)


@pytest.mark.parametrize("keep", [0, 1, 2, 4])
@pytest.mark.parametrize("author", ["pipeline", "dedicated"])
async def test_a_summary_is_neither_searched_nor_saved_and_loses_no_turn(
    client: MemoAirVoiceClient, queries: list[str], saved_turns: ReadTurns, keep: int, author: str
) -> None:
    config = {"llm": SummarizingLLM([])} if author == "dedicated" else {}
    memory = MemoAirMemoryProcessor(client=client, user_id="ada", timeout_ms=10_000)
    llm = SummarizingLLM([])
    async with PipecatCall(memory, llm=llm, assistant_params=summarizing(keep, **config)) as call:
        for text in ("One.", "Two.", "Three."):
            await call.say_and_wait(text)
        await call.queue_frames(LLMSummarizeContextFrame())
        await wait_until(lambda: has_summary(call))
        await call.say_and_wait("Four.")
        await call.queue_frames(LLMSummarizeContextFrame())
        await wait_until(lambda: len(call.context.messages) <= keep + 2)
        await call.say_and_wait("Five.")
    assert saved_turns() == [(f"{number}.", "Yes.") for number in ("One", "Two", "Three", "Four", "Five")]
    assert queries == ["One.", "Two.", "Three.", "Four.", "Five."]


@pytest.mark.parametrize("author", ["pipeline", "dedicated"])
async def test_words_that_are_summarized_before_an_answer_are_saved(
    client: MemoAirVoiceClient, saved_turns: ReadTurns, author: str
) -> None:
    config = {"llm": SummarizingLLM([])} if author == "dedicated" else {}
    memory = MemoAirMemoryProcessor(client=client, user_id="ada", timeout_ms=10_000)
    async with PipecatCall(memory, llm=SummarizingLLM([]), assistant_params=summarizing(0, **config)) as call:
        await call.say_and_wait("One.")
        call.context.add_message({"role": "user", "content": "And I am in a hurry."})
        await call.queue_frames(LLMSummarizeContextFrame())
        await wait_until(lambda: has_summary(call))
        await call.say_and_wait("Two.")
    assert saved_turns() == [("One.", "Yes."), ("And I am in a hurry. Two.", "Yes.")]


async def test_a_summary_of_the_application_before_the_last_messages_is_not_saved(
    client: MemoAirVoiceClient, saved_turns: ReadTurns
) -> None:
    memory = MemoAirMemoryProcessor(client=client, user_id="ada", timeout_ms=10_000)
    async with PipecatCall(memory) as call:
        await call.say_and_wait("One.")
        await call.say_and_wait("Two.")
        kept = [dict(message) for message in call.context.messages[-2:]]
        summary = {"role": "user", "content": "So far: the caller looks for boots."}
        await call.queue_frames(LLMMessagesUpdateFrame([call.context.messages[0], summary, *kept]))
        await wait_until(lambda: len(call.context.messages) == 4)
        await call.say_and_wait("Three.")
    assert saved_turns() == [("One.", "Yes."), ("Two.", "Yes."), ("Three.", "Yes.")]
