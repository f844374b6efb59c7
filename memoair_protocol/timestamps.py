"""Timestamps on the wire, always with a time zone, always in UTC."""

import re
from datetime import datetime, timedelta, timezone
from functools import lru_cache

# Before Python 3.11, `datetime.fromisoformat` reads neither a Z nor most fractions of a second.
_ISO_8601 = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)(?:[Tt ](\d\d):(\d\d)(?::(\d\d)(?:[.,](\d{1,9}))?)?(?: ?([Zz]|[+-]\d\d:?\d\d|[+-]\d\d))?)?",
    re.ASCII,
)


def utc_now() -> datetime:
    """Return the current time in UTC."""
    return datetime.now(timezone.utc)


def to_utc(moment: datetime) -> datetime:
    """Convert a moment to UTC; one without a time zone is taken as UTC.

    Raises:
        ValueError: If the year is out of range in UTC.
    """
    if moment.tzinfo is None:
        return moment.replace(tzinfo=timezone.utc)
    try:
        return moment.astimezone(timezone.utc)
    except OverflowError:
        raise ValueError("the timestamp is out of range") from None


def parse_timestamp(text: str) -> datetime:
    """Parse an ISO 8601 timestamp, and convert it to UTC.

    Args:
        text: The timestamp: a date, and optionally a time with or without seconds. Without a time zone it is taken as
            UTC.

    Returns:
        The time, in UTC.

    Raises:
        ValueError: If the timestamp is invalid or out of range.
    """
    return to_utc(parse_local_timestamp(text))


def parse_local_timestamp(text: str) -> datetime:
    """Parse an ISO 8601 timestamp, and keep its time zone.

    Raises:
        ValueError: If the timestamp is invalid.
    """
    match = _ISO_8601.fullmatch(text.strip())
    if match is None:
        raise ValueError("not an ISO 8601 timestamp")
    year, month, day, hour, minute, second = (int(part or 0) for part in match.groups()[:6])
    return datetime(year, month, day, hour, minute, second, parse_fraction(match[7]), _zone(match[8]))


def has_offset(text: str) -> bool:
    """Return whether an ISO 8601 timestamp says how far the speaker's clock is from UTC.

    A Z or a zero offset does not: programs write them for any time that was converted to UTC.
    """
    match = _ISO_8601.fullmatch(text.strip())
    return match is not None and bool((match[8] or "Zz").strip("Zz+-:0"))


def parse_fraction(digits: str | None) -> int:
    """Return the microseconds of a fraction of a second; further digits are cut off."""
    return int((digits or "0")[:6].ljust(6, "0"))


def format_utc(moment: datetime) -> str:
    """Format a moment as the wire has it: ISO 8601 in UTC, with a Z."""
    return moment.astimezone(timezone.utc).isoformat().replace("+00:00", "Z")


@lru_cache
def _zone(text: str | None) -> timezone:
    if text is None or text in "Zz":
        return timezone.utc
    digits = text[1:].replace(":", "").ljust(4, "0")
    offset = timedelta(hours=int(digits[:2]), minutes=int(digits[2:]))
    return timezone(-offset if text[0] == "-" else offset)
