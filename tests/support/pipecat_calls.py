"""Calls through real Pipecat pipelines: a caller who sends frames, and a language model with a script."""

import asyncio
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import TYPE_CHECKING, Any

from pipecat.frames.frames import (
    CancelFrame,
    EndFrame,
    Frame,
    InterruptionFrame,
    LLMContextFrame,
    LLMFullResponseEndFrame,
    LLMFullResponseStartFrame,
    LLMMessagesAppendFrame,
    TranscriptionFrame,
    UserStartedSpeakingFrame,
    UserStoppedSpeakingFrame,
)
from pipecat.pipeline.pipeline import Pipeline
from pipecat.pipeline.worker import PipelineWorker
from pipecat.processors.aggregators.llm_context import LLMContext
from pipecat.processors.aggregators.llm_response_universal import LLMContextAggregatorPair, LLMUserAggregatorParams
from pipecat.processors.frame_processor import FrameDirection, FrameProcessor
from pipecat.services.llm_service import FunctionCallFromLLM, LLMService
from pipecat.services.settings import LLMSettings
from pipecat.turns.user_start import ExternalUserTurnStartStrategy
from pipecat.turns.user_stop import ExternalUserTurnStopStrategy
from pipecat.turns.user_turn_strategies import UserTurnStrategies
from pipecat.workers.runner import WorkerRunner

from support.waiting import wait_until

if TYPE_CHECKING:
    from typing_extensions import Self

TIMEOUT_S = 30.0


@dataclass
class ScriptedToolCall:
    """A part of an answer: the model calls a tool."""

    name: str
    call_id: str = "call_1"


@dataclass
class Pause:
    """A part of an answer: the model pauses until ``resume`` is set, if ever."""

    reached: asyncio.Event = field(default_factory=asyncio.Event)
    resume: asyncio.Event = field(default_factory=asyncio.Event)


Part = str | ScriptedToolCall | Pause


class ScriptedLLM(LLMService[Any]):
    """A language model that gives the next of its answers to each request, and records the requests."""

    def __init__(self, answers: Iterable[Sequence[Part]], **options: Any) -> None:
        settings = LLMSettings(
            model="scripted",
            system_instruction=None,
            temperature=None,
            max_tokens=None,
            top_p=None,
            top_k=None,
            frequency_penalty=None,
            presence_penalty=None,
            seed=None,
            filter_incomplete_user_turns=False,
            user_turn_completion_config=None,
        )
        super().__init__(settings=settings, **options)
        self.answers = [list(answer) for answer in answers]
        self.requests: list[list[Any]] = []
        self.contexts: list[LLMContext] = []

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        await super().process_frame(frame, direction)
        if not isinstance(frame, LLMContextFrame):
            await self.push_frame(frame, direction)
            return
        self.contexts.append(frame.context)
        self.requests.append([dict(message) for message in frame.context.get_messages()])
        await self.push_frame(LLMFullResponseStartFrame())
        try:
            for part in self.answers.pop(0) if self.answers else ["Yes."]:
                await self._emit_part(part, frame.context)
        finally:
            await self.push_frame(LLMFullResponseEndFrame())

    async def _emit_part(self, part: Part, context: LLMContext) -> None:
        if isinstance(part, ScriptedToolCall):
            call = FunctionCallFromLLM(
                function_name=part.name, tool_call_id=part.call_id, arguments={}, context=context
            )
            await self.run_function_calls([call])
        elif isinstance(part, Pause):
            part.reached.set()
            await part.resume.wait()
        else:
            await self._push_llm_text(part)  # which follows turn markers


class Sink(FrameProcessor):
    """Collects the frames that reach the end of the pipeline."""

    def __init__(self) -> None:
        super().__init__()
        self.frames: list[Frame] = []

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        await super().process_frame(frame, direction)
        if direction is FrameDirection.DOWNSTREAM:
            self.frames.append(frame)
        await self.push_frame(frame, direction)


