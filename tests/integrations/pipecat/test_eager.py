"""Answers that are begun before the caller is known to have ended, which Pipecat does since 1.9."""

from collections.abc import Callable

import pytest
from memoair_pipecat import MemoAirMemoryProcessor
from pipecat.frames.frames import (
    EagerTranscriptionFrame,
    ProposedUserStartedSpeakingFrame,
    ProposedUserStoppedSpeakingFrame,
    TranscriptionFrame,
)
from pipecat.turns.user_turn_strategies import EagerUserTurnStrategies
from support.pipecat_calls import Call, until

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
