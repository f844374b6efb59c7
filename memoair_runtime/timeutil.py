"""Moments: read from the wire, told to people."""

from datetime import datetime, timezone

import msgspec


def utc_now() -> datetime:
    """The moment, with its time zone."""
    return datetime.now(timezone.utc)


def parse_timestamp(text: str) -> datetime:
    """Read an ISO 8601 moment; one without a time zone is taken as UTC. Raises ValueError."""
    try:
        timestamp = msgspec.convert(text, datetime)
    except msgspec.ValidationError:
        timestamp = datetime.fromisoformat(text)  # a day alone, a moment without seconds
    try:
        return (
            timestamp.replace(tzinfo=timezone.utc) if timestamp.tzinfo is None else timestamp.astimezone(timezone.utc)
        )
    except OverflowError:
        raise ValueError("the moment is out of range") from None


def format_date(timestamp: datetime) -> str:
    """The day as one would write it: ``3 March 2026``, in English whatever the locale."""
    months = [
        "January",
        "February",
        "March",
        "April",
        "May",
        "June",
        "July",
        "August",
        "September",
        "October",
        "November",
        "December",
    ]
    return f"{timestamp.day} {months[timestamp.month - 1]} {timestamp.year}"


def format_utc(timestamp: datetime) -> str:
    """The moment as the wire has it: ISO 8601 in UTC, with a Z."""
    text: str = msgspec.to_builtins(timestamp.astimezone(timezone.utc))
    return text
