"""What is said in one call, heard piece by piece, as turns."""

from dataclasses import dataclass
from datetime import datetime, timezone


@dataclass(frozen=True)
class PipecatTurn:
    """What the caller said until he was answered, and what he heard in answer; either may be empty."""

    user_text: str
    assistant_text: str
    started_at: datetime
    is_interrupted: bool = False
    tool_names: tuple[str, ...] = ()


class PipecatTurnAssembler:
    """Puts turns together. Each method takes in what has happened, and returns the turn that it completes, if any.

    What the caller says while an answer is under way belongs to the next turn. What is said around a tool call is one
    answer: it ends with the first part that no tool's result is to be followed by. Words that were not answered (the
    caller went on, or interrupted before he heard anything) are kept for the turn that answers them.
    """

    def __init__(self) -> None:
        self._unanswered_texts: list[str] = []
        self._unanswered_since: datetime | None = None
        # Of the turn that is being answered:
        self._user_texts: list[str] = []
        self._started_at: datetime | None = None
        self._heard_texts: list[str] = []
        self._tool_names: list[str] = []
        self._is_answering = False
        self._is_interrupted = False
        # Tools that run (by their ids), and whether the model has yet to speak about the result of one.
        self._running_tool_ids: set[str] = set()
        self._has_unspoken_result = False

    @property
    def is_agent_initiated(self) -> bool:
        """Whether an answer is under way to nothing that the caller has said."""
        return self._is_answering and not self._user_texts

    def on_user_text(self, text: str) -> PipecatTurn | None:
        """The caller's words, when it is his turn or while the agent still speaks."""
        completed = None
        if not self._is_answering:
            if self._heard_texts:  # of an answer that was waiting for a tool, and now will not go on
                completed = self._complete_turn()
            else:
                self._requeue_user_texts()
        self._unanswered_texts.append(text)
        self._unanswered_since = self._unanswered_since or _now()
        return completed

    def on_answer_started(self) -> None:
        """The agent begins to speak, or goes on after a tool."""
        self._is_answering, self._is_interrupted = True, False
        self._started_at = self._started_at or self._unanswered_since or _now()
        self._user_texts += self._unanswered_texts
        self._unanswered_texts, self._unanswered_since = [], None

    def on_answer_interrupted(self) -> None:
        """The answer that is under way, if any, will not be heard to its end."""
        self._is_interrupted = self._is_answering

    def on_answer_stopped(self, text: str, *, interrupted: bool) -> PipecatTurn | None:
        """The agent has spoken; ``text`` is what was heard of it."""
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
        """The model has called a tool."""
        self._running_tool_ids.add(call_id)
        self._tool_names.append(name)

    def on_tool_result(self, call_id: str) -> None:
        """A tool's result is there, of which the model will speak."""
        if call_id in self._running_tool_ids:
            self._running_tool_ids.discard(call_id)
            self._has_unspoken_result = True

    def on_tool_detached(self, call_id: str) -> None:
        """Nobody waits for this tool: it runs in the background, or was cancelled."""
        self._running_tool_ids.discard(call_id)

    def on_model_started(self) -> None:
        """The model answers, knowing the results that are there."""
        self._has_unspoken_result = False

    def flush(self) -> list[PipecatTurn]:
        """The call is over: what is not in a turn yet."""
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
        """Nothing was heard in answer: what was asked waits for the next one."""
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
