"""Speakers of a call: labels, names and sides, and the header of a transcript."""

import re
from collections import Counter
from collections.abc import Callable
from datetime import datetime

import attrs

from memoair_transcripts._labels import (
    clean_line,
    has_inner_name,
    is_address,
    is_name_shaped,
    label_key,
    looks_like_label,
    looks_like_name_line,
    read_start,
    split_inner_labels,
    strip_parentheses,
)
from memoair_transcripts._records import InvalidTurnError, Message, Side, TranscriptOptions, TranscriptSource, check_id

_HEADER_FIELD = re.compile(r"(?P<name>[^:\uff1a]{1,60}?)\s*[:\uff1a](?P<value>.*)", re.DOTALL)
_DEFAULT_LABELS = {
    **dict.fromkeys(("caller", "customer", "user"), Side.USER),
    **dict.fromkeys(("agent", "assistant", "bot"), Side.ASSISTANT),
}
_NUMBERED_SPEAKER = re.compile(r"speaker[ _]?\w{1,2}", re.IGNORECASE)  # how recognizers number speakers
_HEADER_FIELDS = {name.lower(): name for name in ("userId", "sessionId", "occurredAt", "userName", "assistantName")}
# The length at which a message is passed on, so that a file without line breaks is not held in memory.
MAX_MESSAGE_CHARS = 100_000
_MAX_HEAD_LINES = 4_000
UNKNOWN_SPEAKER = "the speaker is neither the caller nor the agent; set the labels (callers, assistants)"
_NO_SPEAKER = "begins like an utterance (a time, a bullet, bold print), but names no speaker"


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
        is_other = label_key(self.label) in _DEFAULT_LABELS or _NUMBERED_SPEAKER.fullmatch(self.label)
        return None if is_other or is_address(self.label) else self.label

    def add(self, text: str) -> None:
        """Append text."""
        if text:
            self.texts.append(text)
            self.chars += len(text) + 1


@attrs.frozen
class SpokenPart:
    """A part of a line: what one speaker says, and when.

    Attributes:
        text: The words.
        label: The label of the speaker. None if nothing in the line names one, so that the speaker before goes on.
        side: The side of the speaker, None without a label.
        stamp: The timestamp of the line. A line that is nothing else has neither a label nor words.
        is_notice: Whether a messenger wrote the line, not a person.
    """

    text: str
    label: str | None = None
    side: Side | None = None
    stamp: str | None = None
    is_notice: bool = False


