"""How long data is kept: periods, legal holds, exports, and receipts of erasures."""

import json
import os
import signal
import subprocess
import sys
import threading
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event as sql_events
from sqlalchemy import select, text
from support.clouds import Client, RunningCloud, session_end, session_start, turn
from support.waiting import eventually

from memoair_cloud.calls.export import write_export
from memoair_cloud.database.base import Base
from memoair_cloud.database.caller_tables import CALLER_TABLES
from memoair_cloud.database.models import CallSession
from memoair_cloud.retention import enforcement
from memoair_cloud.retention.enforcement import DroppedCounts, enforce_retention, find_projects_to_enforce
from memoair_cloud.tenancy.access import Tenant, find_project_tenant

USERS = "/v1/voice-sdk/users"
BOOTSTRAP = "/v1/voice-sdk/bootstrap"
PERMANENT = "/v1/voice-sdk/projections/permanent"
RETENTION = "/v1/voice-sdk/projections/retention"


def days_ago(days: float) -> str:
    return (datetime.now(timezone.utc) - timedelta(days=days)).isoformat()


def set_periods(client: Client, **retention: Any) -> Any:
    return client.ok("PATCH", f"/v1/projects/{client.identity['project']}", {"retention": retention})


def send_call(client: Client, session_id: str, days: float, *texts: str) -> None:
    at = days_ago(days)
    turns = [turn(f"{session_id}-{seq}", session_id, seq, said, occurredAt=at) for seq, said in enumerate(texts, 2)]
    client.send(
        session_start(f"{session_id}-start", session_id, 1, occurredAt=at),
        *turns,
        session_end(f"{session_id}-end", session_id, 99, occurredAt=at),
    )


def tenant_of(cloud: RunningCloud, client: Client) -> Tenant:
    tenant = find_project_tenant(cloud.services.engine, client.identity["project"])
    assert tenant is not None
    return tenant


def fact_texts(client: Client) -> list[str]:
    return sorted(memory["text"] for memory in client.memories(history="true"))


def event_ids(client: Client) -> list[str]:
    return sorted(event["eventId"] for event in client.ok("GET", PERMANENT)["events"])


def test_every_table_that_belongs_to_a_caller_is_listed() -> None:
    with_user = {table.name for table in Base.metadata.sorted_tables if "user_id" in table.c}
    with_user.remove("audit_entries")  # who did what is kept; an erasure removes the ids of the user from it
    assert {table.model.__tablename__ for table in CALLER_TABLES} == with_user
    for table in CALLER_TABLES:
        assert all(key.ondelete == "CASCADE" for key in table.model.__table__.foreign_keys)


def test_by_default_everything_is_kept(cloud: RunningCloud, client: Client) -> None:
    project = client.ok("GET", f"/v1/projects/{client.identity['project']}")
    assert project["retention"] == {"turnsDays": None, "callersDays": None, "tracesDays": 30, "facts": "keep"}
    send_call(client, "old", 3_000, "My parcel is late.")
    cloud.run_tasks()
    assert len(client.events("old")) == 3


@pytest.mark.parametrize(
    "retention",
    [{"turnsDays": 0}, {"turnsDays": -1}, {"callersDays": 40_000}, {"turnsDays": "7"}, {"turnsDays": 1.5}, {"x": 1}],
)
def test_impossible_periods_are_rejected(client: Client, retention: dict[str, Any]) -> None:
    path = f"/v1/projects/{client.identity['project']}"
    assert client.error_of("PATCH", path, {"retention": retention}) == (422, "cloud.invalid")
    assert client.error_of("PATCH", path, {}) == (422, "cloud.invalid")
    assert client.ok("GET", path)["retention"]["turnsDays"] is None


