"""What an agent holds for a call: its memory, and its part in the session's listener."""

import asyncio
import time
from collections.abc import Callable
from typing import Any

from livekit.agents import Agent, llm

from memoair_livekit._context import (
    RecallRole,
    find_message_to_answer,
    insert_recall,
    is_recall_message,
    remove_recall,
)
from memoair_livekit._instructions import are_instructions_of, insert_instructions, set_instructions
from memoair_livekit._job import add_shutdown_callback, find_call_id
from memoair_livekit._listener import SessionListener
from memoair_livekit._log import log_failures
from memoair_livekit._memory import CallMemory
from memoair_livekit._realtime import is_speech_model
from memoair_livekit._recall_cache import RecallCache
from memoair_livekit._start import (
    accepts_key_terms,
    add_key_terms,
    brief,
    find_briefing,
    find_model,
    find_session,
    offer_tool,
)
from memoair_voice import Prompt
from memoair_voice.integration import PromptInstructions, TurnAssembler, find_key_terms

# How long the shutdown of a LiveKit job waits for its session to close.
_CLOSE_TIMEOUT_S = 10.0


class AgentWithMemory(Agent):
    """The private part of `MemoAirLiveKitAgent`, whose constructor sets what is only declared here.

    The prefix keeps the names apart from those of LiveKit's ``Agent`` and of subclasses.
    """

    _memoair_make_memory: Callable[..., CallMemory]
    _memoair_prompt: PromptInstructions | None  # None if the application gives the instructions
    _memoair_memory_key: Any  # equal for agents that share a memory
    _memoair_search_tool: Any
    _memoair_offers_tool: bool | None  # None if that depends on the model
    _memoair_recall_role: RecallRole
    _memoair_caller_name: str | None
    _memoair_hands_over_terms: bool
    _memoair_recall_cache: RecallCache
    _memoair_turn_assembler: TurnAssembler  # of hooks that are called without a session

    def __init__(self, **agent_kwargs: Any) -> None:
        super().__init__(**agent_kwargs)
        self._memoair_memory: CallMemory | None = None
        self._memoair_closing_memory: CallMemory | None = None  # of the last session; it may still be saving
        self._memoair_has_left = False
        self._memoair_listener: SessionListener | None = None
        self._memoair_link = AgentLink(self)
        self._memoair_start_task: asyncio.Task[None] | None = None
        self._memoair_started_with: SessionListener | None = None
        self._memoair_prompt_task: asyncio.Task[str | None] | None = None
        self._memoair_earlier_instructions = ""
        # What this class may replace: the text of the constructor, and the last one that it has set.
        self._memoair_own_instructions = ["", str(self.instructions), ""]

    def _memoair_ensure_memory(self) -> bool:
        """Open the memory and listen to the session if needed. Return whether there is a memory."""
        if self._memoair_memory is None and self._memoair_has_left:
            return False  # a late call: nothing would close a memory that is opened now
        if self._memoair_listener is None and (session := find_session(self)) is not None:
            self._memoair_join(SessionListener.of(session, _join))
        elif self._memoair_memory is None:
            self._memoair_use_memory(self._memoair_make_memory(session_id=find_call_id()))
        return True

    def _memoair_join(self, listener: SessionListener) -> None:
        """Let the listener of a session save what is said, in the memory that agents of the same caller share."""
        shared = listener.memories.get(self._memoair_memory_key)
        if shared is None:
            shared = self._memoair_memory or self._memoair_make_memory(session_id=find_call_id())
            listener.memories[self._memoair_memory_key] = shared
        elif self._memoair_memory is not None and self._memoair_memory is not shared:
            self._memoair_memory.start_closing()
        self._memoair_use_memory(shared)
        self._memoair_has_left = False
        if self._memoair_listener is not listener:
            self._memoair_listener = listener
            with log_failures("no_shutdown_callback"):
                add_shutdown_callback(self._memoair_on_job_shutdown)
        listener.enter(self._memoair_link)

    def _memoair_use_memory(self, memory: CallMemory) -> None:
        if self._memoair_memory is not memory:
            self._memoair_memory = memory
            self._memoair_recall_cache = RecallCache(memory.search)
            self._memoair_turn_assembler = TurnAssembler(memory.save, saves_unanswered=True)
            self._memoair_begin_prompt()

    def _memoair_begin_prompt(self) -> None:
        """Fetch the prompt in the background, unless this is the agent that has last done so in the call."""
        memory, agent_prompt = self._memoair_memory, self._memoair_prompt
        if memory is not None and agent_prompt is not None and memory.latest_prompt is not agent_prompt:
            take = self._memoair_take_prompt(memory.take_prompt(agent_prompt))
            self._memoair_prompt_task = asyncio.create_task(take, name="memoair-instructions")

    async def _memoair_take_prompt(self, fetching: "asyncio.Task[Prompt | None]") -> str | None:
        """Wait for the prompt and set it, unless the application has set other instructions; return its text if set."""
        with log_failures("prompt_failed"):
            prompt = await asyncio.shield(fetching)
            present = str(self.instructions)
            if prompt is not None and are_instructions_of(present, [*self._memoair_own_instructions, prompt.text]):
                self._memoair_earlier_instructions = present
                await set_instructions(self, prompt.text)
                self._memoair_own_instructions[-1] = prompt.text
                return prompt.text
        return None

    async def _memoair_apply_prompt(self) -> str | None:
        """Wait until this agent has its prompt, two seconds at most and the first time only; return its text."""
        task = self._memoair_prompt_task
        if task is None:
            return None
        await asyncio.wait([task])
        return None if task.cancelled() else task.result()

    async def _memoair_insert_prompt(self, chat_ctx: llm.ChatContext) -> llm.ChatContext:
        """Return the context for the model with the prompt, if it was made before the agent had it."""
        text = await self._memoair_apply_prompt() if self._memoair_ensure_memory() else None
        return chat_ctx if text is None else insert_instructions(chat_ctx, text, self._memoair_earlier_instructions)

    async def _memoair_use_tool(self, query: str, intent: str) -> str:
        """Search for the model. A late call finds nothing."""
        if not self._memoair_ensure_memory() or self._memoair_memory is None:
            return ""
        listener = self._memoair_listener
        assembler = self._memoair_turn_assembler if listener is None else listener.turn_assembler
        found = await self._memoair_memory.search(query, intent=intent, origin="tool", turn_id=assembler.next_turn_id)
        return "" if found is None else found.contextText

    def _memoair_start_once(self) -> None:
        """Prepare for the session in the background, unless that was done for it."""
        if self._memoair_started_with is not self._memoair_listener:
            self._memoair_started_with = self._memoair_listener
            self._memoair_start_task = asyncio.create_task(self._memoair_start_in_background(), name="memoair-start")

    async def _memoair_start_in_background(self) -> None:
        with log_failures("start_failed"):
            await self._memoair_apply_prompt()  # a briefing is added to it
            model = find_model(self)
            await self._memoair_start(model, is_speech=is_speech_model(model))

    async def _memoair_start(self, model: Any, *, is_speech: bool) -> None:
        """Prepare what depends on the model and the recognizer of the session.

        Args:
            model: The model, or None if it is not known yet.
            is_speech: Whether it is a speech model.
        """
        memory = self._memoair_memory
        takes_terms = self._memoair_hands_over_terms and accepts_key_terms(self)
        if is_speech and self._memoair_offers_tool is None:
            await offer_tool(self, self._memoair_search_tool, model)
        if memory is None or not (is_speech or takes_terms):
            return
        found = await find_briefing(memory)
        if is_speech and found is not None:
            await brief(self, model, found.contextText)
        if takes_terms:
            add_key_terms(self, find_key_terms(found, self._memoair_caller_name))

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
            insert_recall(chat_ctx, context_text, message, self._memoair_recall_role)
        return chat_ctx

    def _memoair_start_closing(self) -> None:
        """Detach the memory, which saves the remaining turns and closes in the background."""
        memory, self._memoair_memory = self._memoair_memory, None
        listener, self._memoair_listener = self._memoair_listener, None
        self._memoair_has_left = True
        if self._memoair_start_task is not None:
            self._memoair_start_task.cancel()
        if listener is not None:
            listener.close()
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


