"""Pages over HTTP, as a browser without JavaScript gets them."""

import re
from urllib.parse import urlencode

import pytest
from support.clouds import session_start, turn
from support.dashboards import Dashboard, Visitor, fill_project

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
