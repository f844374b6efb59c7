"""The pages of replays over HTTP: start one by form, follow it, see what changes, accept it as cases."""

import re
from typing import Any

import pytest
from dashboard.test_access import make_key
from dashboard.test_evaluations import SUITES, send, text_of
from support.dashboards import Dashboard, Page, Visitor, fill_project

from memoair_cloud.tenancy.grants import KeyScope

ROOT = "/v1/voice-sdk/evaluations"
LANES = [("lane", lane) for lane in ("profile", "working", "permanent", "org")]
WEEK = {"id": "returns-2026", "text": "Boots can be returned within <b>seven</b> days.", "indexName": "faq"}


@pytest.fixture(scope="module")
def own(dashboard: Dashboard) -> Dashboard:
    """A project for the tests of this module."""
    return fill_project(dashboard.cloud, "replays")


@pytest.fixture(scope="module")
def visitor(own: Dashboard) -> Visitor:
    return own.visitor()


@pytest.fixture(scope="module")
def documents(own: Dashboard) -> str:
    """The id of a set of other documents."""
    made: dict[str, Any] = own.client.ok("POST", f"{ROOT}/document-sets", {"name": "New prices", "documents": [WEEK]})
    own.cloud.run_tasks()
    return str(made["setId"])


def start(own: Dashboard, visitor: Visitor, *fields: tuple[str, str]) -> Page:
    """Start a replay by its form."""
    form = visitor.get(own.path("evaluations", "replays", "new"))
    given = {name for name, _ in fields}
    found = {name: re.search(f'name="{name}" required value="([^"]+)"', form.text) for name in ("since", "until")}
    default = [(name, match[1]) for name, match in found.items() if match and name not in given]
    agent = [] if "agent_id" in given else [("agent_id", own.client.identity["agent"])]
    lanes = [] if "lane" in given else LANES
    path = own.path("evaluations", "replays")
    return send(visitor, path, [("form_token", form.form_token), *default, *agent, *lanes, *fields])


def replay(own: Dashboard, visitor: Visitor, *fields: tuple[str, str]) -> Page:
    """Start a replay, let the worker finish it, and return its page."""
    page = start(own, visitor, *fields)
    assert page.status == 200, text_of(page)
    own.cloud.run_tasks()
    return visitor.get(page.path)


def test_a_project_without_replays_says_what_they_are_for(dashboard: Dashboard) -> None:
    fresh = fill_project(dashboard.cloud, "no-replays")
    page = fresh.visitor().get(fresh.path("evaluations", "replays"))
    assert "No replays yet." in page.text
    assert fresh.path("evaluations", "replays", "new") in page.text
    assert fresh.path("evaluations", "replays") in fresh.visitor().get(fresh.path("evaluations")).text


def test_a_replay_shows_its_progress_and_then_what_changes(own: Dashboard, visitor: Visitor, documents: str) -> None:
    waiting = start(own, visitor, ("document_set", documents))
    assert "waiting for a worker" in text_of(waiting)
    assert 'hx-trigger="every 1s"' in waiting.text
    own.cloud.run_tasks()

    page = visitor.get(waiting.path)

    text = text_of(page)
    assert "done documents: New prices" in text
    assert re.search(r"Questions 3 of 3 turns of the period", text)
    assert re.search(r"Documents that appear Document Questions faq / returns-2026 \d", text)
    assert re.search(r"Documents that vanish Document Questions faq / returns \d", text)
    assert "The largest changes" in text
    assert "How long can I return the boots?" in text
    assert "<b>seven</b>" not in page.text, "what a document says is text"
    assert "<mark>(b&gt;seven(/b&gt; days.</mark>" in page.text
    listed = text_of(visitor.get(own.path("evaluations", "replays")))
    assert re.search(r"documents: New prices done 3 \d \(\d", listed)


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ([], "this is the present state: choose other documents or recall settings"),
        ([("top_k_org", "many")], "hits of org: use a number"),
        ([("top_k_org", "1"), ("since", "")], "from: choose a day"),
        ([("top_k_org", "1"), ("since", "last week")], "from: use a day such as 2026-03-02"),
        ([("top_k_org", "1"), ("since", "2026-03-03"), ("until", "2026-03-02")], "from must be before to"),
        ([("top_k_org", "1"), ("max_questions", "0")], "questions: use a number from 1 to 10,000"),
        ([("document_set", "docset_of_another")], "unknown document set"),
    ],
)
def test_what_is_wrong_is_said_beside_all_that_was_typed(
    own: Dashboard, visitor: Visitor, fields: list[tuple[str, str]], problem: str
) -> None:
    page = start(own, visitor, ("context_chars", "2000") if fields else ("context_chars", ""), *fields)
    assert page.status == 422
    assert f"Nothing was started: {problem}" in text_of(page)
    if fields:
        assert 'name="context_chars" inputmode="numeric" value="2000"' in page.text


