"""Indexes: versions, limits, and the index files that are built from documents."""

import hashlib
import json
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select, update
from sqlalchemy.orm import Session
from support.clouds import Client, RunningCloud
from support.waiting import eventually

from memoair_cloud.consolidation import RuleExtractor
from memoair_cloud.database.models import OrgBuild, OrgFile
from memoair_cloud.indexes import builder
from memoair_cloud.indexes.blobs import BlobStore
from memoair_cloud.memories.extraction_worker import ExtractionWorker
from memoair_cloud.queue import Worker, WorkQueue
from memoair_index import Index, Query

CREATE = "/v1/voice-sdk/index/create"
LIST = "/v1/voice-sdk/index/list"


def document(document_id: str, text: str = "Boots can be returned within thirty days.", **metadata: Any) -> Any:
    return {"id": document_id, "text": text, "metadata": metadata}


def create(client: Client, *documents: Any, name: str = "faq", **more: Any) -> Any:
    return client.ok("POST", CREATE, {"name": name, "documents": documents, **more})


def test_an_index_is_created_extended_and_its_documents_replaced(client: Client) -> None:
    long_text = "We open at nine on weekdays. " * 60

    assert create(client, document("a"), document("b")) == {"indexName": "faq", "chunkCount": 2, "version": 1}
    grown = create(client, document("c", long_text), metadata={"lang": "en"})
    assert grown["version"] == 2
    assert grown["chunkCount"] > 4
    assert create(client, document("c", "Short now."), document("c", "Shorter.")) == {
        "indexName": "faq",
        "chunkCount": 3,
        "version": 3,
    }
    (index,) = client.ok("GET", LIST)["indexes"]
    assert index == client.ok("GET", "/v1/voice-sdk/index/faq")
    assert {**index, "createdAt": "", "updatedAt": ""} == {
        "name": "faq",
        "version": 3,
        "chunkCount": 3,
        "documentCount": 3,
        "createdAt": "",
        "updatedAt": "",
        "metadata": {"lang": "en"},
    }
    assert index["createdAt"] < index["updatedAt"]


def test_deleting_documents_and_indexes_never_decreases_versions(client: Client) -> None:
    create(client, document("a"), document("docs/b.md"))

    deleted = client.ok("DELETE", "/v1/voice-sdk/index/faq/documents/docs%2Fb.md")
    assert deleted == {"indexName": "faq", "chunkCount": 1, "version": 2}
    assert client.error_of("DELETE", "/v1/voice-sdk/index/faq/documents/docs%2Fb.md") == (404, "cloud.not_found")
    assert client.ok("GET", "/v1/voice-sdk/index/faq")["documentCount"] == 1
    assert create(client, document("docs/b.md"))["version"] == 3
    assert client.ok("DELETE", "/v1/voice-sdk/index/faq")["version"] == 4
    assert client.ok("GET", LIST) == {"indexes": []}
    for method in ("GET", "DELETE"):
        assert client.error_of(method, "/v1/voice-sdk/index/faq") == (404, "cloud.not_found")
    assert create(client, document("a"), name="other")["version"] == 1
    assert create(client, document("a")) == {"indexName": "faq", "chunkCount": 1, "version": 5}


def test_concurrent_writers_get_distinct_versions(client: Client) -> None:
    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(lambda n: create(client, document(f"{n % 5}"), document(f"own-{n}")), range(24)))

    assert sorted(result["version"] for result in results) == list(range(1, 25))
    assert max(results, key=lambda result: result["version"])["chunkCount"] == 29
    index = client.ok("GET", "/v1/voice-sdk/index/faq")
    assert (index["version"], index["documentCount"], index["chunkCount"]) == (24, 29, 29)
    assert client.ok("GET", "/v1/voice-sdk/projections/org")["version"] == 24


def test_requests_over_the_limits_get_the_flat_error(client: Client) -> None:
    for documents in ([document(f"{n}") for n in range(101)], [document("a", "x" * (1 << 20))]):
        answer = client.call("POST", CREATE, {"name": "faq", "documents": documents})
        assert (answer.status, sorted(answer.body), answer.body["error"]) == (
            413,
            ["error", "message"],
            "batch_too_large",
        )
    assert client.ok("GET", LIST) == {"indexes": []}


def test_requests_exactly_at_the_limits_are_accepted(client: Client) -> None:
    overhead = len(json.dumps({"name": "faq", "documents": [document("a", "")]}))

    assert create(client, document("a", "x" * ((1 << 20) - overhead)))["version"] == 1
    assert create(client, *(document(f"{n}") for n in range(100)))["version"] == 2


@pytest.mark.parametrize("name", ["list", "create", "a/b", "..", "", "a\x00", "x" * 513])
def test_an_invalid_index_name_is_rejected(client: Client, name: str) -> None:
    assert client.error_of("POST", CREATE, {"name": name, "documents": []}) == (422, "cloud.invalid")


def test_an_invalid_document_rejects_the_request_and_changes_nothing(client: Client) -> None:
    for invalid in ({"id": "a"}, {"text": "a"}, {"id": "", "text": "a"}, {"id": "a", "text": 5}, "a"):
        body = {"name": "faq", "documents": [document("fine"), invalid]}
        assert client.error_of("POST", CREATE, body) == (422, "cloud.invalid")
    assert client.ok("GET", LIST) == {"indexes": []}


