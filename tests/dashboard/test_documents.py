"""The pages of documents and uploads over HTTP, as a browser without JavaScript uses them."""

import html
import re

import pytest
from documents.made_files import make_pdf
from support.clouds import recall_trace
from support.dashboards import Dashboard, Page, Visitor, fill_project


@pytest.fixture
def own(dashboard: Dashboard, request: pytest.FixtureRequest) -> Dashboard:
    """A project of the test's own."""
    return fill_project(dashboard.cloud, f"docs-{abs(hash(request.node.name))}")


@pytest.fixture
def visitor(own: Dashboard) -> Visitor:
    return own.visitor()


def upload(own: Dashboard, visitor: Visitor, files: dict[str, bytes], index: str = "faq", **fields: str) -> Page:
    """Upload files, let the worker run, and return the page of the upload."""
    page = visitor.post_files(
        own.path("documents", index, "uploads"), own.path("documents", index, "upload"), files, **fields
    )
    assert page.status == 200, page.text
    own.cloud.run_tasks()
    return visitor.get(page.path)


def figures(page: Page) -> dict[str, int]:
    text = re.sub(r"</?a[^>]*>", "", page.text)
    pairs = re.findall(r'<span class="value">([\d,]+)</span><span class="name">([^<]*)</span>', text)
    return {name: int(value.replace(",", "")) for value, name in pairs}


def test_the_pages_lead_from_the_indexes_to_a_document_its_chunks_and_its_questions(
    own: Dashboard, visitor: Visitor
) -> None:
    own.client.send_traces(
        recall_trace("asked", "call-a", mode="text", query="And <b>boots</b>?", contextText="")
        | {"lanes": {"org": {"status": "ok", "ms": 0.5, "hits": 1, "chars": 4, "items": [
            {"id": "faq/returns#0", "kind": "document", "score": 3.5, "indexName": "faq", "documentId": "returns"}
        ]}}},
        recall_trace("lost", "call-a", mode="text", query="Do you sell hats?", contextText="")
        | {"lanes": {"org": {"status": "ok", "ms": 0.5, "hits": 0, "chars": 0, "items": []}}},
    )  # fmt: skip
    assert own.path("documents", "faq") in visitor.get(own.path("documents")).text
    index = visitor.get(own.path("documents", "faq"))
    assert own.path("documents", "faq", "document", "returns") in index.text
    assert "Do you sell hats?" in index.text
    page = visitor.get(own.path("documents", "faq", "document", "returns"))
    assert "Boots can be returned within thirty days" in page.text
    assert "And &lt;b&gt;boots&lt;/b&gt;?" in page.text
    assert "words not kept" in page.text  # of the trace that has only ids
    assert "2 searches in this period" in page.text
    assert "Do you sell hats?" not in page.text
    assert (
        "None in this period" in visitor.get(own.path("documents", "faq", "document", "returns", to="2020-01-01")).text
    )
    audit = visitor.get(own.path("audit", caller=own.user_id)).text
    assert "call.read" in audit or "call" in audit


def test_the_pages_have_strict_headers_and_no_inline_code(own: Dashboard, visitor: Visitor) -> None:
    reply = visitor.request(
        "POST",
        own.path("documents", "faq", "uploads"),
        {"form_token": visitor.get(own.path("documents", "faq", "upload")).form_token, "by_script": "true"},
    )
    upload_path = reply.text.partition('"upload":"')[2].partition('"')[0]
    document = own.path("documents", "faq", "document", "returns")
    for path in (own.path("documents"), own.path("documents", "faq"), document, upload_path):
        page = visitor.get(path)
        assert page.status == 200
        assert "default-src 'none'" in page.headers["content-security-policy"]
        assert not re.search(r"<script(?![^>]* src=)|<style|\sstyle=|\son\w+=|https?://", page.text)


def test_too_many_files_for_one_form_are_refused_with_a_page(own: Dashboard, visitor: Visitor) -> None:
    path = own.path("documents", "faq", "uploads")
    page = visitor.post_files(path, own.path("documents", "faq", "upload"), {f"{n}.txt": b"x" for n in range(1_001)})
    assert page.status == 422
    assert "Too many files" in page.text
    assert own.client.ok("GET", "/v1/voice-sdk/index/faq/uploads")["uploads"] == []


def test_documents_are_found_by_id_and_text(own: Dashboard, visitor: Visitor) -> None:
    path = own.path("documents", "faq", "document", "returns")
    for text, is_found in (("RETURN", True), ("thirty days", True), ("fifty", False), ("%", False)):
        assert (path in visitor.get(own.path("documents", "faq", q=text)).text) == is_found


