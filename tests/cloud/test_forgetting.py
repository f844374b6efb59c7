"""Erasing a user: their data is gone, late events are rejected, and machines learn of it."""

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
from memoair_cloud.database.base import Base
from memoair_cloud.http.routes import projections as routes
from memoair_cloud.memories.extraction_worker import ExtractionOutcome, ExtractionWorker
from memoair_cloud.projections.users import build_forgotten_projection

FORGOTTEN = "/v1/voice-sdk/projections/forgotten"
PERMANENT = "/v1/voice-sdk/projections/permanent"
PROFILE = "/v1/voice-sdk/projections/profile"


def in_an_hour() -> str:
    return (datetime.now(timezone.utc) + timedelta(hours=1)).isoformat()


def dump_rows(cloud: RunningCloud, client: Client) -> list[str]:
    """Return all rows of the project as text."""
    found = []
    with cloud.services.engine.connect() as connection:
        for table in Base.metadata.sorted_tables:
            if "project_id" in table.c:
                mine = select(table).where(table.c.project_id == client.identity["project"])
                found += [f"{table.name} {tuple(row)!r}" for row in connection.execute(mine)]
    return found


def test_erasing_a_user_removes_all_their_data_and_counts_it(cloud: RunningCloud, client: Client) -> None:
    other = client.with_identity(user="other")
    for caller in (client, other):
        caller.send_call("one", "I live in Lisbon.", "I like tea.")
        cloud.run_tasks()
        [*_, memory] = caller.memories()
        caller.ok("PATCH", f"{caller.path}/memories/{memory['memoryId']}", {"text": "Ana likes coffee."})
        caller.send(turn("waits", "two", said="I live in Oslo."))
    other_data = (other.memories(history="true"), other.events("one"), other.ok("GET", PROFILE))
    receipt = client.ok("DELETE", client.path)

    assert receipt == {
        "userId": "0xab12",
        "forgottenAt": receipt["forgottenAt"],
        "erasedAt": receipt["erasedAt"],
        "digest": hashlib.sha256(f"{client.identity['project']}\0000xab12".encode()).hexdigest(),
        "version": 1,
        "reason": "request",
        "erasure": receipt["erasure"],
        "removed": {
            "sessions": 2,
            "events": 5,
            "memories": 2,
            "memoryChanges": 1,
            "profiles": 1,
            "recallTraces": 0,
            "outcomes": 0,
            "evaluationCases": 0,
            "pendingEvaluationCases": 0,
            "evaluationResults": 0,
            "holds": 0,
            "queued": 1,
        },
    }
    client.ok("DELETE", client.path)  # removes nothing more, and the receipt stays
    assert client.ok("GET", f"/v1/voice-sdk/erasures/{receipt['digest']}") == {
        **receipt,
        "userId": None,
        "erasure": None,
    }
    rows = dump_rows(cloud, client)
    assert not [row for row in rows if "0xab12" in row]
    assert not [row for row in rows if "coffee" in row and "other" not in row]
    assert [user["userId"] for user in client.ok("GET", "/v1/voice-sdk/users")["users"]] == ["other"]
    for path in (f"{client.path}/memories", f"{client.path}/sessions"):
        assert client.error_of("GET", path) == (404, "cloud.not_found")
    assert other_data == (other.memories(history="true"), other.events("one"), other.ok("GET", PROFILE))


def test_events_from_before_the_erasure_are_rejected_and_later_ones_saved(cloud: RunningCloud, client: Client) -> None:
    client.send(session_start("s"), turn("t"))
    client.ok("DELETE", client.path)
    early, late = turn("early", "two", seq=2), turn("late", "two", seq=3, occurredAt=in_an_hour())
    receipt = client.send(session_start("s"), early)

    assert [(rejection["eventId"], rejection["code"]) for rejection in receipt["rejected"]] == [
        ("s", "cloud.forgotten"),
        ("early", "cloud.forgotten"),
    ]
    assert "parcel" not in str(receipt)
    assert client.ok("GET", "/v1/voice-sdk/users")["users"] == []
    receipt = client.send(early, late)
    assert (receipt["accepted"], [rejection["eventId"] for rejection in receipt["rejected"]]) == (["late"], ["early"])
    assert [event["eventId"] for event in client.events("two")] == ["late"]
    assert client.ok("DELETE", client.path)["removed"]["events"] == 1


def test_an_unknown_user_can_be_erased(cloud: RunningCloud, client: Client) -> None:
    for _ in range(2):
        assert set(client.ok("DELETE", client.path)["removed"].values()) == {0}
        assert client.send(turn("late"))["rejected"][0]["code"] == "cloud.forgotten"
    assert not [row for row in dump_rows(cloud, client) if "0xab12" in row]


