"""Listens to the events of a LiveKit session while agents with memory serve it."""

import asyncio
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any, Protocol
from weakref import WeakKeyDictionary, ref

from livekit.agents import llm

from memoair_livekit._backchannels import is_backchannel
from memoair_livekit._log import log_failures
from memoair_livekit._memory import CallMemory
from memoair_livekit._recall_cache import RecallCache
from memoair_voice.integration import AssembledTurn, TurnAssembler

if TYPE_CHECKING:
    from livekit.agents import AgentSession

# An answer may continue after a tool call. Usually a change of the agent's state follows, which flushes the turn; this
# delay covers the other cases.
_FLUSH_DELAY_S = 1.0
_BUSY_STATES = frozenset({"thinking", "speaking"})


class ListeningAgent(Protocol):
    """What the listener knows of an agent with memory."""

    @property
    def agent(self) -> Any:
        """The agent of LiveKit."""

    @property
    def has_left(self) -> bool:
        """Whether LiveKit has let it leave the session. An agent that waits for a task has not left."""

    @property
    def memory(self) -> CallMemory:
        """Where its turns are saved."""

    @property
    def recall_cache(self) -> RecallCache:
        """Where searches are started early."""

    def prefetch(self, text: str) -> None:
        """Start searching with what the caller has said so far."""

    def start_closing(self) -> None:
        """Release the memory in the background: the session has closed."""


# Returns what the listener needs of a LiveKit agent that has entered a session, or None for one without memory.
JoinFunction = Callable[[Any, "SessionListener"], "ListeningAgent | None"]


@dataclass
class _Words:
    """Final transcripts of the caller that have not become a message of the conversation."""

    text: str = field(repr=False)
    said_at: datetime


def add_message(turn_assembler: TurnAssembler, message: llm.ChatMessage) -> None:
    """Add a message of either side to the turns. Messages without text, or that were added before, are ignored."""
    text = (message.text_content or "").strip()
    said_at = datetime.fromtimestamp(_said_at(message), timezone.utc)
    if text and message.role == "user":
        turn_assembler.on_user_text(text, item_id=message.id, said_at=said_at)
    elif text and message.role == "assistant":
        turn_assembler.on_answer_stopped(
            text, interrupted=message.interrupted, may_continue=True, item_id=message.id, said_at=said_at
        )


