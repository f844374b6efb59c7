"""The agent: a LiveKit ``Agent`` whose hooks recall from memory and save turns."""

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import aclosing
from functools import partial, wraps
from typing import TYPE_CHECKING, Any

from livekit.agents import Agent, get_job_context, llm

from memoair_livekit._context import find_message_to_answer, insert_recall, is_recall_message, remove_recall
from memoair_livekit._listener import SessionListener, add_message
from memoair_livekit._log import log_failures
from memoair_livekit._memory import CallMemory
from memoair_livekit._recall_cache import RecallCache
from memoair_voice import MemoAirVoiceClient
from memoair_voice.integration import (
    CLOUD_BASE_URL,
    IDENTITY_FIELDS,
    RUNTIME_PORT_RANGE,
    TurnAssembler,
    complete_identity,
    find_missing,
    read_environment,
)

if TYPE_CHECKING:
    from livekit.agents import ModelSettings
    from typing_extensions import Self

_REQUIRED_ARGUMENTS = (*IDENTITY_FIELDS, "user_id")
# A runtime stays this long after the call, so that a caller who is cut off and calls again finds it running.
_RUNTIME_IDLE_TTL_S = 10.0
# How long the shutdown of a LiveKit job waits for its session to close.
_CLOSE_TIMEOUT_S = 10.0


