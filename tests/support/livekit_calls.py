"""Real LiveKit sessions with a scripted caller, language model and audio output."""

import asyncio
import inspect
import time
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from livekit import rtc
from livekit.agents import Agent, AgentSession, llm, stt, tts
from livekit.agents.types import DEFAULT_API_CONNECT_OPTIONS
from livekit.agents.voice import io
from livekit.agents.voice.io import AudioOutput

from support.waiting import wait_until

_RATE = 24_000
AudioOutputCapabilities = getattr(io, "AudioOutputCapabilities", None)  # since 1.2


class ScriptedLLM(llm.LLM):
    """A language model that answers each request with the next item of its script, then with "Noted."."""

    def __init__(self, *script: str | tuple[str, str]) -> None:
        """Take the answers: a text, or a tuple of a text and the name of the tool that is called after it."""
        super().__init__()
        self.script = list(script)
        self.gate = asyncio.Event()  # while it is cleared, no answer begins
        self.gate.set()
        self.requests: list[list[tuple[str, str]]] = []  # role and text of each message, per request
        self.requested_at: list[float] = []

    def chat(
        self,
        *,
        chat_ctx: llm.ChatContext,
        tools: list[Any] | None = None,
        conn_options: Any = DEFAULT_API_CONNECT_OPTIONS,
        **_: Any,
    ) -> llm.LLMStream:
        self.requested_at.append(time.perf_counter())
        self.requests.append(
            [(item.role, item.text_content or "") for item in chat_ctx.items if item.type == "message"]
        )
        return _ScriptedStream(self, chat_ctx=chat_ctx, tools=tools or [], conn_options=conn_options)


class _ScriptedStream(llm.LLMStream):
    async def _run(self) -> None:
        model = self._llm
        assert isinstance(model, ScriptedLLM)
        await model.gate.wait()
        answer = model.script.pop(0) if model.script else "Noted."
        text, tool = answer if isinstance(answer, tuple) else (answer, None)
        for word in text.split(" "):
            self._send(content=f"{word} ")
        if tool is not None:
            call = llm.FunctionToolCall(name=tool, arguments="{}", call_id=uuid.uuid4().hex)
            self._send(tool_calls=[call])

    def _send(self, **delta: Any) -> None:
        self._event_ch.send_nowait(llm.ChatChunk(id=uuid.uuid4().hex, delta=llm.ChoiceDelta(role="assistant", **delta)))


class ScriptedSTT(stt.STT):
    """A speech recognizer that emits the events of the test."""

    def __init__(self) -> None:
        options = supported_options(stt.STTCapabilities, keyterms=True)
        super().__init__(capabilities=stt.STTCapabilities(streaming=True, interim_results=True, **options))
        self.events: asyncio.Queue[stt.SpeechEvent] = asyncio.Queue()

    async def _recognize_impl(self, *_: Any, **__: Any) -> stt.SpeechEvent:
        raise NotImplementedError

    def stream(self, *, conn_options: Any = DEFAULT_API_CONNECT_OPTIONS, **_: Any) -> "_ScriptedRecognition":
        return _ScriptedRecognition(stt=self, conn_options=conn_options)

    def emit(self, kind: stt.SpeechEventType, text: str = "") -> None:
        """Emit one event of the caller's speech."""
        data = [stt.SpeechData(language="en", text=text, confidence=1.0)] if text else []  # type: ignore[arg-type]
        self.events.put_nowait(stt.SpeechEvent(type=kind, alternatives=data))

    def emit_turn(self, text: str) -> None:
        """Emit the events of a whole turn."""
        self.emit(stt.SpeechEventType.START_OF_SPEECH)
        self.emit(stt.SpeechEventType.FINAL_TRANSCRIPT, text)
        self.emit(stt.SpeechEventType.END_OF_SPEECH)


class _ScriptedRecognition(stt.RecognizeStream):
    async def _run(self) -> None:
        recognizer = self._stt
        assert isinstance(recognizer, ScriptedSTT)
        while True:
            self._event_ch.send_nowait(await recognizer.events.get())


class SilentTTS(tts.TTS):
    """A speech synthesizer that outputs a moment of silence for any text."""

    def __init__(self) -> None:
        super().__init__(capabilities=tts.TTSCapabilities(streaming=False), sample_rate=_RATE, num_channels=1)

    def synthesize(self, text: str, *, conn_options: Any = DEFAULT_API_CONNECT_OPTIONS) -> tts.ChunkedStream:
        return _SilentSpeech(tts=self, input_text=text, conn_options=conn_options)


