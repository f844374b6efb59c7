"""The processor: recalls before the language model answers, and saves what was said."""

import asyncio
import logging
import uuid
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pipecat.frames.frames import (
    CancelFrame,
    Frame,
    FunctionCallCancelFrame,
    FunctionCallInProgressFrame,
    FunctionCallResultFrame,
    FunctionCallsStartedFrame,
    InterruptionFrame,
    LLMContextFrame,
    LLMContextSummaryResultFrame,
    LLMFullResponseStartFrame,
    LLMMarkerFrame,
    LLMSummarizeContextFrame,
)
from pipecat.processors.aggregators.llm_context import LLMContext
from pipecat.processors.aggregators.llm_response_universal import (
    AssistantTurnStoppedMessage,
    LLMAssistantAggregator,
    LLMUserAggregator,
)
from pipecat.processors.frame_processor import FrameDirection, FrameProcessor, FrameProcessorSetup
from pipecat.services.llm_service import LLMService

from memoair_pipecat._arguments import check_positive, choose_client, choose_identity
from memoair_pipecat._call_id import find_call_id
from memoair_pipecat._context import UserMessageTracker
from memoair_pipecat._leaves import leaf_processors
from memoair_pipecat._recall import TurnRecall
from memoair_voice import MemoAirVoiceClient, Prompt, SearchResult
from memoair_voice.integration import (
    CLOUD_BASE_URL,
    NamedCall,
    PromptInstructions,
    TurnAssembler,
    TurnWriter,
    error_code,
    log_failures,
    make_agent_prompt,
    read_environment,
    resolve_user,
    search_in_time,
    traced_by,
)

if TYPE_CHECKING:
    from typing_extensions import Self

# It never contains what callers and agents say. The pipeline would log an error's message, which may quote a caller.
log = logging.getLogger("memoair_pipecat")
_log_failures = log_failures(log, "listen_failed", "an event of the call was not processed", logging.ERROR)


