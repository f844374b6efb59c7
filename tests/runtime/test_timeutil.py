"""Timestamps: formatting and parsing are inverse."""

from datetime import datetime, timedelta, timezone

from hypothesis import example, given
from hypothesis import strategies as st

from memoair_protocol.timestamps import format_utc, parse_timestamp

UTC = timezone.utc
time_zones = st.timedeltas(timedelta(hours=-14), timedelta(hours=14)).map(timezone)
# One day away from either end of the range, so that the timestamp exists in every time zone.
timestamps = st.datetimes(datetime(1, 1, 2), datetime(9999, 12, 30), timezones=time_zones)  # noqa: DTZ001 - they get one


@given(timestamps)
@example(datetime.min.replace(tzinfo=UTC))
@example(datetime.max.replace(tzinfo=UTC))
@example(datetime(2026, 3, 2, 12, 0, 0, 500_000, tzinfo=UTC))
def test_a_timestamp_is_formatted_in_utc_to_the_microsecond(timestamp: datetime) -> None:
    text = format_utc(timestamp)
    assert text == timestamp.astimezone(UTC).isoformat().replace("+00:00", "Z")
    assert parse_timestamp(text) == timestamp
