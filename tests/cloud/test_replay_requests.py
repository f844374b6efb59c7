"""Replays: what is refused, recorded, left out and canceled. On SQLite alone: no database makes a difference."""

from collections.abc import Iterator
from typing import Any

import attrs
import pytest
from cloud.test_replays import PERIOD, at, begin, changes, count_rows, finish, in_small_steps, talk
from sqlalchemy import select
from sqlalchemy.orm import Session
from support.clouds import Client, RunningCloud, running
from support.evaluations import ROOT, case_of, new_suite

from memoair_cloud.database.evaluation_models import EvaluationResult, PendingCase
from memoair_cloud.database.models import CallEvent, CallSession, EndUser, Memory
from memoair_cloud.evaluation import replay


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningCloud]:
    folder = tmp_path_factory.mktemp("replays")
    with running(f"sqlite:///{folder / 'cloud.db'}", folder) as server:
        yield server


def test_other_settings_are_replayed_and_the_same_ones_change_nothing(cloud: RunningCloud, client: Client) -> None:
    talk(client, callers=1)
    fewer, same = begin(client, {"recall": {"lanes": ["org"]}}), begin(client, {"recall": {"topK": {"org": 4}}})
    cloud.run_tasks()

    assert client.ok("GET", fewer)["scores"]["changed"] > 0
    assert client.ok("GET", same)["scores"]["changed"] == 0
    assert changes(client, same) == []
    assert count_rows(cloud, EvaluationResult, same) == 3


def test_a_replay_of_silence_is_done_and_empty(cloud: RunningCloud, client: Client) -> None:
    done = finish(cloud, client, begin(client, {"recall": {"topK": {"org": 1}}}))
    assert (done["state"], done["total"], done["scores"]["questions"]) == ("done", 0, 0)


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"candidate": {}}, "candidate"),
        ({"candidate": {"prompt": {"text": "Be brief."}}}, "candidate"),
        ({"candidate": {"recall": {"topK": {"org": -1}}}}, "candidate.recall.topK.org"),
        ({"from": at(10), "to": at(10)}, "from"),
        ({"from": "2020-01-01T00:00:00Z"}, "from"),
        ({"maxQuestions": 0}, "maxQuestions"),
    ],
)
def test_a_replay_that_cannot_be_is_rejected_with_the_field(client: Client, change: dict[str, Any], field: str) -> None:
    body = {"candidate": {"recall": {"topK": {"org": 1}}}, **PERIOD, **change}
    answer = client.call("POST", f"{ROOT}/replays", body)
    assert answer.status == 422
    assert field in str(answer.body)
    missing = {"candidate": {"documents": {"setId": "docset_of_nobody"}}, **PERIOD}
    assert client.error_of("POST", f"{ROOT}/replays", missing) == (404, "cloud.not_found")


def test_the_audit_log_says_which_period_was_replayed_and_which_calls_were_shown(
    cloud: RunningCloud, client: Client
) -> None:
    talk(client, callers=1)
    run = begin(client, {"recall": {"lanes": ["profile"]}})
    finish(cloud, client, run)

    (entry,) = [entry for entry in entries(client) if entry["action"] == "calls.replayed"]
    assert (entry["agentId"], entry["target"]) == (client.identity["agent"], run.rpartition("/")[2])
    assert entry["details"] == {**PERIOD, "maxQuestions": 1_000}
    assert not [entry for entry in entries(client) if entry["action"] == "call.read"]
    assert changes(client, run)
    (shown,) = [entry for entry in entries(client) if entry["action"] == "call.read"]
    assert (shown["userId"], shown["target"]) == ("caller-0", "call-0")


def entries(client: Client) -> list[dict[str, Any]]:
    return client.pages("/v1/voice-sdk/audit", "entries", limit=100)


