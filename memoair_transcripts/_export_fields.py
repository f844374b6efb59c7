"""The fields of exported calls, and what a reader of a platform makes of them."""

from collections.abc import Callable, Iterator, Mapping
from datetime import datetime, timedelta, timezone
from typing import Any

import attrs

from memoair_protocol.timestamps import parse_timestamp
from memoair_transcripts._json_lines import type_name
from memoair_transcripts._records import InvalidTurnError, Side, TranscriptSource

_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
_MAX_CALL_S = 7 * 86_400.0


class NoTranscriptError(Exception):
    """A call has no words. The message says why, without quoting the file.

    Attributes:
        session_id: The id of the call, if it is known.
    """

    def __init__(self, message: str, session_id: str | None = None) -> None:
        super().__init__(message)
        self.session_id = session_id


@attrs.frozen
class ExportedUtterance:
    """A part of a call. Parts that are not speech have no ``side``.

    Attributes:
        path: Its place in what the platform sends.
        side: Who says it.
        text: What is said.
        occurred_at: When it is said, if that is known.
        error: Why it is invalid.
        skipped: Why it is neither the caller's nor the agent's.
    """

    path: str
    side: Side | None = None
    text: str = attrs.field(default="", repr=False)
    occurred_at: datetime | None = None
    error: str | None = None
    skipped: str | None = None


@attrs.frozen
class ExportedCall:
    """A call, as a platform describes it.

    Attributes:
        session_id: The id of the call.
        user_id: The caller's id, None if nothing identifies them.
        user_name: The caller's name.
        assistant_name: The agent's name.
        utterances: What was said, in order.
        is_answered_by_machine: Whether an answering machine or a phone menu took the call. What it said is not the
            caller's.
    """

    session_id: str | None = attrs.field(repr=False)
    user_id: str | None = attrs.field(repr=False)
    user_name: str | None = attrs.field(repr=False)
    assistant_name: str | None
    utterances: Iterator[ExportedUtterance] = attrs.field(repr=False)
    is_answered_by_machine: bool = False


@attrs.frozen
class ExportFields:
    """The fields of a JSON object. Each method checks the type of the field that it returns.

    With ``on_invalid``, a field of an invalid type counts as missing, and its path is passed to that function.
    """

    _values: Mapping[str, Any]
    _path: str = ""
    _on_invalid: Callable[[str], None] | None = None

    def __contains__(self, name: str) -> bool:
        return self._values.get(name) is not None

    def _get(self, name: str, expected: type | tuple[type, ...], description: str) -> Any:
        value = self._values.get(name)
        if value is not None and (not isinstance(value, expected) or isinstance(value, bool)):
            self._reject(name, f"must be {description}, not {type_name(value)}")
            return None
        return value

    def _reject(self, name: str, reason: str) -> None:
        """Raise an error that names the field, unless invalid fields count as missing."""
        if self._on_invalid is None:
            raise InvalidTurnError(f"{self._path}{name} {reason}") from None
        self._on_invalid(f"{self._path}{name}")

    def has_list(self, name: str) -> bool:
        """Return whether a field is a list with items."""
        value = self._values.get(name)
        return isinstance(value, list) and bool(value)

    @property
    def values(self) -> Mapping[str, Any]:
        """The fields as they are."""
        return self._values

    def text(self, name: str) -> str | None:
        """Return a string. An empty one counts as missing."""
        value: str | None = self._get(name, str, "a string")
        return value or None

    def speech(self, *names: str) -> str:
        """Return what is said: the first of these fields with text, a string or a list of parts with text."""
        for name in names:
            value = self._values.get(name)
            if isinstance(value, list) and any(isinstance(part, dict) for part in value):
                parts = (part.get("text") for part in value if isinstance(part, dict))
                text: str | None = " ".join(part for part in parts if isinstance(part, str))
            else:
                text = self.text(name)
            if text:
                return text
        return ""

    def flag(self, name: str) -> bool:
        """Return whether a field is true."""
        return self._values.get(name) is True

    def child(self, name: str) -> "ExportFields":
        """Return an object. A missing one is empty."""
        return ExportFields(self._get(name, dict, "an object") or {}, f"{self._path}{name}.", self._on_invalid)

    def any_child(self, name: str) -> "ExportFields":
        """Return an object. A value of another type, which platforms accept in metadata, counts as missing."""
        value = self._values.get(name)
        return ExportFields(value if isinstance(value, dict) else {}, f"{self._path}{name}.", self._on_invalid)

    def any_text(self, name: str) -> str | None:
        """Return a string. A value of another type counts as missing."""
        value = self._values.get(name)
        return value if isinstance(value, str) and value.strip() else None

    def children(self, name: str) -> Iterator[tuple[str, "ExportFields", str | None]]:
        """Yield the objects of a list with their paths. An item that is not an object comes with an error."""
        for position, item in enumerate(self._get(name, list, "a list") or ()):
            path = f"{self._path}{name}[{position}]"
            if isinstance(item, dict):
                yield path, ExportFields(item, "", self._on_invalid), None
            else:
                yield path, ExportFields({}), f"{type_name(item)}, not a JSON object"

    def number(self, name: str) -> float | None:
        """Return a number, which may be written as a string."""
        value = self._get(name, (int, float, str), "a number")
        try:
            return None if value is None else float(value)
        except (ValueError, OverflowError):
            self._reject(name, "must be a number")
            return None

    def iso_timestamp(self, name: str) -> datetime | None:
        """Return an ISO 8601 timestamp."""
        value = self.text(name)
        try:
            return None if value is None else parse_timestamp(value)
        except ValueError:
            self._reject(name, "is not an ISO 8601 timestamp")
            return None

    def epoch_s(self, name: str) -> datetime | None:
        """Return a timestamp in seconds since 1970."""
        value = self.number(name)
        try:
            return None if value is None else _EPOCH + timedelta(seconds=value)
        except (OverflowError, ValueError):
            self._reject(name, "is not a timestamp in seconds since 1970")
            return None

    def epoch_ms(self, name: str) -> datetime | None:
        """Return a timestamp in milliseconds since 1970."""
        value = self.number(name)
        try:
            return None if value is None else _EPOCH + timedelta(milliseconds=value)
        except (OverflowError, ValueError):
            self._reject(name, "is not a timestamp in milliseconds since 1970")
            return None


def add_offset(started_at: datetime | None, seconds: float | None) -> datetime | None:
    """Return when something was said, None if that is unknown."""
    if started_at is None or seconds is None or not 0 <= seconds <= _MAX_CALL_S:
        return None
    try:
        return started_at + timedelta(seconds=seconds)
    except OverflowError:
        return None


def resolve_start(exported: datetime | None, source: TranscriptSource) -> datetime | None:
    """Return when a call started: the time of the export, or else that of the options."""
    started_at = exported or source.options.started_at
    return started_at.replace(tzinfo=timezone.utc) if started_at and started_at.tzinfo is None else started_at


def parse_utterances(
    items: Iterator[tuple[str, ExportFields, str | None]], parse: Callable[[str, ExportFields], ExportedUtterance]
) -> Iterator[ExportedUtterance]:
    """Parse the utterances of a call. An invalid one comes with an error and does not affect the others."""
    for path, fields, error in items:
        try:
            yield ExportedUtterance(path, error=error) if error else parse(path, fields)
        except InvalidTurnError as invalid:
            yield ExportedUtterance(path, error=str(invalid))
