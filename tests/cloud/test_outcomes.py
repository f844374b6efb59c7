"""Outcomes of calls: each is kept once, finds its call whichever comes first, and goes with its caller."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from sqlalchemy import event, select, update
from sqlalchemy.orm import Session
from support.clouds import Client, RunningCloud, turn

from memoair_cloud.database.outcome_models import CallOutcome
from memoair_cloud.outcomes.resolving import find_projects_with_waiting_outcomes
from memoair_cloud.tenancy.access import authenticate
from memoair_cloud.tenancy.grants import Grant, KeyScope
from memoair_protocol.timestamps import format_utc, utc_now

OUTCOMES = "/v1/voice-sdk/outcomes"


@pytest.fixture
def app(client: Client) -> Iterator[Client]:
    """Yield the same client without a caller, as applications report."""
    bare = Client(client.url, client.key, project=client.identity["project"], agent=client.identity["agent"])
    yield bare
    bare.close()


def report(client: Client, *outcomes: dict[str, Any], **more: Any) -> Any:
    return client.ok("POST", OUTCOMES, {"outcomes": list(outcomes), **more})


def outcome(session_id: str = "call-1", name: str = "resolved", **more: Any) -> dict[str, Any]:
    return {"sessionId": session_id, "outcome": name, **more}


def listed(app: Client, filters: str = "") -> list[Any]:
    rows = app.pages(OUTCOMES, "outcomes", limit=7, filters=filters)
    return [(row["sessionId"], row["userId"], row["outcome"], row["score"]) for row in rows]


def count_rows(cloud: RunningCloud, client: Client) -> int:
    with Session(cloud.services.engine) as session:
        rows = select(CallOutcome).where(CallOutcome.project_id == client.identity["project"])
        return len(session.scalars(rows).all())


def waits(session_id: str) -> tuple[str, None, str, None]:
    return session_id, None, "resolved", None


def test_an_outcome_is_kept_once_and_the_last_report_counts(client: Client, app: Client) -> None:
    client.send(turn("said"))
    assert report(app, outcome()) == {"accepted": 1, "unknownSessions": 0, "rejected": []}
    report(app, outcome(score=0.25), outcome(score=0.5), outcome(name="csat", score=4))
    assert sorted(listed(app)) == [("call-1", "0xab12", "csat", 4.0), ("call-1", "0xab12", "resolved", 0.5)]
    report(
        client, outcome(name="csat", score=5, outcomeId="after-1"), outcome(name="csat", score=1, outcomeId="after-2")
    )
    report(app, outcome(name="csat", score=2, outcomeId="after-2"))
    assert sorted(listed(app, "&outcome=csat")) == [("call-1", "0xab12", "csat", score) for score in (2.0, 4.0, 5.0)]
    [first] = app.pages(OUTCOMES, "outcomes", limit=1, filters="&outcome=resolved")
    assert first["agentId"] == client.identity["agent"]
    assert first["occurredAt"] == first["receivedAt"]


def test_an_outcome_may_arrive_before_its_call(cloud: RunningCloud, client: Client, app: Client) -> None:
    assert report(app, outcome(), outcome("call-2", userId="0xab12"), outcome("call-3", userId="someone")) == {
        "accepted": 3,
        "unknownSessions": 3,
        "rejected": [],
    }
    assert sorted(listed(app)) == [waits("call-1"), waits("call-2"), waits("call-3")]
    assert listed(app, "&known=true") == []
    client.send(turn("said"), turn("said-2", "call-2"), turn("said-3", "call-3"))
    known = sorted(listed(app, "&known=true"))
    assert [(session_id, user_id) for session_id, user_id, *_ in known] == [("call-1", "0xab12"), ("call-2", "0xab12")]
    report(app, outcome(score=1), outcome("call-2", score=1))
    assert len(listed(app)) == 3, "reported again, it is the same outcome"
    client.with_identity(user="someone").send(turn("said"), turn("said-3", "call-3"))
    assert ("call-3", "someone", "resolved", None) in listed(app)


def test_of_two_early_reports_with_and_without_the_user_the_last_one_counts(client: Client, app: Client) -> None:
    report(app, outcome("call-1", score=1))
    report(app, outcome("call-1", score=2, userId="0xab12"))
    report(app, outcome("call-2", score=1, userId="0xab12"))
    report(app, outcome("call-2", score=2))
    client.send(turn("said"), turn("said-2", "call-2"))
    assert sorted(listed(app)) == [("call-1", "0xab12", "resolved", 2.0), ("call-2", "0xab12", "resolved", 2.0)]


def test_a_session_id_of_two_callers_needs_the_user(client: Client, app: Client) -> None:
    other = client.with_identity(user="someone")
    client.send(turn("said"))
    other.send(turn("said"))
    receipt = report(client.with_identity(user="someone"), outcome(score=3))
    assert receipt["accepted"] == 1
    body = {"outcomes": [outcome("call-2"), outcome(), outcome(userId="0xab12", score=7)]}
    receipt = app.ok("POST", OUTCOMES, body)
    [rejected] = receipt["rejected"]
    assert (receipt["accepted"], receipt["unknownSessions"], rejected["index"]) == (2, 1, 1)
    assert "pass userId" in rejected["reason"]
    found = sorted(row for row in listed(app) if row[1])
    assert found == [("call-1", "0xab12", "resolved", 7.0), ("call-1", "someone", "resolved", 3.0)]


def test_an_invalid_outcome_is_rejected_with_its_place_and_the_others_are_saved(app: Client) -> None:
    wrong: list[dict[str, Any]] = [
        {"outcome": "Resolved"},
        {"outcome": ""},
        {"outcome": "a" * 65},
        {"outcome": "resolved\n"},
        {"score": "0.5"},
        {"score": True},
        {"sessionId": ""},
        {"sessionId": None},
        {"occurredAt": "yesterday"},
        {"scores": 1},
    ]
    receipt = report(app, outcome(), *({**outcome("call-2"), **fields} for fields in wrong), outcome("call-3"))
    assert receipt["accepted"] == 2
    assert [row["index"] for row in receipt["rejected"]] == list(range(1, len(wrong) + 1))
    for row, fields in zip(receipt["rejected"], wrong, strict=True):
        assert row["reason"].startswith(f"{next(iter(fields))}: "), row
        assert "Resolved" not in row["reason"]
    assert report(app, "not an outcome")["rejected"][0]["index"] == 0  # type: ignore[arg-type]


def test_the_size_of_a_batch_is_limited(client: Client, app: Client) -> None:
    assert app.error_of("POST", OUTCOMES, {"outcomes": []}) == (422, "cloud.invalid")
    assert app.error_of("POST", OUTCOMES, {"outcomes": [outcome()] * 1_001}) == (413, "cloud.batch_too_large")
    assert app.error_of("POST", OUTCOMES, b'{"outcomes": [{"score": NaN}]}') == (422, "cloud.invalid")
    long_ids = [outcome(f"{number:04}-{'x' * 500}", userId="y" * 500) for number in range(1_000)]
    assert report(app, *long_ids)["accepted"] == 1_000


def test_a_dry_run_saves_nothing(client: Client, app: Client) -> None:
    client.send(turn("said"))
    receipt = report(app, outcome(), outcome("call-2"), outcome(name="?"), dryRun=True)
    assert (receipt["accepted"], receipt["unknownSessions"], len(receipt["rejected"])) == (2, 1, 1)
    assert listed(app) == []


def test_late_outcomes_of_an_erased_caller_are_refused(cloud: RunningCloud, client: Client, app: Client) -> None:
    client.send(turn("said"))
    report(app, outcome(), outcome("early", userId="0xab12"), outcome("of-nobody"))
    before = utc_now() - timedelta(minutes=1)
    receipt = client.ok("DELETE", client.path)
    assert receipt["removed"]["outcomes"] == 1
    assert count_rows(cloud, client) == 1, "an outcome that names no caller may be of anyone"
    late = [
        outcome(),
        outcome(userId="0xab12"),
        outcome("call-2", userId="0xab12", occurredAt=format_utc(before)),
        outcome("call-3"),
        outcome(userId="someone"),
    ]
    answer = report(app, *late)
    assert [row["index"] for row in answer["rejected"]] == [0, 1, 2]
    assert all("erased" in row["reason"] for row in answer["rejected"])
    with Session(cloud.services.engine) as session:
        rows = session.scalars(select(CallOutcome).where(CallOutcome.project_id == client.identity["project"])).all()
        assert not any("0xab12" in repr(vars(row)) for row in rows)


def test_an_outcome_that_was_saved_just_after_an_erasure_goes(
    cloud: RunningCloud, client: Client, app: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The check of the report has passed before the erasure commits, and its row comes after."""
    client.send(turn("said"))
    client.ok("DELETE", client.path)
    with monkeypatch.context() as patched:
        patched.setattr("memoair_cloud.outcomes.reporting._ErasedSessions.check", lambda *_: None)
        before = format_utc(utc_now() - timedelta(minutes=1))
        report(app, outcome("early", userId="0xab12", occurredAt=before), outcome("other", userId="someone"))
        report(app, outcome("next", userId="0xab12"))
    cloud.run_tasks()
    assert {row[0] for row in listed(app)} == {"other", "next"}