class MemoAirMemoryProcessor(FrameProcessor):
    """The memory of one caller in one pipeline. Place it between the user's context aggregator and the language model.

    Before the model answers, it searches with what the caller has said and gives the model the recalled text as one
    message before the caller's words, for this turn only, with the caller's role and declared as background. The
    conversation's own context is never changed. If nothing is recalled, there is no message; if the memory fails, the
    frame is passed on without it.

    It finds the assistant's context aggregator of its pipeline and saves what caller and agent say in the background,
    in order. Of an interrupted answer it saves the part that the caller heard. However the pipeline ends, the remaining
    turns are saved before the cleanup returns.

    Like every processor, it belongs to one pipeline and its event loop.

    Example:
        ```python
        memory = MemoAirMemoryProcessor(client=client, user={"id": "caller_42", "name": "Alex"})
        pipeline = Pipeline([transport.input(), stt, user, memory, llm, tts, transport.output(), assistant])
        ```
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
        cloud_base_url: str | None = CLOUD_BASE_URL,
        storage_root: str | None = None,
        runtime_binary: str | None = None,
        org_only: bool = False,
        timeout_ms: float = 250,
        flush_timeout_s: float = 5.0,
        session_id: str | None = None,
        name: str | None = None,
        instructions: str | None = None,
        prompt_label: str | None = None,
        prompt_values: Mapping[str, object] | None = None,
        prompt_default: str | None = None,
        **client_options: Any,
    ) -> None:
        """Create a processor for one caller, with a shared client or with a client of its own.

        Args:
            client: A client that serves many pipelines; its owner closes it. Without it, the processor creates a client
                from the arguments below, and closes it.
            user: The caller, ``{"id", "name", "metadata"}``.
            user_id: The id of the caller, if there is nothing else to say about them.
            agent: An object with the attributes ``api_key``, ``project_id`` and ``agent_id``, and optionally
                ``user_id``, ``cloud_base_url`` and ``org_only``, such as ``memoair_voice.MemoAirVoiceAgent``.
            api_key: The API key of the account.
            project_id: The project that the memory belongs to.
            agent_id: The agent within the project.
            cloud_base_url: The URL of the cloud, or None for no cloud: then nothing leaves this machine.
            storage_root: The folder for memories on this machine.
            runtime_binary: A runtime program to use instead of the installed one.
            org_only: Search only the organization's documents, and save nothing. Then no user is required.
            timeout_ms: How long a recall may delay the model, in milliseconds.
            flush_timeout_s: How long the end of the pipeline waits for turns to be saved, in seconds.
            session_id: The id of the call. None means the id of the telephone platform, if the transport has one, or
                else a new one.
            name: The name of the processor in Pipecat.
            instructions: The system message for the model: the first message of what it gets, never in the context.
            prompt_label: The label of a prompt to use as instructions, such as ``production``, instead of
                ``instructions``. It is fetched when the pipeline is set up, and its version is recorded on the call.
            prompt_values: The values of the prompt's placeholders.
            prompt_default: The text to use if the prompt is not to be had in time. Without it, an error is logged.
            **client_options: More arguments for ``MemoAirVoiceClient``.

        Raises:
            ValueError: If an argument is invalid, missing, or contradicts another.
            TypeError: If an argument has the wrong type.
        """
        super().__init__(name=name)
        check_positive(timeout_ms=timeout_ms, flush_timeout_s=flush_timeout_s)
        self._agent_prompt = make_agent_prompt(instructions, prompt_label, prompt_values, prompt_default, log)
        settings = {name: client_options.pop(name, None) for name in ("recall_traces", "prompt_fresh_s")}
        given = {"api_key": api_key, "project_id": project_id, "agent_id": agent_id}
        identity = choose_identity(agent, given, settings, cloud_base_url=cloud_base_url, org_only=org_only)
        if agent is not None and user is None and user_id is None:
            user_id = getattr(agent, "user_id", None)
        self._user = resolve_user(user, user_id, required=not identity["org_only"])
        self._owns_client = client is None
        more_arguments = {"storage_root": storage_root, "runtime_binary": runtime_binary, **client_options}
        self._client = choose_client(client, identity, more_arguments)
        self._flush_timeout_s = flush_timeout_s

        self._tracing_context: Any = None  # Pipecat's, if it makes spans
        self._context: LLMContext | None = None  # of the conversation, without recalled text
        self._user_messages = UserMessageTracker()
        self._assistant_aggregators: list[FrameProcessor] = []
        self._recall = TurnRecall(self._search, timeout_ms, log, instructions)
        self._prompt_task: asyncio.Task[Prompt | None] | None = None
        self._model_reads_context = True
        self._session_id = session_id
        self._name_call(session_id)
        self._turn_assembler = TurnAssembler(lambda turn: self._turn_writer.add(turn))
        self._tasks: list[asyncio.Task[Any]] = []
        self._is_cleaned_up = False

    @classmethod
    def from_env(cls, environ: Mapping[str, str] | None = None, **overrides: Any) -> "Self":
        """Create a processor, with a client of its own, from environment variables.

        Requires ``MEMOAIR_API_KEY``, ``MEMOAIR_PROJECT_ID``, ``MEMOAIR_AGENT_ID`` and, unless ``user`` or ``user_id``
        is passed, ``MEMOAIR_USER_ID``. Optional: ``MEMOAIR_BASE_URL`` (empty means no cloud),
        ``MEMOAIR_RUNTIME_BINARY`` and ``MEMOAIR_ORG_ONLY`` (1 or 0).

        Args:
            environ: The variables to read instead of ``os.environ``.
            **overrides: Arguments of the constructor, which take precedence over the environment.

        Returns:
            The processor.

        Raises:
            ValueError: If required variables are missing or a value is invalid.
        """
        return cls(**read_environment(overrides, environ))

    def listen_to(self, aggregator: LLMAssistantAggregator) -> None:
        """Save what this aggregator hears the agent say.

        Aggregators in the same pipeline are found automatically; this is for others. Calling it again does no harm.

        Args:
            aggregator: The assistant's context aggregator.
        """
        if aggregator in self._assistant_aggregators:
            return
        self._assistant_aggregators.append(aggregator)
        aggregator.add_event_handler("on_before_process_frame", self._on_aggregator_frame)
        aggregator.add_event_handler("on_assistant_turn_started", self._on_answer_started)
        aggregator.add_event_handler("on_assistant_turn_stopped", self._on_answer_stopped)
        aggregator.add_event_handler("on_summary_applied", self._on_summary_applied)

    async def setup(self, setup: FrameProcessorSetup) -> None:  # type: ignore[override] # as FrameProcessor itself
        """Find the aggregators and the models, load the caller's memory and start saving, before the first frame."""
        await super().setup(setup)
        self._tracing_context = getattr(setup, "tracing_context", None)
        self._find_neighbors(setup)
        if self._agent_prompt is not None:
            self._prompt_task = self.create_task(self._fetch_prompt(self._agent_prompt), "memoair_prompt")
            self._tasks = [self._prompt_task]
        load_task = self.create_task(self._load_memory(), "memoair_load")
        self._recall.wait_for(load_task)
        self._tasks += [load_task, self.create_task(self._turn_writer.run(), "memoair_save")]

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        """Add the recalled text to the context that goes to the language model. Every frame is passed on."""
        await super().process_frame(frame, direction)
        if isinstance(frame, LLMContextFrame) and direction is FrameDirection.DOWNSTREAM:
            await self._add_recall(frame)
        elif isinstance(frame, InterruptionFrame | CancelFrame):
            # The frame passes here before it reaches the model, which then ends its answer as if it were complete.
            self._turn_assembler.on_answer_interrupted()
        elif getattr(frame, "is_realtime_service", False):  # a model that listens to the caller itself
            self._model_reads_context = False
        await self.push_frame(frame, direction)

    async def cleanup(self) -> None:
        """Save the remaining turns, end the background tasks, and close the client unless it was passed in.

        Takes at most ``flush_timeout_s``, and a moment for the end of the call.
        """
        await super().cleanup()  # type: ignore[no-untyped-call]
        if self._is_cleaned_up:
            return
        # The aggregators have reported everything by now: the last frame has passed through the whole pipeline before
        # any processor is cleaned up, and handlers start in the order of the events.
        self._flush_turns()
        self._is_cleaned_up = True
        self._turn_writer.stop(self._flush_timeout_s)
        try:
            if self._tasks:
                await asyncio.wait(self._tasks, timeout=self._flush_timeout_s)
            if len(self._turn_writer):
                log.error("turns were not saved in time: action=flush_timeout turns=%d", len(self._turn_writer))
        finally:
            for task in self._tasks:
                if not task.done():
                    await self.cancel_task(task)
            await self._end_call()
            if self._owns_client:
                await self._close_client()

    # Recalling

    async def _add_recall(self, frame: LLMContextFrame) -> None:
        try:
            if self._context is None:  # no aggregator was found: use this one
                self._context = frame.context
                self._user_messages.skip(frame.context, keep_unanswered=True)
            # Words of a turn that is only expected to have ended are not in the conversation yet; they are saved later.
            self._collect_user_texts()
            await self._wait_for_prompt()
            if not self._model_reads_context:  # nothing is recalled for it; it may begin with instructions
                frame.context = self._recall.insert(frame.context)
                return
            is_speculative = bool(getattr(frame, "speculation", None))
            await self._recall.update(frame.context, self._user_messages, is_speculative=is_speculative)
            frame.context = self._recall.insert(frame.context)
        except Exception as error:  # noqa: BLE001 - the frame is passed on, whatever fails here
            log.error("a turn is answered without memory: action=recall_failed code=%s", error_code(error))

    async def _fetch_prompt(self, agent_prompt: PromptInstructions) -> Prompt | None:
        prompt = await agent_prompt.fetch(self._client)
        self._recall.instructions = None if prompt is None else prompt.text
        return prompt

    async def _wait_for_prompt(self) -> None:
        """Wait for the prompt, two seconds at most and the first time only."""
        if self._prompt_task is not None and not self._prompt_task.done():
            await asyncio.wait([self._prompt_task])

    async def _search(self, query: str, timeout_ms: float, known_texts: list[str]) -> SearchResult:
        with traced_by(context=self._tracing_context and self._tracing_context.get_turn_context()):
            return await search_in_time(
                self._client,
                query,
                user=self._user,
                timeout_ms=timeout_ms,
                known_texts=known_texts,
                session_id=self._call.session_id,
                turn_id=self._turn_assembler.next_turn_id,
                origin="hook",
            )

    @_log_failures
    def _on_model_frame(self, _: FrameProcessor, frame: Frame) -> None:
        """Add the recalled text also to contexts with tool results, which reach the model from the other side."""
        if isinstance(frame, LLMContextFrame) and frame.context is self._context:
            frame.context = self._recall.insert(frame.context)

    # Listening and saving

    def _collect_user_texts(self) -> bool:
        """Pass on what the caller has said since the last call. Return whether they said anything."""
        new_texts = self._user_messages.read_new_texts(self._context) if self._context is not None else []
        for text in new_texts:
            self._turn_assembler.on_user_text(text, item_id=uuid.uuid4().hex)
        return bool(new_texts)

    @_log_failures
    def _on_aggregator_frame(self, _: FrameProcessor, frame: Frame) -> None:
        """Follow tool calls, in the order in which the aggregator sees them, to know which answers will continue."""
        if isinstance(frame, LLMFullResponseStartFrame):
            self._collect_user_texts()  # of a turn that was answered before its end was confirmed
            self._turn_assembler.on_model_started()
        elif isinstance(frame, FunctionCallsStartedFrame):
            for call in frame.function_calls:
                self._turn_assembler.on_tool_called(call.function_name, call.tool_call_id)
        elif isinstance(frame, FunctionCallResultFrame):
            self._turn_assembler.on_tool_result(frame.tool_call_id)
        elif isinstance(frame, FunctionCallCancelFrame) or (
            isinstance(frame, FunctionCallInProgressFrame) and not frame.cancel_on_interruption
        ):
            self._turn_assembler.on_tool_detached(frame.tool_call_id)
        elif isinstance(frame, LLMMarkerFrame):
            self._user_messages.add_marker(frame.marker)
        elif isinstance(frame, LLMSummarizeContextFrame):
            self._collect_user_texts()  # before they are summarized
        elif isinstance(frame, LLMContextSummaryResultFrame):
            self._collect_user_texts()
            self._user_messages.add_summary(frame.summary)

    @_log_failures
    def _on_summary_applied(self, aggregator: LLMAssistantAggregator, *_: Any) -> None:
        """Note the summary, of which another model than the one in the pipeline may be the author."""
        self._user_messages.mark_summary(aggregator.context)

    @_log_failures
    def _on_answer_started(self, _: FrameProcessor) -> None:
        self._turn_assembler.on_answer_started()

    @_log_failures
    def _on_answer_stopped(self, _: FrameProcessor, message: AssistantTurnStoppedMessage) -> None:
        if self._turn_assembler.is_agent_initiated and self._collect_user_texts():
            self._turn_assembler.on_answer_started()  # realtime services report the caller's words only now
        self._turn_assembler.on_answer_stopped((message.content or "").strip(), interrupted=bool(message.interrupted))

    @_log_failures
    def _flush_turns(self) -> None:
        self._collect_user_texts()
        self._turn_assembler.flush()

    # Setup and cleanup

    @_log_failures
    def _find_neighbors(self, setup: FrameProcessorSetup) -> None:
        """Find the aggregators of the conversation and the models after this processor, also in nested pipelines."""
        processors = list(leaf_processors(setup.pipeline_worker.pipeline))
        if self._session_id is None and (call_id := find_call_id(processors)) is not None:
            self._name_call(call_id)
        position = processors.index(self) if self in processors else 0
        for processor in reversed(processors[:position]):
            if isinstance(processor, LLMUserAggregator):
                self._context = processor.context
                self._user_messages.skip(processor.context)
                break
        assistants = [processor for processor in processors if isinstance(processor, LLMAssistantAggregator)]
        if self._context is not None:
            assistants = [aggregator for aggregator in assistants if aggregator.context is self._context]
        for aggregator in assistants:
            self.listen_to(aggregator)
        if not self._assistant_aggregators:
            log.warning(
                "no assistant aggregator found, so only the caller's words are saved: action=no_assistant_aggregator"
            )
        for processor in processors[position:]:
            if isinstance(processor, LLMService):
                processor.add_event_handler("on_before_process_frame", self._on_model_frame)

    def _name_call(self, session_id: str | None) -> None:
        self._call = NamedCall(self._client, self._user, session_id=session_id, metadata={"framework": "pipecat"})
        self._turn_writer = TurnWriter(
            self._client,
            self._user,
            framework="pipecat",
            log=log,
            lost_action="save_failed",
            session_id=self._call.session_id,
        )

    async def _load_memory(self) -> None:  # if it fails, the first search loads it
        with log_failures(log, "load_failed", "the caller's memory could not be loaded"):
            await self._call.open(self._prompt_task)

    async def _end_call(self) -> None:
        with log_failures(log, "end_failed", "the call could not be ended"):
            await self._call.end(has_turns=self._turn_writer.has_saved)

    async def _close_client(self) -> None:
        with log_failures(log, "close_failed", "the client could not be closed", logging.ERROR):
            await self._client.aclose()
