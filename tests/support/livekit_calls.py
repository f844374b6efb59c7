"""Real LiveKit sessions whose caller, language model and loudspeaker are played by the test."""

import asyncio
import inspect
import time
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from livekit import rtc
from livekit.agents import Agent, AgentSession, llm, stt, tts
from livekit.agents.types import DEFAULT_API_CONNECT_OPTIONS
from livekit.agents.voice import io
from livekit.agents.voice.io import AudioOutput

T = TypeVar("T")

_RATE = 24_000
AudioOutputCapabilities = getattr(io, "AudioOutputCapabilities", None)  # since 1.2


async def soon(check: Callable[[], T], within_s: float = 30.0) -> T:
    """Let the event loop go on until ``check`` returns something true, and return that; fail at the deadline."""
    deadline = time.monotonic() + within_s
    while True:
        result = check()
        if result:
            return result
        assert time.monotonic() < deadline, f"did not come true within {within_s} s"
        await asyncio.sleep(0.005)


class ScriptedLLM(llm.LLM):
    """Answers each request with the next of what it was told to say: a text, or a tool's name; then with "Noted."."""

    def __init__(self, *script: str | tuple[str, str]) -> None:
        """A tuple is a text and the tool that is called after it."""
        super().__init__()
        self.script = list(script)
        self.gate = asyncio.Event()  # while it is closed, no answer begins
        self.gate.set()
        self.asked: list[list[tuple[str, str]]] = []  # of each request, the role and text of its messages
        self.asked_at: list[float] = []

    def chat(
        self,
        *,
        chat_ctx: llm.ChatContext,
        tools: list[Any] | None = None,
        conn_options: Any = DEFAULT_API_CONNECT_OPTIONS,
        **_: Any,
    ) -> llm.LLMStream:
        self.asked_at.append(time.perf_counter())
        self.asked.append([(item.role, item.text_content or "") for item in chat_ctx.items if item.type == "message"])
        return _Stream(self, chat_ctx=chat_ctx, tools=tools or [], conn_options=conn_options)


class _Stream(llm.LLMStream):
    async def _run(self) -> None:
        model = self._llm
        assert isinstance(model, ScriptedLLM)
        await model.gate.wait()
        said = model.script.pop(0) if model.script else "Noted."
        text, tool = said if isinstance(said, tuple) else (said, None)
        for word in text.split(" "):
            self._send(content=f"{word} ")
        if tool is not None:
            call = llm.FunctionToolCall(name=tool, arguments="{}", call_id=uuid.uuid4().hex)
            self._send(tool_calls=[call])

    def _send(self, **delta: Any) -> None:
        self._event_ch.send_nowait(llm.ChatChunk(id=uuid.uuid4().hex, delta=llm.ChoiceDelta(role="assistant", **delta)))


class ScriptedSTT(stt.STT):
    """Hears what the test says."""

    def __init__(self) -> None:
        super().__init__(capabilities=stt.STTCapabilities(streaming=True, interim_results=True))
        self.heard: asyncio.Queue[stt.SpeechEvent] = asyncio.Queue()

    async def _recognize_impl(self, *_: Any, **__: Any) -> stt.SpeechEvent:
        raise NotImplementedError

    def stream(self, *, conn_options: Any = DEFAULT_API_CONNECT_OPTIONS, **_: Any) -> "_Hearing":
        return _Hearing(stt=self, conn_options=conn_options)

    def hears(self, kind: stt.SpeechEventType, text: str = "") -> None:
        """Tell the session one event of the caller's speech."""
        data = [stt.SpeechData(language="en", text=text, confidence=1.0)] if text else []  # type: ignore[arg-type]
        self.heard.put_nowait(stt.SpeechEvent(type=kind, alternatives=data))

    def says(self, text: str) -> None:
        """Tell the session a whole turn."""
        self.hears(stt.SpeechEventType.START_OF_SPEECH)
        self.hears(stt.SpeechEventType.FINAL_TRANSCRIPT, text)
        self.hears(stt.SpeechEventType.END_OF_SPEECH)


class _Hearing(stt.RecognizeStream):
    async def _run(self) -> None:
        listener = self._stt
        assert isinstance(listener, ScriptedSTT)
        while True:
            self._event_ch.send_nowait(await listener.heard.get())