def test_an_export_has_the_outcomes(client: Client, app: Client) -> None:
    client.send(turn("said"))
    report(app, outcome(score=0.5))
    [row] = client.ok("GET", f"{client.path}/export")["outcomes"]
    assert (row["sessionId"], row["outcome"], row["score"]) == ("call-1", "resolved", 0.5)
    assert client.ok("GET", client.path)["counts"]["outcomes"] == 1


def test_outcomes_go_with_the_turns_of_their_call_unless_a_hold_keeps_them(
    cloud: RunningCloud, client: Client, app: Client
) -> None:
    held = client.with_identity(user="held")
    for each in (client, held):
        name = each.identity["user"]
        each.send_call(f"old-{name}", "My parcel is late.", day=format_utc(utc_now() - timedelta(days=40))[:10])
        report(app, outcome(f"old-{name}"))
    client.send(turn("new", "new", occurredAt=format_utc(utc_now())))
    report(app, outcome("new"), outcome("never"))
    client.ok("POST", f"{held.path}/holds", {"reason": "case 12"})
    client.ok("PATCH", f"/v1/projects/{client.identity['project']}", {"retention": {"turnsDays": 30}})
    cloud.run_tasks()
    found = {session_id for session_id, *_ in listed(app)}
    assert found == {"old-held", "new", "never"}


