"""Listens to the events of a LiveKit session while a MemoAir agent serves it."""

import asyncio
import time
from collections import deque
from collections.abc import Callable
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

from livekit.agents import llm

from memoair_livekit._log import log_failures
from memoair_livekit._recall_cache import RecallCache
from memoair_voice.integration import TurnAssembler

if TYPE_CHECKING:
    from livekit.agents import Agent, AgentSession

# An answer may continue after a tool call. Usually a change of the agent's state follows, which flushes the turn; this
# delay covers the other cases.
_FLUSH_DELAY_S = 1.0
_BUSY_STATES = frozenset({"thinking", "speaking"})


def add_message(turn_assembler: TurnAssembler, message: llm.ChatMessage) -> None:
    """Add a message of either side to the turns. Messages without text, or that were added before, are ignored."""
    text = (message.text_content or "").strip()
    said_at = datetime.fromtimestamp(getattr(message, "created_at", time.time()), timezone.utc)  # 1.0 has none
    if text and message.role == "user":
        turn_assembler.on_user_text(text, item_id=message.id, said_at=said_at)
    elif text and message.role == "assistant":
        turn_assembler.on_answer_stopped(
            text, interrupted=message.interrupted, may_continue=True, item_id=message.id, said_at=said_at
        )


class SessionListener:
    """Passes what is said in a session to the turn assembler and the recall cache.

    Stops when the session closes or another agent has taken over. Use it only in the thread of the event loop.
    """

    def __init__(
        self,
        session: "AgentSession[Any]",
        agent: "Agent",
        turn_assembler: TurnAssembler,
        recall_cache: RecallCache,
        on_closed: Callable[[], None],
    ) -> None:
        """Start listening. ``on_closed`` is called after the session has closed and the last turn is flushed."""
        self._recall_cache = recall_cache
        self._transcripts: deque[str] = deque(maxlen=50)  # of the caller's current turn
        self._session = session
        self._agent = agent
        self._turn_assembler = turn_assembler
        self._on_closed = on_closed
        self._is_leaving = False
        self._is_busy = False
        self._flush_timer: asyncio.TimerHandle | None = None
        self.is_listening = True
        self._handlers: dict[Any, Callable[[Any], None]] = {
            "user_input_transcribed": self._handle_transcript,
            "conversation_item_added": self._handle_item,
            "function_tools_executed": self._handle_tools,
            "agent_state_changed": self._handle_state,
            "close": self._handle_close,
        }
        for event, handler in self._handlers.items():
            session.on(event, handler)

    def mark_leaving(self) -> None:
        """Mark the agent as leaving.

        Listening continues until another agent has taken over: for the end of this agent's answer and, if the session
        closes, for the caller's last words.
        """
        self._is_leaving = True

    def resume(self) -> None:
        """Listen again, after the agent has returned."""
        self._is_leaving = False
        if not self.is_listening:
            self._set_listening(True)

    def stop(self) -> None:
        """Stop listening, and flush the turn in progress."""
        if self.is_listening:
            self._set_listening(False)
            self._turn_assembler.flush()

    def add_message(self, message: llm.ChatMessage) -> None:
        """Add a message to the turns, whether it came from an event or from a hook."""
        add_message(self._turn_assembler, message)
        if self._turn_assembler.may_continue:
            self._schedule_flush()

    def _set_listening(self, is_listening: bool) -> None:
        self.is_listening = is_listening
        register = self._session.on if is_listening else self._session.off
        for event, handler in self._handlers.items():
            if event != "close":
                register(event, handler)
        if self._flush_timer is not None:
            self._flush_timer.cancel()

    def _handle_transcript(self, event: Any) -> None:
        with log_failures("recall_failed"):
            if event.is_final and event.transcript:
                self._transcripts.append(event.transcript)
                self._recall_cache.prefetch(" ".join(self._transcripts), self._agent.chat_ctx)

    def _handle_item(self, event: Any) -> None:
        with log_failures("hearing_failed"):
            if self._is_leaving and self._is_handed_over(event.item):
                self.stop()
            elif isinstance(event.item, llm.ChatMessage):
                if event.item.role == "user":
                    self._transcripts.clear()
                self.add_message(event.item)

    def _handle_tools(self, event: Any) -> None:
        with log_failures("hearing_failed"):
            if not self._turn_assembler.is_open:  # the tools of an answer that was interrupted
                return
            failed_ids = {output.call_id for output in event.function_call_outputs if output and output.is_error}
            for call in event.function_calls:
                self._turn_assembler.on_tool_called(call.name, isError=call.call_id in failed_ids)

    def _handle_state(self, event: Any) -> None:
        with log_failures("hearing_failed"):
            self._is_busy = event.new_state in _BUSY_STATES
            if not self._is_busy:
                self._turn_assembler.on_agent_idle()

    def _handle_close(self, event: Any) -> None:  # noqa: ARG002 - the reason for closing does not matter
        with log_failures("hearing_failed"):
            self._session.off("close", self._handlers["close"])
            self.stop()
            self._on_closed()

    def _is_handed_over(self, item: Any) -> bool:
        """Return whether another agent has taken over.

        LiveKit versions before 1.2 have no event for this and only stop our agent.
        """
        if item.type == "agent_handoff":
            return True
        if self._session.current_agent is self._agent:  # this also holds while the session closes
            return False
        try:
            return self._agent.session is not self._session
        except RuntimeError:
            return True

    def _schedule_flush(self) -> None:
        if self._flush_timer is not None:
            self._flush_timer.cancel()
        self._flush_timer = asyncio.get_running_loop().call_later(_FLUSH_DELAY_S, self._flush_if_idle)

    def _flush_if_idle(self) -> None:
        with log_failures("hearing_failed"):
            if self._is_busy:
                self._schedule_flush()
            else:
                self._turn_assembler.on_agent_idle()
