"""What a page shows: the period, the time zone and the agent. They are in the address, so that it can be passed on."""

from collections.abc import Mapping, Sequence
from datetime import date, datetime, time, timedelta, tzinfo
from typing import Any
from urllib.parse import urlencode

import attrs
from fastapi import Request

from memoair_cloud.analytics.days import bound_day, list_days
from memoair_cloud.errors import InvalidRequestError
from memoair_cloud.memories.speaker_time import find_zone
from memoair_protocol.timestamps import parse_timestamp, utc_now

PERIODS: Mapping[str, timedelta] = {
    "24h": timedelta(hours=24),
    "7d": timedelta(days=7),
    "30d": timedelta(days=30),
    "90d": timedelta(days=90),
}
DEFAULT_PERIOD = "7d"
_MAX_PERIOD = timedelta(days=400)
_NAMES = ("period", "from", "to", "tz", "agent")


@attrs.frozen
class View:
    """The period, the time zone and the agent of a page.

    Attributes:
        since: The first moment of the period.
        until: The first moment after it.
        zone: The time zone in which times are shown and days are counted.
        zone_name: Its name, such as ``Europe/Berlin``.
        period: The name of the period, if it ends now; empty for one with dates.
        agent_id: Only calls of this agent; None for all.
        given: The parameters of the address that say so.
        others: Its other parameters.
    """

    since: datetime
    until: datetime
    zone: tzinfo
    zone_name: str
    period: str
    agent_id: str | None
    given: Mapping[str, str]
    others: Sequence[tuple[str, str]] = ()

    def query(self, **changes: str | int | None) -> str:
        """Return the query of an address that shows the same view, with changes; None leaves a parameter out.

        ``from_`` stands for ``from``, which is a keyword of Python.
        """
        parameters: dict[str, Any] = {**self.given, **{name.rstrip("_"): value for name, value in changes.items()}}
        present = {name: value for name, value in parameters.items() if value not in (None, "")}
        return f"?{urlencode(present)}" if present else ""

    def fixed_query(self) -> str:
        """Return the query of an address that shows this very period, also when it is opened later."""
        local = {name: moment.astimezone(self.zone) for name, moment in (("from", self.since), ("to", self.until))}
        days = {name: moment.isoformat(timespec="minutes") for name, moment in local.items()}
        query = self.query(period=None, tz=self.zone_name, from_=days["from"], to=days["to"])
        return f"{query}&{urlencode(self.others)}" if self.others else query

    def days(self) -> list[date]:
        """Return the days of the period in its time zone, oldest first."""
        return list_days(self.since, self.until, self.zone)

    def day_bounds(self, day: date) -> tuple[datetime, datetime]:
        """Return the part of a day that is in the period: its first moment, and the first moment after it."""
        return bound_day(day, self.since, self.until, self.zone)


def read_view(request: Request) -> View:
    """Return the view that the address of a request asks for.

    Raises:
        InvalidRequestError: If a parameter is invalid.
    """
    settings = request.app.state.services.settings
    given = {name: value for name in _NAMES if (value := request.query_params.get(name, "").strip())}
    others = [(name, value) for name, value in request.query_params.multi_items() if name not in _NAMES and value]
    project_id = request.path_params.get("project_id", "")
    zone_name = given.get("tz") or settings.project_time_zones.get(project_id, settings.time_zone)
    zone = _parse_zone(zone_name)
    now = utc_now()
    if "from" in given or "to" in given:
        until = parse_moment("to", given["to"], zone, is_end=True) if "to" in given else now
        since = parse_moment("from", given["from"], zone) if "from" in given else until - PERIODS[DEFAULT_PERIOD]
        period = ""
        given.pop("period", None)
    else:
        period = given.get("period", DEFAULT_PERIOD)
        if period not in PERIODS:
            raise InvalidRequestError(f"period: use one of {', '.join(PERIODS)}, or from and to", field="period")
        since, until = now - PERIODS[period], now
    if not since < until:
        raise InvalidRequestError("from must be before to", field="from")
    if until - since > _MAX_PERIOD:
        raise InvalidRequestError(f"the period is longer than {_MAX_PERIOD.days} days", field="from")
    return View(since, until, zone, zone_name, period, given.get("agent"), given, others)


def _parse_zone(name: str) -> tzinfo:
    try:
        return find_zone(name)
    except ValueError:
        raise InvalidRequestError("tz: unknown time zone; use a name such as Europe/Berlin", field="tz") from None


def parse_moment(field: str, text: str, zone: tzinfo, *, is_end: bool = False) -> datetime:
    """Parse a day or a moment; a day as an end is included. Without a zone of its own, it is in the page's zone."""
    try:
        if len(text) == len("2026-03-02"):
            day = date.fromisoformat(text) + timedelta(days=is_end)
            return datetime.combine(day, time(), zone)
        moment = datetime.fromisoformat(text) if "+" not in text and not text.endswith("Z") else parse_timestamp(text)
    except (ValueError, OverflowError):
        raise InvalidRequestError(f"{field}: use a day such as 2026-03-02, or an ISO 8601 time", field=field) from None
    return moment.replace(tzinfo=zone) if moment.tzinfo is None else moment