def test_old_turns_go_and_facts_stay_with_their_sentence_and_day(cloud: RunningCloud, client: Client) -> None:
    send_call(client, "old", 40, "I live in Lisbon.", "My zanzibar parcel is late.")
    send_call(client, "new", 2, "I like tea.")
    cloud.run_tasks()
    facts = fact_texts(client)
    before = client.ok("GET", BOOTSTRAP)
    preview = client.ok(
        "POST", f"/v1/projects/{client.identity['project']}/retention/preview", {"turnsDays": 30, "callersDays": None}
    )
    assert {key: preview[key] for key in ("turns", "sessions", "callers")} == {"turns": 2, "sessions": 1, "callers": 0}
    assert len(client.events("old")) == 4
    set_periods(client, turnsDays=30)
    cloud.run_tasks()

    assert client.error_of("GET", "/v1/voice-sdk/sessions/old/events") == (404, "cloud.not_found")
    assert event_ids(client) == ["new-2", "new-start"]
    assert facts == fact_texts(client)
    assert len(facts) == 2
    after = client.ok("GET", BOOTSTRAP)
    assert after["permanentManifestVersion"] > before["permanentManifestVersion"]
    assert after["retentionVersion"] > before["retentionVersion"]
    user = client.ok("GET", client.path)
    assert (user["sessionCount"], user["counts"]["events"], user["held"]) == (1, 3, False)
    cloud.run_tasks()
    assert client.ok("GET", BOOTSTRAP) == after
    if cloud.services.engine.dialect.name == "sqlite":
        file = Path(cloud.services.engine.url.database or "")
        content = file.read_bytes() + file.with_name(f"{file.name}-wal").read_bytes()
        assert b"zanzibar" not in content, "deleted words are overwritten"
        assert b"I like tea" in content


def test_facts_go_with_their_turns_if_the_project_says_so(cloud: RunningCloud, client: Client) -> None:
    send_call(client, "old", 40, "I live in Lisbon.")
    send_call(client, "new", 2, "I like tea.")
    cloud.run_tasks()
    set_periods(client, turnsDays=30)
    cloud.run_tasks()
    assert len(fact_texts(client)) == 2
    set_periods(client, facts="drop")  # later: the facts of turns that are gone already
    cloud.run_tasks()
    assert [("tea" in fact, "Lisbon" in fact) for fact in fact_texts(client)] == [(True, False)]
    assert "Lisbon" not in str(client.ok("GET", "/v1/voice-sdk/projections/profile"))
    assert find_projects_to_enforce(cloud.services.engine, datetime.now(timezone.utc)) == []


def test_a_late_event_of_a_dropped_call_does_not_take_its_facts_back(cloud: RunningCloud, client: Client) -> None:
    send_call(client, "long", 40, "I live in Lisbon.")
    cloud.run_tasks()
    set_periods(client, turnsDays=30)
    cloud.run_tasks()
    client.send(
        turn("again", "long", 100, "I like tea.", occurredAt=days_ago(1)),
        session_end("end", "long", 101, occurredAt=days_ago(1)),
    )
    cloud.run_tasks()
    assert [any(word in fact for word in ("Lisbon", "tea")) for fact in fact_texts(client)] == [True, True]
    assert [event["eventId"] for event in client.events("long")] == ["again", "end"]


def test_a_call_over_the_limit_loses_its_old_turns_only(cloud: RunningCloud, client: Client) -> None:
    client.send(
        session_start("start", "long", 1, occurredAt=days_ago(50)),
        turn("one", "long", 2, "I live in Lisbon.", occurredAt=days_ago(40)),
        turn("two", "long", 3, "I like tea.", occurredAt=days_ago(10)),
        session_end("end", "long", 9, occurredAt=days_ago(9)),
    )
    cloud.run_tasks()
    set_periods(client, turnsDays=30)
    cloud.run_tasks()
    assert [event["eventId"] for event in client.events("long")] == ["two", "end"]
    [call] = client.ok("GET", f"{client.path}/sessions")["sessions"]
    assert call["turnCount"] == 1
    assert call["startedAt"] > days_ago(11)
    assert len(fact_texts(client)) == 2


