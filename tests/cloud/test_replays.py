"""Replays: the questions of past calls, asked again against a candidate."""

from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from sqlalchemy import func, select, update
from sqlalchemy.orm import Session
from support.clouds import Client, RunningCloud, session_start, turn
from support.evaluations import ROOT, new_suite

from memoair_cloud.database.engine import WRITE_OPTION
from memoair_cloud.database.evaluation_models import EvaluationResult, EvaluationRun, PendingCase
from memoair_cloud.evaluation import replay, run_claims
from memoair_cloud.evaluation.replay_questions import ChosenQuestions, choose_questions
from memoair_cloud.evaluation.run_worker import process_evaluations
from memoair_cloud.memories.exclusion import remove_excluded_memories
from memoair_cloud.retention.enforcement import DroppedCounts, enforce_retention
from memoair_cloud.tenancy.access import find_project_tenant
from memoair_protocol.timestamps import format_utc, utc_now

MONDAY = datetime(2026, 3, 2, 9, tzinfo=timezone.utc)


def at(minutes: float) -> str:
    return format_utc(MONDAY + timedelta(minutes=minutes))


def send_turns(client: Client, session_id: str, *texts: str, start: float = 0.0) -> None:
    """Send a call whose turns are a minute apart."""
    turns = [
        turn(f"{session_id}-{number}", session_id, number + 1, text, occurredAt=at(start + number))
        for number, text in enumerate(texts, 1)
    ]
    client.send(session_start(f"{session_id}-start", session_id, 1, occurredAt=at(start)), *turns)


def choose(cloud: RunningCloud, client: Client, most: int, minutes: tuple[int, int] = (0, 10_000)) -> ChosenQuestions:
    tenant = find_project_tenant(cloud.services.engine, client.identity["project"])
    assert tenant is not None
    since, until = (MONDAY + timedelta(minutes=count) for count in minutes)
    with tenant.begin_read() as session:
        return choose_questions(session, client.identity["agent"], since, until, most)


def ids(chosen: ChosenQuestions) -> list[str]:
    return [question.event_id for question in chosen.questions]


def test_the_questions_of_a_replay_are_spread_evenly_over_the_turns_of_the_period(
    cloud: RunningCloud, client: Client
) -> None:
    for number in range(4):
        caller = client.with_identity(user=f"caller-{number}")
        send_turns(caller, f"call-{number}", *[f"Question {index}?" for index in range(5)], start=number * 100)

    everything = choose(cloud, client, 1_000)
    assert len(everything.questions) == everything.turn_count == 20
    assert ids(choose(cloud, client, 5)) == ids(everything)[::4]
    assert choose(cloud, client, 5) == choose(cloud, client, 5)
    times = [question.occurred_at for question in everything.questions]
    assert times == sorted(times)
    assert ids(choose(cloud, client, 10, (101, 103))) == ["call-1-1", "call-1-2"], "the end is not included"
    assert ids(choose(cloud, client, 10, (5_000, 6_000))) == []


def test_turns_without_words_and_corrections_are_no_questions(cloud: RunningCloud, client: Client) -> None:
    send_turns(client, "call", "", " ... ", "Where is it?", "?!", "42", "Where is my parcel?")
    corrected: dict[str, Any] = turn("call-9", "call", 9, "Where is my red parcel?", occurredAt=at(9))
    corrected["payload"]["corrects"] = "call-6"
    client.send(corrected)

    assert ids(choose(cloud, client, 1_000)) == ["call-3", "call-5", "call-6"]
    assert ids(choose(cloud, client, 2)) == ["call-3", "call-5"], "a part begins with silence"
    assert len(choose(cloud, client, 1).questions) == 1


def test_only_calls_of_the_agent_are_replayed(cloud: RunningCloud, client: Client) -> None:
    path = f"/v1/projects/{client.identity['project']}/agents"
    other = client.ok("POST", path, {"name": "Sales", "agentType": "voice"})["id"]
    send_turns(client, "ours", "Where is it?")
    send_turns(client.with_identity(agent=other), "theirs", "What does it cost?")

    assert ids(choose(cloud, client, 10)) == ["ours-1"]
    assert ids(choose(cloud, client.with_identity(agent=other), 10)) == ["theirs-1"]


