"""The processor: recalls before the language model answers, and keeps what was said."""

import asyncio
import time
from collections.abc import Callable, Iterator, Mapping
from functools import wraps
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec

from pipecat.frames.frames import (
    CancelFrame,
    Frame,
    FunctionCallCancelFrame,
    FunctionCallInProgressFrame,
    FunctionCallResultFrame,
    FunctionCallsStartedFrame,
    InterruptionFrame,
    LLMContextFrame,
    LLMFullResponseStartFrame,
)
from pipecat.processors.aggregators.llm_context import LLMContext
from pipecat.processors.aggregators.llm_response_universal import (
    AssistantTurnStoppedMessage,
    LLMAssistantAggregator,
    LLMUserAggregator,
)
from pipecat.processors.frame_processor import FrameDirection, FrameProcessor, FrameProcessorSetup
from pipecat.services.llm_service import LLMService

import memoair_pipecat._identity as identity
from memoair_pipecat._context import RecalledContext, UserMessageTracker, find_question, make_recall_message
from memoair_pipecat._log import error_code, log
from memoair_pipecat._turn_assembler import PipecatTurn, PipecatTurnAssembler
from memoair_pipecat._turn_writer import TurnWriter
from memoair_voice import MemoAirVoiceClient

if TYPE_CHECKING:
    from typing_extensions import Self

P = ParamSpec("P")

_MAX_QUERY_CHARS = 4_000
# The client answers within its deadline; this is for one whose threads are all taken.
_THREAD_GRACE_S = 0.02
# A caller who speaks at once is waited for until his memory is ready, for this part of the deadline.
_LOAD_WAIT_SHARE = 0.6


def _log_failures(
    method: Callable[Concatenate["MemoAirMemoryProcessor", P], None],
) -> Callable[Concatenate["MemoAirMemoryProcessor", P], None]:
    """Let nothing of ours fail in the pipeline, which would log what was said with the error."""

    @wraps(method)
    def call(self: "MemoAirMemoryProcessor", /, *args: P.args, **kwargs: P.kwargs) -> None:
        try:
            method(self, *args, **kwargs)
        except Exception as error:  # noqa: BLE001 - see above
            log.error("a part of the call is missed: action=listen_failed code=%s", error_code(error))

    return call