class Speakers:
    """The speakers of a call: which labels name them, and what a line says about who speaks.

    Args:
        options: The labels of the caller and of the agent, if they are not the usual ones.
        head: The head of the file. In it, a label that comes back is a speaker's, however it is written.
    """

    def __init__(self, options: TranscriptOptions, head: str = "") -> None:
        given = {
            **{label_key(label): Side.USER for label in options.callers},
            **{label_key(label): Side.ASSISTANT for label in options.assistants},
        }
        self._side_by_label = given or _DEFAULT_LABELS
        # If the labels of one side only are given, all others belong to the other side.
        self._default_side: Side | None = None
        if bool(options.callers) is not bool(options.assistants):
            self._default_side = Side.ASSISTANT if options.callers else Side.USER
        self._suffix_by_label: dict[str, str] = {}
        self._seen: set[str] = set()  # other labels that belong to the default side
        # Whether the file separates names from words with dashes, or puts them on lines of their own.
        self._has_dashes = self._has_name_lines = False
        if head:
            self._read_head(head)

    def side_of(self, *labels: str) -> Side:
        """Return the side of a label, or of its spellings. Raise `InvalidTurnError` if it belongs to neither."""
        side = next((side for label in labels if (side := self._known_side(label))), self._default_side)
        if side is None:
            raise InvalidTurnError(UNKNOWN_SPEAKER)
        return side

    def read_cue_line(self, line: str, *, has_voice: bool = False) -> list[SpokenPart]:
        """Return what is said in a line of a subtitle, in which two may speak. See `read_line`."""
        parts = self.read_line(line, has_voice=has_voice)
        if not has_voice and any(has_inner_name(part.text) for part in parts):
            raise InvalidTurnError(UNKNOWN_SPEAKER)
        return parts

    def read_line(self, line: str, *, has_voice: bool = False) -> list[SpokenPart]:
        """Return what is said in a line, and the speaker of each part.

        Args:
            line: The line.
            has_voice: Whether the format itself says who speaks. Then only known labels and bullets tell otherwise.

        Raises:
            InvalidTurnError: The line begins like the words of a speaker, but names none that is known.
        """
        start = read_start(clean_line(line), self._is_known)
        if start.has_dash and not self._has_dashes:  # "Agent - hello", or "Dana - are you there?"
            raise InvalidTurnError(_NO_SPEAKER)
        if start.label is None and self._has_name_lines and not has_voice and looks_like_name_line(start.text):
            raise InvalidTurnError(UNKNOWN_SPEAKER)
        if start.is_notice:
            return [SpokenPart("", stamp=start.stamp, is_notice=True)]
        if start.label is not None and (not has_voice or self._is_known(start.label)):
            side = self._side_of_label(start.label, may_be_new=start.is_definite)
            label, stamp = self._display(start.label), start.stamp
            return self._split_inner(SpokenPart(start.text, label, side, stamp))
        if start.label is not None or not start.is_marked:
            return self._split_inner(SpokenPart(line if start.label is not None else start.text))
        if not start.text.strip():
            return [SpokenPart("", stamp=start.stamp)]
        raise InvalidTurnError(_NO_SPEAKER)

    def _split_inner(self, part: SpokenPart) -> list[SpokenPart]:
        parts = [part]
        for label, text in split_inner_labels(part.text, self._is_known):
            if label is None:
                parts[0] = attrs.evolve(part, text=text)
            else:
                parts.append(SpokenPart(text, self._display(label), self._side_of_label(label)))
        return parts if parts[0].label or parts[0].text.strip() or len(parts) == 1 else parts[1:]

    def _is_known(self, label: str) -> bool:
        return self._known_side(label) is not None

    def _side_of_label(self, label: str, *, may_be_new: bool = False) -> Side:
        side = self._known_side(label)
        if side is None and may_be_new and self._default_side is not None and is_name_shaped(label):
            side = self._default_side
            self._seen.add(label_key(label))
        if side is None:
            raise InvalidTurnError(UNKNOWN_SPEAKER)
        return side

    def _known_side(self, label: str) -> Side | None:
        key = label_key(label)
        if key in self._side_by_label:
            return self._side_by_label[key]
        if key in self._seen:
            return self._default_side
        base, suffix = strip_parentheses(label)
        side = self._side_by_label.get(label_key(base)) if suffix else None
        if side is None:
            return None
        # "Dana (she/her)" is Dana. But "Dana (agent)" beside "Dana (caller)", or "Dana (York)" beside "Dana (Leeds)",
        # are two people, and the label does not say which of them is meant.
        inner = label_key(suffix.strip("()[] "))
        other = self._side_by_label.get(inner, _DEFAULT_LABELS.get(inner, side))
        known_suffix = self._suffix_by_label.setdefault(label_key(base), label_key(suffix))
        return side if other is side and known_suffix == label_key(suffix) else None

    def _display(self, label: str) -> str:
        if label_key(label) in self._side_by_label or label_key(label) in self._seen:
            return label
        return strip_parentheses(label)[0] or label

    def _read_head(self, head: str) -> None:
        counts: Counter[str] = Counter()
        dashes = colons = 0
        for line in head.split("\n")[:_MAX_HEAD_LINES]:
            start = read_start(clean_line(line), self._is_known)
            if start.label is None:
                continue
            is_known = self._is_known(start.label)
            self._has_name_lines = self._has_name_lines or start.is_alone
            dashes += start.has_dash
            colons += is_known and not start.has_dash
            if not is_known and looks_like_label(start.label):
                counts[label_key(start.label)] += 1
        self._has_dashes = dashes > 1 and not colons
        if self._default_side is not None:
            self._seen.update(label for label, count in counts.items() if count > 1)


class TranscriptHeader:
    """The header of a transcript: fields of the call before the first message."""

    def __init__(self, source: TranscriptSource) -> None:
        self._source = source
        self._fields: dict[str, str] = {}

    def add_line(self, text: str) -> bool:
        """Add a line and return whether it is part of the header. Raise `InvalidTurnError` if its value is invalid."""
        field = _HEADER_FIELD.match(text.lstrip())
        name = None if field is None else _HEADER_FIELDS.get(re.sub("[ _-]", "", field["name"]).lower())
        if field is None or name is None:
            return False
        if name in self._fields:
            raise InvalidTurnError(f"{name} occurs twice in the header")
        value = field["value"].strip()
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
