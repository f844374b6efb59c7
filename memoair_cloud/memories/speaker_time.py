"""The time zone in which a caller counts days: "tomorrow", said on Monday evening in Los Angeles, is Tuesday."""

from collections.abc import Mapping
from datetime import datetime, timezone, tzinfo
from typing import Any
from zoneinfo import ZoneInfo

import attrs

from memoair_protocol.timestamps import has_offset, parse_local_timestamp

# The key of user or session metadata in which an application passes the caller's zone, as a name of the IANA database.
TIME_ZONE_KEY = "timeZone"


@attrs.frozen
class SpeakerTime:
    """The time zones of a server.

    Attributes:
        default: The zone of a project without one of its own.
        by_project: The zones of projects, by id.
    """

    default: tzinfo = timezone.utc
    by_project: Mapping[str, tzinfo] = attrs.field(factory=dict)

    def localize(self, moment: datetime, project_id: str, *details: Mapping[str, Any] | None) -> datetime:
        """Return a moment in the time zone of the speaker.

        Args:
            moment: When something was said.
            project_id: The project of the call.
            *details: Metadata of the turn, the session and the user, the most specific first. An ``occurredAt`` with
                an offset decides, then a ``timeZone``, then the zone of the project.
        """
        for metadata in details:
            zone = _stated_zone(metadata or {})
            if zone is not None:
                return _convert(moment, zone)
        return _convert(moment, self.by_project.get(project_id, self.default))


def find_zone(name: str) -> tzinfo:
    """Return a time zone by its name in the IANA database.

    Raises:
        ValueError: If the name is unknown.
    """
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError):
        raise ValueError("unknown time zone: expected a name such as America/Los_Angeles") from None


def _stated_zone(metadata: Mapping[str, Any]) -> tzinfo | None:
    occurred_at, name = metadata.get("occurredAt"), metadata.get(TIME_ZONE_KEY)
    try:
        if isinstance(occurred_at, str) and has_offset(occurred_at):
            return parse_local_timestamp(occurred_at).tzinfo
        return find_zone(name) if isinstance(name, str) else None
    except ValueError:  # what an application passed is of no use
        return None


def _convert(moment: datetime, zone: tzinfo) -> datetime:
    try:
        return moment.astimezone(zone)
    except OverflowError:  # at the ends of the calendar
        return moment
