"""Uploads: what becomes of each file, resuming, dry runs, replacing all, and that nothing is left behind."""

import hashlib
import socket
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from documents.made_files import make_docx, make_pdf
from sqlalchemy import update
from sqlalchemy.orm import Session
from support.clouds import Client, RunningCloud, files_body, recall_trace, running

from memoair_cloud.database.engine import WRITE_OPTION
from memoair_cloud.database.upload_models import Upload, UploadedDocument
from memoair_cloud.indexes import upload_worker
from memoair_cloud.indexes.upload_reading import UploadReader
from memoair_protocol.timestamps import utc_now

INDEX = "/v1/voice-sdk/index"
UPLOADS = f"{INDEX}/shop/uploads"


def begin(client: Client, **options: Any) -> str:
    return f"{UPLOADS}/{client.ok('POST', UPLOADS, options)['uploadId']}"


def add(client: Client, upload: str, files: dict[str, bytes]) -> list[dict[str, Any]]:
    outcomes: list[dict[str, Any]] = client.ok("POST", f"{upload}/files", files_body(files))["files"]
    return outcomes


def finish(cloud: RunningCloud, client: Client, upload: str, dry_run: bool = False) -> Any:
    client.ok("POST", f"{upload}/start", {"dryRun": dry_run})
    cloud.run_tasks()
    return client.ok("GET", upload)


def send(cloud: RunningCloud, client: Client, files: dict[str, bytes], **options: Any) -> Any:
    """Upload files, and return the finished upload."""
    upload = begin(client, **options)
    add(client, upload, files)
    return finish(cloud, client, upload)


def ids(client: Client) -> list[str]:
    return [each["id"] for each in client.pages(f"{INDEX}/shop/documents", "documents", limit=500)]


def refusals(client: Client, upload: str) -> dict[str, str]:
    files = client.pages(f"{upload}/files", "files", limit=3, filters="&state=refused")
    return {file["name"]: file["reason"] for file in files}


def changes(client: Client, upload: str) -> dict[str, str]:
    found = client.pages(f"{upload}/changes", "changes", limit=3)
    return {change["documentId"]: change["action"] for change in found}


def stored_files(cloud: RunningCloud) -> list[Path]:
    folder = Path(urlsplit(cloud.services.blobs.url).path)
    return [path for path in folder.rglob("*") if path.is_file()]


def set_upload(cloud: RunningCloud, upload: str, **values: Any) -> None:
    with Session(cloud.services.engine.execution_options(**{WRITE_OPTION: True})) as session, session.begin():
        session.execute(update(Upload).where(Upload.id == upload.rpartition("/")[2]).values(**values))


@pytest.fixture
def own_cloud(new_database: Any, tmp_path: Path) -> Iterator[RunningCloud]:
    """Run a server of its own, for tests that look at all of its files."""
    limits = {"upload_file_bytes": 200_000, "upload_request_bytes": 500_000, "upload_total_bytes": 900_000}
    with running(new_database(), tmp_path / "cloud", **limits) as server:
        yield server


def test_files_of_all_kinds_become_documents_and_each_refusal_has_a_reason(cloud: RunningCloud, client: Client) -> None:
    upload = begin(client)
    outcomes = add(
        client,
        upload,
        {
            "help/returns.md": b"---\ntitle: Returns\n---\n## Boots\nWithin thirty days.\n",
            "help/hours.pdf": make_pdf([["We open at nine."]], title="Hours"),
            "fees.docx": make_docx(lambda document: document.add_paragraph("No fees.")),
            "faq.csv": b"id,question,answer\nq1,Parking?,Behind the house.\n",
            "items.jsonl": b'{"id": "item", "text": "A red hat."}\n',
            "page.html": b"<title>Page</title><h1>Page</h1><p>Text.</p>",
            "notes.txt": "Größe 42".encode("utf-16"),
            "help/.DS_Store": b"x",
            "../secret.txt": b"x",
            "logo.png": b"\x89PNG\r\n\x1a\n\0\0",
            "torn.pdf": b"%PDF-1.7",
            "bad.jsonl": b'{"id": "item2", "text": "x"}\n{"id": 7}\n',
            "twice.jsonl": b'{"id": "new", "text": "x"}\n{"id": "item", "text": "x"}\n',
            "nan.jsonl": b'{"id": "nan", "text": "x", "metadata": {"a": NaN}}\n',
        },
    )
    assert {outcome["name"]: outcome["reason"] for outcome in outcomes if outcome["state"] == "refused"} == {
        "help/.DS_Store": "hidden",
        "../secret.txt": "its path leads out of its folder",
    }
    done = finish(cloud, client, upload)
    assert (done["state"], done["failure"], done["files"]) == ("done", None, {"read": 7, "refused": 7})
    assert done["documents"] == {"added": 7, "replaced": 0, "kept": 0, "deleted": 0, "applied": 7}
    assert ids(client) == sorted(
        ["help/returns.md", "help/hours.pdf", "fees.docx", "q1", "item", "page.html", "notes.txt"]
    )
    reasons = refusals(client, upload)
    assert reasons["logo.png"] == "a binary file"
    assert reasons["torn.pdf"] == "not a valid PDF file"
    assert reasons["bad.jsonl"].startswith("2: not a document")
    assert reasons["twice.jsonl"] == "the id item is in items.jsonl, too"
    assert reasons["nan.jsonl"] == "1: the metadata has a number that JSON cannot have"
    read = {file["name"]: file["documentCount"] for file in client.ok("GET", f"{upload}/files?state=read")["files"]}
    assert set(read.values()) == {1}
    whole = client.ok("GET", f"{INDEX}/shop/documents/help%2Freturns.md")
    assert whole["chunks"] == ["Returns > Boots\nWithin thirty days."]
    assert whole["text"] == "## Boots\nWithin thirty days.\n"
    assert client.error_of("GET", f"{INDEX}/shop/documents/no") == (404, "cloud.not_found")