def test_devices_learn_of_an_erasure_and_get_a_snapshot_without_the_erased_data(
    cloud: RunningCloud, client: Client
) -> None:
    client.send_call("one", "I live in Lisbon.")
    cloud.run_tasks()
    held_versions = client.ok("GET", PERMANENT)["version"], client.ok("GET", PROFILE)["version"]
    before = client.ok("GET", "/v1/voice-sdk/bootstrap")
    assert (before["permanentManifestVersion"], before["profileVersion"], before["forgottenAt"]) == (
        *held_versions,
        None,
    )
    assert client.ok("GET", FORGOTTEN) == {"version": 0, "more": False, "users": []}
    forgotten_at = client.ok("DELETE", client.path)["forgottenAt"]

    after = client.ok("GET", "/v1/voice-sdk/bootstrap")
    assert (after["forgottenVersion"], after["forgottenAt"]) == (1, forgotten_at)
    assert after["syncToken"] != before["syncToken"]
    project = client.identity["project"]
    digest = hashlib.sha256(b"\0".join([project.encode(), b"0xab12"])).hexdigest()
    projection = client.ok("GET", f"{FORGOTTEN}?since=0")
    assert projection == {"version": 1, "more": False, "users": [{"digest": digest, "forgottenAt": forgotten_at}]}
    assert client.call("GET", f"{FORGOTTEN}?since=1").status == 304

    for has_called_again in (False, True):
        if has_called_again:
            client.send(turn("new", "two", occurredAt=in_an_hour()))
        projection = client.ok("GET", f"{PERMANENT}?since={held_versions[0]}")
        assert projection["mode"] == "snapshot"
        assert projection["version"] > held_versions[0]
        assert [event["eventId"] for event in projection["events"]] == (["new"] if has_called_again else [])
        assert (projection["facts"], projection["more"]) == ([], False)
        profile = client.ok("GET", f"{PROFILE}?since={held_versions[1]}")
        assert (profile["summary"], profile["attributes"], profile["name"]) == ("", {}, None)
        assert profile["version"] > held_versions[1]
    client.ok("DELETE", client.path)
    again = client.ok("GET", f"{FORGOTTEN}?since=1")
    assert (again["version"], [user["digest"] for user in again["users"]]) == (2, [digest])


def test_a_user_can_be_erased_while_their_events_arrive(cloud: RunningCloud, client: Client) -> None:
    stop = threading.Event()
    failures: list[Any] = []

    def send(number: int) -> None:
        count = 0
        while not stop.is_set():
            count += 1
            now = datetime.now(timezone.utc).isoformat()
            event_id = f"{number}-{count}"
            said = turn(event_id, f"c{number}", count, occurredAt=now)
            answer = client.call("POST", "/v1/voice-sdk/events", {"events": [said]})
            if answer.status != 200:
                failures.append(answer)

    threads = [threading.Thread(target=send, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    erased_at = [client.ok("DELETE", client.path)["forgottenAt"] for _ in range(10)]
    stop.set()
    for thread in threads:
        thread.join(30)
    assert failures == []
    remaining = client.ok("GET", PERMANENT)["events"]
    assert all(parse_time(event["occurredAt"]) > parse_time(erased_at[-1]) for event in remaining)


def test_an_erasure_during_consolidation_leaves_no_facts(cloud: RunningCloud, client: Client) -> None:
    class ErasingExtractor(RuleExtractor):
        def extract(self, turns: Sequence[CallTurn]) -> Extraction:
            client.ok("DELETE", client.path)
            return super().extract(turns)

    client.send_call("one", "I live in Lisbon.")
    worker = ExtractionWorker(cloud.services.engine, ErasingExtractor(), timedelta(hours=1))
    assert worker.process_next_call(client.identity["project"]) is ExtractionOutcome.SUPERSEDED
    assert not [row for row in dump_rows(cloud, client) if "Lisbon" in row or "0xab12" in row]


def test_events_of_a_known_call_are_rejected_whatever_their_timestamps(cloud: RunningCloud, client: Client) -> None:
    ahead = (datetime.now(timezone.utc) + timedelta(minutes=4)).isoformat()
    far_ahead = (datetime.now(timezone.utc) + timedelta(days=400)).isoformat()
    said = [turn("a", occurredAt=ahead), turn("b", seq=3, occurredAt=far_ahead)]
    assert client.send(*said)["accepted"] == ["a", "b"]
    assert parse_time(client.events("call-1")[1]["occurredAt"]) < datetime.now(timezone.utc)
    client.ok("DELETE", client.path)
    receipt = client.send(*said, turn("c", seq=4, occurredAt=in_an_hour()))
    assert [rejection["code"] for rejection in receipt["rejected"]] == ["cloud.forgotten"] * 3
    assert client.ok("GET", "/v1/voice-sdk/users")["users"] == []


def test_erased_users_are_paginated(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(routes, "build_forgotten_projection", partial(build_forgotten_projection, max_rows=2))
    for number in range(5):
        client.ok("DELETE", f"/v1/voice-sdk/users/u{number}")
    digests, since, pages = [], 0, 0
    while (answer := client.call("GET", f"{FORGOTTEN}?since={since}")).status == 200:
        digests += [user["digest"] for user in answer.body["users"]]
        since, pages = answer.body["version"], pages + 1
        assert answer.body["more"] == (since < 5)
    assert (len(set(digests)), len(digests), pages) == (5, 5, 3)


def test_deleted_data_is_not_readable_in_sqlite_files(tmp_path: Path) -> None:
    def words() -> bytes:
        return b"".join(file.read_bytes() for file in tmp_path.glob("cloud.db*"))

    with running(f"sqlite:///{tmp_path / 'cloud.db'}", tmp_path / "cloud") as cloud:
        client = cloud.tenant()
        client.send_call("one", "The secret word is Rumpelstiltskin.", "I live in Lisbon.")
        cloud.run_tasks()
        assert b"Rumpelstiltskin" in words()
        client.ok("DELETE", client.path)
        assert b"Rumpelstiltskin" not in words()
        assert b"Lisbon" not in words()
    assert b"0xab12" not in words()


def parse_time(text: str) -> datetime:
    return datetime.fromisoformat(text.replace("Z", "+00:00"))
