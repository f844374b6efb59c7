"""Models that hear and speak by themselves: nothing is asked by way of a context, and what is said is kept."""

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
from support.pipecat_calls import Call, ScriptedLLM, until

from memoair_voice import MemoAirVoiceClient


class Realtime(ScriptedLLM):
    """A model that hears what a text says, tells what it has heard only while it answers, and is never asked."""

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
async def test_what_is_said_to_a_model_that_hears_by_itself_is_kept(
    client: MemoAirVoiceClient, kept: Callable[[], list[tuple[str, str]]]
) -> None:
    await client.load_index(user_id="ada")
    await client.save_response(user_text="My boots are red.", assistant_text="Noted.", user_id="ada")
    async with Call(MemoAirMemoryProcessor(client=client, user_id="ada", timeout_ms=10_000), llm=Realtime([])) as call:
        for number, words in enumerate(("Boots?", "Which colour are my boots?")):
            await call.tell(TextFrame(words))
            await until(lambda number=number: len(call.heard) > number)
    assert call.llm.contexts
    assert all(each is call.context for each in call.llm.contexts)
    assert kept()[1:] == [("Boots?", "You said: Boots?"), (words, f"You said: {words}")]
