"""The times of the lines of a text: timestamps, and what they mean in a call whose start is known."""

import re
from datetime import datetime, time, timedelta, timezone

from memoair_protocol.timestamps import parse_fraction, parse_timestamp

_CLOCK = re.compile(r"(?:(\d{1,2}):)?(\d{1,2}):(\d\d)(?:[.,](\d{1,9}))?", re.ASCII)
_TIMESTAMP = re.compile(r"\s*(?:\[([^\[\]]{4,40})\]|\(([^()]{4,40})\))\s*")
# Someone speaks before a call is this old, so a first timestamp above it is a time of day, not an offset.
_MAX_FIRST_OFFSET = timedelta(minutes=10)
_HALF_DAY = timedelta(hours=12)


class CallClock:
    """A parser for the timestamps of one call.

    Args:
        started_at: When the call started, None if it is unknown. Without a time zone it is taken as UTC.
    """

    def __init__(self, started_at: datetime | None) -> None:
        if started_at is not None and started_at.tzinfo is None:
            started_at = started_at.replace(tzinfo=timezone.utc)
        self._started_at = started_at
        self._is_time_of_day: bool | None = None  # decided by the first timestamp
        self._last_time: datetime | None = None

    def split_timestamp(self, text: str) -> tuple[datetime | None, str]:
        """Return the time of a line, in UTC, or None if it is unknown. Also return the line without its timestamp."""
        match = _TIMESTAMP.match(text)
        if match is None:
            return None, text
        timestamp, rest = match[1] or match[2], text[match.end() :]
        offset = parse_clock(timestamp)
        try:
            if offset is None:
                return parse_timestamp(timestamp), rest
            return self._resolve_offset(offset), rest
        except (ValueError, OverflowError):
            return None, text  # "[laughs]", "[99:99:99]": part of the text

    def _resolve_offset(self, offset: timedelta) -> datetime | None:
        if self._started_at is None:
            return None
        if self._is_time_of_day is None:
            self._is_time_of_day = offset >= _MAX_FIRST_OFFSET
        if not self._is_time_of_day:
            return (self._started_at + offset).astimezone(timezone.utc)
        midnight = datetime.combine((self._last_time or self._started_at).date(), time(), self._started_at.tzinfo)
        resolved = midnight + offset
        if self._last_time is not None and self._last_time - resolved > _HALF_DAY:  # past midnight
            resolved += timedelta(days=1)
        self._last_time = resolved
        return resolved.astimezone(timezone.utc)


def parse_clock(text: str) -> timedelta | None:
    """Parse ``MM:SS`` or ``HH:MM:SS``, with or without a fraction. Return None for anything else."""
    match = _CLOCK.fullmatch(text.strip())
    if match is None:
        return None
    hours, minutes, seconds = (int(part or 0) for part in match.groups()[:3])
    return timedelta(hours=hours, minutes=minutes, seconds=seconds, microseconds=parse_fraction(match[4]))