def test_more_documents_than_one_request_may_have_are_applied_in_small_steps(
    cloud: RunningCloud, client: Client
) -> None:
    lines = b"".join(b'{"id": "d%04d", "text": "%s"}\n' % (number, b"word " * 1_000) for number in range(450))
    done = send(cloud, client, {"many.jsonl": lines})
    assert done["documents"]["applied"] == 450
    assert ids(client) == [f"d{number:04}" for number in range(450)]
    assert client.ok("GET", f"{INDEX}/shop")["version"] == 5  # as many as requests to the API would make


def test_the_same_files_again_change_nothing(cloud: RunningCloud, client: Client) -> None:
    files = {"a.txt": b"One.", "b.txt": b"Two."}
    send(cloud, client, files)
    again = send(cloud, client, {**files, "b.txt": b"Three."})
    assert again["documents"] == {"added": 0, "replaced": 1, "kept": 1, "deleted": 0, "applied": 1}
    assert client.ok("GET", f"{INDEX}/shop")["version"] == 2
    assert client.ok("GET", f"{INDEX}/shop/documents/b.txt")["text"] == "Three."


def test_a_dry_run_shows_what_would_change_and_can_then_be_applied(cloud: RunningCloud, client: Client) -> None:
    send(cloud, client, {"keep.txt": b"Keep.", "change.txt": b"Old.", "gone.txt": b"Gone."})
    upload = begin(client, replaceAll=True)
    add(client, upload, {"keep.txt": b"Keep.", "change.txt": b"New.", "new.txt": b"New.", "bad.pdf": b"x"})
    checked = finish(cloud, client, upload, dry_run=True)
    assert checked["state"] == "checked"
    assert checked["documents"] == {"added": 1, "replaced": 1, "kept": 1, "deleted": 1, "applied": 0}
    assert changes(client, upload) == {
        "change.txt": "replace",
        "gone.txt": "delete",
        "keep.txt": "keep",
        "new.txt": "add",
    }
    assert ids(client) == ["change.txt", "gone.txt", "keep.txt"]
    assert client.ok("GET", f"{INDEX}/shop")["version"] == 1

    # The index changes in between: what was found is found again.
    client.ok("POST", f"{INDEX}/create", {"name": "shop", "documents": [{"id": "other", "text": "Other."}]})
    done = finish(cloud, client, upload)
    assert (done["state"], done["documents"]["deleted"]) == ("done", 2)
    assert ids(client) == ["change.txt", "keep.txt", "new.txt"]
    assert refusals(client, upload) == {"bad.pdf": "not a valid PDF file"}


def test_replacing_all_keeps_the_documents_of_files_that_cannot_be_read_today(
    cloud: RunningCloud, client: Client
) -> None:
    send(cloud, client, {"a.txt": b"A.", "b.txt": b"B.", "c.txt": b"C."})
    done = send(cloud, client, {"a.txt": b"A.", "b.txt": b"\0\1"}, replaceAll=True)
    assert (done["documents"]["deleted"], done["keepsMissing"]) == (1, False)
    assert ids(client) == ["a.txt", "b.txt"]