def test_changes_are_accepted_into_a_new_suite(own: Dashboard, visitor: Visitor, documents: str) -> None:
    page = replay(own, visitor, ("document_set", documents))
    asked = re.findall(r'name="case_id" value="([^"]+)"', page.text)
    accept = f"{page.path.partition('?')[0]}/accept"
    token = ("form_token", page.form_token)

    nothing = send(visitor, accept, [token, ("new_suite", "Accepted")])
    assert nothing.status == 422
    assert "choose at least one question" in text_of(nothing)
    unnamed = send(visitor, accept, [token, ("case_id", asked[0])])
    assert "choose a suite, or name a new one" in text_of(unnamed)
    chosen = [("case_id", case_id) for case_id in asked]
    done = send(visitor, accept, [token, *chosen, ("new_suite", "Accepted"), ("require", "document")])

    assert f"{len(asked)} cases added" in text_of(done)
    (suite,) = own.client.ok("GET", f"{SUITES}?name=Accepted")["suites"]
    assert suite["caseCount"] == len(asked)
    again = send(visitor, accept, [token, *chosen, ("suite_id", suite["suiteId"])])
    assert f"0 cases added, {len(asked)} were there already" in text_of(again)


def test_a_replay_without_changes_and_one_of_silence_say_so(own: Dashboard, visitor: Visitor) -> None:
    same = replay(own, visitor, ("top_k_org", "4"))
    assert "No context changes." in text_of(same)
    silent = replay(own, visitor, ("top_k_org", "1"), ("since", "2020-01-01"), ("until", "2020-01-02"))
    assert "There were no questions in this period." in text_of(silent)
    repeated = visitor.get(own.path("evaluations", "replays", "new", like=silent.path.rpartition("/")[2]))
    assert 'name="top_k_org" inputmode="numeric" value="1"' in repeated.text
    assert "2020-01-01" in repeated.text


def test_a_replay_is_canceled_and_deleted(own: Dashboard, visitor: Visitor) -> None:
    waiting = start(own, visitor, ("top_k_org", "1"))
    here = waiting.path.partition("?")[0]
    canceled = send(visitor, f"{here}/cancel", [("form_token", waiting.form_token)])
    assert "It was canceled after 0 of 0 questions." in text_of(canceled)
    unconfirmed = send(visitor, f"{here}/delete", [("form_token", canceled.form_token)])
    assert "tick the box" in text_of(unconfirmed)
    send(visitor, f"{here}/delete", [("form_token", canceled.form_token), ("confirm", "true")])
    assert visitor.get(here).status == 404


def test_what_is_shown_of_callers_is_recorded(own: Dashboard, visitor: Visitor, documents: str) -> None:
    replay(own, visitor, ("document_set", documents))
    actions = {entry["action"] for entry in own.client.ok("GET", "/v1/voice-sdk/audit")["entries"]}
    assert {"calls.replayed", "call.read"} <= actions
    assert "calls replayed" in text_of(visitor.get(own.path("audit")))


def test_a_key_that_can_only_read_sees_changes_and_no_forms(own: Dashboard, visitor: Visitor, documents: str) -> None:
    page = replay(own, visitor, ("document_set", documents))
    _, key = make_key(own, KeyScope.READ)
    reader = own.visitor(key)

    for path in (page.path, own.path("evaluations", "replays"), own.path("evaluations", "replays", "new")):
        shown = reader.get(path)
        assert shown.status == 200
        forms = re.findall(r'<form[^>]*method="post"[^>]*action="([^"]*)"', shown.text)
        assert forms == ["/dashboard/sign-out"]
        assert "case_id" not in shown.text
    assert "How long can I return the boots?" in reader.get(page.path).text
