"""Speakers of a call: labels, names and sides, and the header of a transcript."""

import re
from collections.abc import Callable
from datetime import datetime

import attrs

from memoair_transcripts._records import InvalidTurnError, Message, Side, TranscriptOptions, TranscriptSource, check_id

_COLON = re.compile(r"[:\uff1a]")
_MAX_LABEL_CHARS = 60
# A name is short, and its later words are capitalized: "The options are: ..." is not a label.
_NAME = re.compile(r"[^\W_][\w.'-]{0,30}(?: [A-Z0-9][\w.'-]{0,30}){0,3}")
_DEFAULT_LABELS = {
    **dict.fromkeys(("caller", "customer", "user"), Side.USER),
    **dict.fromkeys(("agent", "assistant", "bot"), Side.ASSISTANT),
}
_NUMBERED_SPEAKER = re.compile(r"speaker[ _]?\w{1,2}", re.IGNORECASE)  # how recognizers number speakers
_HEADER_FIELDS = {name.lower(): name for name in ("userId", "sessionId", "occurredAt", "userName", "assistantName")}
# The length at which a message is passed on, so that a file without line breaks is not held in memory.
MAX_MESSAGE_CHARS = 100_000


class UnusableFileError(InvalidTurnError):
    """No turn of the file can be read."""


@attrs.define
class Utterance:
    """What one speaker says until another one speaks."""

    label: str
    side: Side
    line: int
    occurred_at: datetime | None
    texts: list[str] = attrs.field(factory=list)
    chars: int = 0

    @property
    def speaker_name(self) -> str | None:
        """The name of the speaker, if the label is one."""
        return (
            None if self.label.casefold() in _DEFAULT_LABELS or _NUMBERED_SPEAKER.fullmatch(self.label) else self.label
        )

    def add(self, text: str) -> None:
        """Append text."""
        if text:
            self.texts.append(text)
            self.chars += len(text) + 1


def split_label(text: str) -> tuple[str | None, str]:
    """Return what precedes and what follows the first colon of a line. Without a colon near its start, no label."""
    text = text.lstrip()
    colon = _COLON.search(text, 1, _MAX_LABEL_CHARS)
    return (None, text) if colon is None else (text[: colon.start()].rstrip(), text[colon.end() :])


class Speakers:
    """The sides of the speakers, by their labels.

    Args:
        options: The labels of the caller and of the agent, if they are not the usual ones.
    """

    def __init__(self, options: TranscriptOptions) -> None:
        given = {
            **{label.casefold(): Side.USER for label in options.callers},
            **{label.casefold(): Side.ASSISTANT for label in options.assistants},
        }
        self._side_by_label = given or _DEFAULT_LABELS
        # If the labels of one side only are given, all others belong to the other side.
        self._default_side: Side | None = None
        if bool(options.callers) is not bool(options.assistants):
            self._default_side = Side.ASSISTANT if options.callers else Side.USER

    def side_of(self, label: str) -> Side:
        """Return the side of a label. Raise `InvalidTurnError` if it belongs to neither."""
        side = self._side_by_label.get(label.casefold(), self._default_side)
        if side is None:
            raise InvalidTurnError(
                "the speaker is neither the caller nor the agent; set the labels (callers, assistants)"
            )
        return side

    def split(self, text: str) -> tuple[str, Side, str] | None:
        """Return the label of a line, its side, and the text after it. Return None if the line has no label."""
        label, text_after = split_label(text)
        if label is None:
            return None
        is_name = _NAME.fullmatch(label) and (
            text_after.lstrip() != text_after or not text_after
        )  # not "10:30", "https://..."
        if label.casefold() not in self._side_by_label and not is_name:
            return None
        return label, self.side_of(label), text_after


class TranscriptHeader:
    """The header of a transcript: fields of the call before the first message."""

    def __init__(self, source: TranscriptSource) -> None:
        self._source = source
        self._fields: dict[str, str] = {}

    def add_line(self, text: str) -> bool:
        """Add a line and return whether it is part of the header. Raise `InvalidTurnError` if its value is invalid."""
        label, value = split_label(text)
        name = _HEADER_FIELDS.get(re.sub("[ _-]", "", label or "").lower())
        if name is None:
            return False
        if name in self._fields:
            raise InvalidTurnError(f"{name} occurs twice in the header")
        value = value.strip()
        self._fields[name] = check_id(name, value) if name in ("userId", "sessionId") else value
        return True

    def find_start(self, parse: Callable[[str], datetime]) -> datetime | None:
        """Return when the call started, None if that is unknown.

        Raises:
            UnusableFileError: The time in the header is invalid, or the caller's id is unknown.
        """
        if self._fields.get("userId", self._source.options.user_id) is None:
            raise UnusableFileError("userId is missing; add it, or set a user for the whole file (user_id, --user)")
        value = self._fields.get("occurredAt")
        try:
            return parse(value) if value else self._source.options.started_at
        except ValueError:
            raise UnusableFileError("occurredAt is not an ISO 8601 timestamp such as 2026-03-02T09:30:00Z") from None

    def make_message(self, utterance: Utterance) -> Message:
        """Return an utterance as a message, with the fields of the header."""
        options, fields, name = self._source.options, self._fields, utterance.speaker_name
        is_user = utterance.side is Side.USER
        return Message(
            user_id=fields.get("userId") or options.user_id or "",
            session_id=fields.get("sessionId") or self._source.call_id,
            side=utterance.side,
            text=" ".join(utterance.texts),
            line=utterance.line,
            occurred_at=utterance.occurred_at,
            user_name=fields.get("userName") or options.user_name or (name if is_user else None),
            assistant_name=fields.get("assistantName") or options.assistant_name or (None if is_user else name),
        )
