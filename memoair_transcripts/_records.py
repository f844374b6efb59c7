"""The input and output of readers. Callers' ids and words are left out of every ``repr``."""

from collections.abc import Callable, Mapping
from datetime import datetime
from enum import Enum
from typing import Any

import attrs

from memoair_protocol.identifiers import identifier_problem
from memoair_protocol.names import clean_name, is_role_name


class InvalidTurnError(ValueError):
    """A line or an id is invalid. The message says why, without quoting it."""


class Side(Enum):
    """A side of a conversation."""

    USER = "user"  # the caller
    ASSISTANT = "assistant"  # the agent


def _clean_optional_name(name: str | None) -> str | None:
    return (clean_name(name) or None) if name is not None else None


def _clean_caller_name(name: str | None) -> str | None:
    return None if name is not None and is_role_name(name) else _clean_optional_name(name)


@attrs.frozen
class TranscriptTurn:
    """A turn of a call: what the caller said, and what the agent answered. One of the two may be empty.

    Attributes:
        user_id: The caller's id.
        session_id: The id of the call.
        turn_id: The id from the file, or one made from the content and the time, so that reading the turn again gives
            the same id.
        occurred_at: The time of the turn in UTC, None if the file does not give one.
        user_text: What the caller said.
        assistant_text: What the agent answered.
        user_name: The caller's name as it is shown, if it is known; not one that would pose as a role, such as "AI".
        assistant_name: The agent's name as it is shown, if it is known.
        metadata: Metadata from the file.
        line: The line of the file that the turn starts on, from 1.
    """

    user_id: str = attrs.field(repr=False)
    session_id: str = attrs.field(repr=False)
    turn_id: str
    occurred_at: datetime | None
    user_text: str = attrs.field(repr=False)
    assistant_text: str = attrs.field(repr=False)
    user_name: str | None = attrs.field(default=None, repr=False, converter=_clean_caller_name)
    assistant_name: str | None = attrs.field(default=None, repr=False, converter=_clean_optional_name)
    metadata: Mapping[str, Any] = attrs.field(factory=dict, repr=False)
    line: int = 0


@attrs.frozen
class TranscriptTexts:
    """What of a turn may hold personal data, for a function that redacts it.

    Attributes:
        user_text: What the caller said.
        assistant_text: What the agent answered.
        user_name: The caller's name, if it is known.
        assistant_name: The agent's name, if it is known.
        metadata: Metadata from the file.
    """

    user_text: str = attrs.field(repr=False)
    assistant_text: str = attrs.field(repr=False)
    user_name: str | None = attrs.field(default=None, repr=False)
    assistant_name: str | None = attrs.field(default=None, repr=False)
    metadata: Mapping[str, Any] = attrs.field(factory=dict, repr=False)


@attrs.frozen
class Rejection:
    """A line of a file that is not a valid turn or part of one.

    Attributes:
        file: The name of the file.
        line: The number of the line, from 1; 0 if the whole file is rejected.
        reason: Why it is rejected. It never quotes the line.
    """

    file: str
    line: int
    reason: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.reason}" if self.line else f"{self.file}: {self.reason}"


@attrs.frozen
class SkippedItem:
    """A part of a file that is passed over, because neither the caller nor the agent said it.

    Attributes:
        file: The name of the file.
        line: The number of the line, from 1.
        reason: Why it is passed over. It never quotes the file.
    """

    file: str
    line: int
    reason: str


@attrs.frozen
class TranscriptOptions:
    """Values that a transcript may lack. Values in the file take precedence.

    Attributes:
        user_id: The caller's id.
        user_name: The caller's name.
        assistant_name: The agent's name.
        session_id: The id of the call. By default it is made from the head of the file.
        started_at: When the call started. Lines with an offset from the start get their time from it.
        callers: Labels of the caller in a text, or the caller's channel.
        assistants: Labels of the agent in a text, or the agent's channel. If only one of the two is given, all other
            labels belong to the other side. If both are given, any other label is rejected. If neither is given, the
            usual labels are recognized: ``Caller``, ``Customer``, ``User``, and ``Agent``, ``Assistant``, ``Bot``.

    Raises:
        ValueError: An id is invalid.
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
    """The file that is being read.

    Attributes:
        name: Its name.
        call_id: The session id of calls without one.
        options: What the file may lack.
        head: The first 64 KiB of the file.
        on_skip: Receives what is passed over.
    """

    name: str
    call_id: str
    options: TranscriptOptions
    head: bytes = attrs.field(default=b"", repr=False)
    on_skip: Callable[["SkippedItem"], None] | None = None

    def head_text(self) -> str:
        """Return the head of the file as text."""
        return self.head.decode(errors="replace").replace("\r\n", "\n")

    def skip(self, line: int, reason: str) -> None:
        """Report something that is passed over."""
        if self.on_skip is not None:
            self.on_skip(SkippedItem(self.name, line, reason))

    def reject(self, line: int, reason: str) -> Rejection:
        """Return the rejection of one of its lines."""
        return Rejection(self.name, line, reason)


@attrs.frozen
class Message:
    """What one side says, with the fields of its line. Only the side and the text are always present."""

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
    """A turn that may still lack its id."""

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


def check_id(name: str, value: str) -> str:
    """Return the id. Raise `InvalidTurnError`, with the name of the field, if runtimes and clouds would reject it."""
    if problem := identifier_problem(value):
        raise InvalidTurnError(f"{name} {problem}")
    return value