class SessionListener:
    """Assembles what is said in a session to turns, and gives each to the memory of the agent in charge.

    There is one for each session, however many agents serve it in turn: words that were said to one agent may be
    answered by the next. What is said to agents without memory is not saved, except words from before they took over.

    Stops when the session closes. Use it only in the thread of the event loop.
    """

    _listeners: "WeakKeyDictionary[AgentSession[Any], ref[SessionListener]]" = WeakKeyDictionary()

    @classmethod
    def of(cls, session: "AgentSession[Any]", join: JoinFunction) -> "SessionListener":
        """Return the listener of a session, which the session's handlers keep alive.

        Args:
            session: The session.
            join: Called with each agent that takes over.
        """
        reference = cls._listeners.get(session)
        listener = reference() if reference is not None else None
        if listener is None or listener.is_closed:
            listener = cls(session, join)
            cls._listeners[session] = ref(listener)
        return listener

    def __init__(self, session: "AgentSession[Any]", join: JoinFunction) -> None:
        """Start listening."""
        self.turn_assembler = TurnAssembler(self._save, saves_unanswered=True)
        self.is_closed = False
        self.memories: dict[Any, CallMemory] = {}  # of the agents so far, by whose memory it is
        self._session = session
        self._join = join
        self._agents: list[ListeningAgent] = []  # that have joined
        self._agent: ListeningAgent | None = None  # in charge
        self._memory: CallMemory | None = None  # of the agent that was in charge last
        self._handed_over_at = 0.0  # to an agent without memory
        self._transcripts: deque[_Words] = deque(maxlen=50)  # of the caller's current turn
        self._ended_turn: list[_Words] = []  # the transcripts of a turn whose message LiveKit has not reported yet
        self._dropped_words: list[_Words] = []  # said before an agent took over, and so far no message
        self._is_busy = False
        self._speaking_since: float | None = None
        self._flush_timer: asyncio.TimerHandle | None = None
        self._handlers: dict[Any, Callable[[Any], None]] = {
            "user_input_transcribed": self._handle_transcript,
            "conversation_item_added": self._handle_item,
            "function_tools_executed": self._handle_tools,
            "agent_state_changed": self._handle_state,
            "close": self._handle_close,
        }
        for event, handler in self._handlers.items():
            session.on(event, handler)

    def enter(self, agent: ListeningAgent) -> None:
        """Put an agent in charge. Doing so again does no harm."""
        if agent not in self._agents:
            self._agents.append(agent)
        self._agent, self._memory = agent, agent.memory

    def end_turn(self) -> None:
        """Note that the caller's turn has ended: what they say from now on is another one."""
        self._ended_turn = list(self._transcripts)
        self._transcripts.clear()

    def add_message(self, message: llm.ChatMessage) -> None:
        """Add a message to the turns, whether it came from an event or from a hook."""
        if message.role == "user" and self._is_backchannel(message):
            return
        self._add_dropped_words(message if message.role == "user" else None)
        add_message(self.turn_assembler, message)
        if self.turn_assembler.may_continue:
            self._schedule_flush()

    def close(self) -> None:
        """Stop listening, complete the last turn, and let each agent release its memory."""
        if self.is_closed:
            return
        self.is_closed = True
        for event, handler in self._handlers.items():
            self._session.off(event, handler)
        if self._flush_timer is not None:
            self._flush_timer.cancel()
        self._flush()
        for agent in self._agents:
            agent.start_closing()

    def _save(self, turn: AssembledTurn) -> None:
        if self._memory is not None:
            self._memory.save(turn)

    def _flush(self) -> None:
        self._add_dropped_words(None)
        self.turn_assembler.flush()

    # Events

    def _handle_transcript(self, event: Any) -> None:
        with log_failures("recall_failed"):
            if not hasattr(llm, "AgentHandoff") and self._has_new_agent(None):
                self._follow_handover(time.time())
            if self._agent is None or not event.is_final or not event.transcript:
                return
            self._transcripts.append(_Words(event.transcript, datetime.now(timezone.utc)))
            self._agent.prefetch(" ".join(words.text for words in self._transcripts))

    def _handle_item(self, event: Any) -> None:
        with log_failures("hearing_failed"):
            item = event.item
            if self._has_new_agent(item):
                self._follow_handover(getattr(item, "created_at", time.time()))
            if not isinstance(item, llm.ChatMessage):
                return
            if item.role == "user":
                # The message is that of the turn that has ended, or else LiveKit has called no hook of ours.
                (self._ended_turn or self._transcripts).clear()
                if self._agent is not None:
                    self._agent.recall_cache.end_turn(item.id)
            if self._agent is not None:
                self.add_message(item)
            elif _said_at(item) < self._handed_over_at:  # it is reported late
                self.add_message(item)
                self._flush()

    def _handle_tools(self, event: Any) -> None:
        with log_failures("hearing_failed"):
            if self._agent is None or not self.turn_assembler.is_open:  # the tools of an answer that was interrupted
                return
            failed_ids = {output.call_id for output in event.function_call_outputs if output and output.is_error}
            for call in event.function_calls:
                self.turn_assembler.on_tool_called(call.name, isError=call.call_id in failed_ids)

    def _handle_state(self, event: Any) -> None:
        with log_failures("hearing_failed"):
            self._is_busy = event.new_state in _BUSY_STATES
            self._speaking_since = time.time() if event.new_state == "speaking" else None
            if not self._is_busy:
                self.turn_assembler.on_agent_idle()

    def _handle_close(self, event: Any) -> None:  # noqa: ARG002 - the reason for closing does not matter
        with log_failures("hearing_failed"):
            self.close()

    # Handoffs

    def _has_new_agent(self, item: Any) -> bool:
        """Return whether another agent has taken over.

        LiveKit versions before 1.2 have no event for this and only stop our agent.
        """
        if hasattr(llm, "AgentHandoff"):
            return bool(item.type == "agent_handoff")
        agent: Any = self._session.current_agent
        return (
            agent is not None and agent is not (self._agent and self._agent.agent) and _is_running(agent, self._session)
        )

    def _follow_handover(self, handed_over_at: float) -> None:
        """Put the session's new agent in charge if it has a memory.

        An agent that waits for a task, as LiveKit calls an agent that returns a result, stays in charge: the task is a
        part of its own work.
        """
        self._dropped_words += [*self._ended_turn, *self._transcripts]
        self._ended_turn.clear()
        self._transcripts.clear()
        if (agent := self._join(self._session.current_agent, self)) is not None:
            self.enter(agent)
        elif self._agent is not None and self._agent.has_left:
            self._flush()
            self._agent, self._handed_over_at = None, handed_over_at

    def _add_dropped_words(self, message: llm.ChatMessage | None) -> None:
        """Add what the caller said while one agent handed over to another, which LiveKit drops.

        Words that a later message of the caller repeats were not dropped.
        """
        words, self._dropped_words = self._dropped_words, []
        spoken = message.text_content or "" if message is not None else ""
        for item in words:
            if item.text.strip() and item.text.strip() not in spoken and not is_backchannel(item.text):
                self.turn_assembler.on_user_text(item.text.strip(), said_at=item.said_at)

    # Backchannels

    def _is_backchannel(self, message: llm.ChatMessage) -> bool:
        """Return whether the caller has only signaled that they listen, while the agent goes on speaking.

        Models that listen and speak at once report such words as a message. A transcript may also arrive late, when the
        agent answers it already: those words are a turn.
        """
        if self._speaking_since is None or not is_backchannel(message.text_content or ""):
            return False
        started_at = (getattr(message, "metrics", None) or {}).get("started_speaking_at")
        return self.turn_assembler.is_open if started_at is None else started_at > self._speaking_since

    # The end of an answer

    def _schedule_flush(self) -> None:
        if self._flush_timer is not None:
            self._flush_timer.cancel()
        self._flush_timer = asyncio.get_running_loop().call_later(_FLUSH_DELAY_S, self._flush_if_idle)

    def _flush_if_idle(self) -> None:
        with log_failures("hearing_failed"):
            if self._is_busy:
                self._schedule_flush()
            else:
                self.turn_assembler.on_agent_idle()


def _said_at(message: llm.ChatMessage) -> float:
    """Return when a message began to be spoken, in seconds since the epoch."""
    started_at = (getattr(message, "metrics", None) or {}).get("started_speaking_at")
    return started_at if started_at is not None else getattr(message, "created_at", time.time())  # 1.0 has none


def _is_running(agent: Any, session: Any) -> bool:
    try:
        return agent.session is session
    except RuntimeError:
        return False
