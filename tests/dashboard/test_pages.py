"""Pages over HTTP, as a browser without JavaScript gets them."""

import json
import re
from pathlib import Path
from urllib.parse import urlencode

import pytest
from sqlalchemy import update
from support.clouds import running, session_start, turn
from support.dashboards import Dashboard, Visitor, fill_project

from memoair_cloud.database.models import CallSession

PATHS = [
    (),
    ("callers",),
    ("callers", "caller/1"),
    ("callers", "caller/1", "erase"),
    ("callers", "caller/1", "calls", "call-b"),
    ("calls",),
    ("searches",),
    ("audit",),
]


@pytest.fixture(scope="module")
def visitor(dashboard: Dashboard) -> Visitor:
    return dashboard.visitor()


@pytest.mark.parametrize("parts", PATHS, ids="/".join)
def test_each_page_is_there_with_strict_headers_and_no_inline_code(
    dashboard: Dashboard, visitor: Visitor, parts: tuple[str, ...]
) -> None:
    page = visitor.get(dashboard.path(*parts))

    assert page.status == 200, page.text
    policy = page.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert page.headers["cache-control"] == "no-store"
    assert not re.search(
        r"<script(?![^>]* src=)|<style|\sstyle=|\son\w+=|https?://(?!records\.example|this-server)", page.text
    )


def test_a_call_shows_what_was_heard_meant_recalled_and_used(dashboard: Dashboard, visitor: Visitor) -> None:
    page = visitor.get(dashboard.path("callers", "caller/1", "calls", "call-b"))

    assert "Within thirty days," in page.text
    assert re.search(r"<del[^>]*> with the receipt, Ana\.</del>", page.text)
    assert "search_memory" in page.text
    assert "8.80 ms" in page.text
    assert re.search(r"permanent\s+late", page.text)
    assert "<mark>thirty</mark> <mark>days</mark>" in page.text
    assert 'href="https://records.example/b.wav" rel="noreferrer noopener"' in page.text
    found = visitor.get(dashboard.path("callers", "caller/1", "calls", "call-b", q="BOOTS"))
    assert "<mark>boots</mark>" in found.text
    assert "And where do I live?" not in found.text


def test_an_overview_leads_to_the_searches_behind_its_figures(dashboard: Dashboard, visitor: Visitor) -> None:
    page = visitor.get(dashboard.path())

    assert "100.0 %" in page.text
    searches = visitor.get(dashboard.path("searches", lane="permanent"))
    assert "call-b" in searches.text
    assert "call-b" not in visitor.get(dashboard.path("searches", lane="org")).text
    assert "call-b" not in visitor.get(dashboard.path("searches", found="0")).text


@pytest.mark.parametrize("text", ["ana", "CALLER/1", "acme"])
def test_callers_are_found_by_name_id_and_metadata(dashboard: Dashboard, visitor: Visitor, text: str) -> None:
    assert "Ana Sousa" in visitor.get(dashboard.path("callers", q=text)).text
    assert "Ana Sousa" not in visitor.get(dashboard.path("callers", q=f"{text}x")).text


def test_a_fact_is_corrected_that_is_undone_and_it_is_deleted(dashboard: Dashboard) -> None:
    own = fill_project(dashboard.cloud, "facts")
    visitor = own.visitor()
    [fact] = [memory for memory in own.client.memories() if "Lisbon" in memory["text"]]
    parts = ("callers", own.user_id, "facts", fact["memoryId"])
    page = visitor.get(own.path(*parts))
    assert "Lisbon" in page.text

    corrected = visitor.post(own.path(*parts, "correct"), own.path(*parts), text="Ana lives in Oslo.", value="Oslo")
    assert "Ana lives in Oslo." in corrected.text
    assert own.client.memories()[0]["value"] == "Oslo"

    visitor.post(own.path(*parts, "undo"), own.path(*parts))
    assert own.client.memories()[0]["text"] == fact["text"]

    refused = visitor.post(own.path(*parts, "delete"), own.path(*parts))
    assert refused.status == 422
    assert "tick the box" in refused.text.lower()
    visitor.post(own.path(*parts, "delete"), own.path(*parts), confirm="true")
    assert own.client.memories() == []
    assert visitor.get(own.path(*parts)).status == 404
    log = visitor.get(own.path("audit")).text
    assert [action in log for action in ("memory corrected", "memory correction undone", "memory deleted")] == [
        True
    ] * 3