class Tone(tts.TTS):
    """Speaks any text as a moment of silence."""

    def __init__(self) -> None:
        super().__init__(capabilities=tts.TTSCapabilities(streaming=False), sample_rate=_RATE, num_channels=1)

    def synthesize(self, text: str, *, conn_options: Any = DEFAULT_API_CONNECT_OPTIONS) -> tts.ChunkedStream:
        return _Speaking(tts=self, input_text=text, conn_options=conn_options)


class _Speaking(tts.ChunkedStream):
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


class Loudspeaker(AudioOutput):
    """Plays at once; or, where the test says so, until it is interrupted, when it tells what was heard."""

    def __init__(self) -> None:
        kind = {"capabilities": AudioOutputCapabilities(pause=False)} if AudioOutputCapabilities else {}
        super().__init__(**known(AudioOutput.__init__, label="test"), **kind, sample_rate=_RATE)
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
                **known(self.on_playback_finished, synchronized_transcript=self.heard_until_interrupted),
            )


class Call:
    """A caller on the line of a real session."""

    def __init__(self, session: AgentSession[Any], ear: ScriptedSTT, model: ScriptedLLM, mouth: Loudspeaker) -> None:
        self.session = session
        self.stt = ear
        self.llm = model
        self.audio = mouth

    def begins_to_say(self, text: str) -> None:
        """The caller speaks, and has probably said this, but he may go on."""
        self.stt.hears(stt.SpeechEventType.START_OF_SPEECH)
        self.stt.hears(stt.SpeechEventType.PREFLIGHT_TRANSCRIPT, text)

    def hears_more(self, text: str) -> None:
        """The caller has said this, and goes on."""
        self.stt.hears(stt.SpeechEventType.FINAL_TRANSCRIPT, text)

    def has_said(self, text: str = "") -> None:
        """The caller's turn is over, and this is what he said at last."""
        if text:
            self.hears_more(text)
        self.stt.hears(stt.SpeechEventType.END_OF_SPEECH)

    async def says(self, text: str) -> list[tuple[str, str]]:
        """A whole spoken turn; return what the language model was asked for it, once the agent has answered."""
        requests, answers = len(self.llm.asked), len(self.items("assistant"))
        self.stt.says(text)
        await soon(lambda: len(self.items("assistant")) > answers)
        return self.llm.asked[requests]

    async def types(self, text: str) -> list[tuple[str, str]]:
        """A typed turn, as from the chat of a room."""
        requests = len(self.llm.asked)
        await self.session.generate_reply(user_input=text)
        return self.llm.asked[requests]

    def items(self, role: str) -> list[llm.ChatMessage]:
        """What was said by one side so far."""
        return [each for each in self.session.history.items if each.type == "message" and each.role == role]


def known(callee: Callable[..., Any], **options: Any) -> dict[str, Any]:
    """Those of the options that a callee of this version of LiveKit knows."""
    parameters = inspect.signature(callee).parameters
    return {name: value for name, value in options.items() if name in parameters}


def new_session(model: ScriptedLLM, ear: ScriptedSTT, *, preemptive: bool = False) -> AgentSession[Any]:
    """A session whose turns end when the STT says so, and at once."""
    if "turn_handling" in inspect.signature(AgentSession).parameters:
        turns: dict[str, Any] = {
            "turn_handling": {
                "turn_detection": "stt",
                "endpointing": {"min_delay": 0.0, "max_delay": 0.0},
                "preemptive_generation": {"enabled": preemptive},
                "interruption": {"mode": "vad", "resume_false_interruption": False},
            }
        }
    else:  # before 1.5
        turns = known(
            AgentSession,
            turn_detection="stt",
            min_endpointing_delay=0.0,
            max_endpointing_delay=0.0,
            preemptive_generation=preemptive,
            resume_false_interruption=False,
        )
    others = known(AgentSession, aec_warmup_duration=None, user_away_timeout=None, session_close_transcript_timeout=0.2)
    return AgentSession(stt=ear, llm=model, tts=Tone(), vad=None, **turns, **others)  # type: ignore[arg-type]


@asynccontextmanager
async def calling(agent: Agent, *script: str | tuple[str, str], preemptive: bool = False) -> AsyncIterator[Call]:
    """A call to the agent; it is hung up at the end."""
    model, ear, mouth = ScriptedLLM(*script), ScriptedSTT(), Loudspeaker()
    session = new_session(model, ear, preemptive=preemptive)
    session.output.audio = mouth
    await session.start(agent, **known(session.start, record=False))
    try:
        yield Call(session, ear, model, mouth)
    finally:
        await session.aclose()