class PipecatCall:
    """A call as a context manager: the pipeline runs in its block, and has ended after it."""

    def __init__(
        self,
        memory: FrameProcessor | None,
        *answers: Sequence[Part],
        context: LLMContext | None = None,
        llm: ScriptedLLM | None = None,
        turn_strategies: Any = None,
        wrap_llm: Callable[[FrameProcessor], FrameProcessor] = lambda llm: llm,
        after_llm: Sequence[FrameProcessor] = (),
        assistant_params: Any = None,
        worker_options: Any = None,
        **user_params: Any,
    ) -> None:
        self.context = context or LLMContext([{"role": "system", "content": "You sell boots."}])
        strategies = turn_strategies or UserTurnStrategies(
            start=[ExternalUserTurnStartStrategy()], stop=[ExternalUserTurnStopStrategy(timeout=0.01)]
        )
        self.pair = LLMContextAggregatorPair(
            self.context,
            user_params=LLMUserAggregatorParams(user_turn_strategies=strategies, **user_params),
            **({"assistant_params": assistant_params} if assistant_params else {}),
        )
        self.llm = llm or ScriptedLLM(answers)
        self.sink = Sink()
        self.heard_texts: list[str] = []
        self.pair.assistant().add_event_handler("on_assistant_turn_stopped", self._record_heard_text)
        processors = [self.pair.user(), memory, wrap_llm(self.llm), *after_llm, self.pair.assistant(), self.sink]
        self.worker = PipelineWorker(
            Pipeline([processor for processor in processors if processor is not None]),
            cancel_on_idle_timeout=False,
            enable_rtvi=False,
            **(worker_options or {}),
        )
        self._started = asyncio.Event()
        self.worker.add_event_handler("on_pipeline_started", lambda *_: self._started.set())
        self._running: asyncio.Task[None] | None = None

    async def __aenter__(self) -> "Self":
        runner = WorkerRunner(handle_sigint=False)
        await runner.add_workers(self.worker)
        self._running = asyncio.create_task(runner.run())
        await asyncio.wait_for(self._started.wait(), TIMEOUT_S)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        assert self._running is not None
        if not self._running.done():
            await (self.end() if kind is None else self.hang_up())

    async def end(self) -> None:
        """End the call normally."""
        await self.queue_frames(EndFrame())
        await self._wait_finished()

    async def hang_up(self) -> None:
        """Cancel the pipeline."""
        await self.worker.cancel()
        await self._wait_finished()

    async def cancel_with_frame(self) -> None:
        """Cancel the pipeline by a frame."""
        await self.queue_frames(CancelFrame())
        await self._wait_finished()

    async def queue_frames(self, *frames: Frame) -> None:
        """Queue frames into the pipeline."""
        await self.worker.queue_frames(frames)

    async def say(self, text: str) -> None:
        """Speak without waiting for an answer."""
        await self.queue_frames(
            UserStartedSpeakingFrame(),
            TranscriptionFrame(text, "caller", "2026-01-01T00:00:00Z"),
            UserStoppedSpeakingFrame(),
        )

    async def type_text(self, text: str) -> None:
        """Type without waiting for an answer."""
        await self.queue_frames(LLMMessagesAppendFrame([{"role": "user", "content": text}], run_llm=True))

    async def say_and_wait(self, text: str) -> None:
        """Speak, and wait until the answer has been heard."""
        before = len(self.heard_texts)
        await self.say(text)
        await wait_until(lambda: len(self.heard_texts) > before)

    async def interrupt(self) -> None:
        """Interrupt the agent, and wait until it is silent."""
        before = len(self.heard_texts)
        await self.queue_frames(InterruptionFrame())
        await wait_until(lambda: len(self.heard_texts) > before)

    def _record_heard_text(self, _: object, message: Any) -> None:
        self.heard_texts.append(message.content or "")

    async def _wait_finished(self) -> None:
        assert self._running is not None
        await asyncio.wait_for(self._running, TIMEOUT_S)
