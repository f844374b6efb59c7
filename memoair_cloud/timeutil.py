"""Moments: always with their time zone, always UTC."""

from datetime import datetime, timezone

import msgspec


def utc_now() -> datetime:
    """The moment, with its time zone."""
    return datetime.now(timezone.utc)


def in_utc(moment: datetime) -> datetime:
    """The same moment in UTC; one without a time zone is taken as UTC. Raises ValueError where UTC has no such year."""
    if moment.tzinfo is None:
        return moment.replace(tzinfo=timezone.utc)
    try:
        return moment.astimezone(timezone.utc)
    except OverflowError:
        raise ValueError("the moment is out of range") from None


def iso(moment: datetime) -> str:
    """The moment as the wire has it: ISO 8601 in UTC, with a Z."""
    return moment.astimezone(timezone.utc).isoformat().replace("+00:00", "Z")


def parse_moment(text: str) -> datetime:
    """Read an ISO 8601 moment; one without a time zone is taken as UTC. Raises ValueError."""
    try:
        moment = msgspec.convert(text, datetime)
    except msgspec.ValidationError:
        moment = datetime.fromisoformat(text)  # a day alone, a moment without seconds
    return in_utc(moment)
