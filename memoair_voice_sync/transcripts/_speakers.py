"""Who speaks in a call that is a file: labels, names and sides, and what a header tells of all of it."""

import re
from collections.abc import Callable
from datetime import datetime

import attrs

from memoair_voice_sync.transcripts._identifiers import InvalidTurnError, check_id
from memoair_voice_sync.transcripts._records import Message, Side, TranscriptOptions, TranscriptSource

_COLON = re.compile(r"[:\uff1a]")
_MAX_LABEL_CHARS = 60
# A name is short, and its later words are written large: "The options are: ..." names nobody.
_NAME = re.compile(r"[^\W_][\w.'-]{0,30}(?: [A-Z0-9][\w.'-]{0,30}){0,3}")
_DEFAULT_LABELS = {
    **dict.fromkeys(("caller", "customer", "user"), Side.USER),
    **dict.fromkeys(("agent", "assistant", "bot"), Side.ASSISTANT),
}
_NUMBERED_SPEAKER = re.compile(r"speaker[ _]?\w{1,2}", re.IGNORECASE)  # as recognisers number them
_HEADER_FIELDS = {name.lower(): name for name in ("userId", "sessionId", "occurredAt", "userName", "assistantName")}
# One side's words before they are passed on, so that a file without line breaks in it is not held whole.
MAX_MESSAGE_CHARS = 100_000


class MissingUserIdError(InvalidTurnError):
    """Nothing in this file can be kept."""


@attrs.define
class Utterance:
    """What one speaker says until another one does."""

    label: str
    side: Side
    line: int
    occurred_at: datetime | None
    texts: list[str] = attrs.field(factory=list)
    chars: int = 0

    @property
    def speaker_name(self) -> str | None:
        """How the speaker is called, if the label tells."""
        return (
            None if self.label.casefold() in _DEFAULT_LABELS or _NUMBERED_SPEAKER.fullmatch(self.label) else self.label
        )

    def add(self, text: str) -> None:
        """Go on."""
        if text:
            self.texts.append(text)
            self.chars += len(text) + 1


def split_label(text: str) -> tuple[str | None, str]:
    """What stands before a line's first colon, if that comes early enough, and what behind it."""
    text = text.lstrip()
    colon = _COLON.search(text, 1, _MAX_LABEL_CHARS)
    return (None, text) if colon is None else (text[: colon.start()].rstrip(), text[colon.end() :])


class Speakers:
    """Whose words stand behind which label."""

    def __init__(self, options: TranscriptOptions) -> None:
        given = {
            **{label.casefold(): Side.USER for label in options.callers},
            **{label.casefold(): Side.ASSISTANT for label in options.assistants},
        }
        self._side_by_label = given or _DEFAULT_LABELS
        # Whoever names one side only says with it that everybody else is the other.
        self._default_side: Side | None = None
        if bool(options.callers) is not bool(options.assistants):
            self._default_side = Side.ASSISTANT if options.callers else Side.USER

    def side_of(self, label: str) -> Side:
        """The side of a speaker who is called so; raises `InvalidTurnError` for one who is neither."""
        side = self._side_by_label.get(label.casefold(), self._default_side)
        if side is None:
            raise InvalidTurnError(
                "the speaker is neither the caller nor the agent; say who is who (callers, assistants)"
            )
        return side

    def split(self, text: str) -> tuple[str, Side, str] | None:
        """A line's label, its side, and the words behind it; None where the line has no label."""
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
    """What a file tells of its call before the first word."""

    def __init__(self, source: TranscriptSource) -> None:
        self._source = source
        self._fields: dict[str, str] = {}

    def add_line(self, text: str) -> bool:
        """Whether a line is part of it; raises `InvalidTurnError` for one that is, and can't be."""
        label, value = split_label(text)
        name = _HEADER_FIELDS.get(re.sub("[ _-]", "", label or "").lower())
        if name is None:
            return False
        if name in self._fields:
            raise InvalidTurnError(f"{name} stands twice in the header")
        value = value.strip()
        self._fields[name] = check_id(name, value) if name in ("userId", "sessionId") else value
        return True

    def find_start(self, parse: Callable[[str], datetime]) -> datetime | None:
        """When the call began, where that is told; raises `MissingUserIdError` where it is not, or nobody says who calls."""
        if self._fields.get("userId", self._source.options.user_id) is None:
            raise MissingUserIdError("userId is missing, and nobody said who calls in this file")
        value = self._fields.get("occurredAt")
        try:
            return parse(value) if value else self._source.options.started_at
        except ValueError:
            raise MissingUserIdError("occurredAt is not an ISO 8601 moment, as 2026-03-02T09:30:00Z is") from None

    def make_message(self, utterance: Utterance) -> Message:
        """What one speaker said, with what is known of the call."""
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
