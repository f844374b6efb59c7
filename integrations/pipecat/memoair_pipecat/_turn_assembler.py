"""What is said in one call, heard piece by piece, as turns."""

from dataclasses import dataclass
from datetime import datetime, timezone


@dataclass(frozen=True)
class PipecatTurn:
    """What the caller said until he was answered, and what he heard in answer; either may be empty."""

    user_text: str
    assistant_text: str
    began_at: datetime
    interrupted: bool = False
    tools: tuple[str, ...] = ()


class PipecatTurnAssembler:
    """Puts turns together. Each method takes in what has happened, and returns the turn that it completes, if any.

    What the caller says while an answer is under way belongs to the next turn. What is said around a tool call is one
    answer: it ends with the first part that no tool's result is to be followed by. Words that were not answered (the
    caller went on, or interrupted before he heard anything) are kept for the turn that answers them.
    """

    def __init__(self) -> None:
        self._unanswered: list[str] = []
        self._unanswered_since: datetime | None = None
        # Of the turn that is being answered:
        self._asked: list[str] = []
        self._began_at: datetime | None = None
        self._heard: list[str] = []
        self._tools: list[str] = []
        self._is_answering = False
        self._is_cut_off = False
        # Tools that run (by their ids), and whether the model has yet to speak about the result of one.
        self._running: set[str] = set()
        self._owes_result = False

    @property
    def is_of_the_agent_alone(self) -> bool:
        """Whether an answer is under way to nothing that the caller has said."""
        return self._is_answering and not self._asked

    def user_said(self, text: str) -> PipecatTurn | None:
        """The caller's words, when it is his turn or while the agent still speaks."""
        completed = None
        if not self._is_answering:
            if self._heard:  # of an answer that was waiting for a tool, and now will not go on
                completed = self._close()
            else:
                self._take_back()
        self._unanswered.append(text)
        self._unanswered_since = self._unanswered_since or _now()
        return completed

    def answer_began(self) -> None:
        """The agent begins to speak, or goes on after a tool."""
        self._is_answering, self._is_cut_off = True, False
        self._began_at = self._began_at or self._unanswered_since or _now()
        self._asked += self._unanswered
        self._unanswered, self._unanswered_since = [], None

    def cut_off(self) -> None:
        """The answer that is under way, if any, will not be heard to its end."""
        self._is_cut_off = self._is_answering

    def answer_ended(self, text: str, *, interrupted: bool) -> PipecatTurn | None:
        """The agent has spoken; ``text`` is what was heard of it."""
        if not self._is_answering:
            self.answer_began()
        interrupted = interrupted or self._is_cut_off
        self._is_answering = self._is_cut_off = False
        if text:
            self._heard.append(text)
        if interrupted:
            self._running.clear()
            self._owes_result = False
        elif self._running or self._owes_result:
            return None
        if self._heard:
            return self._close(interrupted=interrupted)
        self._take_back()
        return None

    def tool_called(self, call_id: str, name: str) -> None:
        """The model has called a tool."""
        self._running.add(call_id)
        self._tools.append(name)

    def tool_answered(self, call_id: str) -> None:
        """A tool's result is there, of which the model will speak."""
        if call_id in self._running:
            self._running.discard(call_id)
            self._owes_result = True

    def tool_detached(self, call_id: str) -> None:
        """Nobody waits for this tool: it runs in the background, or was cancelled."""
        self._running.discard(call_id)

    def model_speaks(self) -> None:
        """The model answers, knowing the results that are there."""
        self._owes_result = False

    def rest(self) -> list[PipecatTurn]:
        """The call is over: what is not in a turn yet."""
        self._is_answering = False
        turns = []
        if self._heard:
            turns.append(self._close())
        self._take_back()
        if self._unanswered:
            self.answer_began()
            self._is_answering = False
            turns.append(self._close())
        return turns

    def _close(self, *, interrupted: bool = False) -> PipecatTurn:
        turn = PipecatTurn(
            user_text=" ".join(self._asked),
            assistant_text=" ".join(self._heard),
            began_at=self._began_at or _now(),
            interrupted=interrupted,
            tools=tuple(self._tools),
        )
        self._begin_anew()
        return turn

    def _take_back(self) -> None:
        """Nothing was heard in answer: what was asked waits for the next one."""
        if self._asked:
            self._unanswered[:0] = self._asked
            self._unanswered_since = self._began_at
        self._begin_anew()

    def _begin_anew(self) -> None:
        self._asked, self._heard, self._tools, self._began_at = [], [], [], None
        self._running.clear()
        self._owes_result = False


def _now() -> datetime:
    return datetime.now(timezone.utc)
