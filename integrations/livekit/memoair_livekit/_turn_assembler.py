"""Assembles the items of a conversation into turns. Each item becomes part of exactly one turn."""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Any

from livekit.agents import llm


@dataclass
class LiveKitTurn:
    """What the caller said and what they heard in answer. The ``repr`` contains neither.

    Attributes:
        turn_id: The id of the turn's first item.
        said_at: When that item was created, in seconds since the epoch.
        user_text: What the caller said; empty if the agent spoke on its own initiative.
        assistant_texts: The parts of the answer, as far as they were heard.
        tool_calls: The tools that were called for the answer, ``{"name", "isError"}``.
        is_interrupted: Whether the caller interrupted the answer.
    """

    turn_id: str
    said_at: float
    user_text: str = field(default="", repr=False)
    assistant_texts: list[str] = field(default_factory=list, repr=False)
    tool_calls: list[dict[str, Any]] = field(default_factory=list, repr=False)
    is_interrupted: bool = False

    def save_arguments(self) -> dict[str, Any]:
        """Return the arguments for ``save_response``."""
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
    """Joins the caller's words with the parts of the answer, and passes each turn on when it is complete.

    A turn is complete when the caller speaks again, when the answer is interrupted, or at a `flush`. Words without an
    answer are a turn too, and so is what the agent says on its own initiative. Use it only in the thread of the event
    loop.
    """

    def __init__(self, on_turn: Callable[[LiveKitTurn], None]) -> None:
        """Create an assembler. ``on_turn`` is called with each complete turn."""
        self._on_turn = on_turn
        self._current: LiveKitTurn | None = None
        self._seen_item_ids: set[str] = set()  # a call has a few hundred items

    @property
    def has_answer(self) -> bool:
        """Whether the current turn has an answer, which `flush` would pass on."""
        return self._current is not None and bool(self._current.assistant_texts)

    def add_message(self, message: llm.ChatMessage, received_at: float) -> None:
        """Add a message of either side. Messages without text, or that were added before, are ignored."""
        text = (message.text_content or "").strip()
        if message.role not in ("user", "assistant") or not text or message.id in self._seen_item_ids:
            return
        self._seen_item_ids.add(message.id)
        said_at = getattr(message, "created_at", received_at)  # livekit-agents 1.0 has no timestamps
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
        """Record the tools that were called for the current answer."""
        if self._current is not None:
            self._current.tool_calls.extend(calls)

    def flush(self) -> None:
        """Complete the current turn, if any, and pass it on."""
        turn, self._current = self._current, None
        if turn is not None:
            self._on_turn(turn)
