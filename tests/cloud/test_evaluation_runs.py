"""Runs of suites: what they search is fixed when they begin, and each case counts once, whatever happens to workers."""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import func, select, update
from sqlalchemy.orm import Session
from support.chat_server import FakeChatServer
from support.clouds import Client, RunningCloud, running, turn
from support.evaluations import ROOT, case_of, new_suite, tell_life

from memoair_cloud.database.engine import WRITE_OPTION
from memoair_cloud.database.evaluation_models import EvaluationResult, EvaluationRun, PendingCase
from memoair_cloud.evaluation import run_claims, run_worker, runs, suite_run
from memoair_cloud.evaluation.locking import find_present_users
from memoair_cloud.tenancy.access import authenticate, find_project_tenant
from memoair_cloud.tenancy.grants import Grant, KeyScope
from memoair_evaluation.engine import Engine, EngineDocuments, open_engine
from memoair_evaluation.scoring import CaseScores
from memoair_protocol.timestamps import utc_now

POLICY = {"id": "returns", "text": "Boots can be returned within thirty days."}


def give_documents(client: Client, *documents: dict[str, Any], index: str = "faq") -> None:
    client.ok("POST", "/v1/voice-sdk/index/create", {"name": index, "documents": list(documents)})


def start(client: Client, suite: str, **options: Any) -> str:
    body = {"suiteId": suite.rpartition("/")[2], **options}
    return f"{ROOT}/runs/{client.ok('POST', f'{ROOT}/runs', body)['runId']}"


def finish(cloud: RunningCloud, client: Client, run: str) -> Any:
    cloud.run_tasks()
    done = client.ok("GET", run)
    assert (done["state"], done["failure"]) == ("done", None)
    return done


def results_of(client: Client, run: str) -> dict[str, Any]:
    return {each["caseId"]: each["scores"] for each in client.pages(f"{run}/results", "results", limit=3)}


def set_run(cloud: RunningCloud, run: str, **values: Any) -> None:
    with Session(cloud.services.engine.execution_options(**{WRITE_OPTION: True})) as session, session.begin():
        session.execute(update(EvaluationRun).where(EvaluationRun.id == run.rpartition("/")[2]).values(**values))


def process(cloud: RunningCloud, client: Client) -> bool:
    return run_worker.process_evaluations(cloud.services.engine, cloud.services.blobs, client.identity["project"])