RETURNS = {"id": "returns", "text": "Boots can be returned within thirty days, with the receipt."}
WEEK = {"id": "returns-2026", "text": "Boots can be returned within a week, with the receipt."}
PERIOD = {"from": at(-60), "to": at(10_000)}


def talk(client: Client, callers: int = 3) -> None:
    """Send a call of each of some callers, and the document that their questions are about."""
    client.ok("POST", "/v1/voice-sdk/index/create", {"name": "faq", "documents": [RETURNS]})
    for number in range(callers):
        caller = client.with_identity(user=f"caller-{number}")
        texts = "My card is 4111 1111 1111 1111.", "How long can I return the boots?", "Bye."
        send_turns(caller, f"call-{number}", *texts, start=number * 10)


def new_documents(cloud: RunningCloud, client: Client, *documents: dict[str, str]) -> dict[str, Any]:
    """Return a candidate with other documents."""
    sent = [{"indexName": "faq", "metadata": {}, **document} for document in documents]
    set_id = client.ok("POST", f"{ROOT}/document-sets", {"name": "new", "documents": sent})["setId"]
    cloud.run_tasks()
    return {"documents": {"setId": set_id}}


def begin(client: Client, candidate: dict[str, Any], **more: Any) -> str:
    """Start a replay; return its path."""
    run = client.ok("POST", f"{ROOT}/replays", {"candidate": candidate, **PERIOD, **more})
    assert run["kind"] == "replay"
    return f"{ROOT}/runs/{run['runId']}"


def finish(cloud: RunningCloud, client: Client, run: str) -> Any:
    cloud.run_tasks()
    return client.ok("GET", run)


def changes(client: Client, run: str) -> list[dict[str, Any]]:
    return client.pages(f"{run}/changes", "changes", limit=2)


def count_rows(cloud: RunningCloud, model: Any, run: str) -> int:
    with Session(cloud.services.engine) as session:
        is_meant = model.run_id == run.rpartition("/")[2]
        return session.scalar(select(func.count()).select_from(model).where(is_meant)) or 0


def test_a_replay_shows_which_contexts_change_the_largest_changes_first(cloud: RunningCloud, client: Client) -> None:
    talk(client)
    run = begin(client, new_documents(cloud, client, WEEK))

    done = finish(cloud, client, run)

    assert (done["state"], done["total"], done["done"]) == ("done", 9, 9)
    scores = done["scores"]
    assert (scores["questions"], scores["turns"], scores["leftOut"]) == (9, 9, 0)
    assert scores["documents"]["appeared"] == [
        {"index": "faq", "document": "returns-2026", "questions": scores["changed"]}
    ]
    assert scores["documents"]["vanished"][0]["document"] == "returns"
    found = changes(client, run)
    assert len(found) == scores["changed"] >= 3
    assert [change["change"] for change in found] == sorted((change["change"] for change in found), reverse=True)
    asked = next(change for change in found if change["question"] == "How long can I return the boots?")
    assert asked["appeared"] == [{"kind": "document", "document": "returns-2026", "index": "faq"}]
    detail = client.ok("GET", f"{run}/changes/{asked['caseId']}")
    assert "My card is 4111" in detail["before"], "it was said before, in the same call"
    assert "Bye." not in detail["before"], "it was said later"
    assert "thirty days" in detail["before"]
    assert "a week" in detail["after"]
    changed = [row for row in detail["diff"] if row["kind"] == "changed"]
    assert [span["text"] for row in changed for span in row["after"] if span["changed"]]


