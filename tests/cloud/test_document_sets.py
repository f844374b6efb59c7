"""Document sets: what a run searches instead of the project's documents, and that no file is left behind."""

from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from sqlalchemy import update
from sqlalchemy.orm import Session
from support.clouds import Client, RunningCloud, running
from support.evaluations import ROOT, case_of, new_suite

from memoair_cloud import project_removal
from memoair_cloud.database.engine import WRITE_OPTION
from memoair_cloud.database.evaluation_models import EvaluationDocumentSet
from memoair_cloud.evaluation import document_set_builder, document_sets
from memoair_cloud.tenancy.access import find_project_tenant
from memoair_protocol.timestamps import utc_now

SETS = f"{ROOT}/document-sets"
POLICY = {"indexName": "faq", "id": "returns", "text": "Boots can be returned within sixty days."}


def new_set(client: Client, *documents: dict[str, Any], name: str = "new policy") -> str:
    return str(client.ok("POST", SETS, {"name": name, "documents": list(documents)})["setId"])


def run(cloud: RunningCloud, client: Client, suite: str, set_id: str | None = None) -> Any:
    candidate = {} if set_id is None else {"documents": {"setId": set_id}}
    run_id = client.ok("POST", f"{ROOT}/runs", {"suiteId": suite.rpartition("/")[2], "candidate": candidate})["runId"]
    cloud.run_tasks()
    return client.ok("GET", f"{ROOT}/runs/{run_id}")


def stored_files(cloud: RunningCloud) -> list[Path]:
    folder = Path(urlsplit(cloud.services.blobs.url).path)
    return sorted(path for path in folder.rglob("*") if path.is_file())


def set_row(cloud: RunningCloud, **values: Any) -> None:
    with Session(cloud.services.engine.execution_options(**{WRITE_OPTION: True})) as session, session.begin():
        session.execute(update(EvaluationDocumentSet).values(**values))


