"""The times of the lines of a text: timestamps, and what they mean in a call whose start is known."""

import re
from datetime import datetime, time, timedelta, timezone

from memoair_protocol.timestamps import parse_fraction, parse_timestamp

_CLOCK = re.compile(r"(?:(\d{1,3}):)?(\d{1,3}):(\d{1,2})(?:[.,](\d{1,9}))?(?: ?([AaPp])\.?[Mm]\.?)?", re.ASCII)
_DATE_AND_CLOCK = re.compile(r"(?!\d{4}-)(\d{1,4})[./-](\d{1,2})[./-](\d{2,4}),? (.+)", re.ASCII)  # not ISO 8601
_HOUR_AND_MINUTE = re.compile(r"(\d{1,2}:\d{2})( ?[AaPp]\.?[Mm]\.?)?", re.ASCII)
# Someone speaks before a call is this old, so a first timestamp above it is a time of day, not an offset.
_MAX_FIRST_OFFSET = timedelta(minutes=10)
_HALF_DAY = timedelta(hours=12)
_CENTURY = 2000


class CallClock:
    """A parser for the timestamps of one call.

    Args:
        started_at: When the call started, None if it is unknown. Without a time zone it is taken as UTC.
        is_day_first: Whether dates such as 3/2/2026 begin with the day. None if it is unknown: then they have no time.
    """

    def __init__(self, started_at: datetime | None, *, is_day_first: bool | None = None) -> None:
        if started_at is not None and started_at.tzinfo is None:
            started_at = started_at.replace(tzinfo=timezone.utc)
        self._started_at = started_at
        self._is_day_first = is_day_first
        self._is_time_of_day: bool | None = None  # decided by the first timestamp
        self._last_time: datetime | None = None

    def resolve(self, timestamp: str) -> datetime | None:
        """Return the time of a timestamp, in UTC, or None if it is unknown."""
        offset = parse_clock(timestamp)
        try:
            if offset is not None:
                return self._resolve_offset(offset, is_time_of_day=timestamp.rstrip(" .")[-1:] in "Mm")
            return self._resolve_date(timestamp) if _DATE_AND_CLOCK.fullmatch(timestamp) else parse_timestamp(timestamp)
        except (ValueError, OverflowError):
            return None

    def _resolve_date(self, timestamp: str) -> datetime | None:
        match = _DATE_AND_CLOCK.fullmatch(timestamp)
        if match is None:
            return None
        first, second, third = int(match[1]), int(match[2]), int(match[3])
        if len(match[1]) > 2:
            year, month, day = first, second, third
        elif self._is_day_first is None and first != second:
            return None
        else:
            day, month = (first, second) if self._is_day_first else (second, first)
            year = third + _CENTURY if len(match[3]) == 2 else third
        clock = match[4]
        hour_and_minute = _HOUR_AND_MINUTE.fullmatch(clock)
        if hour_and_minute is not None:  # 14:04 with a date is hours and minutes
            clock = f"{hour_and_minute[1]}:00{hour_and_minute[2] or ''}"
        offset = parse_clock(clock)
        zone = self._started_at.tzinfo if self._started_at is not None else timezone.utc
        return None if offset is None else (datetime(year, month, day, tzinfo=zone) + offset).astimezone(timezone.utc)

    def _resolve_offset(self, offset: timedelta, *, is_time_of_day: bool) -> datetime | None:
        if self._started_at is None:
            return None
        if self._is_time_of_day is None:
            self._is_time_of_day = is_time_of_day or offset >= _MAX_FIRST_OFFSET
        if not self._is_time_of_day:
            return (self._started_at + offset).astimezone(timezone.utc)
        midnight = datetime.combine((self._last_time or self._started_at).date(), time(), self._started_at.tzinfo)
        resolved = midnight + offset
        if self._last_time is not None and self._last_time - resolved > _HALF_DAY:  # past midnight
            resolved += timedelta(days=1)
        self._last_time = resolved
        return resolved.astimezone(timezone.utc)


def parse_clock(text: str) -> timedelta | None:
    """Parse ``MM:SS`` or ``HH:MM:SS``, with or without a fraction; with AM or PM, ``HH:MM``. Return None for others."""
    match = _CLOCK.fullmatch(text.strip())
    if match is None:
        return None
    hours, minutes, seconds = (int(part or 0) for part in match.groups()[:3])
    if match[5]:
        if match[1] is None:
            hours, minutes, seconds = minutes, seconds, 0
        hours = hours % 12 + (12 if match[5] in "Pp" else 0)
    return timedelta(hours=hours, minutes=minutes, seconds=seconds, microseconds=parse_fraction(match[4]))