def test_files_are_uploaded_after_a_dry_run(own: Dashboard, visitor: Visitor) -> None:
    files = {"hours.pdf": make_pdf([["We open at nine."]]), "<script>.txt": b"x", "bad.pdf": b"x"}
    checked = upload(own, visitor, files, dry_run="true")
    assert "nothing has changed yet" in checked.text
    assert figures(checked) == {
        "files": 3, "refused": 1, "documents added, if applied": 2, "replaced, if applied": 0,
        "unchanged, if applied": 0, "deleted, if applied": 0,
    }  # fmt: skip
    assert "not a valid PDF file" in checked.text
    assert "&lt;script&gt;.txt" in checked.text
    assert "hours.pdf" not in visitor.get(own.path("documents", "faq")).text

    started = visitor.post(f"{checked.path}/start", checked.path)
    own.cloud.run_tasks()
    done = visitor.get(started.path)
    assert figures(done)["documents added"] == 2
    assert "hours.pdf" in visitor.get(own.path("documents", "faq")).text


def test_replacing_all_is_confirmed_after_it_was_shown(own: Dashboard, visitor: Visitor) -> None:
    checked = upload(own, visitor, {"new.txt": b"New."}, replace_all="true")
    assert "Documents to delete" in checked.text
    assert "returns" in checked.text
    refused = visitor.post(f"{checked.path}/start", checked.path)
    assert refused.status == 422
    assert "tick the box" in refused.text
    started = visitor.post(f"{checked.path}/start", checked.path, is_confirmed="true")
    own.cloud.run_tasks()
    assert figures(visitor.get(started.path))["deleted"] == 1
    index = visitor.get(own.path("documents", "faq")).text
    assert "new.txt" in index
    assert own.path("documents", "faq", "document", "returns") not in index


def test_an_upload_creates_an_index_and_goes_on_where_it_was(own: Dashboard, visitor: Visitor) -> None:
    form = visitor.post(own.path("documents"), own.path("documents"), name="news")
    assert "does not exist yet" in form.text
    token = form.form_token
    reply = visitor.request(
        "POST", own.path("documents", "news", "uploads"), {"form_token": token, "by_script": "true"}
    )
    path = html.unescape(reply.text.partition('"upload":"')[2].partition('"')[0])
    receiving = visitor.get(own.path("documents", "news", "upload"))
    assert "waiting for files" in receiving.text, "the form leads to the upload that is open"
    for _ in range(2):
        receiving = visitor.post_files(f"{path}/files", path, {"a.txt": b"A."})
    assert figures(receiving)["files"] == 1
    visitor.post(f"{path}/start", path)
    own.cloud.run_tasks()
    assert "a.txt" in visitor.get(own.path("documents", "news")).text


def test_an_upload_can_be_canceled_and_errors_are_pages(own: Dashboard, visitor: Visitor) -> None:
    form = own.path("documents", "faq", "upload")
    assert "choose at least one file" in visitor.post_files(own.path("documents", "faq", "uploads"), form, {}).text
    checked = upload(own, visitor, {"a.txt": b"A."}, dry_run="true")
    assert "canceled" in visitor.post(f"{checked.path}/cancel", checked.path).text
    assert visitor.get(own.path("documents", "unknown")).status == 404
    assert visitor.get(own.path("documents", "faq", "uploads", "unknown")).status == 404
    assert visitor.get(own.path("documents", "list", "upload")).status == 422
    assert visitor.post(own.path("documents"), own.path("documents"), name="a/b").status == 422
    failed = upload(own, visitor, {"b.pdf": b"x"})
    assert "the files contain no documents" in failed.text


def test_documents_and_indexes_are_deleted_only_when_confirmed(own: Dashboard, visitor: Visitor) -> None:
    path = own.path("documents", "faq", "document", "returns")
    assert visitor.post(f"{path}/delete", path).status == 422
    assert "This index has no documents" in visitor.post(f"{path}/delete", path, confirm="true").text
    index = own.path("documents", "faq")
    assert visitor.post(f"{index}/delete", index, confirmation="fa").status == 422
    assert "This project has no documents yet" in visitor.post(f"{index}/delete", index, confirmation="faq").text


def test_a_form_without_its_token_changes_nothing(own: Dashboard, visitor: Visitor) -> None:
    path = own.path("documents", "faq", "uploads")
    assert visitor.request("POST", path, {"by_script": "true"}).status == 403
    assert visitor.request("POST", path, {"form_token": "x", "by_script": "true"}).status == 403
    assert own.client.ok("GET", "/v1/voice-sdk/index/faq/uploads") == {"uploads": [], "next": None}


def test_a_key_that_only_reads_sees_documents_and_no_forms(own: Dashboard) -> None:
    from memoair_cloud.tenancy.access import authenticate
    from memoair_cloud.tenancy.grants import Grant, KeyScope

    account_id = authenticate(own.cloud.services.engine, str(own.client.key)).account_id
    key = own.cloud.accounts.issue_key(account_id, "reader", Grant(KeyScope.READ)).key
    reader = own.visitor(key)
    for parts in (("documents",), ("documents", "faq"), ("documents", "faq", "document", "returns")):
        page = reader.get(own.path(*parts))
        assert page.status == 200
        assert '<form class="stack"' not in page.text
    assert "Your key can only read" in reader.get(own.path("documents", "faq", "upload")).text
