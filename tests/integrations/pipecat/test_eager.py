"""Eager answers, which start before the caller's turn is confirmed (Pipecat 1.9 and newer)."""

import asyncio
from collections.abc import Callable

import pytest
from memoair_pipecat import MemoAirMemoryProcessor
from pipecat.frames.frames import (
    EagerTranscriptionFrame,
    InterruptionFrame,
    ProposedUserStartedSpeakingFrame,
    ProposedUserStoppedSpeakingFrame,
    TranscriptionFrame,
)
from pipecat.turns.user_turn_strategies import EagerUserTurnStrategies
from support.pipecat_calls import TIMEOUT_S, Pause, PipecatCall
from support.waiting import wait_until

from memoair_voice import MemoAirVoiceClient


@pytest.mark.anyio
async def test_an_eager_answer_is_saved_with_the_confirmed_words(
    client: MemoAirVoiceClient, saved_turns: Callable[[], list[tuple[str, str]]]
) -> None:
    memory = MemoAirMemoryProcessor(client=client, user_id="ada")
    async with PipecatCall(memory, ["Red."], ["Blue."], turn_strategies=EagerUserTurnStrategies()) as call:
        await call.queue_frames(
            ProposedUserStartedSpeakingFrame(), EagerTranscriptionFrame("which boots", "caller", "now")
        )
        await wait_until(lambda: call.llm.requests)
        assert call.heard_texts == []
        await call.queue_frames(TranscriptionFrame("Which boots?", "caller", "now"), ProposedUserStoppedSpeakingFrame())
        await wait_until(lambda: call.heard_texts)
        # A second eager answer is discarded, because the caller goes on.
        await call.queue_frames(ProposedUserStartedSpeakingFrame(), EagerTranscriptionFrame("and", "caller", "now"))
        await wait_until(lambda: len(call.llm.requests) == 2)
        await call.queue_frames(TranscriptionFrame("And in blue?", "caller", "now"), ProposedUserStoppedSpeakingFrame())
        await wait_until(lambda: len(call.heard_texts) == 2)
    assert saved_turns() == [("Which boots?", "Red."), ("And in blue?", "Yes.")]


@pytest.mark.anyio
async def test_unanswered_words_are_saved_with_an_eager_answer(
    client: MemoAirVoiceClient, saved_turns: Callable[[], list[tuple[str, str]]]
) -> None:
    memory, pause = MemoAirMemoryProcessor(client=client, user_id="ada"), Pause()
    async with PipecatCall(memory, [pause], ["Red."], turn_strategies=EagerUserTurnStrategies()) as call:
        await call.queue_frames(
            ProposedUserStartedSpeakingFrame(), TranscriptionFrame("I want boots.", "caller", "now")
        )
        await call.queue_frames(ProposedUserStoppedSpeakingFrame())
        await asyncio.wait_for(pause.reached.wait(), TIMEOUT_S)
        await call.queue_frames(InterruptionFrame())
        await wait_until(lambda: call.heard_texts == [""])
        await call.queue_frames(
            ProposedUserStartedSpeakingFrame(), EagerTranscriptionFrame("which ones", "caller", "now")
        )
        await wait_until(lambda: len(call.llm.requests) == 2)
        await call.queue_frames(TranscriptionFrame("Which ones?", "caller", "now"), ProposedUserStoppedSpeakingFrame())
        await wait_until(lambda: len(call.heard_texts) == 2)
    assert saved_turns() == [("I want boots. Which ones?", "Red.")]