class AgentLink:
    """What a session's listener uses of an agent."""

    def __init__(self, agent: AgentWithMemory) -> None:
        self.agent = agent

    # ruff: noqa: SLF001 - the agent's own, under names that a subclass does not use

    @property
    def has_left(self) -> bool:
        return self.agent._memoair_has_left

    @property
    def memory(self) -> CallMemory:
        assert self.agent._memoair_memory is not None  # noqa: S101 - it joined with one
        return self.agent._memoair_memory

    @property
    def recall_cache(self) -> RecallCache:
        return self.agent._memoair_recall_cache

    def prefetch(self, text: str) -> None:
        if not is_speech_model(find_model(self.agent)):  # nothing is recalled for its turns
            self.agent._memoair_recall_cache.prefetch(text, self.agent.chat_ctx)

    def start_closing(self) -> None:
        self.agent._memoair_start_closing()


def enter(agent: AgentWithMemory) -> None:
    """Open the memory of an agent that enters, and put it in charge of its session. Doing so again does no harm."""
    with log_failures("enter_failed"):
        agent._memoair_has_left = False
        agent._memoair_ensure_memory()
        if agent._memoair_listener is not None:
            agent._memoair_join(agent._memoair_listener)
            agent._memoair_begin_prompt()  # another agent may have been in charge
            agent._memoair_start_once()


async def wait_for_prompt(agent: AgentWithMemory) -> None:
    """Wait until an agent that enters has its prompt: it may greet."""
    with log_failures("prompt_failed"):
        await agent._memoair_apply_prompt()


def _join(agent: Any, listener: SessionListener) -> AgentLink | None:
    """Let an agent that takes over join the session's listener, before its `on_enter` is called."""
    if not isinstance(agent, AgentWithMemory):
        return None
    agent._memoair_join(listener)
    return agent._memoair_link
