"""Runs of suites: what they search is fixed when they begin, and each case counts once, whatever happens to workers."""

from typing import Any

from sqlalchemy import update
from sqlalchemy.orm import Session
from support.clouds import Client, RunningCloud
from support.evaluations import ROOT, case_of, new_suite

from memoair_cloud.database.engine import WRITE_OPTION
from memoair_cloud.database.evaluation_models import EvaluationRun
from memoair_cloud.evaluation import run_worker

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
