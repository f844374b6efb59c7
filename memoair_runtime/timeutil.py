"""Timestamps: parsing them from the wire, formatting them for the wire and for people."""

from datetime import datetime, timezone

import msgspec


def utc_now() -> datetime:
    """Return the current time in UTC."""
    return datetime.now(timezone.utc)


def parse_timestamp(text: str) -> datetime:
    """Parse an ISO 8601 timestamp; one without a time zone is taken as UTC.

    Raises:
        ValueError: If the text is not a timestamp, or out of range.
    """
    try:
        timestamp = msgspec.convert(text, datetime)
    except msgspec.ValidationError:
        timestamp = datetime.fromisoformat(text)  # a date without a time, or a time without seconds
    try:
        return (
            timestamp.replace(tzinfo=timezone.utc) if timestamp.tzinfo is None else timestamp.astimezone(timezone.utc)
        )
    except OverflowError:
        raise ValueError("the timestamp is out of range") from None


def format_date(timestamp: datetime) -> str:
    """Format the date as people write it: ``3 March 2026``, in English in every locale."""
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
    """Format a timestamp as the wire has it: ISO 8601 in UTC, with a Z."""
    text: str = msgspec.to_builtins(timestamp.astimezone(timezone.utc))
    return text
