"""Moments: always with their time zone, always UTC."""

from datetime import datetime, timezone

import msgspec


def utc_now() -> datetime:
    """The moment, with its time zone."""
    return datetime.now(timezone.utc)


def to_utc(timestamp: datetime) -> datetime:
    """The same moment in UTC; one without a time zone is taken as UTC. Raises ValueError where UTC has no such year."""
    if timestamp.tzinfo is None:
        return timestamp.replace(tzinfo=timezone.utc)
    try:
        return timestamp.astimezone(timezone.utc)
    except OverflowError:
        raise ValueError("the moment is out of range") from None


def format_utc(timestamp: datetime) -> str:
    """The moment as the wire has it: ISO 8601 in UTC, with a Z."""
    return timestamp.astimezone(timezone.utc).isoformat().replace("+00:00", "Z")


def parse_timestamp(text: str) -> datetime:
    """Read an ISO 8601 moment; one without a time zone is taken as UTC. Raises ValueError."""
    try:
        timestamp = msgspec.convert(text, datetime)
    except msgspec.ValidationError:
        timestamp = datetime.fromisoformat(text)  # a day alone, a moment without seconds
    return to_utc(timestamp)
