"""What is said in a LiveKit session, heard from its events while an agent of ours serves it."""

import asyncio
import time
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from livekit.agents import llm

from memoair_livekit._log import log_failures
from memoair_livekit._recall_cache import RecallCache
from memoair_livekit._turn_assembler import LiveKitTurnAssembler

if TYPE_CHECKING:
    from livekit.agents import Agent, AgentSession

# An answer goes on behind a tool call, which the agent's state tells; this is for what no state tells.
_SETTLE_S = 1.0
_BUSY = frozenset({"thinking", "speaking"})


class SessionListener:
    """Tells the turns and the recalls what is said in the session, until it closes or is handed on.

    For the thread of the event loop only.
    """

    def __init__(
        self,
        session: "AgentSession[Any]",
        agent: "Agent",
        turns: LiveKitTurnAssembler,
        recalls: RecallCache,
        at_close: Callable[[], None],
    ) -> None:
        """``at_close`` is called once the session has closed, when nothing more will be heard."""
        self._recalls = recalls
        self._transcripts: deque[str] = deque(maxlen=50)  # of the turn that the caller is at
        self._session = session
        self._agent = agent
        self._turns = turns
        self._at_close = at_close
        self._is_leaving = False
        self._is_busy = False
        self._timer: asyncio.TimerHandle | None = None
        self.hears = True
        self._handlers: dict[Any, Callable[[Any], None]] = {
            "user_input_transcribed": self._on_transcript,
            "conversation_item_added": self._on_item,
            "function_tools_executed": self._on_tools,
            "agent_state_changed": self._on_state,
            "close": self._on_close,
        }
        for event, handler in self._handlers.items():
            session.on(event, handler)

    def leave(self) -> None:
        """The agent leaves: what it is still saying, and the caller's last words where the session closes, are heard;
        what is said after another agent has taken over is not.
        """
        self._is_leaving = True

    def stay(self) -> None:
        """The agent is back."""
        self._is_leaving = False
        if not self.hears:
            self._hear(True)

    def stop(self) -> None:
        """Hear nothing any more, and give on what was heard."""
        if self.hears:
            self._hear(False)
            self._turns.settle()

    def add(self, message: llm.ChatMessage) -> None:
        """Take a message, whichever way it came."""
        self._turns.add(message, time.time())
        if self._turns.is_answered:
            self._settle_later()

    def _hear(self, hears: bool) -> None:
        self.hears = hears
        change = self._session.on if hears else self._session.off
        for event, handler in self._handlers.items():
            if event != "close":
                change(event, handler)
        if self._timer is not None:
            self._timer.cancel()

    def _on_transcript(self, event: Any) -> None:
        with log_failures("recall_failed"):
            if event.is_final and event.transcript:
                self._transcripts.append(event.transcript)
                self._recalls.expect(" ".join(self._transcripts), self._agent.chat_ctx)

    def _on_item(self, event: Any) -> None:
        with log_failures("hearing_failed"):
            if self._is_leaving and self._is_handed_on(event.item):
                self.stop()
            elif isinstance(event.item, llm.ChatMessage):
                if event.item.role == "user":
                    self._transcripts.clear()
                self.add(event.item)

    def _on_tools(self, event: Any) -> None:
        with log_failures("hearing_failed"):
            outputs = {output.call_id: output for output in event.function_call_outputs if output is not None}
            self._turns.add_tool_calls(
                [
                    {"name": call.name, "isError": bool(output and output.is_error)}
                    for call in event.function_calls
                    for output in [outputs.get(call.call_id)]
                ]
            )

    def _on_state(self, event: Any) -> None:
        with log_failures("hearing_failed"):
            self._is_busy = event.new_state in _BUSY
            if not self._is_busy and self._turns.is_answered:
                self._turns.settle()

    def _on_close(self, event: Any) -> None:  # noqa: ARG002 - why it closed does not matter
        with log_failures("hearing_failed"):
            self._session.off("close", self._handlers["close"])
            self.stop()
            self._at_close()

    def _is_handed_on(self, item: Any) -> bool:
        """Whether another agent has taken over: LiveKit says so, or, before 1.2, only stops running ours."""
        if item.type == "agent_handoff":
            return True
        if self._session.current_agent is self._agent:  # also while the session closes
            return False
        try:
            return self._agent.session is not self._session
        except RuntimeError:
            return True

    def _settle_later(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_later(_SETTLE_S, self._settle_if_quiet)

    def _settle_if_quiet(self) -> None:
        with log_failures("hearing_failed"):
            if self._is_busy:
                self._settle_later()
            elif self._turns.is_answered:
                self._turns.settle()
