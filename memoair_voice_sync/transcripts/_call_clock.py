"""When the lines of a text were said: their stamps, and what these mean in a call whose beginning is known."""

import re
from datetime import datetime, time, timedelta, timezone

from memoair_voice_sync.transcripts._moments import parse_clock, parse_moment

_STAMP = re.compile(r"\s*(?:\[([^\[\]]{4,40})\]|\(([^()]{4,40})\))\s*")
# Somebody speaks before a call is so old; a first stamp that is later must be a time of the day.
_LATEST_BEGINNING = timedelta(minutes=10)
_HALF_A_DAY = timedelta(hours=12)


class CallClock:
    """Reads the stamps of one call, which began at ``started_at`` if that is known."""

    def __init__(self, started_at: datetime | None) -> None:
        if started_at is not None and started_at.tzinfo is None:
            started_at = started_at.replace(tzinfo=timezone.utc)
        self._started_at = started_at
        self._is_time_of_day: bool | None = None  # told by the first stamp
        self._last: datetime | None = None

    def split(self, text: str) -> tuple[datetime | None, str]:
        """When a line was said, in UTC, and the line without its stamp; None where it does not tell."""
        match = _STAMP.match(text)
        if match is None:
            return None, text
        stamp, rest = match[1] or match[2], text[match.end() :]
        into_call = parse_clock(stamp)
        try:
            if into_call is None:
                return parse_moment(stamp), rest
            return self._moment(into_call), rest
        except (ValueError, OverflowError):
            return None, text  # "[laughs]", "[99:99:99]": words, or as good as

    def _moment(self, into_call: timedelta) -> datetime | None:
        if self._started_at is None:
            return None
        if self._is_time_of_day is None:
            self._is_time_of_day = into_call >= _LATEST_BEGINNING
        if not self._is_time_of_day:
            return (self._started_at + into_call).astimezone(timezone.utc)
        midnight = datetime.combine((self._last or self._started_at).date(), time(), self._started_at.tzinfo)
        moment = midnight + into_call
        if self._last is not None and self._last - moment > _HALF_A_DAY:  # over midnight
            moment += timedelta(days=1)
        self._last = moment
        return moment.astimezone(timezone.utc)
