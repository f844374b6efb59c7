"""Timestamps: always with a time zone, always in UTC."""

from datetime import datetime, timezone

import msgspec


def utc_now() -> datetime:
    """Return the current time in UTC."""
    return datetime.now(timezone.utc)


def to_utc(timestamp: datetime) -> datetime:
    """Convert a timestamp to UTC; one without a time zone is taken as UTC.

    Raises:
        ValueError: If the year is out of range in UTC.
    """
    if timestamp.tzinfo is None:
        return timestamp.replace(tzinfo=timezone.utc)
    try:
        return timestamp.astimezone(timezone.utc)
    except OverflowError:
        raise ValueError("the timestamp is out of range") from None


def format_utc(timestamp: datetime) -> str:
    """Format a timestamp as the API does: ISO 8601 in UTC, with a Z."""
    return timestamp.astimezone(timezone.utc).isoformat().replace("+00:00", "Z")


def parse_timestamp(text: str) -> datetime:
    """Parse an ISO 8601 timestamp; one without a time zone is taken as UTC.

    Raises:
        ValueError: If the text is not a timestamp, or out of range.
    """
    try:
        timestamp = msgspec.convert(text, datetime)
    except msgspec.ValidationError:
        timestamp = datetime.fromisoformat(text)  # a date without a time, or a time without seconds
    return to_utc(timestamp)
