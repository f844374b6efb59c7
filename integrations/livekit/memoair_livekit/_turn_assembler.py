"""From the items of a conversation, as they come, to turns that are kept: each item in one turn, once."""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Any

from livekit.agents import llm


@dataclass
class LiveKitTurn:
    """What the caller said and what he heard in answer. What was said stays out of the ``repr``."""

    turn_id: str
    said_at: float  # seconds since the epoch, as the item has it
    user_text: str = field(default="", repr=False)
    assistant_texts: list[str] = field(default_factory=list, repr=False)
    tool_calls: list[dict[str, Any]] = field(default_factory=list, repr=False)
    is_interrupted: bool = False

    def save_arguments(self) -> dict[str, Any]:
        """The arguments of ``save_response``."""
        return {
            "turn_id": self.turn_id,
            "user_text": self.user_text,
            "assistant_text": " ".join(self.assistant_texts),
            "tool_calls": self.tool_calls,
            "metadata": {
                "framework": "livekit",
                "interrupted": self.is_interrupted,
                "occurredAt": datetime.fromtimestamp(self.said_at, timezone.utc).isoformat(),
            },
        }


class LiveKitTurnAssembler:
    """Puts the caller's words and the parts of the answer together, and gives each turn on when it is over.

    A turn is over when the caller speaks again, when the answer was interrupted, or when it is `settle`-d. Words that
    were never answered are a turn, too, and so is what the agent says by itself. For the thread of the event loop only.
    """

    def __init__(self, on_turn: Callable[[LiveKitTurn], None]) -> None:
        """``keep`` is given each turn that is over."""
        self._on_turn = on_turn
        self._current: LiveKitTurn | None = None
        self._seen_item_ids: set[str] = set()  # ids of items; a call has some hundred

    @property
    def has_answer(self) -> bool:
        """Whether there is a turn with an answer, which `settle` would give on."""
        return self._current is not None and bool(self._current.assistant_texts)

    def add_message(self, message: llm.ChatMessage, received_at: float) -> None:
        """Take a message of either side. One that was taken before, or has no words, changes nothing."""
        text = (message.text_content or "").strip()
        if message.role not in ("user", "assistant") or not text or message.id in self._seen_item_ids:
            return
        self._seen_item_ids.add(message.id)
        said_at = getattr(message, "created_at", received_at)  # livekit-agents 1.0 has none
        if message.role == "user":
            self.flush()
            self._current = LiveKitTurn(message.id, said_at, user_text=text)
            return
        if self._current is None:
            self._current = LiveKitTurn(message.id, said_at)
        self._current.assistant_texts.append(text)
        if message.interrupted:
            self._current.is_interrupted = True
            self.flush()

    def add_tool_calls(self, calls: list[dict[str, Any]]) -> None:
        """Note which tools were called for the answer that is being given."""
        if self._current is not None:
            self._current.tool_calls.extend(calls)

    def flush(self) -> None:
        """Give on what there is: nothing will be added to it."""
        turn, self._current = self._current, None
        if turn is not None:
            self._on_turn(turn)