def test_a_caller_is_erased_with_a_receipt_and_leaves_no_id_in_the_audit_log(dashboard: Dashboard) -> None:
    own = fill_project(dashboard.cloud, "erasing")
    visitor = own.visitor()
    erase = own.path("callers", own.user_id, "erase")
    assert visitor.post(erase, erase, confirmation="someone else").status == 422

    receipt = visitor.post(erase, erase, confirmation="Ana Sousa")

    assert receipt.status == 200
    assert own.user_id in receipt.text
    assert re.search(r"sessions</td><td class=\"number\">2<", receipt.text)
    assert visitor.get(own.path("callers", own.user_id)).status == 404
    assert own.user_id not in visitor.get(own.path("audit")).text
    assert "caller erased" in visitor.get(own.path("audit", caller=own.user_id)).text


def test_a_caller_is_held_exported_and_then_not_erased(dashboard: Dashboard) -> None:
    own = fill_project(dashboard.cloud, "held")
    visitor = own.visitor()
    holds, erase = own.path("callers", own.user_id, "holds"), own.path("callers", own.user_id, "erase")
    held = visitor.post(f"{holds}/place", holds, reason="a court asks for it")
    assert "a court asks for it" in held.text
    token = visitor.get(holds).form_token
    refused = visitor.request("POST", erase, {"form_token": token, "confirmation": own.user_id})
    assert refused.status == 409
    assert "legal hold" in refused.text
    export = visitor.get(own.path("callers", own.user_id, "export"))
    assert json.loads(export.text)["user"]["id"] == own.user_id
    assert export.headers["content-disposition"] == 'attachment; filename="caller.json"'

    visitor.post(f"{holds}/lift", holds, reason="it no longer does")
    assert visitor.post(erase, erase, confirmation=own.user_id).status == 200


INJECTIONS = [
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    '"><svg onload=alert(1)>',
    "' onmouseover='alert(1)",
    "</title><script>alert(1)</script>",
    "</textarea><script>alert(1)</script>",
    "{{ 7 * 7 }}{% raw %}",
    "<a href='javascript:alert(1)'>x</a>",
    "<!-- --><iframe src=//evil.example>",
    "&lt;script&gt;alert(1)&lt;/script&gt;",
    "<mark><b>bold</b></mark>",
]


def test_what_callers_say_is_escaped_everywhere(dashboard: Dashboard) -> None:
    own = fill_project(dashboard.cloud, "injected", user_id="<b>id</b>&\"'")
    for number, text in enumerate(INJECTIONS):
        start = session_start(f"i{number}-start", f"<i>{number}</i>", 1, name=text)
        start["payload"]["metadata"] = {text: text, "audio": "javascript:alert(1)"}
        start["payload"]["user"]["metadata"] = {text: text}
        said = turn(f"i{number}-1", f"<i>{number}</i>", 2, said=text)
        said["payload"]["assistantText"] = text
        said["payload"]["toolCalls"] = [{"name": text, text: text}]
        said["payload"]["metadata"] = {"recordingUrl": "javascript:alert(1)"}
        own.client.send(start, said)
    visitor = own.visitor()
    paths = [own.path(), own.path("callers"), own.path("calls"), own.path("callers", own.user_id)]
    paths += [own.path("callers", own.user_id, "erase"), own.path("audit"), own.path("searches")]
    calls = [own.path("callers", own.user_id, "calls", f"<i>{number}</i>") for number in range(len(INJECTIONS))]
    paths += calls
    paths += [own.path("callers", q=text) for text in INJECTIONS]
    paths += [f"{path}?{urlencode({'q': text})}" for path, text in zip(calls, INJECTIONS, strict=True)]
    paths += [own.path(tz=text) for text in INJECTIONS]
    for path in paths:
        page = visitor.get(path)
        assert page.status in (200, 422), path
        for code in ("<script>alert", "<img src=x", "<svg onload", "' onmouseover='", "<iframe", "<i>", "<b>"):
            assert code not in page.text, (path, code)
        assert not re.search(r"href=.javascript:", page.text)