def test_replacing_all_deletes_nothing_if_a_table_is_refused(cloud: RunningCloud, client: Client) -> None:
    send(cloud, client, {"a.txt": b"A.", "t.jsonl": b'{"id": "row", "text": "Row."}\n'})
    done = send(cloud, client, {"a.txt": b"A2.", "t.jsonl": b'{"id": "row"\n'}, replaceAll=True)
    assert (done["state"], done["documents"]["deleted"], done["keepsMissing"]) == ("done", 0, True)
    assert ids(client) == ["a.txt", "row"]


def test_files_without_documents_fail_and_replace_nothing(cloud: RunningCloud, client: Client) -> None:
    send(cloud, client, {"a.txt": b"A."})
    failed = send(cloud, client, {"b.pdf": b"x", "c.txt": b" "}, replaceAll=True)
    assert (failed["state"], failed["failure"]) == ("failed", "the files contain no documents")
    assert ids(client) == ["a.txt"]


def test_an_upload_is_resumed_after_a_broken_connection(cloud: RunningCloud, client: Client) -> None:
    upload = begin(client)
    add(client, upload, {"a.txt": b"One.", "b.txt": b"Two."})
    body = files_body({"c.txt": b"Three." * 10_000})
    address = urlsplit(client.url)
    with socket.create_connection((str(address.hostname), int(address.port or 0))) as connection:
        identity = "".join(f"X-{name.title()}-Id: {value}\r\n" for name, value in client.identity.items())
        head = (
            f"POST {upload}/files HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {client.key}\r\n{identity}"
            f"Content-Type: {body.content_type}\r\nContent-Length: {len(body.content)}\r\n\r\n"
        )
        connection.sendall(head.encode() + body.content[:20_000])

    present = {file["name"]: file["sha256"] for file in client.ok("GET", f"{upload}/files")["files"]}
    assert present == {"a.txt": hashlib.sha256(b"One.").hexdigest(), "b.txt": hashlib.sha256(b"Two.").hexdigest()}
    outcomes = add(client, upload, {"a.txt": b"One.", "b.txt": b"Two, changed.", "c.txt": b"Three."})
    assert [outcome["repeated"] for outcome in outcomes] == [True, False, False]
    done = finish(cloud, client, upload)
    assert done["documents"]["added"] == 3
    assert client.ok("GET", f"{INDEX}/shop/documents/b.txt")["text"] == "Two, changed."


def test_an_index_has_one_open_upload(cloud: RunningCloud, client: Client) -> None:
    upload = begin(client)
    refused = client.call("POST", UPLOADS, {})
    assert refused.status == 409
    assert refused.body["error"]["details"]["uploadId"] == upload.rpartition("/")[2]
    client.ok("POST", f"{INDEX}/other/uploads", {})
    assert client.ok("DELETE", upload)["state"] == "canceled"
    begin(client)
    states = [each["state"] for each in client.ok("GET", UPLOADS)["uploads"]]
    assert states == ["receiving", "canceled"]


def test_steps_out_of_order_are_conflicts(cloud: RunningCloud, client: Client) -> None:
    upload = begin(client)
    assert client.error_of("POST", f"{upload}/start", {}) == (422, "cloud.invalid")
    add(client, upload, {"a.txt": b"A."})
    finish(cloud, client, upload)
    assert client.error_of("POST", f"{upload}/files", files_body({"b.txt": b"B."})) == (409, "cloud.conflict")
    assert client.error_of("POST", f"{upload}/start", {}) == (409, "cloud.conflict")
    assert client.error_of("DELETE", upload) == (409, "cloud.conflict")
    assert client.error_of("GET", f"{UPLOADS}/unknown") == (404, "cloud.not_found")
    assert client.error_of("POST", f"{INDEX}/list/uploads", {}) == (422, "cloud.invalid")
    assert client.error_of("POST", UPLOADS, {"encoding": "klingon"}) == (422, "cloud.invalid")


def test_requests_and_files_over_the_limits_are_refused(own_cloud: RunningCloud) -> None:
    client = own_cloud.tenant()
    upload = begin(client)
    assert client.error_of("POST", f"{upload}/files", files_body({"a.txt": bytes(600_000)})) == (
        413,
        "cloud.batch_too_large",
    )
    assert client.error_of("POST", f"{upload}/files", b"{}") == (422, "cloud.invalid")
    assert client.error_of("POST", f"{upload}/files", files_body({})) == (422, "cloud.invalid")
    [outcome] = add(client, upload, {"a.txt": b"x" * 200_001})
    assert (outcome["state"], outcome["reason"]) == ("refused", "larger than 200,000 bytes")
    for number in range(3):
        add(client, upload, {f"{number}.txt": b"%d" % number + b"x" * 190_000})
    assert client.error_of("POST", f"{upload}/files", files_body({"4.txt": b"y" * 190_000})) == (
        413,
        "cloud.batch_too_large",
    )


