"""Forgetting a caller: nothing of him is left, what comes late is refused, and his devices learn of it."""

import hashlib
import threading
from collections.abc import Sequence
from datetime import datetime, timedelta, timezone
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select
from support.clouds import Client, RunningCloud, running, session_start, turn

from memoair_cloud.consolidation import CallTurn, Extraction, RuleExtractor
from memoair_cloud.database.models import Base
from memoair_cloud.http.routes import projections as routes
from memoair_cloud.memories.extraction_worker import ExtractionOutcome, ExtractionWorker
from memoair_cloud.projections.users import build_forgotten_projection

FORGOTTEN = "/v1/voice-sdk/projections/forgotten"
PERMANENT = "/v1/voice-sdk/projections/permanent"
PROFILE = "/v1/voice-sdk/projections/profile"


def in_an_hour() -> str:
    return (datetime.now(timezone.utc) + timedelta(hours=1)).isoformat()


def rows_of(cloud: RunningCloud, client: Client) -> list[str]:
    """All rows of the project, as text."""
    found = []
    with cloud.services.engine.connect() as connection:
        for table in Base.metadata.sorted_tables:
            if "project_id" in table.c:
                mine = select(table).where(table.c.project_id == client.identity["project"])
                found += [f"{table.name} {tuple(row)!r}" for row in connection.execute(mine)]
    return found


def test_nothing_of_a_forgotten_caller_is_left_and_the_receipt_counts_it(cloud: RunningCloud, client: Client) -> None:
    other = client.with_(user="other")
    for each in (client, other):
        each.call_of("one", "I live in Lisbon.", "I like tea.")
        cloud.work()
        [*_, memory] = each.memories()
        each.ok("PATCH", f"{each.path}/memories/{memory['memoryId']}", {"text": "Ana likes coffee."})
        each.send(turn("waits", "two", said="I live in Oslo."))
    kept = (other.memories(history="true"), other.events("one"), other.ok("GET", PROFILE))
    receipt = client.ok("DELETE", client.path)

    assert receipt == {
        "userId": "0xab12",
        "forgottenAt": receipt["forgottenAt"],
        "removed": {"sessions": 2, "events": 5, "memories": 2, "memoryChanges": 1, "profiles": 1, "queued": 1},
    }
    rows = rows_of(cloud, client)
    assert not [row for row in rows if "0xab12" in row]
    assert not [row for row in rows if "coffee" in row and "other" not in row]
    assert [user["userId"] for user in client.ok("GET", "/v1/voice-sdk/users")["users"]] == ["other"]
    for path in (f"{client.path}/memories", f"{client.path}/sessions"):
        assert client.refused("GET", path) == (404, "cloud.not_found")
    assert kept == (other.memories(history="true"), other.events("one"), other.ok("GET", PROFILE))


def test_what_was_said_before_is_refused_and_what_is_said_after_is_kept(cloud: RunningCloud, client: Client) -> None:
    client.send(session_start("s"), turn("t"))
    client.ok("DELETE", client.path)
    early, late = turn("early", "two", seq=2), turn("late", "two", seq=3, occurredAt=in_an_hour())
    receipt = client.send(session_start("s"), early)

    assert [(each["eventId"], each["code"]) for each in receipt["rejected"]] == [
        ("s", "cloud.forgotten"),
        ("early", "cloud.forgotten"),
    ]
    assert "parcel" not in str(receipt)
    assert client.ok("GET", "/v1/voice-sdk/users")["users"] == []
    receipt = client.send(early, late)
    assert (receipt["accepted"], [each["eventId"] for each in receipt["rejected"]]) == (["late"], ["early"])
    assert [event["eventId"] for event in client.events("two")] == ["late"]
    assert client.ok("DELETE", client.path)["removed"]["events"] == 1


def test_one_of_whom_nothing_is_known_is_forgotten_too(cloud: RunningCloud, client: Client) -> None:
    for _ in range(2):
        assert set(client.ok("DELETE", client.path)["removed"].values()) == {0}
        assert client.send(turn("late"))["rejected"][0]["code"] == "cloud.forgotten"
    assert not [row for row in rows_of(cloud, client) if "0xab12" in row]