def test_without_a_database_a_page_says_so(tmp_path: Path) -> None:
    with running(f"sqlite:///{tmp_path / 'cloud.db'}", tmp_path) as cloud:
        own = fill_project(cloud)
        visitor = own.visitor()
        with cloud.services.engine.begin() as connection:
            connection.exec_driver_sql("ALTER TABLE end_users RENAME TO elsewhere")
        page = visitor.get(own.path("callers"))
        assert page.status == 503
        assert "The database does not respond" in page.text


def test_an_empty_project_says_what_to_do_next(dashboard: Dashboard) -> None:
    client = dashboard.cloud.account()
    visitor = dashboard.visitor(str(client.key))
    assert "There is no project yet" in visitor.get("/dashboard").text
    project_id = client.ok("POST", "/v1/projects", {"name": "New", "slug": "brand-new"})["id"]
    for path, text in {
        "": "No calls in this period",
        "/callers": "No calls have arrived yet",
        "/calls": "No such calls",
        "/searches": "No such searches",
        "/audit": "Nothing was read or changed",
    }.items():
        page = visitor.get(f"/dashboard/p/{project_id}{path}")
        assert page.status == 200
        assert text in page.text


def test_a_call_of_a_thousand_turns_is_shown_page_by_page(dashboard: Dashboard) -> None:
    own = fill_project(dashboard.cloud, "long")
    for start in range(0, 1_000, 250):
        own.client.send(
            *(turn(f"long-{n}", "long", n + 2, f"This is sentence number {n}.") for n in range(start, start + 250))
        )
    visitor, path = own.visitor(), ("callers", own.user_id, "calls", "long")
    first = visitor.get(own.path(*path))
    assert first.text.count("<article") == 50
    assert "Page 1 of 20" in first.text
    last = visitor.get(own.path(*path, page="20"))
    assert "sentence number 999." in last.text
    at = visitor.get(own.path(*path, at="long-512"))
    assert re.search(r'id="at"[^>]*>.*sentence number 512\.', at.text, re.DOTALL)
    found = visitor.get(own.path(*path, q="NUMBER 777"))
    assert "1 of 1000 turns" in found.text


def test_dead_letters_are_shown_and_retried(dashboard: Dashboard) -> None:
    own = fill_project(dashboard.cloud, "dead")
    with own.cloud.services.engine.begin() as connection:
        connection.execute(
            update(CallSession)
            .where(CallSession.project_id == own.project_id, CallSession.id == "call-a")
            .values(learned_count=0, failures=5, failure="ValueError")
        )
    visitor = own.visitor()
    page = visitor.get(own.path())
    assert re.search(r"1 calls</a>: it failed too often \(ValueError: 1\)", page.text)
    assert "call-a" in visitor.get(own.path("calls", state="dead", anytime="1")).text
    assert "call-b" not in visitor.get(own.path("calls", state="dead", anytime="1")).text

    assert "1 will be retried now" in visitor.post(own.path("retry"), own.path()).text
    own.cloud.run_tasks()
    assert "failed too often" not in visitor.get(own.path()).text


def test_asking_again_shows_what_differs(dashboard: Dashboard, visitor: Visitor) -> None:
    parts = ("callers", "caller/1", "calls", "call-b", "again")
    page = visitor.get(dashboard.path(*parts, trace="trace-b-1"))
    assert page.status == 200
    assert "How long can I return the boots?" in page.text
    assert re.search(r"\(then 4\.20\)", page.text)
    assert visitor.get(dashboard.path(*parts, trace="unknown")).status == 404


def test_try_it_shows_the_context_that_an_agent_gets(dashboard: Dashboard, visitor: Visitor) -> None:
    page = visitor.get(dashboard.path("try", q="Where does she live?", user="caller/1"))
    assert "Ana lives in Lisbon." in page.text
    only_documents = visitor.get(dashboard.path("try", q="How long can I return boots?", user="caller/1", lane="org"))
    assert "Boots can be returned within thirty days" in only_documents.text
    assert "Lisbon" not in only_documents.text
    assert visitor.get(dashboard.path("try", q="x", user="nobody")).status == 404
    assert visitor.get(dashboard.path("try", q="x", filter="[1]")).status == 422
    assert visitor.get(dashboard.path("try", q="x", top_k="0")).status == 422