@pytest.mark.parametrize("is_held", [False, True])
def test_an_outcome_whose_call_never_arrives_is_dropped(
    cloud: RunningCloud, client: Client, app: Client, is_held: bool
) -> None:
    report(app, outcome("never"))
    client.send(turn("said"))
    report(app, outcome())
    if is_held:
        client.ok("POST", f"/v1/projects/{client.identity['project']}/holds", {"reason": "case 12"})
    age_outcomes(cloud, client, timedelta(days=29))
    cloud.run_tasks()
    assert len(listed(app)) == 2
    age_outcomes(cloud, client, timedelta(days=31))
    cloud.run_tasks()
    assert len(listed(app)) == (2 if is_held else 1)


def age_outcomes(cloud: RunningCloud, client: Client, age: timedelta) -> None:
    with Session(cloud.services.engine) as session, session.begin():
        is_own = CallOutcome.project_id == client.identity["project"]
        session.execute(update(CallOutcome).where(is_own).values(received_at=utc_now() - age))


def test_an_outcome_that_arrived_at_the_same_moment_as_its_call_is_found_later(
    cloud: RunningCloud, client: Client, app: Client
) -> None:
    client.send(turn("said"))
    report(app, outcome())
    with Session(cloud.services.engine) as session, session.begin():  # as two transactions would leave it
        is_own = CallOutcome.project_id == client.identity["project"]
        session.execute(update(CallOutcome).where(is_own).values(user_id=None))
    assert listed(app) == [waits("call-1")]
    assert client.identity["project"] in find_projects_with_waiting_outcomes(cloud.services.engine, utc_now())
    cloud.run_tasks()
    assert listed(app) == [("call-1", "0xab12", "resolved", None)]
    assert client.identity["project"] not in find_projects_with_waiting_outcomes(cloud.services.engine, utc_now())