@pytest.fixture(scope="module")
def own_cloud(new_database: Callable[[], str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningCloud]:
    """Run a server whose only files are those of these tests. Each test leaves none behind."""
    with running(new_database(), tmp_path_factory.mktemp("sets")) as server:
        yield server


@pytest.fixture
def shop(own_cloud: RunningCloud) -> Iterator[Client]:
    """Yield a client of a new project, and check that all of its files go with it."""
    client = own_cloud.tenant()
    yield client
    if client.call("GET", f"/v1/projects/{client.identity['project']}").status == 200:
        client.ok("DELETE", f"/v1/projects/{client.identity['project']}")
    assert stored_files(own_cloud) == []


def test_a_run_searches_the_documents_of_a_set(own_cloud: RunningCloud, shop: Client) -> None:
    present = {"id": "returns", "text": "No boots can be returned."}
    shop.ok("POST", "/v1/voice-sdk/index/create", {"name": "faq", "documents": [present]})
    suite = new_suite(shop, case_of("a", must=[{"text": "sixty days"}]))
    set_id = new_set(shop, POLICY)
    assert run(own_cloud, shop, suite)["scores"]["passed"] == 0
    done = run(own_cloud, shop, suite, set_id)
    assert (done["state"], done["scores"]["passed"], done["orgVersion"]) == ("done", 1, None)
    ready = shop.ok("GET", f"{SETS}/{set_id}")
    assert (ready["state"], ready["documentCount"], ready["failure"]) == ("ready", 1, None)
    assert [each["setId"] for each in shop.ok("GET", SETS)["documentSets"]] == [set_id], (
        "copies for runs are not listed"
    )
    assert run(own_cloud, shop, suite, new_set(shop))["scores"]["passed"] == 0, "a set may have no documents"


def test_a_set_is_sent_in_parts(own_cloud: RunningCloud, shop: Client) -> None:
    set_id = shop.ok("POST", SETS, {"name": "parts"})["setId"]
    path = f"{SETS}/{set_id}"
    shop.ok("POST", f"{path}/documents", {"documents": [{**POLICY, "text": "Old."}, {**POLICY, "id": "b"}]})
    part = shop.ok("POST", f"{path}/documents", {"documents": [{**POLICY, "metadata": {"lang": "en"}}]})
    assert (part["state"], part["documentCount"]) == ("receiving", 3)
    body = {"suiteId": new_suite(shop, case_of("a")).rpartition("/")[2], "candidate": {"documents": {"setId": set_id}}}
    assert shop.error_of("POST", f"{ROOT}/runs", body) == (409, "cloud.conflict"), "it is not complete"
    assert shop.ok("POST", f"{path}/complete")["state"] == "building"
    for step in ("documents", "complete"):
        assert shop.error_of("POST", f"{path}/{step}", {"documents": [POLICY]}) == (409, "cloud.conflict")
    assert len(stored_files(own_cloud)) == 2
    own_cloud.run_tasks()
    ready = shop.ok("GET", path)
    assert (ready["state"], ready["documentCount"]) == ("ready", 2), "of two with the same id, the later one counts"
    assert len(stored_files(own_cloud)) == 1
    assert shop.ok("DELETE", path)["name"] == "parts"
    assert shop.error_of("GET", path) == shop.error_of("DELETE", path) == (404, "cloud.not_found")


def test_the_present_documents_can_be_copied(own_cloud: RunningCloud, shop: Client) -> None:
    index = {"name": "faq", "documents": [{"id": "returns", "text": "Boots: sixty days."}]}
    shop.ok("POST", "/v1/voice-sdk/index/create", index)
    set_id = shop.ok("POST", SETS, {"name": "before the change", "copyPresent": True})["setId"]
    own_cloud.run_tasks()
    copy = shop.ok("GET", f"{SETS}/{set_id}")
    assert (copy["state"], copy["documentCount"], copy["orgVersion"]) == ("ready", 1, 1)
    shop.ok("DELETE", "/v1/voice-sdk/index/faq")
    suite = new_suite(shop, case_of("a"))
    done = run(own_cloud, shop, suite, set_id)
    assert (done["scores"]["passed"], done["orgVersion"]) == (1, 1)
    assert run(own_cloud, shop, suite)["scores"]["passed"] == 0


def test_a_set_that_a_run_searches_is_not_deleted(own_cloud: RunningCloud, shop: Client) -> None:
    set_id = new_set(shop, POLICY)
    suite = new_suite(shop, case_of("a"))
    body = {"suiteId": suite.rpartition("/")[2], "candidate": {"documents": {"setId": set_id}}}
    queued = shop.ok("POST", f"{ROOT}/runs", body)["runId"]
    assert shop.error_of("DELETE", f"{SETS}/{set_id}") == (409, "cloud.conflict")
    shop.ok("DELETE", f"{ROOT}/runs/{queued}")
    shop.ok("DELETE", f"{SETS}/{set_id}")
    assert shop.error_of("POST", f"{ROOT}/runs", body) == (404, "cloud.not_found")
    assert stored_files(own_cloud) == []


def test_abandoned_sets_and_unused_copies_are_removed(own_cloud: RunningCloud, shop: Client) -> None:
    shop.ok("POST", "/v1/voice-sdk/index/create", {"name": "faq", "documents": [{"id": "a", "text": "A."}]})
    run(own_cloud, shop, new_suite(shop, case_of("a")))
    set_id = shop.ok("POST", SETS, {"name": "abandoned"})["setId"]
    shop.ok("POST", f"{SETS}/{set_id}/documents", {"documents": [POLICY]})
    assert len(stored_files(own_cloud)) == 3  # of the project, the copy, and the part
    set_row(own_cloud, updated_at=utc_now() - timedelta(hours=25))
    own_cloud.run_tasks()
    assert shop.error_of("GET", f"{SETS}/{set_id}") == (404, "cloud.not_found")
    assert len(stored_files(own_cloud)) == 1
    # What a server was still writing when the set was removed goes, too, and with it the record of the set.
    own_cloud.services.blobs.write(document_sets.part_key(tenant_of(own_cloud, shop), set_id, 0), [b"[]"])
    set_row(own_cloud, updated_at=utc_now() - timedelta(hours=2))
    own_cloud.run_tasks()
    assert len(stored_files(own_cloud)) == 1
    with Session(own_cloud.services.engine) as session:
        assert session.query(EvaluationDocumentSet).filter_by(project_id=shop.identity["project"]).all() == []


def test_no_documents_make_no_part_and_files_are_removed_twice_only(
    own_cloud: RunningCloud, shop: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_id = shop.ok("POST", SETS, {"name": "x"})["setId"]
    for _ in range(3):
        assert shop.ok("POST", f"{SETS}/{set_id}/documents", {"documents": []})["documentCount"] == 0
    assert stored_files(own_cloud) == []
    monkeypatch.setattr(document_sets, "MAX_SET_PARTS", 1)
    shop.ok("POST", f"{SETS}/{set_id}/documents", {"documents": [POLICY]})
    assert shop.error_of("POST", f"{SETS}/{set_id}/documents", {"documents": [POLICY]}) == (
        413,
        "cloud.batch_too_large",
    )
    shop.ok("DELETE", f"{SETS}/{set_id}")
    removed = []
    remove_files = document_sets.remove_files

    def remove(tenant: Any, blobs: Any, row: EvaluationDocumentSet) -> None:
        removed.append(row.id)
        remove_files(tenant, blobs, row)

    monkeypatch.setattr(document_set_builder, "remove_files", remove)
    tenant = tenant_of(own_cloud, shop)
    document_set_builder.clean_up_document_sets(tenant, own_cloud.services.blobs)
    assert removed == []
    set_row(own_cloud, updated_at=utc_now() - timedelta(hours=2))
    for _ in range(2):
        document_set_builder.clean_up_document_sets(tenant, own_cloud.services.blobs)
    assert removed == [set_id]


def test_a_set_that_is_sent_while_its_project_is_deleted_leaves_no_file(
    own_cloud: RunningCloud, shop: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    remove_some_users = project_removal._remove_some_users

    def send_set(tenant: Any) -> bool:
        new_set(shop, POLICY)
        assert len(stored_files(own_cloud)) == 1
        return remove_some_users(tenant)

    monkeypatch.setattr(project_removal, "_remove_some_users", send_set)
    shop.ok("DELETE", f"/v1/projects/{shop.identity['project']}")
    assert stored_files(own_cloud) == []


def tenant_of(cloud: RunningCloud, client: Client) -> Any:
    return find_project_tenant(cloud.services.engine, client.identity["project"])


def test_a_set_whose_workers_die_fails_in_words(
    own_cloud: RunningCloud, shop: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    dead = {"claim": "dead", "claimed_until": utc_now() - timedelta(seconds=1), "failures": 2}
    interrupted, broken = new_set(shop, POLICY), new_set(shop, POLICY)
    with Session(own_cloud.services.engine.execution_options(**{WRITE_OPTION: True})) as session, session.begin():
        is_meant = EvaluationDocumentSet.id == interrupted
        session.execute(update(EvaluationDocumentSet).where(is_meant).values(**dead))
    monkeypatch.setattr(document_set_builder, "split_document", lambda *_: 1 / 0)
    failed = run(own_cloud, shop, new_suite(shop, case_of("a")), broken)
    reason = "the index file could not be built: ZeroDivisionError"
    assert failed["failure"] == f"the documents of the candidate cannot be searched: {reason}"
    assert shop.ok("GET", f"{SETS}/{broken}")["failure"] == reason
    assert shop.ok("GET", f"{SETS}/{interrupted}")["failure"] == "interrupted 3 times"
    own_cloud.run_tasks()
    assert stored_files(own_cloud) == []


def test_sets_have_limits(own_cloud: RunningCloud, shop: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    too_large = (413, "cloud.batch_too_large")
    many = [{**POLICY, "id": f"d{number}"} for number in range(1_001)]
    assert shop.error_of("POST", SETS, {"name": "x", "documents": many}) == too_large
    assert shop.ok("GET", SETS)["documentSets"] == []
    set_id = shop.ok("POST", SETS, {"name": "x"})["setId"]
    for name, value in (("MAX_SET_DOCUMENTS", 1), ("MAX_SET_BYTES", 100)):
        with monkeypatch.context() as patches:
            patches.setattr(document_sets, name, value)
            body = {"documents": many[:2]}
            assert shop.error_of("POST", f"{SETS}/{set_id}/documents", body) == too_large
    monkeypatch.setattr(document_sets, "MAX_SETS", 1)
    assert shop.error_of("POST", SETS, {"name": "y"}) == too_large
    for invalid in (
        {"name": ""},
        {"name": "x", "documents": [{"id": "a", "text": "A."}]},
        {"name": "x", "documents": [{**POLICY, "indexName": "a/b"}]},
        {"name": "x", "documents": [], "copyPresent": True},
    ):
        assert shop.error_of("POST", SETS, invalid) == (422, "cloud.invalid"), invalid
    shop.ok("DELETE", f"{SETS}/{set_id}")
    own_cloud.run_tasks()