def test_events_that_arrive_too_late_are_accepted_and_dropped(cloud: RunningCloud, client: Client) -> None:
    set_periods(client, turnsDays=30)
    late = session_start("start", "old", occurredAt=days_ago(40)), turn("late", "old", occurredAt=days_ago(40))
    for _ in range(2):  # as often as a machine sends them
        receipt = client.send(*late)
        assert (receipt["accepted"], receipt["expired"], receipt["rejected"]) == (["start", "late"],) * 2 + ([],)
    assert client.ok("GET", USERS)["users"] == []
    receipt = client.send(*late, turn("new", "now", occurredAt=days_ago(1)))
    assert (sorted(receipt["accepted"]), receipt["expired"]) == (["late", "new", "start"], ["start", "late"])
    assert [event["eventId"] for event in client.ok("GET", PERMANENT)["events"]] == ["new"]
    cloud.run_tasks()
    set_periods(client, turnsDays=None)
    assert client.send(*late)["expired"] == []  # nothing of this user was dropped from the tables

    client.send(turn("older", "older", occurredAt=days_ago(60)))
    set_periods(client, turnsDays=50)
    cloud.run_tasks()
    set_periods(client, turnsDays=None)
    assert client.send(turn("older", "older", occurredAt=days_ago(60)))["expired"] == ["older"]  # once gone, gone


def test_callers_not_heard_of_are_erased_and_may_call_again(cloud: RunningCloud, client: Client) -> None:
    other = client.with_identity(user="other")
    send_call(client, "old", 100, "I live in Lisbon.")
    send_call(other, "new", 5, "I like tea.")
    cloud.run_tasks()
    set_periods(client, callersDays=90)
    cloud.run_tasks()
    assert [user["userId"] for user in client.ok("GET", USERS)["users"]] == ["other"]
    [erased] = client.ok("GET", "/v1/voice-sdk/projections/forgotten")["users"]
    receipt = client.ok("GET", f"/v1/voice-sdk/erasures/{erased['digest']}")
    assert (receipt["reason"], receipt["userId"], receipt["removed"]["events"]) == ("retention", None, 3)
    # A machine that was offline has a call of last week; and one that is as old as those that were erased.
    receipt = client.send(turn("week", "week", occurredAt=days_ago(7)), turn("older", "old", occurredAt=days_ago(100)))
    assert receipt["accepted"] == ["week"]
    assert [rejection["code"] for rejection in receipt["rejected"]] == ["cloud.forgotten"]


@pytest.mark.parametrize("on_project", [False, True])
def test_a_hold_stops_periods_and_erasures_until_it_is_lifted(
    cloud: RunningCloud, client: Client, on_project: bool
) -> None:
    send_call(client, "old", 100, "I live in Lisbon.")
    cloud.run_tasks()
    owner = f"/v1/projects/{client.identity['project']}" if on_project else client.path
    hold = client.ok("POST", f"{owner}/holds", {"reason": "case 12", "by": "legal@acme.example"})
    assert (hold["userId"], hold["liftedAt"]) == (None if on_project else "0xab12", None)
    assert hold["placedBy"].startswith("legal@acme.example (")
    assert client.error_of("POST", f"{owner}/holds", {"reason": "again"}) == (409, "cloud.conflict")
    set_periods(client, turnsDays=30, callersDays=60)
    cloud.run_tasks()
    assert client.error_of("DELETE", client.path) == (409, "cloud.legal_hold")
    assert len(client.events("old")) == 3
    assert client.ok("GET", client.path)["held"]
    assert client.send(turn("late", "old", 50, occurredAt=days_ago(100)))["expired"] == []  # evidence, too
    projection = client.ok("GET", RETENTION)
    assert (projection["turnsDays"], projection["held"], len(projection["heldUsers"])) == (
        30,
        on_project,
        not on_project,
    )
    preview = client.ok("POST", f"/v1/projects/{client.identity['project']}/retention/preview", {})
    assert (preview["turns"], preview["callers"], preview["heldCallers"]) == (0, 0, 1)
    [digest] = projection["heldUsers"] or ["0" * 64]
    report = {"users": [{"digest": digest, "forgottenAt": days_ago(0)}]}
    assert client.ok("POST", "/v1/voice-sdk/erasures", report)["recorded"] == on_project  # for the invented digest
    assert len(client.events("old")) == 4

    lifted = client.ok("POST", f"{owner}/holds/lift", {"reason": "settled"})
    assert (lifted["liftReason"], lifted["holdId"]) == ("settled", hold["holdId"])
    assert client.error_of("POST", f"{owner}/holds/lift", {"reason": "settled"}) == (404, "cloud.not_found")
    assert [entry["liftReason"] for entry in client.ok("GET", f"{owner}/holds")["holds"]] == ["settled"]
    cloud.run_tasks()
    assert client.ok("GET", USERS)["users"] == []


