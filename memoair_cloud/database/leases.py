"""Conditions on times that a server has written and another one, or the same after its clock was set, reads."""

from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, or_
from sqlalchemy.orm import InstrumentedAttribute

# Clocks of servers differ by seconds. A time further in the future than this was written by a clock that was wrong.
_MAX_SKEW = timedelta(hours=1)


def is_over(
    until: "InstrumentedAttribute[datetime | None]", now: datetime, max_duration: timedelta
) -> ColumnElement[bool]:
    """Return the condition that a lease or a pause has ended, or never began.

    One that would end later than any can has ended, too: else work would wait until a clock that was ahead is right.

    Args:
        until: The column with its end.
        now: The present time.
        max_duration: How long it lasts at most.
    """
    return or_(until.is_(None), until < now, until > now + max_duration + _MAX_SKEW)


def is_before(at: "InstrumentedAttribute[datetime]", time: datetime, now: datetime) -> ColumnElement[bool]:
    """Return the condition that something happened before a time; also for a time in the future, which is wrong."""
    return or_(at < time, at > now + _MAX_SKEW)
