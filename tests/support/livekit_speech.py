"""Speech models for LiveKit sessions, which record how they are configured, and hear and speak as a test says."""

import asyncio
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from livekit import rtc
from livekit.agents import Agent, AgentSession, llm

from support.livekit_calls import FakeAudioOutput, supported_options

_RATE = 24_000
_SILENCE = b"\0\0" * (_RATE // 20)


class Configured:
    """What a speech model was last configured with."""

    def __init__(self) -> None:
        self.instructions = ""
        self.items: list[llm.ChatItem] = []
        self.tool_names: list[str] = []

    def take_tools(self, tools: list[Any]) -> None:
        infos = (getattr(tool, "info", None) or getattr(tool, "__livekit_agents_ai_callable") for tool in tools)
        self.tool_names = [info.name for info in infos]


class FakeRealtimeModel(llm.RealtimeModel):
    """A realtime model with turn detection of its own."""

    def __init__(self, *, mutable: str = "instructions chat_context tools") -> None:
        flags = {f"mutable_{part}": part in mutable.split() for part in ("instructions", "chat_context", "tools")}
        super().__init__(
            capabilities=llm.RealtimeCapabilities(
                message_truncation=False,
                turn_detection=True,
                user_transcription=True,
                **supported_options(
                    llm.RealtimeCapabilities,
                    auto_tool_reply_generation=True,
                    audio_output=True,
                    manual_function_calls=False,
                    **flags,
                ),
            )
        )
        self.configured = Configured()
        self.sessions: list[_FakeRealtimeSession] = []

    def session(self, **_: Any) -> "_FakeRealtimeSession":
        self.sessions.append(_FakeRealtimeSession(self))
        return self.sessions[-1]

    async def aclose(self) -> None:
        pass

    def hear(self, text: str, started_at: float | None = None, session: int = -1) -> None:
        """Report the transcript of what the caller said."""
        options = supported_options(llm.InputTranscriptionCompleted, turn_started_at=started_at)
        event = llm.InputTranscriptionCompleted(item_id=uuid.uuid4().hex, transcript=text, is_final=True, **options)
        self.sessions[session].emit("input_audio_transcription_completed", event)

    def speak(self, text: str, gate: asyncio.Event | None = None) -> None:
        """Speak; with a gate, only until it is set."""
        event = llm.GenerationCreatedEvent(
            message_stream=_single(_generation(text, gate)), function_stream=_nothing(), user_initiated=False
        )
        self.sessions[-1].emit("generation_created", event)


class _FakeRealtimeSession(llm.RealtimeSession):
    def __init__(self, model: FakeRealtimeModel) -> None:
        super().__init__(model)
        self._configured = model.configured
        self._chat_ctx = llm.ChatContext.empty()

    @property
    def chat_ctx(self) -> llm.ChatContext:
        return self._chat_ctx.copy()

    @property
    def tools(self) -> llm.ToolContext:
        return llm.ToolContext.empty()

    async def update_instructions(self, instructions: str) -> None:
        self._configured.instructions = instructions

    async def update_chat_ctx(self, chat_ctx: llm.ChatContext) -> None:
        self._chat_ctx = chat_ctx.copy()
        self._configured.items = list(chat_ctx.items)

    async def update_tools(self, tools: list[Any]) -> None:
        self._configured.take_tools(tools)

    def update_options(self, **_: Any) -> None:
        pass

    def push_audio(self, frame: rtc.AudioFrame) -> None:
        pass

    def push_video(self, frame: rtc.VideoFrame) -> None:
        pass

    def generate_reply(self, **_: Any) -> "asyncio.Future[llm.GenerationCreatedEvent]":
        raise NotImplementedError

    def commit_audio(self) -> None:
        pass

    def clear_audio(self) -> None:
        pass

    def interrupt(self) -> None:
        pass

    def truncate(self, **_: Any) -> None:
        pass

    async def aclose(self) -> None:
        pass


def new_duplex_model(configured: Configured) -> Any:
    """Return a duplex model that accepts no change once it runs (LiveKit 1.8 and newer)."""

    class FakeDuplexSession(llm.DuplexSession):
        @property
        def audio_stream(self) -> AsyncIterator[Any]:
            return _nothing()

        @property
        def tools(self) -> llm.ToolContext:
            return llm.ToolContext.empty()

        def push_audio(self, frame: rtc.AudioFrame) -> None:
            pass

        async def _update_instructions(self, instructions: str) -> None:
            configured.instructions = instructions

        async def _append_items(self, items: list[llm.ChatItem]) -> None:
            configured.items += items

        async def _update_tools(self, tools: list[Any]) -> None:
            configured.take_tools(tools)

        def _update_options(self, **_: Any) -> None:
            pass

    class FakeDuplexModel(llm.DuplexModel):
        def session(self) -> FakeDuplexSession:
            return FakeDuplexSession(self)

        async def aclose(self) -> None:
            pass

    return FakeDuplexModel(
        capabilities=llm.DuplexCapabilities(user_transcription=True, auto_tool_reply_generation=True)
    )


@asynccontextmanager
async def open_speech_call(agent: Agent, model: Any) -> AsyncIterator[AgentSession[Any]]:
    """Start a call with a speech model, and hang up at the end."""
    session: AgentSession[Any] = AgentSession(llm=model, vad=None)
    session.output.audio = FakeAudioOutput()
    await session.start(agent, **supported_options(session.start, record=False))
    try:
        yield session
    finally:
        await session.aclose()


def _generation(text: str, gate: asyncio.Event | None) -> llm.MessageGeneration:
    async def texts() -> AsyncIterator[str]:
        yield text

    async def audio() -> AsyncIterator[rtc.AudioFrame]:
        yield rtc.AudioFrame(_SILENCE, _RATE, 1, len(_SILENCE) // 2)
        if gate is not None:
            await gate.wait()

    modalities: asyncio.Future[list[Any]] = asyncio.get_running_loop().create_future()
    modalities.set_result(["audio", "text"])
    options = supported_options(llm.MessageGeneration, modalities=modalities)
    return llm.MessageGeneration(message_id=uuid.uuid4().hex, text_stream=texts(), audio_stream=audio(), **options)


async def _single(item: Any) -> AsyncIterator[Any]:
    yield item


async def _nothing() -> AsyncIterator[Any]:
    for item in ():
        yield item
