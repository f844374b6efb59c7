"""Moments: read from the wire, told to people."""

from datetime import datetime, timezone

import msgspec


def utc_now() -> datetime:
    """The moment, with its time zone."""
    return datetime.now(timezone.utc)


def parse_moment(text: str) -> datetime:
    """Read an ISO 8601 moment; one without a time zone is taken as UTC. Raises ValueError."""
    try:
        moment = msgspec.convert(text, datetime)
    except msgspec.ValidationError:
        moment = datetime.fromisoformat(text)  # a day alone, a moment without seconds
    try:
        return moment.replace(tzinfo=timezone.utc) if moment.tzinfo is None else moment.astimezone(timezone.utc)
    except OverflowError:
        raise ValueError("the moment is out of range") from None


def spoken_date(moment: datetime) -> str:
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
    return f"{moment.day} {months[moment.month - 1]} {moment.year}"


def iso(moment: datetime) -> str:
    """The moment as the wire has it: ISO 8601 in UTC, with a Z."""
    told: str = msgspec.to_builtins(moment.astimezone(timezone.utc))
    return told