def test_nothing_is_left_of_an_upload_that_is_over(own_cloud: RunningCloud) -> None:
    client = own_cloud.tenant()
    send(own_cloud, client, {"a.txt": b"A.", "b.pdf": b"x"})
    index_files = stored_files(own_cloud)
    canceled, expired = begin(client), ""
    add(client, canceled, {"c.txt": b"C."})
    assert len(stored_files(own_cloud)) == len(index_files) + 1
    client.ok("DELETE", canceled)
    own_cloud.run_tasks()
    assert stored_files(own_cloud) == index_files

    expired = begin(client)
    add(client, expired, {"c.txt": b"C."})
    set_upload(own_cloud, expired, updated_at=utc_now() - timedelta(hours=25))
    own_cloud.run_tasks()
    assert client.ok("GET", expired)["state"] == "expired"
    assert stored_files(own_cloud) == index_files

    set_upload(own_cloud, expired, finished_at=utc_now() - timedelta(days=31))
    own_cloud.run_tasks()
    assert client.error_of("GET", expired) == (404, "cloud.not_found")
    with Session(own_cloud.services.engine) as session:
        assert not session.query(UploadedDocument).all()

    add(client, begin(client), {"c.txt": b"C."})
    client.ok("DELETE", f"/v1/projects/{client.identity['project']}")
    assert stored_files(own_cloud) == []


@pytest.mark.parametrize("step", ["read_files", "find_missing"])
def test_an_upload_survives_workers_that_die(
    cloud: RunningCloud, client: Client, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    send(cloud, client, {"gone.txt": b"Gone."})
    upload = begin(client, replaceAll=True)
    add(client, upload, {"a.txt": b"A.", "b.txt": b"B."})
    client.ok("POST", f"{upload}/start", {})
    original = getattr(UploadReader, step)

    def die(self: UploadReader) -> None:
        original(self)
        raise KeyboardInterrupt

    with monkeypatch.context() as patches:
        patches.setattr(UploadReader, step, die)
        with pytest.raises(KeyboardInterrupt):
            upload_worker.process_uploads(cloud.services.engine, cloud.services.blobs, client.identity["project"])
    cloud.run_tasks()
    assert client.ok("GET", upload)["state"] == "reading", "the claim of the worker that died still holds"
    set_upload(cloud, upload, claimed_until=utc_now() - timedelta(seconds=1))
    cloud.run_tasks()
    done = client.ok("GET", upload)
    assert (done["state"], done["documents"]) == (
        "done",
        {"added": 2, "replaced": 0, "kept": 0, "deleted": 1, "applied": 3},
    )
    assert ids(client) == ["a.txt", "b.txt"]


def test_an_upload_that_kills_its_workers_fails(cloud: RunningCloud, client: Client) -> None:
    upload = begin(client)
    add(client, upload, {"a.txt": b"A."})
    client.ok("POST", f"{upload}/start", {})
    expired = utc_now() - timedelta(seconds=1)
    set_upload(cloud, upload, state="reading", claim="dead", claimed_until=expired, failures=2)
    cloud.run_tasks()
    failed = client.ok("GET", upload)
    assert (failed["state"], failed["failure"]) == ("failed", "interrupted 3 times")
    begin(client)


def test_a_canceled_upload_stops_its_worker(
    cloud: RunningCloud, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    upload = begin(client)
    add(client, upload, {"a.txt": b"A."})
    original = UploadReader.read_files

    def cancel(self: UploadReader) -> None:
        original(self)
        client.ok("DELETE", upload)

    monkeypatch.setattr(UploadReader, "read_files", cancel)
    assert finish(cloud, client, upload)["state"] == "canceled"
    assert client.ok("GET", f"{INDEX}/list") == {"indexes": []}


def test_the_searches_that_found_a_document_are_listed(cloud: RunningCloud, client: Client) -> None:
    client.ok("POST", f"{INDEX}/create", {"name": "faq", "documents": [{"id": "d", "text": "Boots."}]})
    client.send_traces(recall_trace("t1"), recall_trace("t2", mode="text", query="And boots?", contextText=""))
    path = f"{INDEX}/faq/documents/d/searches"
    found = client.pages(path, "searches", limit=1)
    assert {each["traceId"]: each["question"] for each in found} == {"t1": None, "t2": "And boots?"}
    assert {(each["rank"], each["score"], each["sessionId"]) for each in found} == {(1, 3.5, "call-1")}
    assert client.error_of("GET", f"{INDEX}/faq/documents/no/searches") == (404, "cloud.not_found")