def test_what_is_about_a_caller_goes_with_them_also_while_a_replay_runs(
    cloud: RunningCloud, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    talk(client)
    run = begin(client, new_documents(cloud, client, WEEK))
    in_small_steps(monkeypatch)
    while not client.ok("GET", run)["done"]:
        go_on(cloud, client)
    assert client.ok("GET", run)["done"] < 9
    for user_id in ("caller-0", "caller-2"):
        client.ok("DELETE", client.with_identity(user=user_id).path)

    done = finish(cloud, client, run)

    assert (done["state"], done["done"], done["scores"]["questions"]) == ("done", 3, 3)
    assert {change["userId"] for change in changes(client, run)} == {"caller-1"}
    client.ok("DELETE", client.with_identity(user="caller-1").path)
    assert changes(client, run) == []
    assert count_rows(cloud, EvaluationResult, run) == count_rows(cloud, PendingCase, run) == 0
    assert client.ok("GET", run)["scores"] == done["scores"]


def test_a_caller_who_is_erased_while_their_questions_are_asked_leaves_nothing(
    cloud: RunningCloud, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    talk(client, callers=2)
    run = begin(client, {"recall": {"lanes": ["org"]}})
    write = replay._write

    def erase_first(claimed: Any, results: Any, version: Any) -> bool:
        if results[0][0].user_id == "caller-0":
            client.ok("DELETE", client.with_identity(user="caller-0").path)
        return write(claimed, results, version)

    monkeypatch.setattr(replay, "_write", erase_first)
    done = finish(cloud, client, run)

    assert (done["state"], done["total"], done["done"], done["scores"]["questions"]) == ("done", 3, 3, 3)


def test_what_replays_quote_goes_when_retention_drops_turns_of_the_caller(cloud: RunningCloud, client: Client) -> None:
    talk(client, callers=1)
    recent = client.with_identity(user="recent")
    recent.send(session_start("r-start", "r", occurredAt=format_utc(utc_now())))
    recent.send(turn("r-1", "r", said="Can I return the boots?", occurredAt=format_utc(utc_now())))
    until = format_utc(utc_now() + timedelta(hours=1))
    since = format_utc(utc_now() - timedelta(hours=1))
    runs = [begin(client, {"recall": {"lanes": ["org"]}}, **{"from": at(0), "to": at(60)})]
    runs.append(begin(client, {"recall": {"lanes": ["org"]}}, **{"from": since, "to": until}))
    cloud.run_tasks()
    assert [{change["userId"] for change in changes(client, run)} for run in runs] == [{"caller-0"}, {"recent"}]

    client.ok("PATCH", f"/v1/projects/{client.identity['project']}", {"retention": {"turnsDays": 7}})
    cloud.run_tasks()

    assert [{change["userId"] for change in changes(client, run)} for run in runs] == [set(), {"recent"}]


@pytest.mark.parametrize("what", ["a fact", "facts by retention", "an excluded kind"])
@pytest.mark.parametrize("while_it_runs", [True, False])
def test_what_replays_quote_goes_with_deleted_facts_and_a_worker_does_not_bring_it_back(
    cloud: RunningCloud, client: Client, monkeypatch: pytest.MonkeyPatch, what: str, while_it_runs: bool
) -> None:
    client.send_call("call", "I am allergic to nuts.", "What am I allergic to?", day="2026-03-02")
    cloud.run_tasks()
    run = begin(client, {"recall": {"lanes": ["org"]}})
    write, tries = replay._write, []

    def delete_fact() -> None:
        project = f"/v1/projects/{client.identity['project']}"
        (memory,) = client.memories()
        if what == "a fact":
            client.ok("DELETE", f"{client.path}/memories/{memory['memoryId']}")
        elif what == "an excluded kind":
            client.ok("PATCH", project, {"excludedKinds": [memory["kind"]]})
            remove_excluded_memories(cloud.services.engine, client.identity["project"])
        else:
            client.ok("PATCH", project, {"retention": {"turnsDays": 7, "facts": "drop"}})
            tenant = find_project_tenant(cloud.services.engine, client.identity["project"])
            assert tenant is not None
            enforce_retention(tenant, utc_now(), DroppedCounts())

    def delete_first(claimed: Any, results: Any, version: Any) -> bool:
        tries.append([result.first_id for _, result in results])
        if while_it_runs and len(tries) == 1:
            delete_fact()
        return write(claimed, results, version)

    monkeypatch.setattr(replay, "_write", delete_first)
    done = finish(cloud, client, run)
    if not while_it_runs:
        assert "nuts" in str(changes(client, run))
        delete_fact()

    assert (done["state"], done["total"]) == ("done", done["done"])
    assert not [item for change in changes(client, run) for item in change["vanished"] if item["kind"] == "fact"]
    assert not while_it_runs or what == "facts by retention" or tries[1:] == tries[:1], "they are asked again"


def test_a_worker_takes_over_from_a_killed_one_and_no_question_counts_twice(
    cloud: RunningCloud, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    talk(client)
    run = begin(client, new_documents(cloud, client, WEEK))
    write, written = replay._write, []

    def die(claimed: Any, results: Any, version: Any) -> bool:
        written.extend(result.first_id for _, result in results)
        if len(written) == 4:
            raise _KilledError
        return write(claimed, results, version)

    with monkeypatch.context() as patched:
        in_small_steps(patched, slice_s=60.0)
        patched.setattr(replay, "_write", die)
        with pytest.raises(_KilledError):
            go_on(cloud, client)
    half = client.ok("GET", run)
    assert (half["state"], half["done"]) == ("running", 3)
    assert not go_on(cloud, client), "another worker has it"
    expire_claim(cloud, run)

    done = finish(cloud, client, run)

    assert (done["state"], done["total"], done["done"]) == ("done", 9, 9)
    assert count_rows(cloud, EvaluationResult, run) == 9
    assert count_rows(cloud, PendingCase, run) == 0
    other = finish(cloud, client, begin(client, done["candidate"]))
    assert other["scores"] == done["scores"]


def test_changes_are_accepted_as_redacted_cases_once(cloud: RunningCloud, client: Client) -> None:
    talk(client)
    run = begin(client, new_documents(cloud, client, WEEK))
    finish(cloud, client, run)
    suite = new_suite(client)
    chosen = [change for change in changes(client, run) if change["question"].startswith("How long")]
    body = {"suiteId": suite.rpartition("/")[2], "caseIds": [change["caseId"] for change in chosen]}

    accepted = client.ok("POST", f"{run}/changes/accept", body)["cases"]

    assert [(each["repeated"], each["reason"]) for each in accepted] == [(False, None)] * 3
    (case, *_) = cases = client.pages(f"{suite}/cases", "cases", limit=10)
    assert {each["userId"] for each in cases} == {"caller-0", "caller-1", "caller-2"}
    assert case["content"]["question"] == "How long can I return the boots?"
    assert case["content"]["must"] == [{"document": "returns-2026", "index": "faq"}]
    assert "4111" not in str(cases)
    again = client.ok("POST", f"{run}/changes/accept", body)["cases"]
    assert [each["repeated"] for each in again] == [True] * 3
    assert len(client.pages(f"{suite}/cases", "cases", limit=10)) == 3
    client.ok("DELETE", client.with_identity(user="caller-1").path)
    assert len(client.pages(f"{suite}/cases", "cases", limit=10)) == 2
    body["caseIds"] = [change["caseId"] for change in chosen if change["userId"] == "caller-1"]
    (refused,) = client.ok("POST", f"{run}/changes/accept", body)["cases"]
    assert refused["suiteCaseId"] is None
    assert "erased" in refused["reason"]
    kept = {**body, "caseIds": [chosen[-1]["caseId"]], "suiteId": new_suite(client, name="b").rpartition("/")[2]}
    client.ok("POST", f"{run}/changes/accept", {**kept, "require": [], "keepText": True})
    (case,) = client.pages(f"{ROOT}/suites/{kept['suiteId']}/cases", "cases", limit=10)
    assert (case["userId"], case["content"].get("must")) == (None, None)


class _KilledError(BaseException):
    """Stands in for the signal that ends a worker."""


def go_on(cloud: RunningCloud, client: Client) -> bool:
    """Let a worker have the project's runs once; return whether one can go on."""
    return process_evaluations(cloud.services.engine, cloud.services.blobs, client.identity["project"])


def in_small_steps(monkeypatch: pytest.MonkeyPatch, slice_s: float = 0.0) -> None:
    """Let workers write each result by itself, and let others have their turn after so many seconds."""
    monkeypatch.setattr(replay, "_RESULTS_AT_ONCE", 1)
    monkeypatch.setattr(run_claims, "SLICE_S", slice_s)


def expire_claim(cloud: RunningCloud, run: str) -> None:
    engine = cloud.services.engine.execution_options(**{WRITE_OPTION: True})
    with Session(engine) as session, session.begin():
        is_meant = EvaluationRun.id == run.rpartition("/")[2]
        session.execute(update(EvaluationRun).where(is_meant).values(claimed_until=utc_now() - timedelta(days=1)))
