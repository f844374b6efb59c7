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
    """A call has no words. The message says why, without quoting the file."""


@attrs.frozen
class ExportedUtterance:
    """A part of a call, and its place in the document (``path``). Parts that are not speech have no ``side``.

    ``error`` says why it is invalid, ``skipped`` why it is neither the caller's nor the agent's.
    """

    path: str
    side: Side | None = None
    text: str = attrs.field(default="", repr=False)
    occurred_at: datetime | None = None
    error: str | None = None
    skipped: str | None = None


@attrs.frozen
class ExportedCall:
    """A call of an export."""

    session_id: str | None = attrs.field(repr=False)
    user_id: str | None = attrs.field(repr=False)
    user_name: str | None = attrs.field(repr=False)
    assistant_name: str | None
    utterances: Iterator[ExportedUtterance]


@attrs.frozen
class ExportFields:
    """The fields of a JSON object. Each method checks the type of the field that it returns."""

    _values: Mapping[str, Any]
    _path: str = ""

    def __contains__(self, name: str) -> bool:
        return self._values.get(name) is not None

    def _get(self, name: str, expected: type | tuple[type, ...], description: str) -> Any:
        value = self._values.get(name)
        if value is not None and (not isinstance(value, expected) or isinstance(value, bool)):
            raise InvalidTurnError(f"{self._path}{name} must be {description}, not {type_name(value)}")
        return value

    @property
    def values(self) -> Mapping[str, Any]:
        """The fields as they are."""
        return self._values

    def text(self, name: str) -> str | None:
        """Return a string. An empty one counts as missing."""
        value: str | None = self._get(name, str, "a string")
        return value or None

    def flag(self, name: str) -> bool:
        """Return whether a field is true."""
        return self._values.get(name) is True

    def child(self, name: str) -> "ExportFields":
        """Return an object. A missing one is empty."""
        return ExportFields(self._get(name, dict, "an object") or {}, f"{self._path}{name}.")

    def any_child(self, name: str) -> "ExportFields":
        """Return an object. A value of another type, which platforms accept in metadata, counts as missing."""
        value = self._values.get(name)
        return ExportFields(value if isinstance(value, dict) else {}, f"{self._path}{name}.")

    def any_text(self, name: str) -> str | None:
        """Return a string. A value of another type counts as missing."""
        value = self._values.get(name)
        return value if isinstance(value, str) and value.strip() else None

    def children(self, name: str) -> Iterator[tuple[str, "ExportFields", str | None]]:
        """Yield the objects of a list with their paths. An item that is not an object comes with an error."""
        for position, item in enumerate(self._get(name, list, "a list") or ()):
            path = f"{self._path}{name}[{position}]"
            if isinstance(item, dict):
                yield path, ExportFields(item), None
            else:
                yield path, ExportFields({}), f"{type_name(item)}, not a JSON object"

    def number(self, name: str) -> float | None:
        """Return a number, which may be written as a string."""
        value = self._get(name, (int, float, str), "a number")
        try:
            return None if value is None else float(value)
        except ValueError:
            raise InvalidTurnError(f"{self._path}{name} must be a number") from None

    def iso_timestamp(self, name: str) -> datetime | None:
        """Return an ISO 8601 timestamp."""
        value = self.text(name)
        try:
            return None if value is None else parse_timestamp(value)
        except ValueError:
            raise InvalidTurnError(f"{self._path}{name} is not an ISO 8601 timestamp") from None

    def epoch_s(self, name: str) -> datetime | None:
        """Return a timestamp in seconds since 1970."""
        value = self.number(name)
        try:
            return None if value is None else _EPOCH + timedelta(seconds=value)
        except (OverflowError, ValueError):
            raise InvalidTurnError(f"{self._path}{name} is not a timestamp in seconds since 1970") from None

    def epoch_ms(self, name: str) -> datetime | None:
        """Return a timestamp in milliseconds since 1970."""
        value = self.number(name)
        try:
            return None if value is None else _EPOCH + timedelta(milliseconds=value)
        except (OverflowError, ValueError):
            raise InvalidTurnError(f"{self._path}{name} is not a timestamp in milliseconds since 1970") from None


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
