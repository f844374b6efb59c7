"""Assembles the events of a call into turns."""

from dataclasses import dataclass
from datetime import datetime, timezone


@dataclass(frozen=True)
class PipecatTurn:
    """What the caller said until the agent answered, and what they heard of the answer. Either may be empty.

    Attributes:
        user_text: What the caller said.
        assistant_text: What the caller heard of the answer.
        started_at: When the caller, or else the agent, started to speak.
        is_interrupted: Whether the caller interrupted the answer.
        tool_names: The tools that were called for the answer.
    """

    user_text: str
    assistant_text: str
    started_at: datetime
    is_interrupted: bool = False
    tool_names: tuple[str, ...] = ()


class PipecatTurnAssembler:
    """Assembles turns. Each ``on_...`` method handles one event; some return the turn that the event completes.

    What the caller says during an answer belongs to the next turn. What is said around a tool call is one answer: it
    ends with the first part after which no tool result is expected. Words without an answer (the caller continued, or
    interrupted before hearing anything) are kept for the turn that answers them.
    """

    def __init__(self) -> None:
        self._unanswered_texts: list[str] = []
        self._unanswered_since: datetime | None = None
        # The turn that is being answered:
        self._user_texts: list[str] = []
        self._started_at: datetime | None = None
        self._heard_texts: list[str] = []
        self._tool_names: list[str] = []
        self._is_answering = False
        self._is_interrupted = False
        # The ids of running tools, and whether there is a result that the model has not answered with yet.
        self._running_tool_ids: set[str] = set()
        self._has_unspoken_result = False

    @property
    def is_agent_initiated(self) -> bool:
        """Whether the current answer was started by the agent, without anything that the caller said."""
        return self._is_answering and not self._user_texts

    def on_user_text(self, text: str) -> PipecatTurn | None:
        """Add what the caller said, between answers or during one."""
        completed = None
        if not self._is_answering:
            if self._heard_texts:  # the answer was waiting for a tool, and will not continue now
                completed = self._complete_turn()
            else:
                self._requeue_user_texts()
        self._unanswered_texts.append(text)
        self._unanswered_since = self._unanswered_since or _now()
        return completed

    def on_answer_started(self) -> None:
        """Start an answer, or continue it after a tool call."""
        self._is_answering, self._is_interrupted = True, False
        self._started_at = self._started_at or self._unanswered_since or _now()
        self._user_texts += self._unanswered_texts
        self._unanswered_texts, self._unanswered_since = [], None

    def on_answer_interrupted(self) -> None:
        """Mark the current answer, if any, as interrupted."""
        self._is_interrupted = self._is_answering

    def on_answer_stopped(self, text: str, *, interrupted: bool) -> PipecatTurn | None:
        """End an answer, or a part of it. ``text`` is the part that the caller heard."""
        if not self._is_answering:
            self.on_answer_started()
        interrupted = interrupted or self._is_interrupted
        self._is_answering = self._is_interrupted = False
        if text:
            self._heard_texts.append(text)
        if interrupted:
            self._running_tool_ids.clear()
            self._has_unspoken_result = False
        elif self._running_tool_ids or self._has_unspoken_result:
            return None
        if self._heard_texts:
            return self._complete_turn(interrupted=interrupted)
        self._requeue_user_texts()
        return None

    def on_tool_called(self, call_id: str, name: str) -> None:
        """Record that the model called a tool."""
        self._running_tool_ids.add(call_id)
        self._tool_names.append(name)

    def on_tool_result(self, call_id: str) -> None:
        """Record that a tool has returned. The model has yet to answer with its result."""
        if call_id in self._running_tool_ids:
            self._running_tool_ids.discard(call_id)
            self._has_unspoken_result = True

    def on_tool_detached(self, call_id: str) -> None:
        """Stop waiting for a tool: it runs in the background or was cancelled."""
        self._running_tool_ids.discard(call_id)

    def on_model_started(self) -> None:
        """Record that the model answers with the results so far."""
        self._has_unspoken_result = False

    def flush(self) -> list[PipecatTurn]:
        """Return the remaining turns at the end of the call."""
        self._is_answering = False
        turns = []
        if self._heard_texts:
            turns.append(self._complete_turn())
        self._requeue_user_texts()
        if self._unanswered_texts:
            self.on_answer_started()
            self._is_answering = False
            turns.append(self._complete_turn())
        return turns

    def _complete_turn(self, *, interrupted: bool = False) -> PipecatTurn:
        turn = PipecatTurn(
            user_text=" ".join(self._user_texts),
            assistant_text=" ".join(self._heard_texts),
            started_at=self._started_at or _now(),
            is_interrupted=interrupted,
            tool_names=tuple(self._tool_names),
        )
        self._reset()
        return turn

    def _requeue_user_texts(self) -> None:
        """Keep the caller's words for the next answer, because nothing was heard in this one."""
        if self._user_texts:
            self._unanswered_texts[:0] = self._user_texts
            self._unanswered_since = self._started_at
        self._reset()

    def _reset(self) -> None:
        self._user_texts, self._heard_texts, self._tool_names, self._started_at = [], [], [], None
        self._running_tool_ids.clear()
        self._has_unspoken_result = False


def _now() -> datetime:
    return datetime.now(timezone.utc)