def test_holds_need_a_reason_and_a_known_user(client: Client) -> None:
    assert client.error_of("POST", f"{client.path}/holds", {"reason": "case"}) == (404, "cloud.not_found")
    assert client.error_of("POST", f"{client.path}/holds", {"reason": ""}) == (422, "cloud.invalid")
    assert client.error_of("GET", f"{client.path}/holds") == (404, "cloud.not_found")


def test_an_export_holds_everything_and_no_bookkeeping(cloud: RunningCloud, client: Client) -> None:
    send_call(client, "one", 5, "I live in Lisbon.", "I like tea.")
    send_call(client.with_identity(user="other"), "two", 5, "I live in Oslo.")
    cloud.run_tasks()
    memory = next(memory for memory in client.memories() if "tea" in memory["text"])
    client.ok("PATCH", f"{client.path}/memories/{memory['memoryId']}", {"text": "Ana likes coffee."})
    client.ok("POST", f"{client.path}/holds", {"reason": "case 12"})
    answer = client.call("GET", f"{client.path}/export")
    export = answer.body
    assert int(answer.headers["content-length"]) > 1_000
    assert (export["format"], export["schemaVersion"], export["held"]) == ("memoair.user-export", 1, True)
    assert [event["payload"]["userText"] for event in export["events"] if event["type"] == "turn"] == [
        "I live in Lisbon.",
        "I like tea.",
    ]
    [corrected] = [fact for fact in export["facts"] if fact["correctedAt"]]
    assert [change["text"] for change in corrected["history"]] == [memory["text"]]
    assert export["sessions"][0]["metadata"] == {"line": "returns"}
    assert export["sessions"][0]["promptVersion"] is None
    assert export["user"]["metadata"] == {"tenant": "acme"}
    assert "Lisbon" in export["profile"]["summary"]
    assert [hold["reason"] for hold in export["holds"]] == ["case 12"]
    assert "Oslo" not in json.dumps(export)
    assert not {"barred", "version", "projectId"} & set(export["facts"][0])
    assert client.error_of("GET", f"{USERS}/nobody/export") == (404, "cloud.not_found")


