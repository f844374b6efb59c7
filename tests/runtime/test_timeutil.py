"""Moments: what is told of one is what was read."""

from datetime import datetime, timedelta, timezone

from hypothesis import example, given
from hypothesis import strategies as st

from memoair_runtime.timeutil import format_utc, parse_timestamp

UTC = timezone.utc
zones = st.timedeltas(timedelta(hours=-14), timedelta(hours=14)).map(timezone)
# A day off either end of time, where no other time zone has the moment.
moments = st.datetimes(datetime(1, 1, 2), datetime(9999, 12, 30), timezones=zones)  # noqa: DTZ001 - they get one


@given(moments)
@example(datetime.min.replace(tzinfo=UTC))
@example(datetime.max.replace(tzinfo=UTC))
@example(datetime(2026, 3, 2, 12, 0, 0, 500_000, tzinfo=UTC))
def test_a_timestamp_is_formatted_in_utc_to_the_microsecond(moment: datetime) -> None:
    told = format_utc(moment)
    assert told == moment.astimezone(UTC).isoformat().replace("+00:00", "Z")
    assert parse_timestamp(told) == moment