class MemoAirLiveKitAgent(Agent):
    """A LiveKit ``Agent`` with memory: it recalls before each answer and saves each turn, without further wiring.

    The agent learns of turns from the events of its session. Saving happens in the background and never delays an
    answer. After construction, no failure of the memory raises into the session: it is logged (logger
    ``memoair_livekit``) with a code and without the words of caller or agent, and the call continues without memory.

    Use an instance only in the thread of the session's event loop. It may serve one session after another.

    Subclasses can override every hook. Their `on_enter` and `on_exit` do not need to call ``super()``. A subclass that
    overrides both `on_user_turn_completed` and `llm_node` must call one of them through ``super()``; otherwise
    nothing is recalled.

    Example:
        ```python
        agent = MemoAirLiveKitAgent(
            api_key="memoair_pk_...",
            project_id="proj_acme",
            agent_id="agent_acme_returns",
            user_id=caller.identity,
            instructions="You are the returns concierge of a shoe shop.",
        )
        await session.start(agent=agent, room=ctx.room)
        ```
    """

    def __init__(
        self,
        *,
        api_key: str | None = None,
        project_id: str | None = None,
        agent_id: str | None = None,
        user_id: str | None = None,
        instructions: str | None = None,
        search_timeout_ms: float = 250,
        cloud_base_url: str | None = CLOUD_BASE_URL,
        agent: Any = None,
        storage_root: str | None = None,
        runtime_binary: str | None = None,
        runtime_port_range: tuple[int, int] = RUNTIME_PORT_RANGE,
        org_file: str | None = None,
        org_only: bool = False,
        redact: Callable[[str], str] | None = None,
        **agent_kwargs: Any,
    ) -> None:
        """Create an agent for one caller. No process is started before the agent enters a session.

        Args:
            api_key: The API key of the account.
            project_id: The project that the memory belongs to.
            agent_id: The agent within the project.
            user_id: The id of the caller.
            instructions: The instructions of the ``Agent``.
            search_timeout_ms: How long a search may delay an answer, in milliseconds.
            cloud_base_url: The URL of the cloud, or None for no cloud: then nothing leaves this machine.
            agent: An object with the attributes ``api_key``, ``project_id``, ``agent_id`` and ``user_id``, such as
                ``memoair_voice.MemoAirVoiceAgent``. Arguments that are passed directly take precedence.
            storage_root: The folder for memories on this machine. None means the user data folder of the platform.
            runtime_binary: A runtime program to use instead of the installed one.
            runtime_port_range: The first and the last loopback port that runtimes may listen on.
            org_file: A file with the organization's documents as JSON lines, if no cloud has them.
            org_only: Search only the organization's documents, and save nothing.
            redact: A function that receives each text of a turn before any of it is saved, and returns the text to
                keep. It must be safe to call from any thread.
            **agent_kwargs: Passed to ``livekit.agents.Agent``.

        Raises:
            TypeError: If a part of the identity is missing or not a string.
            ValueError: If an argument is invalid.
        """
        identity = complete_identity(
            agent,
            cloud_base_url=cloud_base_url,
            org_only=org_only,
            api_key=api_key,
            project_id=project_id,
            agent_id=agent_id,
            user_id=user_id,
        )
        if missing := find_missing(identity, _REQUIRED_ARGUMENTS):
            raise TypeError(f"missing {', '.join(missing)}: pass them as arguments, or an agent= that has them")
        resolved_user_id = identity.pop("user_id")
        if not isinstance(resolved_user_id, str):
            raise TypeError(f"user_id must be a str, not {type(resolved_user_id).__name__}")
        if not resolved_user_id:
            raise ValueError("user_id must not be empty")
        if isinstance(search_timeout_ms, bool) or not 0 < search_timeout_ms < float("inf"):
            raise ValueError(f"search_timeout_ms must be positive, not {search_timeout_ms}")
        first_port, last_port = runtime_port_range
        client_arguments: dict[str, Any] = {
            **identity,
            "storage_root": storage_root,
            "runtime_binary": runtime_binary,
            "runtime_port_range": runtime_port_range,
            "org_file": org_file,
            "redact": redact,
            # One user per port, so that a new call never evicts the runtime of a call in progress.
            "max_concurrent_users": max(1, last_port - first_port + 1),
            "runtime_idle_ttl_s": _RUNTIME_IDLE_TTL_S,
        }
        # Validate the arguments now, before there is a call. Constructing a client starts nothing.
        MemoAirVoiceClient(**client_arguments)
        super().__init__(instructions=instructions or "", **agent_kwargs)
        self._memoair_memory_factory = partial(CallMemory, client_arguments, resolved_user_id, search_timeout_ms)
        self._memoair_memory: CallMemory | None = None
        self._memoair_closing_memory: CallMemory | None = None  # of the last session; it may still be saving
        self._memoair_has_left = False
        self._memoair_recall_cache: RecallCache
        self._memoair_turn_assembler: TurnAssembler
        self._memoair_listener: SessionListener | None = None

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Wrap the hooks of a subclass, so that entering and leaving are noticed even without ``super()``."""
        super().__init_subclass__(**kwargs)
        for name, wrap in (("on_enter", _wrap_on_enter), ("on_exit", _wrap_on_exit)):
            if name in cls.__dict__:
                setattr(cls, name, wrap(cls.__dict__[name]))

    @classmethod
    def from_env(cls, **overrides: Any) -> "Self":
        """Create an agent from environment variables.

        Reads ``MEMOAIR_API_KEY``, ``MEMOAIR_PROJECT_ID``, ``MEMOAIR_AGENT_ID``, ``MEMOAIR_USER_ID``,
        ``MEMOAIR_BASE_URL`` (empty means no cloud) and ``MEMOAIR_ORG_ONLY`` (``1`` or ``0``), unless ``agent=`` is
        passed.

        Args:
            **overrides: Arguments of the constructor, which take precedence over the environment.

        Returns:
            The agent.

        Raises:
            ValueError: If required variables are missing (the message names all of them) or a value is invalid.
        """
        arguments = read_environment(overrides)
        if overrides.get("agent") is None and (missing := find_missing(arguments, _REQUIRED_ARGUMENTS)):
            raise ValueError(f"{', '.join(f'MEMOAIR_{name.upper()}' for name in missing)} must be set")
        return cls(**arguments)

    # Hooks that LiveKit calls

    async def on_enter(self) -> None:
        """Open the memory and wait until it is ready.

        LiveKit does not wait for this hook: what is said in the meantime is recalled for and saved as well. The memory
        opens in the background, so a subclass whose own `on_enter` greets immediately is not delayed, whether or not it
        calls this one.
        """
        with log_failures("enter_failed"):
            _start_listening(self)
            if self._memoair_memory is not None:
                await self._memoair_memory.wait_opened()

    async def on_user_turn_completed(self, turn_ctx: llm.ChatContext, new_message: llm.ChatMessage) -> None:
        """Recall for the caller's message and insert the result before it, for this turn only.

        If an answer to the same words is already being generated (preemptive generation), it already has the recalled
        text. In that case the context stays unchanged, because LiveKit would otherwise discard that answer.

        Args:
            turn_ctx: The context of this turn; changed in place.
            new_message: What the caller has said.
        """
        with log_failures("recall_failed"):
            if not self._memoair_ensure_memory():
                return
            if self._memoair_listener is None:
                add_message(self._memoair_turn_assembler, new_message)
            has_early_answer = self._memoair_recall_cache.has_early_answer(new_message, turn_ctx)
            context_text = await self._memoair_recall_cache.recall(new_message, turn_ctx)
            if context_text and not has_early_answer:
                insert_recall(turn_ctx, context_text, new_message)

    async def llm_node(
        self, chat_ctx: llm.ChatContext, tools: list[Any], model_settings: "ModelSettings"
    ) -> AsyncGenerator[Any, None]:
        """Call the language model with the recalled text. This also covers typed input and early answers.

        Args:
            chat_ctx: The conversation. It is copied before the recalled text is inserted.
            tools: The tools that the model may call.
            model_settings: The settings of the model.

        Yields:
            The chunks of the model's answer.
        """
        with log_failures("recall_failed"):
            chat_ctx = await self._memoair_insert_recall(chat_ctx)
        async with aclosing(Agent.default.llm_node(self, chat_ctx, tools, model_settings)) as chunks:
            async for chunk in chunks:
                yield chunk

    async def on_agent_response_completed(
        self,
        chat_ctx: llm.ChatContext,  # noqa: ARG002 - the signature of LiveKit's hooks; the message is enough
        new_message: llm.ChatMessage,
    ) -> None:
        """Save an answer with the words it answers.

        Within a session this happens automatically; calling it as well does no harm. LiveKit itself does not call it.
        An application may, with the assistant items of the event ``conversation_item_added``: each item is saved once.
        Without a session, this waits until the turn is saved.

        Args:
            chat_ctx: Not used.
            new_message: The answer. Messages of other roles are ignored.
        """
        with log_failures("keep_failed"):
            if new_message.role != "assistant" or not self._memoair_ensure_memory():
                return
            if self._memoair_listener is not None:
                self._memoair_listener.add_message(new_message)
            elif self._memoair_memory is not None:
                add_message(self._memoair_turn_assembler, new_message)
                self._memoair_turn_assembler.flush()
                await self._memoair_memory.wait_drained()

    async def on_exit(self) -> None:
        """Leave the session. Calling it again does no harm.

        While the session runs, this returns immediately: the last words arrive afterwards and are saved in the
        background.
        After the session has closed, this waits until everything is saved and the memory is closed.
        """
        with log_failures("exit_failed"):
            self._memoair_has_left = True
            if self._memoair_listener is not None and self._memoair_is_in_session():
                self._memoair_listener.mark_leaving()
                if self._memoair_memory is not None:
                    self._memoair_memory.release_waiters()  # a session closes only when on_enter has returned
            else:
                await self._memoair_close()

    # Private. The prefix keeps these names apart from those of LiveKit's Agent and of subclasses.

    def _memoair_ensure_memory(self) -> bool:
        """Open the memory and listen to the session if needed. Return whether there is a memory."""
        if self._memoair_memory is None:
            if self._memoair_has_left:
                return False  # a late call: nothing would close a memory that is opened now
            self._memoair_memory = self._memoair_memory_factory()
            self._memoair_recall_cache = RecallCache(self._memoair_memory.search)
            self._memoair_turn_assembler = TurnAssembler(self._memoair_memory.save, saves_unanswered=True)
        if self._memoair_listener is None and self._memoair_is_in_session():
            self._memoair_listener = SessionListener(
                self.session,
                self,
                self._memoair_turn_assembler,
                self._memoair_recall_cache,
                self._memoair_start_closing,
            )
            with log_failures("no_shutdown_callback"):
                _add_job_shutdown_callback(self._memoair_on_job_shutdown)
        return True

    def _memoair_is_in_session(self) -> bool:
        try:
            return self.session is not None
        except RuntimeError:  # the agent is not running
            return False

    async def _memoair_insert_recall(self, chat_ctx: llm.ChatContext) -> llm.ChatContext:
        """Return the context for the model: with the recalled text if there is a message to answer, else without."""
        message = find_message_to_answer(chat_ctx)
        has_recall = any(is_recall_message(item) for item in chat_ctx.items)
        if message is None:
            if has_recall:
                chat_ctx = chat_ctx.copy()
                remove_recall(chat_ctx)
            return chat_ctx
        if has_recall or not self._memoair_ensure_memory():
            return chat_ctx
        if context_text := await self._memoair_recall_cache.recall(message, chat_ctx):
            chat_ctx = chat_ctx.copy()
            insert_recall(chat_ctx, context_text, message)
        return chat_ctx

    def _memoair_start_closing(self) -> None:
        """Detach the memory, which saves the remaining turns and closes in the background."""
        memory, self._memoair_memory = self._memoair_memory, None
        listener, self._memoair_listener = self._memoair_listener, None
        self._memoair_has_left = True
        if listener is not None:
            listener.stop()
        if memory is not None:
            self._memoair_turn_assembler.flush()
            memory.start_closing()
            self._memoair_closing_memory = memory

    async def _memoair_close(self) -> None:
        """Close the memory and wait until it is closed."""
        self._memoair_start_closing()
        if self._memoair_closing_memory is not None:
            await self._memoair_closing_memory.wait_closed()

    async def _memoair_on_job_shutdown(self) -> None:
        """Wait for the session to close and for its turns to be saved, before the process ends."""
        deadline = time.monotonic() + _CLOSE_TIMEOUT_S
        while self._memoair_listener is not None and time.monotonic() < deadline:
            await asyncio.sleep(0.02)
        with log_failures("exit_failed"):
            await self._memoair_close()


Hook = Callable[[Any], Coroutine[Any, Any, None]]


def _start_listening(agent: MemoAirLiveKitAgent) -> None:
    agent._memoair_has_left = False  # noqa: SLF001 - the agent's own
    agent._memoair_ensure_memory()  # noqa: SLF001
    if agent._memoair_listener is not None:  # noqa: SLF001
        agent._memoair_listener.resume()  # noqa: SLF001


def _wrap_on_enter(hook: Hook) -> Hook:
    @wraps(hook)
    async def on_enter(self: MemoAirLiveKitAgent) -> None:
        with log_failures("enter_failed"):
            _start_listening(self)
        await hook(self)

    return on_enter


def _wrap_on_exit(hook: Hook) -> Hook:
    @wraps(hook)
    async def on_exit(self: MemoAirLiveKitAgent) -> None:
        try:
            await hook(self)
        finally:
            await MemoAirLiveKitAgent.on_exit(self)

    return on_exit


def _add_job_shutdown_callback(callback: Callable[[], Coroutine[None, None, None]]) -> None:
    try:
        job_context = get_job_context()
    except RuntimeError:  # no job: a test, or an application that does not use LiveKit's workers
        return
    job_context.add_shutdown_callback(callback)