def test_an_export_is_one_snapshot(cloud: RunningCloud, client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    send_call(client, "one", 5, "I live in Lisbon.")
    monkeypatch.setattr("memoair_cloud.calls.export._facts", lambda *_: iter([client.send(turn("later")), {}][1:]))
    with write_export(tenant_of(cloud, client), "0xab12") as file:
        file.seek(0)
        export = json.load(file)
    assert len(export["events"]) == 3
    assert len(client.ok("GET", f"{client.path}/sessions")["sessions"]) == 2


def test_users_are_found_by_name_id_metadata_and_time(client: Client) -> None:
    for user_id, name, days in (("a-1", "Élodie Dupont", 1), ("b-2", "Özlem Şahin", 20), ("c_3", "50% off", 40)):
        client.with_identity(user=user_id).send(
            session_start("s", user_id, name=name, occurredAt=days_ago(days)),
            turn("t", user_id, occurredAt=days_ago(days)),
        )

    def found(**query: str) -> list[str]:
        filters = "".join(f"&{name}={value}" for name, value in query.items())
        return [user["userId"] for user in client.pages(USERS, "users", limit=2, filters=filters)]

    assert found() == ["a-1", "b-2", "c_3"]
    assert found(order="lastSeen") == ["a-1", "b-2", "c_3"]
    assert found(q="DUPONT") == found(q="a-1") == ["a-1"]
    assert found(q="%C5%9Eahin") == ["b-2"]
    assert found(q="50%25") == found(q="c_3") == ["c_3"]
    assert found(q="_") == ["c_3"]
    assert found(q="acme+dupont") == ["a-1"]
    assert found(seenAfter=days_ago(30).replace("+", "%2B")) == ["a-1", "b-2"]
    assert found(seenBefore=days_ago(30).replace("+", "%2B"), q="off") == ["c_3"]
    assert client.error_of("GET", f"{USERS}?order=name") == (422, "cloud.invalid")
    assert client.error_of("GET", f"{USERS}?seenAfter=yesterday") == (422, "cloud.invalid")


def test_batches_are_bounded_and_others_get_their_turn(
    cloud: RunningCloud, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(enforcement, "_MAX_EVENTS", 2)
    monkeypatch.setattr(enforcement, "_MAX_SESSIONS", 2)
    for number in range(5):
        send_call(client, f"old-{number}", 40 + number, "I live in Lisbon.", "I like tea.")
    set_periods(client, turnsDays=30)
    tenant, now, counts = tenant_of(cloud, client), datetime.now(timezone.utc), DroppedCounts()
    assert enforce_retention(tenant, now, counts, max_batches=2)
    assert counts.batches == 2
    assert client.ok("GET", client.path)["counts"]["events"] == 20 - 2 * 2
    while enforce_retention(tenant, now, counts, max_batches=2):
        pass
    assert (counts.turns, counts.sessions) == (10, 5)
    assert client.ok("GET", client.path)["counts"]["events"] == 0


def test_a_worker_that_has_read_dropped_turns_writes_nothing(cloud: RunningCloud, client: Client) -> None:
    from memoair_cloud.consolidation import RuleExtractor
    from memoair_cloud.memories.extraction_worker import ExtractionOutcome, ExtractionWorker

    client.send(
        turn("one", "long", 2, "I live in Lisbon.", occurredAt=days_ago(40)),
        turn("two", "long", 3, "I like tea.", occurredAt=days_ago(10)),
        session_end("end", "long", 9, occurredAt=days_ago(9)),
    )
    set_periods(client, turnsDays=30)
    rules, tenant = RuleExtractor(), tenant_of(cloud, client)

    class DropsDuringExtraction:
        def extract(self, turns: Any) -> Any:
            found = rules.extract(turns)
            while enforce_retention(tenant, datetime.now(timezone.utc), DroppedCounts()):
                pass
            return found

    worker = ExtractionWorker(cloud.services.engine, DropsDuringExtraction(), timedelta(hours=1))  # type: ignore[arg-type]
    assert worker.process_next_call(client.identity["project"]) is ExtractionOutcome.SUPERSEDED
    assert fact_texts(client) == []
    cloud.run_tasks()
    assert ["tea" in fact for fact in fact_texts(client)] == [True]
    with cloud.services.engine.connect() as connection:
        row = connection.execute(
            select(CallSession.learned_count, CallSession.event_count).where(
                CallSession.project_id == client.identity["project"]
            )
        ).one()
    assert row == (2, 2)


def test_ingest_goes_on_beside_it(cloud: RunningCloud, client: Client) -> None:
    for number in range(30):
        send_call(client, f"old-{number}", 40 + number, "My parcel is late.")
    set_periods(client, turnsDays=30)
    failures: list[Exception] = []

    def send() -> None:
        try:
            for number in range(30):
                client.send(turn(f"new-{number}", "now", number, occurredAt=days_ago(0)))
        except Exception as error:  # noqa: BLE001 - shown by the test
            failures.append(error)

    thread = threading.Thread(target=send)
    thread.start()
    cloud.run_tasks()
    thread.join()
    cloud.run_tasks()
    assert not failures
    assert len(event_ids(client)) == 30


def test_a_killed_worker_leaves_the_rest_to_the_next(cloud: RunningCloud, client: Client) -> None:
    for number in range(60):
        send_call(client, f"old-{number}", 40 + number, "I live in Lisbon.")
    set_periods(client, turnsDays=30)
    program = (
        "import sys\n"
        "from datetime import datetime, timezone\n"
        "from memoair_cloud.database.engine import make_engine\n"
        "from memoair_cloud.retention import enforcement as e\n"
        "from memoair_cloud.tenancy.access import find_project_tenant\n"
        "e._MAX_EVENTS = 3\n"
        "e._MAX_SESSIONS = 1\n"
        "tenant = find_project_tenant(make_engine(sys.argv[1]), sys.argv[2])\n"
        "print('ready', flush=True)\n"
        "while e.enforce_retention(tenant, datetime.now(timezone.utc), e.DroppedCounts(), max_batches=1): pass\n"
    )
    url = cloud.services.engine.url.render_as_string(hide_password=False)
    worker = subprocess.Popen([sys.executable, "-c", program, url, client.identity["project"]], stdout=subprocess.PIPE)
    try:
        assert worker.stdout is not None
        worker.stdout.readline()
        eventually(lambda: client.ok("GET", client.path)["counts"]["events"] < 150, 60)
        os.kill(worker.pid, signal.SIGKILL)
    finally:
        worker.kill()
        worker.wait()
        assert worker.stdout is not None
        worker.stdout.close()
    user = client.ok("GET", client.path)
    calls = client.pages(f"{client.path}/sessions", "sessions", 50)
    assert user["counts"]["sessions"] == user["sessionCount"] == len(calls)
    assert user["counts"]["events"] == 3 * len(calls)
    cloud.run_tasks()
    assert client.ok("GET", client.path)["counts"]["events"] == 0


def test_what_is_due_is_found_by_indexes(cloud: RunningCloud, client: Client) -> None:
    send_call(client, "old", 40, "My parcel is late.")
    set_periods(client, turnsDays=30, callersDays=400)
    statements: list[tuple[str, Any]] = []
    engine = cloud.services.engine

    def note(connection: Any, cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
        if statement.startswith(("SELECT", "DELETE")):
            statements.append((statement, parameters))

    sql_events.listen(engine, "before_cursor_execute", note)
    try:
        enforce_retention(tenant_of(cloud, client), datetime.now(timezone.utc), DroppedCounts())
    finally:
        sql_events.remove(engine, "before_cursor_execute", note)
    plans = []
    with engine.connect() as connection:
        if engine.dialect.name == "postgresql":
            connection.execute(text("SET enable_seqscan = off"))  # the tables of a test are small
        for statement, parameters in statements:
            prefix = "EXPLAIN QUERY PLAN " if engine.dialect.name == "sqlite" else "EXPLAIN "
            rows = connection.exec_driver_sql(prefix + statement.replace("FOR NO KEY UPDATE", ""), parameters)
            plans += [str(row) for row in rows]
    scans = [plan for plan in plans if "Seq Scan" in plan or ("SCAN" in plan and "USING" not in plan)]
    assert plans
    assert not [scan for scan in scans if "call_" in scan or "end_users" in scan]