class _SilentSpeech(tts.ChunkedStream):
    async def _run(self, output_emitter: Any = None) -> None:
        silence = b"\0\0" * (_RATE // 20)
        if output_emitter is None:  # before 1.1
            frame = rtc.AudioFrame(silence, _RATE, 1, len(silence) // 2)
            self._event_ch.send_nowait(tts.SynthesizedAudio(frame=frame, request_id=uuid.uuid4().hex))
            return
        request_id = uuid.uuid4().hex
        output_emitter.initialize(request_id=request_id, sample_rate=_RATE, num_channels=1, mime_type="audio/pcm")
        output_emitter.push(silence)
        output_emitter.flush()


class FakeAudioOutput(AudioOutput):
    """Finishes at once; if ``heard_until_interrupted`` is set, plays until it is interrupted and reports that text."""

    def __init__(self) -> None:
        kind = {"capabilities": AudioOutputCapabilities(pause=False)} if AudioOutputCapabilities else {}
        super().__init__(**supported_options(AudioOutput.__init__, label="test"), **kind, sample_rate=_RATE)
        self.heard_until_interrupted: str | None = None
        self.is_playing = False

    async def capture_frame(self, frame: rtc.AudioFrame) -> None:
        await super().capture_frame(frame)
        if not self.is_playing:
            self.is_playing = True
            if hasattr(self, "on_playback_started"):
                self.on_playback_started(created_at=time.time())

    def flush(self) -> None:
        super().flush()
        if self.is_playing and self.heard_until_interrupted is None:
            self.is_playing = False
            self.on_playback_finished(playback_position=0.05, interrupted=False)

    def clear_buffer(self) -> None:
        if self.is_playing:
            self.is_playing = False
            self.on_playback_finished(
                playback_position=0.02,
                interrupted=True,
                **supported_options(self.on_playback_finished, synchronized_transcript=self.heard_until_interrupted),
            )


class LiveKitCall:
    """A call in a real session, controlled by the test."""

    def __init__(
        self, session: AgentSession[Any], recognizer: ScriptedSTT, model: ScriptedLLM, audio_output: FakeAudioOutput
    ) -> None:
        self.session = session
        self.stt = recognizer
        self.llm = model
        self.audio = audio_output

    def start_turn(self, text: str) -> None:
        """Start speaking; the text is probably the whole turn, but the caller may go on."""
        self.stt.emit(stt.SpeechEventType.START_OF_SPEECH)
        self.stt.emit(stt.SpeechEventType.PREFLIGHT_TRANSCRIPT, text)

    def say_part(self, text: str) -> None:
        """Speak a part of a turn."""
        self.stt.emit(stt.SpeechEventType.FINAL_TRANSCRIPT, text)

    def end_turn(self, text: str = "") -> None:
        """End the caller's turn, with these last words."""
        if text:
            self.say_part(text)
        self.stt.emit(stt.SpeechEventType.END_OF_SPEECH)

    async def say(self, text: str) -> list[tuple[str, str]]:
        """Speak a whole turn and wait for the answer; return the request to the language model."""
        requests, answers = len(self.llm.requests), len(self.items("assistant"))
        self.stt.emit_turn(text)
        await wait_until(lambda: len(self.items("assistant")) > answers)
        return self.llm.requests[requests]

    async def type_text(self, text: str) -> list[tuple[str, str]]:
        """Type a turn, as in the chat of a room; return the request to the language model."""
        requests = len(self.llm.requests)
        await self.session.generate_reply(user_input=text)
        return self.llm.requests[requests]

    def items(self, role: str) -> list[llm.ChatMessage]:
        """Return the messages of one side so far."""
        return [item for item in self.session.history.items if item.type == "message" and item.role == role]


def supported_options(function: Callable[..., Any], **options: Any) -> dict[str, Any]:
    """Return the options that the function has in this version of LiveKit."""
    parameters = inspect.signature(function).parameters
    return {name: value for name, value in options.items() if name in parameters}


def new_session(model: ScriptedLLM, recognizer: ScriptedSTT, *, preemptive: bool = False) -> AgentSession[Any]:
    """Return a session whose turns end as soon as the STT reports it."""
    if "turn_handling" in inspect.signature(AgentSession).parameters:
        turn_options: dict[str, Any] = {
            "turn_handling": {
                "turn_detection": "stt",
                "endpointing": {"min_delay": 0.0, "max_delay": 0.0},
                "preemptive_generation": {"enabled": preemptive},
                "interruption": {"mode": "vad", "resume_false_interruption": False},
            }
        }
    else:  # before 1.5
        turn_options = supported_options(
            AgentSession,
            turn_detection="stt",
            min_endpointing_delay=0.0,
            max_endpointing_delay=0.0,
            preemptive_generation=preemptive,
            resume_false_interruption=False,
        )
    other_options = supported_options(
        AgentSession, aec_warmup_duration=None, user_away_timeout=None, session_close_transcript_timeout=0.2
    )
    return AgentSession(stt=recognizer, llm=model, tts=SilentTTS(), vad=None, **turn_options, **other_options)  # type: ignore[arg-type]


@asynccontextmanager
async def open_call(
    agent: Agent, *script: str | tuple[str, str], preemptive: bool = False
) -> AsyncIterator[LiveKitCall]:
    """Start a call to the agent, and hang up at the end."""
    model, recognizer, audio_output = ScriptedLLM(*script), ScriptedSTT(), FakeAudioOutput()
    session = new_session(model, recognizer, preemptive=preemptive)
    session.output.audio = audio_output
    await session.start(agent, **supported_options(session.start, record=False))
    try:
        yield LiveKitCall(session, recognizer, model, audio_output)
    finally:
        await session.aclose()