def test_outcomes_of_other_callers_with_the_same_session_ids_hold_up_no_outcome(
    cloud: RunningCloud, client: Client, app: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    last = client.with_identity(user="zz")
    client.send(*(turn(f"said-{number}", f"call-{number}") for number in range(5)))
    report(app, *(outcome(f"call-{number}", userId="someone") for number in range(5)))
    last.send(turn("said-last", "last"))
    report(app, outcome("last"))
    with Session(cloud.services.engine) as session, session.begin():
        is_own = CallOutcome.project_id == client.identity["project"]
        session.execute(update(CallOutcome).where(is_own).values(user_id=None))
    monkeypatch.setattr("memoair_cloud.outcomes.resolving._MAX_ROWS", 2)
    cloud.run_tasks()
    assert [row for row in listed(app) if row[1]] == [("last", "zz", "resolved", None)]


def test_a_key_that_only_sends_calls_may_report_and_not_list(cloud: RunningCloud, client: Client, app: Client) -> None:
    account_id = authenticate(cloud.services.engine, str(client.key)).account_id
    keys = {scope: cloud.accounts.issue_key(account_id, "k", Grant(scope)).key for scope in KeyScope}
    clients = {scope: Client(client.url, key, **client.identity) for scope, key in keys.items()}
    assert report(clients[KeyScope.INGEST], outcome())["accepted"] == 1
    assert clients[KeyScope.INGEST].error_of("GET", OUTCOMES) == (403, "cloud.forbidden")
    assert clients[KeyScope.READ].error_of("POST", OUTCOMES, {"outcomes": [outcome()]}) == (403, "cloud.forbidden")
    project = client.ok("POST", "/v1/projects", {"name": "Other", "slug": "other"})["id"]
    other = cloud.accounts.issue_key(account_id, "k", Grant(KeyScope.EVERYTHING, project)).key
    elsewhere = Client(client.url, other, **client.identity)
    assert elsewhere.error_of("POST", OUTCOMES, {"outcomes": [outcome()]})[0] == 403
    assert elsewhere.error_of("GET", OUTCOMES)[0] == 403
    for each in (*clients.values(), elsewhere):
        each.close()


def test_outcomes_are_listed_latest_first_by_their_own_time(client: Client, app: Client) -> None:
    day = datetime(2026, 3, 1, tzinfo=timezone.utc)
    report(app, *(outcome(f"call-{n}", occurredAt=format_utc(day + timedelta(days=n))) for n in range(10)))
    assert [row[0] for row in listed(app)] == [f"call-{n}" for n in range(9, -1, -1)]
    assert [row[0] for row in listed(app, "&since=2026-03-09&until=2026-03-10")] == ["call-8"]
    assert [row[0] for row in listed(app, "&sessionId=call-3")] == ["call-3"]
    assert app.error_of("GET", f"{OUTCOMES}?cursor=x") == (422, "cloud.invalid")


def test_reports_and_erasures_at_the_same_time_leave_nothing_of_the_erased(
    cloud: RunningCloud, client: Client, app: Client
) -> None:
    """A report locks the callers of its calls, so that none of them is erased between the look and the write."""
    callers = [client.with_identity(user=f"caller-{number}") for number in range(6)]
    for number, caller in enumerate(callers):
        caller.send(turn("said", f"call-{number}"))
    batch = [outcome(f"call-{number}", score=1) for number in range(6)]
    with ThreadPoolExecutor(8) as threads:
        reports = [threads.submit(report, app, *order) for order in (batch, batch[::-1]) * 4]
        erased = [threads.submit(client.ok, "DELETE", caller.path) for caller in callers[:3]]
        receipts = [task.result(60) for task in reports]
        assert all(task.result(60)["digest"] for task in erased)
    assert all(len(receipt["rejected"]) + receipt["accepted"] == 6 for receipt in receipts)
    assert all(row["index"] < 6 for receipt in receipts for row in receipt["rejected"])
    assert sorted(row[0] for row in listed(app)) == ["call-3", "call-4", "call-5"]


def test_a_call_locks_waiting_outcomes_in_the_order_in_which_reports_write_them(
    cloud: RunningCloud, client: Client, app: Client
) -> None:
    """A report that is repeated holds the first of its rows while a call with all of them arrives."""
    for number in range(3, 0, -1):
        report(app, outcome(f"call-{number}"))
    updates: list[str] = []

    def note(_c: Any, _r: Any, statement: str, parameters: Any, *_: Any) -> None:
        if statement.startswith("UPDATE call_outcomes"):
            updates.extend(call for call in ("call-1", "call-2", "call-3") if call in str(parameters))

    event.listen(cloud.services.engine, "before_cursor_execute", note)
    try:
        client.send(*(turn(f"said-{number}", f"call-{number}") for number in range(1, 4)))
    finally:
        event.remove(cloud.services.engine, "before_cursor_execute", note)
    assert updates == ["call-1", "call-2", "call-3"]
    assert {row[1] for row in listed(app)} == {"0xab12"}
