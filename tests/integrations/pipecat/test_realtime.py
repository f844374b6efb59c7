"""Realtime models (speech to speech): no context reaches them, and what is said is saved."""

from collections.abc import Callable

import pytest
from memoair_pipecat import MemoAirMemoryProcessor
from pipecat.frames.frames import (
    Frame,
    LLMContextFrame,
    LLMFullResponseEndFrame,
    LLMFullResponseStartFrame,
    LLMServiceMetadataFrame,
    LLMTextFrame,
    TextFrame,
    TranscriptionFrame,
)
from pipecat.processors.frame_processor import FrameDirection
from support.pipecat_calls import PipecatCall, ScriptedLLM
from support.waiting import wait_until

from memoair_voice import MemoAirVoiceClient


class RealtimeLLM(ScriptedLLM):
    """A speech-to-speech model: text stands for speech, transcribed with the answer; it reads no context."""

    def service_metadata_frame(self) -> LLMServiceMetadataFrame:
        return LLMServiceMetadataFrame(service_name=self.name, is_realtime_service=True)

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        if isinstance(frame, LLMContextFrame):
            self.contexts.append(frame.context)
            return
        if type(frame) is not TextFrame:
            await super().process_frame(frame, direction)
            return
        await self.push_frame(LLMFullResponseStartFrame())
        await self.push_frame(LLMTextFrame(f"You said: {frame.text}"))
        await self.push_frame(TranscriptionFrame(frame.text, "caller", "now"), FrameDirection.UPSTREAM)
        await self.push_frame(LLMFullResponseEndFrame())


@pytest.mark.anyio
async def test_turns_with_a_realtime_model_are_saved(
    client: MemoAirVoiceClient, saved_turns: Callable[[], list[tuple[str, str]]]
) -> None:
    await client.load_index(user_id="ada")
    await client.save_response(user_text="My boots are red.", assistant_text="Noted.", user_id="ada")
    async with PipecatCall(
        MemoAirMemoryProcessor(client=client, user_id="ada", timeout_ms=10_000), llm=RealtimeLLM([])
    ) as call:
        for number, text in enumerate(("Boots?", "Which colour are my boots?")):
            await call.queue_frames(TextFrame(text))
            await wait_until(lambda number=number: len(call.heard_texts) > number)
    assert call.llm.contexts
    assert all(context is call.context for context in call.llm.contexts)
    assert saved_turns()[1:] == [("Boots?", "You said: Boots?"), (text, f"You said: {text}")]
