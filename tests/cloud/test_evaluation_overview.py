"""What pages look up of evaluations, on each database: suites of all agents, words, failing cases first, history."""

from typing import Any

import pytest
from support.clouds import Client, RunningCloud
from support.evaluations import ROOT, case_of, new_suite

from memoair_cloud.cursors import ResultPage
from memoair_cloud.errors import NotFoundError
from memoair_cloud.evaluation import overview
from memoair_cloud.tenancy.access import Tenant, find_project_tenant


def tenant_of(cloud: RunningCloud, client: Client) -> Tenant:
    found = find_project_tenant(cloud.services.engine, client.identity["project"])
    assert found is not None
    return found.for_agent(client.identity["agent"])


def id_of(path: str) -> str:
    return path.rpartition("/")[2]


def run(cloud: RunningCloud, client: Client, suite: str, **candidate: Any) -> str:
    body = {"suiteId": id_of(suite), "candidate": candidate}
    run_id: str = client.ok("POST", f"{ROOT}/runs", body)["runId"]
    cloud.run_tasks()
    return run_id


def read_all(load: Any, limit: int = 2) -> list[Any]:
    rows: list[Any] = []
    cursor = None
    while True:
        page: ResultPage[Any] = load(cursor, limit)
        assert len(page.rows) <= limit
        rows += page.rows
        cursor = page.next_cursor
        if cursor is None:
            return rows


def test_suites_of_one_and_of_all_agents_are_listed_with_their_latest_run(cloud: RunningCloud, client: Client) -> None:
    tenant, project = tenant_of(cloud, client), client.identity["project"]
    other = client.ok("POST", f"/v1/projects/{project}/agents", {"name": "Shop", "agentType": "voice"})["id"]
    own = new_suite(client, case_of("a"), case_of("b"))
    run(cloud, client, own)
    latest = run(cloud, client, own)
    theirs = client.with_identity(agent=other).ok("POST", f"{ROOT}/suites", {"name": "Theirs"})["suiteId"]

    both = read_all(lambda cursor, limit: overview.list_suite_summaries(tenant, None, cursor, limit), limit=1)

    found = {row.suite.id: (row.case_count, row.latest_run and row.latest_run.id) for row in both}
    assert found == {id_of(own): (2, latest), theirs: (0, None)}
    mine = overview.list_suite_summaries(tenant, client.identity["agent"], None, 9).rows
    assert [row.suite.id for row in mine] == [id_of(own)]
    assert overview.find_suite_agent(tenant, theirs) == other
    assert overview.find_run_agent(tenant, latest) == client.identity["agent"]
    elsewhere = tenant_of(cloud, cloud.tenant("elsewhere"))
    for find, found_id in ((overview.find_suite_agent, theirs), (overview.find_run_agent, latest)):
        with pytest.raises(NotFoundError):
            find(elsewhere, found_id)
    assert overview.list_suite_summaries(elsewhere, None, None, 9).rows == []


def test_cases_are_found_by_all_words(cloud: RunningCloud, client: Client) -> None:
    tenant = tenant_of(cloud, client)
    suite = id_of(
        new_suite(
            client, case_of("one", "Is 100 % of it late?"), case_of("two", "Grüße an_alle?"), case_of("x", "an alle")
        )
    )
    for text, ids in (
        ("LATE one", ["one"]),
        ("100 %", ["one"]),
        ("Grüße", ["two"]),
        ("an_alle", ["two"]),
        ("an", ["two", "x"]),
    ):
        found = read_all(lambda cursor, limit, text=text: overview.search_cases(tenant, suite, text, cursor, limit), 1)
        assert [row.id for row in found] == ids, text


def test_failing_cases_come_first_page_by_page(cloud: RunningCloud, client: Client) -> None:
    tenant = tenant_of(cloud, client)
    words = '"passed":false'  # in a case that passes
    cases = [case_of(f"case-{n}", must=[{"text": "nowhere"}] if n % 2 else [], notes=words) for n in range(5)]
    run_id = run(cloud, client, new_suite(client, *cases))

    found = read_all(lambda cursor, limit: overview.list_results_failed_first(tenant, run_id, cursor, limit))

    assert [row.case_id for row in found] == ["case-1", "case-3", "case-0", "case-2", "case-4"]
    only = overview.list_results_failed_first(tenant, run_id, None, 9, only_failed=True).rows
    assert [row.case_id for row in only] == ["case-1", "case-3"]


def test_the_history_names_what_differs_from_the_present_state_before(cloud: RunningCloud, client: Client) -> None:
    tenant = tenant_of(cloud, client)
    suite = new_suite(client, case_of("a"))
    runs = [run(cloud, client, suite)]
    client.ok("POST", "/v1/voice-sdk/prompts", {"text": "You are Juno.", "labels": ["production"]})
    runs.append(run(cloud, client, suite, recall={"contextChars": 400}))
    runs.append(run(cloud, client, suite))
    client.ok("PUT", f"{suite}/cases", {"cases": [case_of("b")]})
    runs.append(run(cloud, client, suite))

    for limit in (1, 2, 9):
        found = read_all(lambda cursor, size: overview.list_history(tenant, id_of(suite), cursor, size), limit)
        assert [entry.run.id for entry in found] == runs[::-1]
        assert [entry.is_candidate for entry in found] == [False, False, True, False]
        assert [dict(entry.changes) for entry in found] == [{"suite": (1, 2)}, {"prompt": (None, 1)}, {}, {}], limit
