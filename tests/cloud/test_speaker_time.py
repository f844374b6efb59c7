"""Days are the speaker's: counted in their time zone, wherever the server is."""

from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from pydantic import ValidationError
from support.clouds import Client, RunningCloud, session_end, session_start, turn

from memoair_cloud.consolidation import RuleExtractor
from memoair_cloud.memories.extraction_worker import ExtractionWorker
from memoair_cloud.memories.speaker_time import SpeakerTime, find_zone
from memoair_cloud.settings import CloudSettings
from memoair_protocol.timestamps import has_offset

LOS_ANGELES = find_zone("America/Los_Angeles")
MONDAY_EVENING = "2026-03-02T19:30:00-08:00"  # Tuesday in UTC
MONDAY_EVENING_UTC = "2026-03-03T03:30:00Z"


def learn_day(
    cloud: RunningCloud, client: Client, occurred_at: str, speaker_time: SpeakerTime | None = None, **metadata: Any
) -> str:
    """Return the day of an appointment "tomorrow at nine"."""
    start = session_start("s", occurredAt=occurred_at)
    if metadata:
        start["payload"]["metadata"] = metadata
    said = turn("t", said="I have a dentist appointment tomorrow at nine.", occurredAt=occurred_at)
    client.send(start, said, session_end("e", occurredAt=occurred_at))
    worker = ExtractionWorker(cloud.services.engine, RuleExtractor(), timedelta(hours=1), speaker_time or SpeakerTime())
    worker.process_next_call(client.identity["project"])
    [memory] = client.memories()
    return str(memory["holdsFrom"])


def test_tomorrow_is_counted_from_the_day_of_the_speaker(cloud: RunningCloud, client: Client) -> None:
    assert learn_day(cloud, client, MONDAY_EVENING) == "2026-03-03"


def test_without_an_offset_the_zone_of_the_project_counts(cloud: RunningCloud, client: Client) -> None:
    zones = SpeakerTime(timezone.utc, {client.identity["project"]: LOS_ANGELES})
    assert learn_day(cloud, client, MONDAY_EVENING_UTC, zones) == "2026-03-03"


def test_the_zone_of_a_call_overrides_that_of_the_project(cloud: RunningCloud, client: Client) -> None:
    zones = SpeakerTime(find_zone("Asia/Tokyo"))
    assert learn_day(cloud, client, MONDAY_EVENING_UTC, zones, timeZone="America/Los_Angeles") == "2026-03-03"


def test_without_any_zone_days_are_those_of_utc(cloud: RunningCloud, client: Client) -> None:
    assert learn_day(cloud, client, MONDAY_EVENING_UTC, timeZone="Atlantis") == "2026-03-04"


@pytest.mark.parametrize(
    ("moment", "local_day"),
    [
        ("2026-03-08T07:59:00+00:00", "2026-03-07"),  # the clocks go forward at 10:00 UTC
        ("2026-03-09T06:59:00+00:00", "2026-03-08"),
        ("2026-03-09T07:01:00+00:00", "2026-03-09"),  # midnight comes an hour earlier than the day before
        ("2026-11-01T07:01:00+00:00", "2026-11-01"),
        ("2026-11-02T07:59:00+00:00", "2026-11-01"),  # the clocks went back
    ],
)
def test_days_change_with_daylight_saving_time(moment: str, local_day: str) -> None:
    localized = SpeakerTime(LOS_ANGELES).localize(datetime.fromisoformat(moment), "p")
    assert localized.date().isoformat() == local_day


@pytest.mark.parametrize(
    ("timestamp", "expected"),
    [
        ("2026-03-02T19:30:00-08:00", True),
        ("2026-03-02T19:30+0530", True),
        ("2026-03-02T19:30:00.25+02", True),
        ("2026-03-02T19:30:00Z", False),
        ("2026-03-02T19:30:00+00:00", False),  # as programs write any time in UTC
        ("2026-03-02T19:30:00", False),
        ("2026-03-02", False),
        ("soon", False),
    ],
)
def test_only_an_offset_from_utc_says_where_the_speaker_is(timestamp: str, expected: bool) -> None:
    assert has_offset(timestamp) is expected


def test_the_ends_of_the_calendar_stay_as_they_are() -> None:
    last = datetime(9999, 12, 31, 23, tzinfo=timezone.utc)
    assert SpeakerTime(find_zone("Asia/Tokyo")).localize(last, "p") == last


def test_an_unknown_time_zone_is_refused_as_a_setting() -> None:
    with pytest.raises(ValidationError, match="unknown time zone"):
        CloudSettings(time_zone="Mars/Olympus")
    with pytest.raises(ValidationError, match="unknown time zone"):
        CloudSettings(project_time_zones={"proj_shop": "Mars"})
