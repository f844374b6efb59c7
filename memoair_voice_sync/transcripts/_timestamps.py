"""Parse the times in transcripts: ISO 8601 timestamps, and offsets from the start of a call."""

import re
from datetime import datetime, timedelta, timezone
from functools import lru_cache

# Before Python 3.11, `datetime.fromisoformat` reads neither a Z nor most fractions of a second.
_ISO_8601 = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)(?:[Tt ](\d\d):(\d\d)(?::(\d\d)(?:[.,](\d{1,9}))?)?(?: ?([Zz]|[+-]\d\d:?\d\d|[+-]\d\d))?)?",
    re.ASCII,
)
_CLOCK = re.compile(r"(?:(\d{1,2}):)?(\d{1,2}):(\d\d)(?:[.,](\d{1,9}))?", re.ASCII)


def parse_timestamp(text: str) -> datetime:
    """Parse an ISO 8601 timestamp, and convert it to UTC.

    Args:
        text: The timestamp. Without a time zone it is taken as UTC.

    Returns:
        The time, in UTC.

    Raises:
        ValueError: The timestamp is invalid or out of range.
    """
    try:
        return parse_local_timestamp(text).astimezone(timezone.utc)
    except OverflowError:
        raise ValueError("the timestamp is out of range") from None


def parse_local_timestamp(text: str) -> datetime:
    """Parse an ISO 8601 timestamp, and keep its time zone. Raises ValueError."""
    match = _ISO_8601.fullmatch(text.strip())
    if match is None:
        raise ValueError("not an ISO 8601 timestamp")
    year, month, day, hour, minute, second = (int(part or 0) for part in match.groups()[:6])
    return datetime(year, month, day, hour, minute, second, _microseconds(match[7]), _zone(match[8]))


def parse_clock(text: str) -> timedelta | None:
    """Parse ``MM:SS`` or ``HH:MM:SS``, with or without a fraction. Return None for anything else."""
    match = _CLOCK.fullmatch(text.strip())
    if match is None:
        return None
    hours, minutes, seconds = (int(part or 0) for part in match.groups()[:3])
    return timedelta(hours=hours, minutes=minutes, seconds=seconds, microseconds=_microseconds(match[4]))


def _microseconds(fraction: str | None) -> int:
    return int((fraction or "0")[:6].ljust(6, "0"))


@lru_cache
def _zone(text: str | None) -> timezone:
    if text is None or text in "Zz":
        return timezone.utc
    digits = text[1:].replace(":", "").ljust(4, "0")
    offset = timedelta(hours=int(digits[:2]), minutes=int(digits[2:]))
    return timezone(-offset if text[0] == "-" else offset)
