"""What readers give, and what they are told beside the file. Callers' ids and words stay out of every ``repr``."""

from collections.abc import Mapping
from datetime import datetime
from enum import Enum
from typing import Any

import attrs

from memoair_voice_sync.transcripts._identifiers import check_id


class Side(Enum):
    """Who speaks."""

    USER = "user"  # the caller
    ASSISTANT = "assistant"  # the agent who answers


@attrs.frozen
class TranscriptTurn:
    """The caller spoke, the agent answered; one of the two may have said nothing.

    ``turn_id`` is the file's, or is made of what was said and when, so that it is the same whenever the turn is read
    again. ``occurred_at`` is in UTC, None where the file does not tell. ``line`` is where the turn begins in the file.
    """

    user_id: str = attrs.field(repr=False)
    session_id: str = attrs.field(repr=False)
    turn_id: str
    occurred_at: datetime | None
    user_text: str = attrs.field(repr=False)
    assistant_text: str = attrs.field(repr=False)
    user_name: str | None = attrs.field(default=None, repr=False)
    assistant_name: str | None = attrs.field(default=None, repr=False)
    metadata: Mapping[str, Any] = attrs.field(factory=dict, repr=False)
    line: int = 0


@attrs.frozen
class Rejection:
    """A line that is no turn and no part of one. ``line`` 0 is the whole file. The reason never holds what it says."""

    file: str
    line: int
    reason: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.reason}" if self.line else f"{self.file}: {self.reason}"


@attrs.frozen
class TranscriptOptions:
    """What a file may not tell by itself; where it does, the file comes first.

    ``user_id``, ``user_name`` and ``assistant_name`` are of a file that does not name them, ``session_id`` of one whose
    call has no id (by default the id is made of the file's beginning), ``started_at`` is when the call of a text began
    whose lines tell only how far into the call they are.

    ``callers`` and ``assistants`` are the speakers' labels in a text. Where one is given, every other label is the
    other side; where both are, any third label is refused; where none is, the usual words are known (``Caller``,
    ``Customer``, ``User``; ``Agent``, ``Assistant``, ``Bot``). Raises ValueError for an id that can't be one.
    """

    user_id: str | None = attrs.field(default=None, repr=False)
    user_name: str | None = attrs.field(default=None, repr=False)
    assistant_name: str | None = None
    session_id: str | None = attrs.field(default=None, repr=False)
    started_at: datetime | None = None
    callers: tuple[str, ...] = attrs.field(default=(), repr=False)
    assistants: tuple[str, ...] = attrs.field(default=(), repr=False)

    def __attrs_post_init__(self) -> None:
        for name in ("user_id", "session_id"):
            value = getattr(self, name)
            if value is not None:
                check_id(name, value)


@attrs.frozen
class TranscriptSource:
    """The file that is being read. ``call_id`` is the session of what names none."""

    name: str
    call_id: str
    options: TranscriptOptions

    def reject(self, line: int, reason: str) -> Rejection:
        """A refusal of one of its lines."""
        return Rejection(self.name, line, reason)


@attrs.frozen
class Message:
    """What one side says. Everything but the speaker and the words may be missing in a single one."""

    user_id: str
    session_id: str
    side: Side
    text: str
    line: int
    turn_id: str | None = None
    occurred_at: datetime | None = None
    user_name: str | None = None
    assistant_name: str | None = None
    metadata: Mapping[str, Any] = attrs.field(factory=dict)


@attrs.frozen
class PartialTurn:
    """A turn that may still lack an id."""

    user_id: str
    session_id: str
    turn_id: str | None
    occurred_at: datetime | None
    user_text: str
    assistant_text: str
    user_name: str | None
    assistant_name: str | None
    metadata: Mapping[str, Any]
    line: int
