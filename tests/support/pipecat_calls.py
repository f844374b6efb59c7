"""Calls through real Pipecat pipelines: a caller who speaks in frames, a language model that answers by a script."""

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
    LLMTextFrame,
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

if TYPE_CHECKING:
    from typing_extensions import Self

WITHIN_S = 30.0


async def until(check: Callable[[], Any], within_s: float = WITHIN_S) -> Any:
    """Let the loop go on until ``check`` returns something true, and return that; fail at the deadline."""
    async with asyncio.timeout(within_s):
        while not (result := check()):
            await asyncio.sleep(0.005)
    return result


@dataclass
class Tool:
    """A part of an answer: the model calls a tool."""

    name: str
    call_id: str = "call_1"


@dataclass
class Pause:
    """A part of an answer: the model says nothing until it is let go on, or for good."""

    reached: asyncio.Event = field(default_factory=asyncio.Event)
    over: asyncio.Event = field(default_factory=asyncio.Event)


Part = str | Tool | Pause


class ScriptedLLM(LLMService[Any]):
    """A language model that gives the next of its answers to whatever it is asked, and tells what it was shown."""

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
        self.answers = [list(each) for each in answers]
        self.shown: list[list[Any]] = []
        self.contexts: list[LLMContext] = []

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        await super().process_frame(frame, direction)
        if not isinstance(frame, LLMContextFrame):
            await self.push_frame(frame, direction)
            return
        self.contexts.append(frame.context)
        self.shown.append([dict(each) for each in frame.context.get_messages()])
        await self.push_frame(LLMFullResponseStartFrame())
        try:
            for part in self.answers.pop(0) if self.answers else ["Yes."]:
                await self._give(part, frame.context)
        finally:
            await self.push_frame(LLMFullResponseEndFrame())

    async def _give(self, part: Part, context: LLMContext) -> None:
        if isinstance(part, Tool):
            call = FunctionCallFromLLM(
                function_name=part.name, tool_call_id=part.call_id, arguments={}, context=context
            )
            await self.run_function_calls([call])
        elif isinstance(part, Pause):
            part.reached.set()
            await part.over.wait()
        else:
            await self.push_frame(LLMTextFrame(part))


class Sink(FrameProcessor):
    """What reaches the end of the pipeline."""

    def __init__(self) -> None:
        super().__init__()
        self.frames: list[Frame] = []

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        await super().process_frame(frame, direction)
        if direction is FrameDirection.DOWNSTREAM:
            self.frames.append(frame)
        await self.push_frame(frame, direction)


class Call:
    """A call as a context: the pipeline runs in it, and has ended behind it."""

    def __init__(
        self,
        memory: FrameProcessor | None,
        *answers: Sequence[Part],
        context: LLMContext | None = None,
        llm: ScriptedLLM | None = None,
        user_turns: Any = None,
        within: Callable[[FrameProcessor], FrameProcessor] = lambda llm: llm,
        between: Sequence[FrameProcessor] = (),
    ) -> None:
        self.context = context or LLMContext([{"role": "system", "content": "You sell boots."}])
        turns = user_turns or UserTurnStrategies(
            start=[ExternalUserTurnStartStrategy()], stop=[ExternalUserTurnStopStrategy(timeout=0.01)]
        )
        self.pair = LLMContextAggregatorPair(
            self.context, user_params=LLMUserAggregatorParams(user_turn_strategies=turns)
        )
        self.llm = llm or ScriptedLLM(answers)
        self.sink = Sink()
        self.heard: list[str] = []
        self.pair.assistant().add_event_handler("on_assistant_turn_stopped", self._note)
        steps = [self.pair.user(), memory, within(self.llm), *between, self.pair.assistant(), self.sink]
        self.worker = PipelineWorker(
            Pipeline([each for each in steps if each is not None]), cancel_on_idle_timeout=False, enable_rtvi=False
        )
        self._started = asyncio.Event()
        self.worker.add_event_handler("on_pipeline_started", lambda *_: self._started.set())
        self._running: asyncio.Task[None] | None = None

    async def __aenter__(self) -> "Self":
        runner = WorkerRunner(handle_sigint=False)
        await runner.add_workers(self.worker)
        self._running = asyncio.create_task(runner.run())
        await asyncio.wait_for(self._started.wait(), WITHIN_S)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        assert self._running is not None
        if not self._running.done():
            await (self.end() if kind is None else self.hang_up())

    async def end(self) -> None:
        """End the call in good order."""
        await self.tell(EndFrame())
        await self._has_ended()

    async def hang_up(self) -> None:
        """Break the call off."""
        await self.worker.cancel()
        await self._has_ended()

    async def cancel_frame(self) -> None:
        """Break the call off by a frame."""
        await self.tell(CancelFrame())
        await self._has_ended()

    async def tell(self, *frames: Frame) -> None:
        """Put frames into the pipeline."""
        await self.worker.queue_frames(frames)

    async def say(self, text: str) -> None:
        """Speak, without waiting for an answer."""
        await self.tell(
            UserStartedSpeakingFrame(),
            TranscriptionFrame(text, "caller", "2026-01-01T00:00:00Z"),
            UserStoppedSpeakingFrame(),
        )

    async def type(self, text: str) -> None:
        """Write, without waiting for an answer."""
        await self.tell(LLMMessagesAppendFrame([{"role": "user", "content": text}], run_llm=True))

    async def ask(self, text: str) -> None:
        """Speak, and wait until the answer has been heard."""
        before = len(self.heard)
        await self.say(text)
        await until(lambda: len(self.heard) > before)

    async def interrupt(self) -> None:
        """Cut in on the agent, and wait until it has fallen silent."""
        before = len(self.heard)
        await self.tell(InterruptionFrame())
        await until(lambda: len(self.heard) > before)

    def _note(self, _: object, message: Any) -> None:
        self.heard.append(message.content or "")

    async def _has_ended(self) -> None:
        assert self._running is not None
        await asyncio.wait_for(self._running, WITHIN_S)