def test_a_worker_builds_an_index_file_with_the_documents(cloud: RunningCloud, client: Client, tmp_path: Path) -> None:
    create(client, document("boots", topic="returns"), document("hours", "We open at nine.\x00"))
    create(client, document("parking", "Parking is free behind the house."), name="site")
    client.ok("DELETE", "/v1/voice-sdk/index/faq/documents/hours")

    cloud.run_tasks()
    org_file = client.ok("GET", "/v1/voice-sdk/bootstrap")["orgFile"]
    assert org_file["version"] == 3
    answer = client.call("GET", f"/v1/voice-sdk/projections/org/file/{org_file['sha256']}")
    assert hashlib.sha256(answer.body).hexdigest() == org_file["sha256"]
    assert int(answer.headers["content-length"]) == len(answer.body) == org_file["size"]
    file = tmp_path / "org.index"
    file.write_bytes(answer.body)
    index = Index.open(file)
    index.verify()
    assert index.file_metadata["orgVersion"] == 3
    hits = [hit.document.metadata for hit in index.search(Query("Can I return boots?"), 5)]
    texts = [hit.document.text for hit in index.search(Query("When do you open? Is parking free?"), 5)]
    assert hits[0] == {"id": "boots", "indexName": "faq", "metadata": {"topic": "returns"}}
    assert texts == ["Parking is free behind the house."]


def test_the_sweep_finds_a_build_that_was_not_queued(cloud: RunningCloud, client: Client) -> None:
    create(client, document("a"))
    cloud.run_tasks()
    reset_build(cloud, client)

    worker = Worker(cloud.services.queue)
    worker.start()
    try:
        eventually(lambda: get_build(cloud, client).version == 1, 60)
    finally:
        worker.stop()
    assert cloud.services.blobs.exists(str(get_build(cloud, client).sha256))


def test_a_failed_build_is_retried(cloud: RunningCloud, client: Client) -> None:
    class Broken(BlobStore):
        left = 1

        def put(self, source: Any, sha256: str) -> None:
            if self.left:
                self.left -= 1
                raise OSError("the disk is full")
            super().put(source, sha256)

    blobs = Broken(cloud.services.blobs.url)
    queue = WorkQueue(cloud.services.engine, blobs, make_extraction_worker(cloud), retry_delay_s=0)
    create(client, document("a"))
    cloud.run_tasks()
    reset_build(cloud, client)
    queue.enqueue_build(client.identity["project"])
    try:
        eventually(lambda: not queue.run_next_task() and get_build(cloud, client).version == 1, 60)
    finally:
        queue.close()
    assert blobs.left == 0


def test_a_replaced_index_file_is_removed_after_a_while(
    cloud: RunningCloud, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    def statuses() -> list[int]:
        return [client.call("GET", f"/v1/voice-sdk/projections/org/file/{sha256}").status for sha256 in hashes]

    hashes = []
    for text in ("Boots can be returned.", "Boots can be exchanged."):
        create(client, document("boots", text))
        cloud.run_tasks()
        hashes.append(client.ok("GET", "/v1/voice-sdk/bootstrap")["orgFile"]["sha256"])
    assert statuses() == [200, 200]
    monkeypatch.setattr(builder, "REPLACED_FILE_TTL", timedelta(0))
    cloud.run_tasks()
    assert statuses() == [404, 200]
    assert not cloud.services.blobs.exists(hashes[0])
    assert client.error_of("GET", f"/v1/voice-sdk/projections/org/file/{'0' * 64}") == (404, "cloud.not_found")


def test_a_file_of_a_worker_that_died_before_publishing_it_is_removed(
    cloud: RunningCloud, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    def die(*_: Any) -> None:
        raise SystemExit

    create(client, document("boots", "This was deleted."))
    with monkeypatch.context() as patch:
        patch.setattr(builder, "_record_build", die)
        with pytest.raises(SystemExit):
            builder.build_org_index(cloud.services.engine, cloud.services.blobs, client.identity["project"])
    with Session(cloud.services.engine) as session:
        statement = select(OrgFile.sha256).where(OrgFile.project_id == client.identity["project"])
        sha256 = session.scalars(statement).one()
    assert cloud.services.blobs.exists(sha256)
    client.ok("DELETE", "/v1/voice-sdk/index/faq/documents/boots")
    monkeypatch.setattr(builder, "REPLACED_FILE_TTL", timedelta(0))
    cloud.run_tasks()
    assert not cloud.services.blobs.exists(sha256)


def test_a_build_that_keeps_failing_is_not_retried_until_the_documents_change(
    cloud: RunningCloud, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    attempts = []

    def fail(*_: Any) -> None:
        attempts.append(1)
        raise ValueError("a document of the customer")

    create(client, document("a"))
    queue = WorkQueue(cloud.services.engine, cloud.services.blobs, make_extraction_worker(cloud), retry_delay_s=0)
    monkeypatch.setattr(builder, "split_document", fail)
    for _ in range(3):
        queue.sweep()
        while queue.run_next_task():
            pass
    assert len(attempts) >= builder.MAX_FAILURES
    attempts_before = len(attempts)
    queue.sweep()
    while queue.run_next_task():
        pass
    assert len(attempts) == attempts_before
    failed = get_build(cloud, client)
    assert (failed.failure, failed.sha256) == ("ValueError", None)
    monkeypatch.undo()
    create(client, document("b"))
    queue.sweep()
    while queue.run_next_task():
        pass
    assert (get_build(cloud, client).version, get_build(cloud, client).failure) == (2, None)
    queue.close()


def make_extraction_worker(cloud: RunningCloud) -> ExtractionWorker:
    return ExtractionWorker(cloud.services.engine, RuleExtractor(), timedelta(hours=1))


def reset_build(cloud: RunningCloud, client: Client) -> None:
    with Session(cloud.services.engine) as session, session.begin():
        project = client.identity["project"]
        session.execute(update(OrgBuild).where(OrgBuild.project_id == project).values(version=0, sha256=None))


def get_build(cloud: RunningCloud, client: Client) -> Any:
    with Session(cloud.services.engine) as session:
        return session.get(OrgBuild, client.identity["project"])
