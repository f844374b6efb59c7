"""The agent: a LiveKit ``Agent`` whose hooks recall and keep."""

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import aclosing
from functools import partial, wraps
from typing import TYPE_CHECKING, Any

from livekit.agents import Agent, get_job_context, llm

from memoair_livekit._context import find_message_to_answer, insert_recall, is_recall_message, remove_recall
from memoair_livekit._identity import read_environment, resolve_identity
from memoair_livekit._listener import SessionListener
from memoair_livekit._log import log_failures
from memoair_livekit._memory import CallMemory
from memoair_livekit._recall_cache import RecallCache
from memoair_livekit._turn_assembler import LiveKitTurnAssembler
from memoair_voice import MemoAirVoiceClient

if TYPE_CHECKING:
    from livekit.agents import ModelSettings
    from typing_extensions import Self

_DEFAULT_CLOUD_BASE_URL = "https://backend.memoair.space"
_DEFAULT_PORT_RANGE = (7878, 7977)
# How long a caller's runtime lives after the call: who is cut off and calls again at once finds it warm.
_RUNTIME_IDLE_TTL_S = 10.0
# How long a job that ends waits for its session to close.
_CLOSE_TIMEOUT_S = 10.0


class MemoAirLiveKitAgent(Agent):
    """A LiveKit ``Agent`` that remembers who calls: each turn is recalled for and kept, with no other wiring.

    ``api_key``, ``project_id``, ``agent_id`` and ``user_id`` say whose memory it is; or ``agent``, an identity that has
    them as attributes, as ``memoair_voice.MemoAirVoiceAgent`` does; what is given beside it comes first. A search may
    take ``search_timeout_ms``. ``cloud_base_url`` None is no cloud: nothing leaves this machine. ``storage_root``,
    ``runtime_binary``, ``runtime_port_range`` (both ends belong to it), ``org_file``, ``org_only`` (the organisation's
    documents alone; nothing is kept) and ``redact`` (what may be kept of a text) are those of ``MemoAirVoiceClient``.
    All else goes to ``Agent``.

    Raises TypeError for an identity that is missing, and what the client raises for one that can't be; after that,
    nothing of the memory raises into the session: what fails is told in the log (logger ``memoair_livekit``) by its
    code, without anybody's words. For the thread of the session's event loop only.

    A subclass may have hooks of its own. An `on_enter` or `on_exit` of its own need not call ours. Whoever overrides
    both `on_user_turn_completed` and `llm_node` calls one of ours, or nothing is recalled.
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
        cloud_base_url: str | None = _DEFAULT_CLOUD_BASE_URL,
        agent: Any = None,
        storage_root: str | None = None,
        runtime_binary: str | None = None,
        runtime_port_range: tuple[int, int] = _DEFAULT_PORT_RANGE,
        org_file: str | None = None,
        org_only: bool = False,
        redact: Callable[[str], str] | None = None,
        **agent_kwargs: Any,
    ) -> None:
        identity = resolve_identity(agent, api_key=api_key, project_id=project_id, agent_id=agent_id, user_id=user_id)
        resolved_user_id = identity.pop("user_id")
        if isinstance(search_timeout_ms, bool) or not 0 < search_timeout_ms < float("inf"):
            raise ValueError(f"search_timeout_ms must be positive, not {search_timeout_ms}")
        if agent is not None:
            org_only = org_only or bool(getattr(agent, "org_only", False))
            if cloud_base_url == _DEFAULT_CLOUD_BASE_URL:
                cloud_base_url = getattr(agent, "cloud_base_url", cloud_base_url)
        first_port, last_port = runtime_port_range
        client_arguments: dict[str, Any] = {
            **identity,
            "cloud_base_url": cloud_base_url,
            "storage_root": storage_root,
            "runtime_binary": runtime_binary,
            "runtime_port_range": runtime_port_range,
            "org_file": org_file,
            "org_only": org_only,
            "redact": redact,
            "max_concurrent_users": max(
                1, last_port - first_port + 1
            ),  # nobody who is talking gives his place to another
            "runtime_idle_ttl_s": _RUNTIME_IDLE_TTL_S,
        }
        MemoAirVoiceClient(
            **client_arguments
        )  # what can't be is told here, where nobody is calling yet; it starts nothing
        super().__init__(instructions=instructions or "", **agent_kwargs)
        self._memoair_memory_factory = partial(CallMemory, client_arguments, resolved_user_id, search_timeout_ms)
        self._memoair_memory: CallMemory | None = None
        self._memoair_closing_memory: CallMemory | None = None  # the last one, which may still save something
        self._memoair_has_left = False
        self._memoair_recall_cache: RecallCache
        self._memoair_turn_assembler: LiveKitTurnAssembler
        self._memoair_listener: SessionListener | None = None

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """See that entering and leaving are noticed, also by a subclass that does not call ours."""
        super().__init_subclass__(**kwargs)
        for name, wrap in (("on_enter", _wrap_on_enter), ("on_exit", _wrap_on_exit)):
            if name in cls.__dict__:
                setattr(cls, name, wrap(cls.__dict__[name]))

    @classmethod
    def from_env(cls, **overrides: Any) -> "Self":
        """Make an agent of what the environment says; what is ``given``, as to the constructor, comes first.

        ``MEMOAIR_API_KEY``, ``MEMOAIR_PROJECT_ID``, ``MEMOAIR_AGENT_ID``, ``MEMOAIR_USER_ID``, ``MEMOAIR_BASE_URL``
        (empty: no cloud) and ``MEMOAIR_ORG_ONLY`` (``1`` or ``0``); none of them where ``agent=`` is given. Raises
        ValueError that names all that is missing.
        """
        return cls(**read_environment(overrides))

    # What LiveKit calls

    async def on_enter(self) -> None:
        """Open the memory, and wait until it is ready.

        LiveKit goes on meanwhile, and what is said before is recalled for and kept, too. An `on_enter` of a subclass
        that greets at once is not held up: the memory is opened behind it, whether it calls this one or not.
        """
        with log_failures("enter_failed"):
            _start_listening(self)
            if self._memoair_memory is not None:
                await self._memoair_memory.wait_opened()

    async def on_user_turn_completed(self, turn_ctx: llm.ChatContext, new_message: llm.ChatMessage) -> None:
        """Recall what matters for the caller's words, and put it before them, for this turn only.

        Where an answer to the same words is being generated already (preemptive generation), it was given what was
        recalled; then the context stays as it is, or LiveKit would throw that answer away.
        """
        with log_failures("recall_failed"):
            if not self._memoair_ensure_memory():
                return
            if self._memoair_listener is None:
                self._memoair_turn_assembler.add_message(new_message, time.time())
            has_early_answer = self._memoair_recall_cache.has_early_answer(new_message, turn_ctx)
            context_text = await self._memoair_recall_cache.recall(new_message, turn_ctx)
            if context_text and not has_early_answer:
                insert_recall(turn_ctx, context_text, new_message)

    async def llm_node(
        self, chat_ctx: llm.ChatContext, tools: list[Any], model_settings: "ModelSettings"
    ) -> AsyncGenerator[Any, None]:
        """Ask the language model, with what was recalled: also for typed input, and for early answers."""
        with log_failures("recall_failed"):
            chat_ctx = await self._memoair_insert_recall(chat_ctx)
        async with aclosing(Agent.default.llm_node(self, chat_ctx, tools, model_settings)) as chunks:
            async for chunk in chunks:
                yield chunk

    async def on_agent_response_completed(
        self,
        chat_ctx: llm.ChatContext,  # noqa: ARG002 - as LiveKit's hooks are called; the message says all
        new_message: llm.ChatMessage,
    ) -> None:
        """Keep an answer with the words it answers. In a session that is done already: to call this is no harm.

        LiveKit does not call it. An application may, with the assistant items of ``conversation_item_added``; each is
        kept once.
        """
        with log_failures("keep_failed"):
            if new_message.role != "assistant" or not self._memoair_ensure_memory():
                return
            if self._memoair_listener is not None:
                self._memoair_listener.add_message(new_message)
            elif self._memoair_memory is not None:
                self._memoair_turn_assembler.add_message(new_message, time.time())
                self._memoair_turn_assembler.flush()
                await self._memoair_memory.wait_drained()

    async def on_exit(self) -> None:
        """Leave the call: twice is no harm.

        While the session runs this returns at once: the last words come after it, and are kept behind it. Once the
        session has closed, it waits until everything is saved and the memory is closed.
        """
        with log_failures("exit_failed"):
            self._memoair_has_left = True
            if self._memoair_listener is not None and self._memoair_is_in_session():
                self._memoair_listener.mark_leaving()
                if self._memoair_memory is not None:
                    self._memoair_memory.release_waiters()  # a session that closes waits for its agent to have entered
            else:
                await self._memoair_close()

    # What is ours

    def _memoair_ensure_memory(self) -> bool:
        """Have a memory, and listen to the session, if there is one; tell whether there is a memory."""
        if self._memoair_memory is None:
            if self._memoair_has_left:
                return False  # something that comes late; nobody would close what is opened for it
            self._memoair_memory = self._memoair_memory_factory()
            self._memoair_recall_cache = RecallCache(self._memoair_memory.search)
            self._memoair_turn_assembler = LiveKitTurnAssembler(self._memoair_memory.save)
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
        """Let go of the memory, which saves what is left and closes behind us."""
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
        """Close the memory, and wait for it."""
        self._memoair_start_closing()
        if self._memoair_closing_memory is not None:
            await self._memoair_closing_memory.wait_closed()

    async def _memoair_on_job_shutdown(self) -> None:
        """The process is about to end: wait for the session to close, and for what was said to be kept."""
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
    except RuntimeError:  # no job: a test, or an application of its own
        return
    job_context.add_shutdown_callback(callback)
