"""Answers that are begun before the caller is known to have ended, which Pipecat does since 1.9."""

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
from support.pipecat_calls import WITHIN_S, Call, Pause, until

from memoair_voice import MemoAirVoiceClient


@pytest.mark.anyio
async def test_an_answer_that_was_begun_before_the_caller_had_ended_is_kept_with_what_he_said(
    client: MemoAirVoiceClient, kept: Callable[[], list[tuple[str, str]]]
) -> None:
    memory = MemoAirMemoryProcessor(client=client, user_id="ada")
    async with Call(memory, ["Red."], ["Blue."], user_turns=EagerUserTurnStrategies()) as call:
        await call.tell(ProposedUserStartedSpeakingFrame(), EagerTranscriptionFrame("which boots", "caller", "now"))
        await until(lambda: call.llm.shown)
        assert call.heard == []
        await call.tell(TranscriptionFrame("Which boots?", "caller", "now"), ProposedUserStoppedSpeakingFrame())
        await until(lambda: call.heard)
        # And one that was thrown away, since he went on.
        await call.tell(ProposedUserStartedSpeakingFrame(), EagerTranscriptionFrame("and", "caller", "now"))
        await until(lambda: len(call.llm.shown) == 2)
        await call.tell(TranscriptionFrame("And in blue?", "caller", "now"), ProposedUserStoppedSpeakingFrame())
        await until(lambda: len(call.heard) == 2)
    assert kept() == [("Which boots?", "Red."), ("And in blue?", "Yes.")]


@pytest.mark.anyio
async def test_words_without_an_answer_come_with_those_that_were_answered_early(
    client: MemoAirVoiceClient, kept: Callable[[], list[tuple[str, str]]]
) -> None:
    memory, pause = MemoAirMemoryProcessor(client=client, user_id="ada"), Pause()
    async with Call(memory, [pause], ["Red."], user_turns=EagerUserTurnStrategies()) as call:
        await call.tell(ProposedUserStartedSpeakingFrame(), TranscriptionFrame("I want boots.", "caller", "now"))
        await call.tell(ProposedUserStoppedSpeakingFrame())
        await asyncio.wait_for(pause.reached.wait(), WITHIN_S)
        await call.tell(InterruptionFrame())
        await until(lambda: call.heard == [""])
        await call.tell(ProposedUserStartedSpeakingFrame(), EagerTranscriptionFrame("which ones", "caller", "now"))
        await until(lambda: len(call.llm.shown) == 2)
        await call.tell(TranscriptionFrame("Which ones?", "caller", "now"), ProposedUserStoppedSpeakingFrame())
        await until(lambda: len(call.heard) == 2)
    assert kept() == [("I want boots. Which ones?", "Red.")]