def test_a_replay_writes_nothing_about_callers_but_its_results(cloud: RunningCloud, client: Client) -> None:
    talk(client)
    cloud.run_tasks()

    def dump() -> list[Any]:
        with Session(cloud.services.engine) as session:
            return [
                [
                    {column.name: getattr(row, column.key) for column in model.__mapper__.columns}
                    for row in session.scalars(select(model).where(model.project_id == client.identity["project"]))
                ]
                for model in (EndUser, CallSession, CallEvent, Memory)
            ]

    before = dump()
    assert finish(cloud, client, begin(client, {"recall": {"topK": {"org": 1}}}))["state"] == "done"
    assert dump() == before


def test_a_canceled_replay_ends_at_the_next_result(
    cloud: RunningCloud, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    talk(client)
    run = begin(client, {"recall": {"lanes": ["org"]}})
    write = replay._write

    def cancel(claimed: Any, results: Any, version: Any) -> bool:
        is_current = write(claimed, results, version)
        client.ok("DELETE", run)
        return is_current

    in_small_steps(monkeypatch, slice_s=60.0)
    monkeypatch.setattr(replay, "_write", cancel)
    done = finish(cloud, client, run)

    assert (done["state"], done["done"], done["scores"]) == ("canceled", 1, None)
    assert count_rows(cloud, PendingCase, run) == 0
    client.ok("DELETE", run)
    assert client.error_of("GET", run) == (404, "cloud.not_found")


def test_questions_of_turns_that_are_gone_are_left_out(
    cloud: RunningCloud, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    talk(client, callers=1)
    run = begin(client, {"recall": {"lanes": ["org"]}})
    load = replay.load_user

    def forget(tenant: Any, user_id: str) -> Any:
        user, is_complete = load(tenant, user_id)
        return attrs.evolve(
            user, events=[event for event in user.events if event["eventId"] != "call-0-2"]
        ), is_complete

    monkeypatch.setattr(replay, "load_user", forget)
    done = finish(cloud, client, run)

    assert (done["state"], done["total"], done["scores"]["leftOut"]) == ("done", 2, 1)


def test_a_replay_belongs_to_its_agent(cloud: RunningCloud, client: Client) -> None:
    talk(client, callers=1)
    run = begin(client, {"recall": {"lanes": ["org"]}})
    finish(cloud, client, run)
    suite = new_suite(client)
    path = f"/v1/projects/{client.identity['project']}/agents"
    other = client.with_identity(agent=client.ok("POST", path, {"name": "Sales", "agentType": "voice"})["id"])
    case_id = changes(client, run)[0]["caseId"]
    body = {"suiteId": suite.rpartition("/")[2], "caseIds": [case_id]}

    for method, route, content in (
        ("GET", f"{run}/changes", None),
        ("GET", f"{run}/changes/{case_id}", None),
        ("POST", f"{run}/changes/accept", body),
    ):
        assert other.error_of(method, route, content) == (404, "cloud.not_found")
    assert client.error_of("GET", f"{run}/changes/question-77") == (404, "cloud.not_found")
    foreign = {**body, "suiteId": new_suite(other).rpartition("/")[2]}
    assert client.error_of("POST", f"{run}/changes/accept", foreign) == (404, "cloud.not_found")


def test_a_replay_has_no_results_beside_its_changes_whose_reads_are_recorded(
    cloud: RunningCloud, client: Client
) -> None:
    talk(client, callers=1)
    run = begin(client, {"recall": {"lanes": ["org"]}})
    finish(cloud, client, run)
    (case_id, *_) = [change["caseId"] for change in changes(client, run)]

    for path in (f"{run}/results", f"{run}/results/{case_id}"):
        assert client.error_of("GET", path) == (409, "cloud.conflict")


def test_the_run_of_a_suite_has_no_changes(cloud: RunningCloud, client: Client) -> None:
    suite = new_suite(client, case_of("a"))
    run = client.ok("POST", f"{ROOT}/runs", {"suiteId": suite.rpartition("/")[2]})["runId"]
    assert client.error_of("GET", f"{ROOT}/runs/{run}/changes") == (409, "cloud.conflict")
