"""Speech output in Pipecat: a speech service with a fixed time per word, and a transport that plays in real time."""

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

from pipecat.frames.frames import Frame, OutputAudioRawFrame, StartFrame, TTSAudioRawFrame
from pipecat.services.settings import TTSSettings
from pipecat.services.tts_service import TTSService
from pipecat.transports.base_output import BaseOutputTransport
from pipecat.transports.base_transport import TransportParams

SAMPLE_RATE = 16_000
WORD_DURATION_S = 0.1


class SlowTTS(TTSService):
    """Makes audio of any text at once, with timestamps of when each word is heard."""

    def __init__(self, **options: Any) -> None:
        settings = TTSSettings(model=None, voice=None, language=None)
        super().__init__(
            settings=settings,
            sample_rate=SAMPLE_RATE,
            push_text_frames=False,
            push_start_frame=True,
            push_stop_frames=True,
            stop_frame_timeout_s=0.2,
            **options,
        )

    async def run_tts(self, text: str, context_id: str) -> AsyncGenerator[Frame | None, None]:
        words = text.split()
        await self.start_word_timestamps()
        await self.add_word_timestamps([(word, at * WORD_DURATION_S) for at, word in enumerate(words)], context_id)
        yield TTSAudioRawFrame(
            b"\1\1" * int(SAMPLE_RATE * WORD_DURATION_S * len(words)), SAMPLE_RATE, 1, context_id=context_id
        )


class RealTimeOutput(BaseOutputTransport):
    """Plays audio in real time, like a telephone."""

    def __init__(self) -> None:
        super().__init__(TransportParams(audio_out_enabled=True, audio_out_sample_rate=SAMPLE_RATE))
        self.output_duration_s = 0.0

    async def start(self, frame: StartFrame) -> None:
        await super().start(frame)
        await self.set_transport_ready(frame)

    async def write_audio_frame(self, frame: OutputAudioRawFrame) -> bool:
        duration_s = len(frame.audio) / 2 / SAMPLE_RATE
        await asyncio.sleep(duration_s)
        self.output_duration_s += duration_s
        return True
