"""Assembles the events of a call into turns: one state machine for all frameworks.

A framework's adapter translates its events into calls of `TurnAssembler`. What they mean in which state is one table,
`TurnAssembler.TRANSITIONS`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timezone
from enum import Enum, auto
from typing import Any, ClassVar


class TurnState(Enum):
    """Where a call is between two events."""

    IDLE = auto()  # no words wait for an answer
    USER_SPEAKING = auto()  # words wait for an answer
    ASSISTANT_SPEAKING = auto()  # an answer, or a part of it, is in progress
    INTERRUPTED = auto()  # the caller has cut in, and what they heard is still to be reported
    TOOL_PENDING = auto()  # a part of the answer is over, and another may follow, as around a tool call


class TurnEvent(Enum):
    """What happens in a call."""

    USER_SPOKE = auto()
    ANSWER_STARTED = auto()
    ANSWER_CUT = auto()
    PART_ENDED = auto()
    ANSWER_ENDED = auto()
    AGENT_IDLE = auto()


@dataclass(frozen=True)
class AssembledTurn:
    """What the caller said until they got an answer, and what they heard in answer. The ``repr`` contains neither.

    Attributes:
        user_text: What the caller said; empty if the agent spoke on its own initiative.
        assistant_text: What the caller heard in answer; empty if they got none.
        started_at: When the caller, or else the agent, started to speak.
        is_interrupted: Whether the caller interrupted the answer.
        tool_calls: The tools that were called for the answer, each a dict with ``name``.
        turn_id: The framework's id of the turn's first item, or None.
    """

    user_text: str = field(repr=False)
    assistant_text: str = field(repr=False)
    started_at: datetime
    is_interrupted: bool = False
    tool_calls: tuple[dict[str, Any], ...] = field(default=(), repr=False)
    turn_id: str | None = None

    def save_arguments(self, framework: str) -> dict[str, Any]:
        """Return the arguments for ``save_response``, with the name of the framework in the metadata."""
        return {
            "turn_id": self.turn_id,
            "user_text": self.user_text,
            "assistant_text": self.assistant_text,
            "tool_calls": list(self.tool_calls),
            "metadata": {
                "framework": framework,
                "interrupted": self.is_interrupted,
                "occurredAt": self.started_at.isoformat(),
            },
        }


@dataclass
class _Item:
    text: str
    said_at: datetime
    item_id: str | None


@dataclass
class _Draft:
    words: list[_Item] = field(default_factory=list)
    heard_texts: list[str] = field(default_factory=list)
    tool_calls: list[dict[str, Any]] = field(default_factory=list)
    started_at: datetime | None = None
    turn_id: str | None = None
    # The ids of running tools, and whether there is a result that the model has not spoken about yet.
    running_tools: set[str] = field(default_factory=set)
    has_unspoken_result: bool = False


_Action = Callable[["TurnAssembler", _Item], None]
_Transition = tuple[tuple[_Action, ...], TurnState | None]


class TurnAssembler:
    """Assembles turns, and passes each on when it is complete. Each ``on_...`` method handles one event.

    What the caller says during an answer belongs to the next turn. What is said around a tool call is one answer: it
    ends with the first part after which no tool result is expected. An answer during which nothing was heard answers
    nothing. No word is lost, and none becomes part of two turns.

    Use it only in the thread of the event loop.
    """

    def __init__(self, on_turn: Callable[[AssembledTurn], None], *, saves_unanswered: bool = False) -> None:
        """Create an assembler.

        Args:
            on_turn: Called with each complete turn.
            saves_unanswered: Whether words without an answer (the caller continued, or interrupted before hearing
                anything) are a turn of their own. Otherwise they are kept for the turn that answers them.
        """
        self._on_turn = on_turn
        self._saves_unanswered = saves_unanswered
        self._state = TurnState.IDLE
        self._waiting: list[_Item] = []  # the caller's words that have no answer yet
        self._asked = 0  # how many of them the answer in progress is to; they leave the list when it is heard
        self._draft = _Draft()  # the turn that is being answered
        self._seen_item_ids: set[str] = set()  # a call has a few hundred items

    @property
    def is_open(self) -> bool:
        """Whether something was said that is not part of a complete turn."""
        return self._state is not TurnState.IDLE

    @property
    def may_continue(self) -> bool:
        """Whether a part of an answer was heard, and `on_agent_idle` would complete the turn."""
        return self._state is TurnState.TOOL_PENDING and bool(self._draft.heard_texts)

    @property
    def is_agent_initiated(self) -> bool:
        """Whether the answer in progress was started by the agent, without anything that the caller said."""
        is_speaking = self._state in (TurnState.ASSISTANT_SPEAKING, TurnState.INTERRUPTED)
        return is_speaking and not self._asked and not self._draft.words

    @property
    def next_turn_id(self) -> str | None:
        """The id with which the turn will be saved that answers the caller's last words; None if it is not known."""
        unasked = self._waiting[self._asked :]
        if unasked:
            return unasked[0].item_id
        return self._draft.turn_id or (self._waiting[0].item_id if self._waiting else None)

    def on_user_text(self, text: str, *, item_id: str | None = None, said_at: datetime | None = None) -> None:
        """Add what the caller said, between answers or during one. An item that was added before is ignored."""
        if self._is_new(item_id):
            self._apply(TurnEvent.USER_SPOKE, text, said_at, item_id)

    def on_answer_started(self) -> None:
        """Start an answer, or continue it after a tool call."""
        self._apply(TurnEvent.ANSWER_STARTED)

    def on_answer_interrupted(self) -> None:
        """Mark the answer in progress, if any, as interrupted."""
        self._apply(TurnEvent.ANSWER_CUT)

    def on_answer_stopped(
        self,
        text: str,
        *,
        interrupted: bool,
        may_continue: bool = False,
        item_id: str | None = None,
        said_at: datetime | None = None,
    ) -> None:
        """End an answer, or a part of it. An item that was added before is ignored.

        Args:
            text: The part that the caller heard.
            interrupted: Whether the caller interrupted it.
            may_continue: Whether another part may follow until `on_agent_idle`, although no tool is known to run.
            item_id: The framework's id of the part.
            said_at: When the part began; now by default.
        """
        if not self._is_new(item_id):
            return
        if self._state not in (TurnState.ASSISTANT_SPEAKING, TurnState.INTERRUPTED):
            self._apply(TurnEvent.ANSWER_STARTED, said_at=said_at)  # the framework reports only ends
        if interrupted:
            self._apply(TurnEvent.ANSWER_CUT)
        may_continue = may_continue or bool(self._draft.running_tools) or self._draft.has_unspoken_result
        is_part = may_continue and self._state is TurnState.ASSISTANT_SPEAKING
        self._apply(TurnEvent.PART_ENDED if is_part else TurnEvent.ANSWER_ENDED, text, said_at, item_id)

    def on_agent_idle(self) -> None:
        """Complete the turn whose answer might have continued: the agent neither speaks nor thinks any more."""
        self._apply(TurnEvent.AGENT_IDLE)

    def on_tool_called(self, name: str, call_id: str | None = None, **details: Any) -> None:
        """Record that a tool was called for the answer; with a ``call_id``, its result is expected."""
        self._draft.tool_calls.append({"name": name, **details})
        if call_id is not None:
            self._draft.running_tools.add(call_id)

    def on_tool_result(self, call_id: str) -> None:
        """Record the result of a tool. The model will speak about it."""
        if call_id in self._draft.running_tools:
            self._draft.running_tools.discard(call_id)
            self._draft.has_unspoken_result = True

    def on_tool_detached(self, call_id: str) -> None:
        """Stop waiting for a tool: it runs in the background or was cancelled."""
        self._draft.running_tools.discard(call_id)

    def on_model_started(self) -> None:
        """Record that the model answers with the results so far."""
        self._draft.has_unspoken_result = False

    def flush(self) -> None:
        """Complete everything that was said so far, at the end of the call."""
        self._close()
        if self._waiting:
            self._asked = len(self._waiting)
            self._take_words()
            self._complete()
        self._state = TurnState.IDLE

    def _is_new(self, item_id: str | None) -> bool:
        if item_id in self._seen_item_ids:
            return False
        if item_id is not None:
            self._seen_item_ids.add(item_id)
        return True

    def _apply(
        self, event: TurnEvent, text: str = "", said_at: datetime | None = None, item_id: str | None = None
    ) -> None:
        actions, next_state = self.TRANSITIONS[event].get(self._state, ((), self._state))
        item = _Item(text, said_at or datetime.now(timezone.utc), item_id)
        for action in actions:
            action(self, item)
        self._state = next_state or (TurnState.USER_SPEAKING if self._waiting else TurnState.IDLE)

    # Actions of the table

    def _add_words(self, item: _Item) -> None:
        self._waiting.append(item)

    def _begin_answer(self, item: _Item) -> None:
        self._asked = len(self._waiting)
        self._draft.started_at = self._draft.started_at or (self._waiting or [item])[0].said_at

    def _hear(self, item: _Item) -> None:
        if item.text:
            self._take_words()
            self._draft.heard_texts.append(item.text)
            self._draft.turn_id = self._draft.turn_id or item.item_id

    def _close_words(self, _: _Item) -> None:
        """Save the words that wait, or let them wait on. Tools that were called without an answer are forgotten."""
        self._asked = len(self._waiting)
        self._close()

    def _close(self, _: _Item | None = None) -> None:
        """Complete the turn if something was heard. Otherwise its words wait on, or are a turn of their own."""
        if self._draft.heard_texts:
            self._complete()
        elif self._asked and self._saves_unanswered:
            self._take_words()
            self._complete()
        self._draft, self._asked = _Draft(), 0

    def _take_words(self) -> None:
        taken = self._waiting[: self._asked]
        del self._waiting[: self._asked]
        self._asked = 0
        if taken:
            self._draft.words += taken
            self._draft.turn_id = self._draft.turn_id or taken[0].item_id

    def _complete(self) -> None:
        draft, self._draft = self._draft, _Draft()
        turn = AssembledTurn(
            user_text=" ".join(item.text for item in draft.words),
            assistant_text=" ".join(draft.heard_texts),
            started_at=draft.started_at or draft.words[0].said_at,
            is_interrupted=self._state is TurnState.INTERRUPTED and bool(draft.heard_texts),
            tool_calls=tuple(draft.tool_calls),
            turn_id=draft.turn_id,
        )
        self._on_turn(turn)

    # By event and state: what to do, and the state after it. None is USER_SPEAKING if words wait, and IDLE otherwise.
    # An event changes nothing in a state that it does not list.
    TRANSITIONS: ClassVar[Mapping[TurnEvent, Mapping[TurnState, _Transition]]] = {
        TurnEvent.USER_SPOKE: {
            TurnState.IDLE: ((_close_words, _add_words), TurnState.USER_SPEAKING),
            TurnState.USER_SPEAKING: ((_close_words, _add_words), TurnState.USER_SPEAKING),
            TurnState.ASSISTANT_SPEAKING: ((_add_words,), TurnState.ASSISTANT_SPEAKING),
            TurnState.INTERRUPTED: ((_add_words,), TurnState.INTERRUPTED),
            TurnState.TOOL_PENDING: ((_close, _close_words, _add_words), TurnState.USER_SPEAKING),
        },
        TurnEvent.ANSWER_STARTED: dict.fromkeys(TurnState, ((_begin_answer,), TurnState.ASSISTANT_SPEAKING)),
        TurnEvent.ANSWER_CUT: {TurnState.ASSISTANT_SPEAKING: ((), TurnState.INTERRUPTED)},
        TurnEvent.PART_ENDED: {TurnState.ASSISTANT_SPEAKING: ((_hear,), TurnState.TOOL_PENDING)},
        TurnEvent.ANSWER_ENDED: dict.fromkeys(
            (TurnState.ASSISTANT_SPEAKING, TurnState.INTERRUPTED), ((_hear, _close), None)
        ),
        TurnEvent.AGENT_IDLE: {TurnState.TOOL_PENDING: ((_close,), None)},
    }