def test_tasks_of_a_run_that_goes_on_do_not_multiply(
    cloud: RunningCloud, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    cloud.run_tasks()
    start(client, new_suite(client, case_of("found")))
    processed: list[str] = []

    def go_on(_engine: Any, _blobs: Any, project_id: str, *_: Any) -> bool:
        processed.append(project_id)
        return len(processed) < 20

    monkeypatch.setattr("memoair_cloud.queue.process_evaluations", go_on)
    queue = cloud.services.queue
    for _ in range(5):  # a run that no worker has claimed at the moment of a sweep
        queue.sweep()
        queue.run_next_task()
        queue.sweep()
    assert [task.name for task in queue._huey.pending()].count("evaluate") == 1
    cloud.run_tasks()
    assert len(processed) == 20, "the run goes on until it is over"


def test_a_run_scores_each_case_against_the_present_state(cloud: RunningCloud, client: Client) -> None:
    give_documents(client, POLICY)
    client.ok("POST", "/v1/voice-sdk/prompts", {"text": "You are {{name}}.", "labels": ["production"]})
    suite = new_suite(
        client,
        case_of("found"),
        case_of("missing", must=[{"document": "fees"}]),
        case_of(
            "known", "Am I allergic?", given={"facts": ["is allergic to nuts"]}, must=[{"fact": "allergic to nuts"}]
        ),
        case_of("unwanted", must=[], mustNot=[{"document": "returns"}]),
    )
    run = start(client, suite)
    queued = client.ok("GET", run)
    assert (queued["state"], queued["total"], queued["scores"]) == ("queued", 0, None)
    done = finish(cloud, client, run)

    assert (done["total"], done["done"], done["kind"]) == (4, 4, "suite")
    assert (done["suiteVersion"], done["promptVersion"], done["orgVersion"]) == (1, 1, 1)
    assert done["engineVersion"]
    passed = {name: scores["passed"] for name, scores in results_of(client, run).items()}
    assert passed == {"found": True, "missing": False, "known": True, "unwanted": False}
    assert (done["scores"]["cases"], done["scores"]["passed"], done["scores"]["unwanted"]) == (4, 2, 1)
    detail = client.ok("GET", f"{run}/results/found")
    assert "thirty days" in detail["context"]
    assert detail["case"]["question"] == "Can I return the boots?"
    assert "org" in detail["trace"]["lanes"]
    assert [each["runId"] for each in client.ok("GET", f"{ROOT}/runs?suite={suite.rpartition('/')[2]}")["runs"]] == [
        run.rpartition("/")[2]
    ]
    assert client.ok("GET", f"{ROOT}/runs?kind=replay")["runs"] == []
    assert client.error_of("GET", f"{run}/results/none") == (404, "cloud.not_found")
    assert client.ok("DELETE", run)["state"] == "done"
    assert client.error_of("GET", run) == (404, "cloud.not_found")


@pytest.fixture
def one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a worker score two cases, and then give others their turn."""
    monkeypatch.setattr(suite_run, "_MAX_BATCH", 2)
    monkeypatch.setattr(run_claims, "SLICE_S", 0.0)


def rows_of(cloud: RunningCloud, model: Any, run: str) -> int:
    with Session(cloud.services.engine) as session:
        statement = select(func.count()).select_from(model).where(model.run_id == run.rpartition("/")[2])
        return session.scalar(statement) or 0


def numbered(count: int, **more: Any) -> list[dict[str, Any]]:
    return [case_of(f"c{number}", f"Can I return {number} boots?", **more) for number in range(count)]


@pytest.mark.usefixtures("one_by_one")
def test_all_cases_of_a_run_see_what_was_there_when_it_began(cloud: RunningCloud, client: Client) -> None:
    give_documents(client, POLICY)
    suite = new_suite(client, *numbered(5))
    run = start(client, suite)
    assert process(cloud, client)
    begun = client.ok("GET", run)
    assert (begun["state"], begun["total"], begun["done"]) == ("running", 5, 2)
    assert len(results_of(client, run)) == 2

    client.ok("DELETE", "/v1/voice-sdk/index/faq/documents/returns")
    changed = [case_of("c4", must=[{"document": "nothing"}]), case_of("new")]
    client.ok("PUT", f"{suite}/cases", {"cases": changed, "replaceAll": True})
    done = finish(cloud, client, run)
    assert (done["total"], done["suiteVersion"], done["orgVersion"], done["scores"]["passed"]) == (5, 1, 1, 5)

    later = finish(cloud, client, start(client, suite))
    assert (later["total"], later["suiteVersion"], later["orgVersion"], later["scores"]["passed"]) == (2, 2, 2, 0)
    comparison = client.ok("GET", f"{ROOT}/runs/{later['runId']}/comparison")
    assert comparison["before"]["runId"] == done["runId"]
    counts = {"worse": 0, "better": 0, "changed": 1, "added": 1, "removed": 4, "same": 0}
    assert (comparison["counts"], comparison["isWorse"]) == (counts, False)
    assert client.error_of("GET", f"{run}/comparison") == (404, "cloud.not_found"), "nothing was run before it"
    other = finish(cloud, client, start(client, new_suite(client, case_of("c4"), name="other")))
    against = f"{run}/comparison?against={other['runId']}"
    assert client.error_of("GET", against) == (409, "cloud.conflict")


@pytest.mark.usefixtures("one_by_one")
def test_a_project_has_one_waiting_task_however_often_its_runs_are_found(cloud: RunningCloud, client: Client) -> None:
    queue, project_id = cloud.services.queue, client.identity["project"]

    def count_waiting() -> int:
        return [task.args for task in queue._huey.pending() if task.name == "evaluate"].count((project_id,))

    cloud.run_tasks()
    runs_of_it = [start(client, new_suite(client, *numbered(5), name=name)) for name in ("a", "b")]
    queue.sweep()
    assert count_waiting() == 1
    for _ in range(3):
        queue.sweep()
        while count_waiting():  # until it was its turn
            task = queue._huey.dequeue()
            queue._huey.execute(task)
            if task.name == "evaluate" and task.args == (project_id,):
                break
        assert count_waiting() <= 1
    for run in runs_of_it:
        assert finish(cloud, client, run)["done"] == 5


def test_callers_are_kept_however_many_an_agent_has(cloud: RunningCloud, client: Client) -> None:
    client.send(turn("e1"))
    tenant = find_project_tenant(cloud.services.engine, client.identity["project"])
    assert tenant is not None
    erased = {f"erased-{number}" for number in range(70_000)}  # more than a statement can name
    with tenant.begin_write() as session:
        assert find_present_users(session, erased | {client.identity["user"]}) == {client.identity["user"]}


def test_the_same_state_gives_the_same_scores(cloud: RunningCloud, client: Client) -> None:
    texts = [f"Boots of size {number} can be returned within {number} days." for number in range(30)]
    give_documents(client, *({"id": f"d{number}", "text": text} for number, text in enumerate(texts)))
    turns = [{"user": f"I have {number} boots."} for number in range(20)]
    suite = new_suite(client, *numbered(6, must=[{"document": "d7"}], given={"turns": turns}))
    first, second = (finish(cloud, client, start(client, suite))["runId"] for _ in range(2))

    def fixed(run_id: str) -> dict[str, CaseScores]:
        found = results_of(client, f"{ROOT}/runs/{run_id}")
        return {name: CaseScores.from_wire(scores).without_times() for name, scores in found.items()}

    assert fixed(first) == fixed(second)
    comparison = client.ok("GET", f"{ROOT}/runs/{second}/comparison?same=true")
    assert (comparison["counts"]["same"], len(comparison["cases"])) == (6, 6)


_DYING_WORKER = """
import sys, time
from memoair_cloud.database.engine import make_engine
from memoair_cloud.evaluation import run_worker, suite_run
from memoair_cloud.indexes.blobs import BlobStore
from memoair_evaluation.engine import Engine

suite_run._MAX_BATCH = 3
original, scored = Engine.run_case, []

def run_case(self, case, settings):
    scored.append(case.id)
    if len(scored) == 5:  # the first batch is saved, and of the second one, a case is scored and not saved
        print("in the middle", flush=True)
        time.sleep(600)
    return original(self, case, settings)

Engine.run_case = run_case
run_worker.process_evaluations(make_engine(sys.argv[1]), BlobStore(sys.argv[2]), sys.argv[3])
"""


def test_a_run_survives_a_killed_worker_and_counts_each_case_once(cloud: RunningCloud, client: Client) -> None:
    give_documents(client, POLICY)
    run = start(client, new_suite(client, *numbered(8)))
    url = cloud.services.engine.url.render_as_string(hide_password=False)
    command = [sys.executable, "-c", _DYING_WORKER, url, cloud.services.blobs.url, client.identity["project"]]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env={**os.environ}) as worker:
        try:
            assert worker.stdout is not None
            assert worker.stdout.readline() == b"in the middle\n"
        finally:
            worker.kill()
    assert (client.ok("GET", run)["state"], len(results_of(client, run))) == ("running", 3)
    assert not process(cloud, client), "the claim of the killed worker still holds"

    set_run(cloud, run, claimed_until=utc_now() - timedelta(seconds=1))
    done = finish(cloud, client, run)
    assert (done["total"], done["done"], done["scores"]["cases"]) == (8, 8, 8)
    assert list(results_of(client, run)) == [f"c{number}" for number in range(8)]
    assert rows_of(cloud, PendingCase, run) == 0


def test_a_worker_that_comes_back_too_late_changes_nothing(cloud: RunningCloud, client: Client) -> None:
    run = start(client, new_suite(client, *numbered(3)))
    process_once = claim(cloud, client)
    assert process_once is not None
    run_worker.begin_run(process_once, run_worker.RUN_KINDS["suite"])
    assert claim(cloud, client) is None, "a run has one worker"
    set_run(cloud, run, claimed_until=utc_now() - timedelta(seconds=1))
    before = finish(cloud, client, run)
    with pytest.raises(run_claims.LostClaimError):
        suite_run.save_results(process_once, [{"case_id": "c0", "user_id": None}])
    run_worker._go_on(process_once)
    assert client.ok("GET", run) == before


def claim(cloud: RunningCloud, client: Client) -> run_claims.ClaimedRun | None:
    tenant = find_project_tenant(cloud.services.engine, client.identity["project"])
    assert tenant is not None
    return run_claims.claim_run(tenant, cloud.services.blobs, None, compares=frozenset())


@pytest.mark.usefixtures("one_by_one")
def test_two_workers_share_two_runs(cloud: RunningCloud, client: Client) -> None:
    give_documents(client, POLICY)
    suites = [new_suite(client, *numbered(11), name=name) for name in ("a", "b")]
    both = [start(client, suite) for suite in suites]

    def work() -> None:
        while any(client.ok("GET", run)["state"] in ("queued", "running") for run in both):
            process(cloud, client)

    failures = run_at_once(work, work)
    assert not failures
    for run in both:
        done = client.ok("GET", run)
        assert (done["state"], done["total"], done["done"], done["scores"]["passed"]) == ("done", 11, 11, 11)
        assert list(results_of(client, run)) == [f"c{number}" for number in range(11)]


@pytest.mark.usefixtures("one_by_one")
def test_a_canceled_run_stops_and_keeps_what_it_has(cloud: RunningCloud, client: Client) -> None:
    suite = new_suite(client, *numbered(5))
    run, waiting = start(client, suite), start(client, suite)
    process(cloud, client)
    claimed = claim(cloud, client)
    assert claimed is not None
    canceled = [client.ok("DELETE", each) for each in (run, waiting)]
    assert [(each["state"], each["done"]) for each in canceled] == [("canceled", 2), ("canceled", 0)]
    run_worker._go_on(claimed)
    cloud.run_tasks()
    assert client.ok("GET", run) == canceled[0]
    assert (len(results_of(client, run)), rows_of(cloud, PendingCase, run)) == (2, 0)
    assert client.error_of("GET", f"{run}/comparison") == (404, "cloud.not_found")
    client.ok("DELETE", run)
    assert client.error_of("DELETE", run) == (404, "cloud.not_found")
    assert rows_of(cloud, EvaluationResult, run) == 0


@pytest.mark.usefixtures("one_by_one")
def test_a_run_ends_although_a_caller_of_its_cases_is_erased(cloud: RunningCloud, client: Client) -> None:
    tell_life(client)
    cloud.run_tasks()
    suite = new_suite(client, *numbered(2))
    body = {"userId": "0xab12", "sessionId": "call-2", "eventId": "e4", "must": [{"turn": "e1"}]}
    for name in ("told-1", "told-2", "told-3"):
        client.ok("POST", f"{suite}/cases/from-turn", {**body, "caseId": name})
    client.ok("PUT", f"{suite}/cases", {"cases": [case_of("last")]})
    run = start(client, suite)
    for _ in range(2):
        process(cloud, client)
    assert list(results_of(client, run)) == ["c0", "c1", "told-1", "told-2"]
    detail = client.ok("GET", f"{run}/results/told-1")
    assert (detail["userId"], detail["scores"]["passed"]) == ("0xab12", True)
    assert "Lisbon" in detail["context"]
    assert client.ok("GET", "/v1/voice-sdk/audit?userId=0xab12")["entries"][0]["action"] == "call.read"
    export = client.ok("GET", f"{client.path}/export")
    counts = {"evaluationCases": 3, "evaluationResults": 2, "pendingEvaluationCases": 1}
    assert {name: len(export[name]) for name in counts} == counts

    claimed = claim(cloud, client)  # a worker that has loaded the cases of the caller already
    assert claimed is not None
    pending = suite_run._load_pending(claimed)
    receipt = client.ok("DELETE", client.path)
    assert {name: receipt["removed"][name] for name in counts} == counts
    results = [suite_run._Scorer.of(claimed).score(engine, row) for row in pending for engine in [open_empty()]]
    suite_run.save_results(claimed, results)
    claimed.release()
    done = finish(cloud, client, run)
    assert list(results_of(client, run)) == ["c0", "c1", "last"]
    assert (done["total"], done["done"], done["scores"]["cases"]) == (3, 3, 3)
    with Session(cloud.services.engine) as session:
        assert "Lisbon" not in repr(session.execute(select(EvaluationResult.__table__)).all())


@pytest.mark.usefixtures("one_by_one")
def test_erasures_changes_and_a_run_at_once_do_not_block_each_other(cloud: RunningCloud, client: Client) -> None:
    suite = new_suite(client, *numbered(4))
    callers = [client.with_identity(user=f"caller-{number}") for number in range(6)]
    for number, caller in enumerate(callers):
        caller.send(turn("e1", "call-1", 2, "Where is my parcel?"))
        body = {"userId": f"caller-{number}", "sessionId": "call-1", "eventId": "e1", "caseId": f"of-{number}"}
        client.ok("POST", f"{suite}/cases/from-turn", body)
    run = start(client, suite)

    def erase() -> None:
        for caller in reversed(callers):
            caller.ok("DELETE", caller.path)

    def change() -> None:
        for number in range(8):
            client.ok("PUT", f"{suite}/cases", {"cases": [case_of("c1", f"Question {number}?")]})

    def work() -> None:
        while process(cloud, client):
            pass

    failures = run_at_once(erase, change, work)
    assert not failures
    done = finish(cloud, client, run)
    left = [case.rpartition("-")[0] for case in results_of(client, run)]
    assert done["total"] == done["done"] >= 4, "those who were erased before the end do not count"
    assert left == [""] * 4
    assert client.ok("GET", suite)["caseCount"] == 4


def run_at_once(*tasks: Callable[[], None]) -> list[BaseException]:
    """Run tasks in threads that begin together; return what they raised."""
    failures: list[BaseException] = []
    ready = threading.Barrier(len(tasks))

    def run(task: Callable[[], None]) -> None:
        try:
            ready.wait(60)
            task()
        except BaseException as error:
            failures.append(error)
            raise

    threads = [threading.Thread(target=run, args=(task,)) for task in tasks]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert not any(thread.is_alive() for thread in threads)
    return failures


def open_empty() -> Engine:
    with open_engine(EngineDocuments()) as engine:
        return engine


@pytest.mark.parametrize("what", ["suite", "agent", "project"])
@pytest.mark.usefixtures("one_by_one")
def test_a_run_goes_with_its_suite_agent_or_project(cloud: RunningCloud, client: Client, what: str) -> None:
    give_documents(client, POLICY)
    suite = new_suite(client, *numbered(5))
    run = start(client, suite)
    process(cloud, client)
    claimed = claim(cloud, client)
    assert claimed is not None
    project = f"/v1/projects/{client.identity['project']}"
    paths = {"suite": suite, "agent": f"{project}/agents/{client.identity['agent']}", "project": project}
    client.ok("DELETE", paths[what])
    run_worker._go_on(claimed)
    cloud.run_tasks()
    assert client.error_of("GET", run) == (404, "cloud.not_found")
    assert [rows_of(cloud, model, run) for model in (EvaluationResult, PendingCase)] == [0, 0]


def test_a_candidate_has_other_settings_and_another_prompt(cloud: RunningCloud, client: Client) -> None:
    give_documents(client, POLICY)
    for text in ("One.", "Two."):
        client.ok("POST", "/v1/voice-sdk/prompts", {"text": text, "labels": ["staging"]})
    suite = new_suite(client, case_of("a"))
    candidate = {"recall": {"lanes": ["permanent"]}, "prompt": {"label": "staging"}}
    done = finish(cloud, client, start(client, suite, candidate=candidate))
    assert (done["candidate"], done["scores"]["passed"], done["promptVersion"]) == (candidate, 0, 2)
    one = finish(cloud, client, start(client, suite, candidate={"prompt": {"version": 1}}))
    assert (one["scores"]["passed"], one["promptVersion"]) == (1, 1)
    text = finish(cloud, client, start(client, suite, candidate={"prompt": {"text": "Be brief."}}))
    assert text["promptVersion"] is None
    assert finish(cloud, client, start(client, suite))["promptVersion"] is None, "no label is called production"

    body = {"suiteId": suite.rpartition("/")[2]}
    for invalid, status in [
        ({"recall": {"topK": {"org": -1}}}, 422),
        ({"secret": 1}, 422),
        ({"prompt": {"version": 7}}, 404),
        ({"prompt": {"label": "nothing"}}, 404),
        ({"prompt": {"version": 1, "label": "staging"}}, 422),
        ({"documents": {"setId": "nothing"}}, 404),
    ]:
        assert client.call("POST", f"{ROOT}/runs", {**body, "candidate": invalid}).status == status, invalid
    assert client.error_of("POST", f"{ROOT}/runs", {**body, "judge": True}) == (422, "cloud.invalid")
    assert client.error_of("POST", f"{ROOT}/runs", {"suiteId": "nothing"}) == (404, "cloud.not_found")
    empty = new_suite(client, name="empty").rpartition("/")[2]
    assert client.error_of("POST", f"{ROOT}/runs", {"suiteId": empty}) == (422, "cloud.invalid")


def test_a_run_fails_in_words(cloud: RunningCloud, client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    suite = new_suite(client, case_of("a", "A secret question?"))
    run = start(client, suite)
    set_run(cloud, run, claim="dead", claimed_until=utc_now() - timedelta(seconds=1), failures=2)
    unknown = start(client, suite)
    set_run(cloud, unknown, kind="unheard of")
    cloud.run_tasks()
    failed = client.ok("GET", run)
    assert (failed["state"], failed["failure"]) == ("failed", "interrupted 3 times")
    assert client.ok("GET", unknown)["failure"] == "this server does not know such runs: update it"

    def fail(*_: Any) -> Any:
        raise ValueError("A secret question?")

    monkeypatch.setattr(Engine, "run_case", fail)
    broken = start(client, suite)
    cloud.run_tasks()
    assert client.ok("GET", broken)["failure"] == "a case could not be scored: ValueError"
    assert rows_of(cloud, PendingCase, broken) == 0


def test_only_so_many_runs_of_a_project_are_open(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runs, "MAX_OPEN_RUNS", 2)
    suite = new_suite(client, case_of("a"))
    run = start(client, suite)
    start(client, suite)
    body = {"suiteId": suite.rpartition("/")[2]}
    assert client.error_of("POST", f"{ROOT}/runs", body) == (409, "cloud.conflict")
    client.ok("DELETE", run)
    start(client, suite)


def test_old_runs_are_dropped_unless_a_hold_covers_their_callers(
    cloud: RunningCloud, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_worker, "KEPT_RUNS", 2)
    client.send(turn("e1", "call-1", 2, "Where is my parcel?"))
    suite = new_suite(client)
    body = {"userId": "0xab12", "sessionId": "call-1", "eventId": "e1", "caseId": "copied"}
    client.ok("POST", f"{suite}/cases/from-turn", body)
    held = start(client, suite)
    finish(cloud, client, held)
    client.ok("POST", f"{client.path}/holds", {"reason": "case 12"})
    client.ok("PUT", f"{suite}/cases", {"cases": [case_of("a")], "replaceAll": True})
    later = [finish(cloud, client, start(client, suite))["runId"] for _ in range(3)]
    cloud.run_tasks()
    listed = [each["runId"] for each in client.pages(f"{ROOT}/runs", "runs", limit=2)]
    assert listed == [later[2], later[1], held.rpartition("/")[2]]
    assert client.error_of("DELETE", client.path) == (409, "cloud.legal_hold")
    client.ok("POST", f"{client.path}/holds/lift", {"reason": "closed"})
    cloud.run_tasks()
    assert [each["runId"] for each in client.ok("GET", f"{ROOT}/runs")["runs"]] == [later[2], later[1]]


@pytest.fixture
def model() -> Iterator[FakeChatServer]:
    with FakeChatServer() as server:
        yield server


def test_a_judge_answers_from_prompt_and_context(
    new_database: Callable[[], str], tmp_path: Path, model: FakeChatServer
) -> None:
    prices = {"judge_prompt_price": 1.0, "judge_completion_price": 2.0}
    judge = {"judge_base_url": f"{model.url}/v1", "judge_model": "small", "judge_api_key": "sk-secret", **prices}
    with running(new_database(), tmp_path / "cloud", **judge) as cloud:
        client = cloud.tenant()
        give_documents(client, POLICY)
        client.ok("POST", "/v1/voice-sdk/prompts", {"text": "You are Juno.", "labels": ["production"]})
        suite = new_suite(client, case_of("graded", expectedAnswer="Thirty days."), case_of("not graded"))
        model.reply_with("Within thirty days.")
        model.reply_with(json.dumps({"verdict": "right", "reason": "It says so."}))
        done = finish(cloud, client, start(client, suite, judge=True))
        assert (done["settings"]["judge"]["model"], done["scores"]["answers"]["right"]) == ("small", 1)
        asked = model.requests[0]["messages"][0]["content"]
        assert "You are Juno." in asked
        assert "thirty days" in asked
        graded = client.ok("GET", f"{ROOT}/runs/{done['runId']}/results/graded")
        assert (graded["scores"]["answer"]["verdict"], graded["answer"]["text"]) == ("right", "Within thirty days.")
        assert client.ok("GET", f"{ROOT}/runs/{done['runId']}/results/not%20graded")["answer"] is None
        metrics = client.call("GET", "/metrics").body.decode()
        assert "memoair_cloud_evaluation_cases_total 2.0" in metrics
        assert 'memoair_cloud_waiting{work="evaluate"} 0.0' in metrics
        assert "secret" not in repr(done)


def test_a_run_fails_when_its_judge_does_whatever_worker_asks(
    new_database: Callable[[], str], tmp_path: Path, model: FakeChatServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_claims, "SLICE_S", 0.0)
    monkeypatch.setattr(suite_run, "_MAX_BATCH", 1)  # a worker asks for one case, and gives others their turn
    judge = {"judge_base_url": f"{model.url}/v1", "judge_model": "small"}
    with running(new_database(), tmp_path / "cloud", **judge) as cloud:
        client = cloud.tenant()
        give_documents(client, POLICY)
        suite = new_suite(client, *numbered(9, expectedAnswer="Thirty days."))
        model.fail_with(401)
        model.fail_with(401)
        model.reply_with("Within thirty days.")
        model.reply_with(json.dumps({"verdict": "right", "reason": "It says so."}))
        model.fail_with(401)
        run = start(client, suite, judge=True)
        cloud.run_tasks()

        failed = client.ok("GET", run)
        assert (failed["state"], failed["done"]) == ("failed", 8), "two, one that was graded, and five in a row"
        assert failed["failure"].startswith("the judge has failed for 5 cases in a row: ")
        assert results_of(client, run)["c2"]["answer"]["verdict"] == "right"


def test_keys_do_only_what_their_scope_allows(cloud: RunningCloud, client: Client) -> None:
    suite = new_suite(client, case_of("a"))
    run = start(client, suite)
    cloud.run_tasks()
    account = authenticate(cloud.services.engine, str(client.key)).account_id
    other = client.ok("POST", "/v1/projects", {"name": "Other", "slug": "other"})["id"]
    reader, ingester, elsewhere = (
        Client(client.url, cloud.accounts.issue_key(account, "k", grant).key, **client.identity)
        for grant in (Grant(KeyScope.READ), Grant(KeyScope.INGEST), Grant(KeyScope.EVERYTHING, other))
    )
    body = {"suiteId": suite.rpartition("/")[2]}
    reads = [suite, f"{suite}/cases", run, f"{run}/results", f"{run}/results/a", f"{ROOT}/document-sets"]
    writes: list[tuple[str, str, Any]] = [
        ("POST", f"{ROOT}/suites", {"name": "x"}),
        ("PUT", f"{suite}/cases", {"cases": []}),
        ("POST", f"{ROOT}/runs", body),
        ("DELETE", run, None),
        ("POST", f"{ROOT}/document-sets", {"name": "x"}),
        ("DELETE", suite, None),
    ]
    for path in reads:
        reader.ok("GET", path)
        assert ingester.error_of("GET", path) == elsewhere.error_of("GET", path) == (403, "cloud.forbidden"), path
    for method, path, content in writes:
        for stranger in (reader, ingester, elsewhere):
            assert stranger.error_of(method, path, content) == (403, "cloud.forbidden"), (method, path)


def test_runs_of_another_agent_are_not_found(cloud: RunningCloud, client: Client) -> None:
    suite = new_suite(client, case_of("a"))
    run = start(client, suite)
    finish(cloud, client, run)
    agents = f"/v1/projects/{client.identity['project']}/agents"
    colleague = client.with_identity(agent=client.ok("POST", agents, {"name": "Triage", "agentType": "voice"})["id"])
    own = start(colleague, new_suite(colleague, case_of("a")))
    finish(cloud, colleague, own)
    for path in (run, f"{run}/results", f"{run}/results/a", f"{own}/comparison?against={run.rpartition('/')[2]}"):
        assert colleague.error_of("GET", path) == (404, "cloud.not_found"), path
    assert colleague.error_of("DELETE", run) == (404, "cloud.not_found")
    assert colleague.error_of("GET", f"{ROOT}/runs?suite={suite.rpartition('/')[2]}") == (404, "cloud.not_found")
    body = {"suiteId": suite.rpartition("/")[2]}
    assert colleague.error_of("POST", f"{ROOT}/runs", body) == (404, "cloud.not_found")
    assert [each["runId"] for each in colleague.ok("GET", f"{ROOT}/runs")["runs"]] == [own.rpartition("/")[2]]