class MemoAirMemoryProcessor(FrameProcessor):
    """The memory of one caller in one pipeline: put it between the user's context aggregator and the language model.

    What is known for what the caller has said is recalled within ``timeout_ms`` and put before his words, for the model
    only and for this turn only: as one message with the caller's role, fenced as background. The conversation's context
    itself is never changed. Where nothing is recalled, nothing is put there; where the memory fails, the frame goes on
    without. What caller and agent say is saved behind the frames, in order, as far as the agent was heard (an
    interrupted answer is flagged); it listens to the assistant's context aggregator of the same pipeline by itself.
    When the pipeline ends, however it ends, what is not saved yet is, within ``flush_timeout_s``.

    ``client`` is a `MemoAirVoiceClient` that serves many pipelines and is closed by its owner. Without it, the
    processor makes one of its own, and closes it, from ``api_key``, ``project_id``, ``agent_id``, ``cloud_base_url``,
    ``storage_root``, ``runtime_binary``, ``org_only`` and whatever else in ``client_options`` the client takes; or from
    ``agent``, an object that has such attributes. ``user`` is who calls, ``{"id", "name", "metadata"}``; ``user_id``
    is another way to name his id. ValueError and TypeError tell of arguments that can't be.

    Like every processor it belongs to one pipeline and its event loop.
    """

    def __init__(
        self,
        *,
        client: MemoAirVoiceClient | None = None,
        user: Mapping[str, Any] | None = None,
        user_id: str | None = None,
        agent: object | None = None,
        api_key: str | None = None,
        project_id: str | None = None,
        agent_id: str | None = None,
        cloud_base_url: str | None = identity.DEFAULT_CLOUD_BASE_URL,
        storage_root: str | None = None,
        runtime_binary: str | None = None,
        org_only: bool = False,
        timeout_ms: float = 250,
        flush_timeout_s: float = 5.0,
        name: str | None = None,
        **client_options: Any,
    ) -> None:
        super().__init__(name=name)
        for argument, value in (("timeout_ms", timeout_ms), ("flush_timeout_s", flush_timeout_s)):
            if isinstance(value, bool) or not isinstance(value, int | float):
                raise TypeError(f"{argument} must be a number, not {type(value).__name__}")
            if not 0 < value < float("inf"):
                raise ValueError(f"{argument} must be positive and finite, not {value}")
        identity_arguments: dict[str, Any] = {"api_key": api_key, "project_id": project_id, "agent_id": agent_id}
        if agent is not None:
            if duplicates := [each for each, value in identity_arguments.items() if value is not None]:
                raise ValueError(f"agent says what {', '.join(duplicates)} is; give one of them")
            agent_identity = identity.read_agent(agent)
            if user is None and user_id is None:
                user_id = agent_identity.get("user_id")
            if cloud_base_url == identity.DEFAULT_CLOUD_BASE_URL:
                cloud_base_url = agent_identity.get("cloud_base_url", cloud_base_url)
            org_only = org_only or bool(agent_identity.get("org_only"))
            identity_arguments = {each: agent_identity[each] for each in identity_arguments}
        more_arguments = {"storage_root": storage_root, "runtime_binary": runtime_binary, **client_options}
        self._user = identity.resolve_user(user, user_id, required=not org_only)
        self._owns_client = client is None
        if client is None:
            client = identity.make_client(
                {**identity_arguments, **more_arguments, "cloud_base_url": cloud_base_url, "org_only": org_only}
            )
        elif not isinstance(client, MemoAirVoiceClient):
            raise TypeError(f"client must be a memoair_voice.MemoAirVoiceClient, not {type(client).__name__}")
        elif unused := [
            each for each, value in {**identity_arguments, **more_arguments, "org_only": org_only}.items() if value
        ]:
            raise ValueError(f"client= is what it was made of; {', '.join(unused)} would change nothing")
        self._client = client
        self._timeout_ms = timeout_ms
        self._flush_timeout_s = flush_timeout_s

        self._context: LLMContext | None = None  # the conversation's own
        self._user_messages = UserMessageTracker()
        self._turn_assembler = PipecatTurnAssembler()
        self._assistant_aggregators: list[FrameProcessor] = []
        self._recall_message: dict[str, str] | None = None  # for what the caller has said last
        self._model_reads_context = True
        self._recall_question: Any = None  # the message in which he has said it
        self._turn_writer = TurnWriter(client, self._user)
        self._load_task: asyncio.Task[None] | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._is_cleaned_up = False

    @classmethod
    def from_env(cls, environ: Mapping[str, str] | None = None, **overrides: Any) -> "Self":
        """Make one, with a client of its own, from the environment; what is ``given`` comes first.

        ``MEMOAIR_API_KEY``, ``MEMOAIR_PROJECT_ID`` and ``MEMOAIR_AGENT_ID`` are needed, and ``MEMOAIR_USER_ID`` where
        no ``user`` is given; ``MEMOAIR_BASE_URL`` (empty: no cloud), ``MEMOAIR_RUNTIME_BINARY`` and
        ``MEMOAIR_ORG_ONLY`` (1 or 0) are not. ``environ`` stands in for ``os.environ``.
        """
        arguments = identity.read_environment(environ)
        if overrides.get("user") is not None or overrides.get("user_id") is not None:
            arguments.pop("user_id", None)
        return cls(**{**arguments, **overrides})

    def listen_to(self, aggregator: LLMAssistantAggregator) -> None:
        """Keep what this aggregator hears the agent say: for one that is not in the same pipeline. Twice is no harm."""
        if aggregator in self._assistant_aggregators:
            return
        self._assistant_aggregators.append(aggregator)
        aggregator.add_event_handler("on_before_process_frame", self._on_aggregator_frame)
        aggregator.add_event_handler("on_assistant_turn_started", self._on_answer_started)
        aggregator.add_event_handler("on_assistant_turn_stopped", self._on_answer_stopped)

    async def setup(self, setup: FrameProcessorSetup) -> None:  # type: ignore[override] # as FrameProcessor's own
        """Find the neighbours, make the caller's memory ready, and begin to save, all before the first frame."""
        await super().setup(setup)
        self._find_neighbors(setup)
        self._load_task = self.create_task(self._load_memory(), "memoair_makes_ready")
        self._tasks = [self._load_task, self.create_task(self._turn_writer.run(), "memoair_saves")]

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        """Put what is recalled into what goes to the language model; every frame is handed on."""
        await super().process_frame(frame, direction)
        if isinstance(frame, LLMContextFrame) and direction is FrameDirection.DOWNSTREAM:
            await self._add_recall(frame)
        elif isinstance(frame, InterruptionFrame | CancelFrame):
            # It comes by here before the model, which then closes its answer as if that were complete.
            self._turn_assembler.on_answer_interrupted()
        elif getattr(frame, "is_realtime_service", False):  # of a model that hears the caller by itself
            self._model_reads_context = False
        await self.push_frame(frame, direction)

    async def cleanup(self) -> None:
        """Save what is not saved yet, end what was begun, and close the client if it is our own."""
        await super().cleanup()  # type: ignore[no-untyped-call]
        if self._is_cleaned_up:
            return
        # All that the aggregators had to tell at the end, they have told: the last frame has gone through them to the
        # end of the pipeline before anything is cleaned up, and handlers begin in the order of the events.
        self._flush_turns()
        self._is_cleaned_up = True
        self._turn_writer.stop()
        try:
            if self._tasks:
                await asyncio.wait(self._tasks, timeout=self._flush_timeout_s)
            if len(self._turn_writer):
                log.error("turns are lost: action=flush_timeout turns=%d", len(self._turn_writer))
        finally:
            for task in self._tasks:
                if not task.done():
                    await self.cancel_task(task)
            if self._owns_client:
                await self._close_client()

    # What is recalled

    async def _add_recall(self, frame: LLMContextFrame) -> None:
        try:
            if self._context is None:  # no aggregator was found: this is the conversation's
                self._context = frame.context
                self._user_messages.skip(frame.context, keep_unanswered=True)
            # The words of a turn that is only expected to have ended are kept when it has.
            self._collect_user_texts()
            if not self._model_reads_context:
                return
            question_message, query = find_question(frame.context)
            if question_message is not None and question_message is not self._recall_question:
                self._recall_message = await self._search(query) if query else None
                self._recall_question = question_message
            if self._recall_message is not None:
                frame.context = RecalledContext(frame.context, self._recall_message)
        except Exception as error:  # noqa: BLE001 - the frame goes on, whatever fails here
            log.error("a turn goes without memory: action=recall_failed code=%s", error_code(error))

    async def _search(self, query: str) -> dict[str, str] | None:
        began_at = time.monotonic()
        try:
            async with asyncio.timeout(self._timeout_ms / 1e3 + _THREAD_GRACE_S):
                if self._load_task is not None and not self._load_task.done():
                    await asyncio.wait([self._load_task], timeout=self._timeout_ms / 1e3 * _LOAD_WAIT_SHARE)
                remaining_ms = self._timeout_ms - (time.monotonic() - began_at) * 1e3
                found = await self._client.search_memory(
                    query[-_MAX_QUERY_CHARS:], user=self._user, timeout_ms=max(1.0, remaining_ms)
                )
        except Exception as error:  # noqa: BLE001 - a full pool, a closed client: the answer is given without
            waited_ms = (time.monotonic() - began_at) * 1e3
            log.warning("nothing was recalled: action=recall_failed code=%s ms=%.0f", error_code(error), waited_ms)
            return None
        return make_recall_message(found.contextText) if found.contextText.strip() else None

    @_log_failures
    def _on_model_frame(self, _: FrameProcessor, frame: Frame) -> None:
        """Put it also into what comes to the model from behind: the context with the results of its tools."""
        if isinstance(frame, LLMContextFrame) and frame.context is self._context and self._recall_message is not None:
            frame.context = RecalledContext(frame.context, self._recall_message)

    # What is said

    def _collect_user_texts(self) -> bool:
        """Take in what the caller has said since; tell whether he has said anything."""
        new_texts = self._user_messages.read_new_texts(self._context) if self._context is not None else []
        for text in new_texts:
            self._save_turn(self._turn_assembler.on_user_text(text))
        return bool(new_texts)

    @_log_failures
    def _on_aggregator_frame(self, _: FrameProcessor, frame: Frame) -> None:
        """See, in the order of the aggregator, which answers will go on."""
        if isinstance(frame, LLMFullResponseStartFrame):
            self._collect_user_texts()  # of a turn that was answered before it was known to have ended
            self._turn_assembler.on_model_started()
        elif isinstance(frame, FunctionCallsStartedFrame):
            for call in frame.function_calls:
                self._turn_assembler.on_tool_called(call.tool_call_id, call.function_name)
        elif isinstance(frame, FunctionCallResultFrame):
            self._turn_assembler.on_tool_result(frame.tool_call_id)
        elif isinstance(frame, FunctionCallCancelFrame) or (
            isinstance(frame, FunctionCallInProgressFrame) and not frame.cancel_on_interruption
        ):
            self._turn_assembler.on_tool_detached(frame.tool_call_id)

    @_log_failures
    def _on_answer_started(self, _: FrameProcessor) -> None:
        self._turn_assembler.on_answer_started()

    @_log_failures
    def _on_answer_stopped(self, _: FrameProcessor, message: AssistantTurnStoppedMessage) -> None:
        if self._turn_assembler.is_agent_initiated and self._collect_user_texts():
            self._turn_assembler.on_answer_started()  # realtime services report it only now
        self._save_turn(
            self._turn_assembler.on_answer_stopped(
                (message.content or "").strip(), interrupted=bool(message.interrupted)
            )
        )

    def _save_turn(self, turn: PipecatTurn | None) -> None:
        if turn is not None:
            self._turn_writer.add(turn)

    @_log_failures
    def _flush_turns(self) -> None:
        self._collect_user_texts()
        for turn in self._turn_assembler.flush():
            self._turn_writer.add(turn)

    # Beginning and end

    @_log_failures
    def _find_neighbors(self, setup: FrameProcessorSetup) -> None:
        """Find the aggregators of the conversation and the models behind us, wherever in the pipeline they are."""
        processors = list(_leaf_processors(setup.pipeline_worker.pipeline))
        position = processors.index(self) if self in processors else 0
        for before in reversed(processors[:position]):
            if isinstance(before, LLMUserAggregator):
                self._context = before.context
                self._user_messages.skip(before.context)
                break
        assistants = [each for each in processors if isinstance(each, LLMAssistantAggregator)]
        if self._context is not None:
            assistants = [each for each in assistants if each.context is self._context]
        for each in assistants:
            self.listen_to(each)
        if not self._assistant_aggregators:
            log.warning("no aggregator hears the agent, so only the caller is kept: action=no_assistant_aggregator")
        for behind in processors[position:]:
            if isinstance(behind, LLMService):
                behind.add_event_handler("on_before_process_frame", self._on_model_frame)

    async def _load_memory(self) -> None:
        try:
            await self._client.load_index(user=self._user, timeout_s=self._flush_timeout_s)
        except Exception as error:  # noqa: BLE001 - then the first search makes it ready
            log.warning("a caller's memory is not ready: action=load_failed code=%s", error_code(error))

    async def _close_client(self) -> None:
        try:
            await self._client.aclose()
        except Exception as error:  # noqa: BLE001 - the pipeline ends all the same
            log.error("the client did not close: action=close_failed code=%s", error_code(error))


def _leaf_processors(processor: FrameProcessor) -> Iterator[FrameProcessor]:
    """The processors of a pipeline, without those that are made of others, from its beginning to its end."""
    children = processor.processors
    if not children:
        yield processor
    for each in children:
        yield from _leaf_processors(each)