def test_devices_hear_who_was_forgotten_and_drop_what_they_hold(cloud: RunningCloud, client: Client) -> None:
    client.call_of("one", "I live in Lisbon.")
    cloud.work()
    held = client.ok("GET", PERMANENT)["version"], client.ok("GET", PROFILE)["version"]
    before = client.ok("GET", "/v1/voice-sdk/bootstrap")
    assert (before["permanentManifestVersion"], before["profileVersion"], before["forgottenAt"]) == (*held, None)
    assert client.ok("GET", FORGOTTEN) == {"version": 0, "more": False, "users": []}
    forgotten_at = client.ok("DELETE", client.path)["forgottenAt"]

    after = client.ok("GET", "/v1/voice-sdk/bootstrap")
    assert (after["forgottenVersion"], after["forgottenAt"]) == (1, forgotten_at)
    assert after["syncToken"] != before["syncToken"]
    project = client.identity["project"]
    digest = hashlib.sha256(b"\0".join([project.encode(), b"0xab12"])).hexdigest()
    told = client.ok("GET", f"{FORGOTTEN}?since=0")
    assert told == {"version": 1, "more": False, "users": [{"digest": digest, "forgottenAt": forgotten_at}]}
    assert client.call("GET", f"{FORGOTTEN}?since=1").status == 304

    for reborn in (False, True):
        if reborn:
            client.send(turn("new", "two", occurredAt=in_an_hour()))
        told = client.ok("GET", f"{PERMANENT}?since={held[0]}")
        assert told["mode"] == "snapshot"
        assert told["version"] > held[0]
        assert [event["eventId"] for event in told["events"]] == (["new"] if reborn else [])
        assert (told["facts"], told["more"]) == ([], False)
        profile = client.ok("GET", f"{PROFILE}?since={held[1]}")
        assert (profile["summary"], profile["attributes"], profile["name"]) == ("", {}, None)
        assert profile["version"] > held[1]
    client.ok("DELETE", client.path)
    again = client.ok("GET", f"{FORGOTTEN}?since=1")
    assert (again["version"], [each["digest"] for each in again["users"]]) == (2, [digest])


def test_who_is_forgotten_while_his_events_come_in_is_forgotten(cloud: RunningCloud, client: Client) -> None:
    stop = threading.Event()
    problems: list[Any] = []

    def send(number: int) -> None:
        count = 0
        while not stop.is_set():
            count += 1
            now = datetime.now(timezone.utc).isoformat()
            event_id = f"{number}-{count}"
            said = turn(event_id, f"c{number}", count, occurredAt=now)
            answer = client.call("POST", "/v1/voice-sdk/events", {"events": [said]})
            if answer.status != 200:
                problems.append(answer)

    threads = [threading.Thread(target=send, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    forgotten = [client.ok("DELETE", client.path)["forgottenAt"] for _ in range(10)]
    stop.set()
    for thread in threads:
        thread.join(30)
    assert problems == []
    left = client.ok("GET", PERMANENT)["events"]
    assert all(moment(event["occurredAt"]) > moment(forgotten[-1]) for event in left)


def test_a_call_that_is_being_learned_from_when_its_caller_is_forgotten_teaches_nothing(
    cloud: RunningCloud, client: Client
) -> None:
    class Slow(RuleExtractor):
        def extract(self, turns: Sequence[CallTurn]) -> Extraction:
            client.ok("DELETE", client.path)
            return super().extract(turns)

    client.call_of("one", "I live in Lisbon.")
    slow = ExtractionWorker(cloud.services.engine, Slow(), timedelta(hours=1))
    assert slow.process_next_call(client.identity["project"]) is ExtractionOutcome.SUPERSEDED
    assert not [row for row in rows_of(cloud, client) if "Lisbon" in row or "0xab12" in row]


def test_a_call_that_was_known_is_over_whatever_its_machines_clock_says(cloud: RunningCloud, client: Client) -> None:
    ahead = (datetime.now(timezone.utc) + timedelta(minutes=4)).isoformat()
    far_ahead = (datetime.now(timezone.utc) + timedelta(days=400)).isoformat()
    said = [turn("a", occurredAt=ahead), turn("b", seq=3, occurredAt=far_ahead)]
    assert client.send(*said)["accepted"] == ["a", "b"]
    assert moment(client.events("call-1")[1]["occurredAt"]) < datetime.now(timezone.utc)
    client.ok("DELETE", client.path)
    receipt = client.send(*said, turn("c", seq=4, occurredAt=in_an_hour()))
    assert [each["code"] for each in receipt["rejected"]] == ["cloud.forgotten"] * 3
    assert client.ok("GET", "/v1/voice-sdk/users")["users"] == []


def test_many_who_were_forgotten_come_in_pages(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(routes, "build_forgotten_projection", partial(build_forgotten_projection, max_rows=2))
    for number in range(5):
        client.ok("DELETE", f"/v1/voice-sdk/users/u{number}")
    found, since, pages = [], 0, 0
    while (answer := client.call("GET", f"{FORGOTTEN}?since={since}")).status == 200:
        found += [each["digest"] for each in answer.body["users"]]
        since, pages = answer.body["version"], pages + 1
        assert answer.body["more"] == (since < 5)
    assert (len(set(found)), len(found), pages) == (5, 5, 3)


def test_a_sqlite_file_and_its_log_do_not_hold_what_was_deleted(tmp_path: Path) -> None:
    def words() -> bytes:
        return b"".join(file.read_bytes() for file in tmp_path.glob("cloud.db*"))

    with running(f"sqlite:///{tmp_path / 'cloud.db'}", tmp_path / "cloud") as cloud:
        client = cloud.tenant()
        client.call_of("one", "The secret word is Rumpelstiltskin.", "I live in Lisbon.")
        cloud.work()
        assert b"Rumpelstiltskin" in words()
        client.ok("DELETE", client.path)
        assert b"Rumpelstiltskin" not in words()
        assert b"Lisbon" not in words()
    assert b"0xab12" not in words()


def moment(text: str) -> datetime:
    return datetime.fromisoformat(text.replace("Z", "+00:00"))
