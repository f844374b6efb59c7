"""The pages of runs over HTTP: start, follow, cancel, results with where each requirement was lost, comparison."""

import html
import json
import re
from pathlib import Path

import pytest
from dashboard.test_evaluations import SUITES, put, send, text_of
from support.chat_server import FakeChatServer, completion
from support.clouds import running
from support.dashboards import Dashboard, Page, Visitor, fill_project

RUNS = "/v1/voice-sdk/evaluations/runs"
LANES = [("lane", lane) for lane in ("profile", "working", "permanent", "org")]
BOOTS = {
    "id": "boots/1",
    "question": "How long can I return the boots?",
    "given": {"facts": ["Mara bought red boots."], "turns": [{"turnId": "t1", "user": "I bought <b>red</b> boots."}]},
    "must": [{"document": "returns", "index": "faq"}, {"fact": "red boots"}, {"text": "sixty <i>days</i>"}],
    "mustNot": [{"text": "thirty days"}, {"document": "other"}],
}
EASY = {"id": "easy", "question": "Can boots be returned?", "must": [{"text": "thirty days"}]}


@pytest.fixture(scope="module")
def own(dashboard: Dashboard) -> Dashboard:
    """A project for the tests of this module."""
    return fill_project(dashboard.cloud, "runs")


@pytest.fixture(scope="module")
def visitor(own: Dashboard) -> Visitor:
    return own.visitor()


@pytest.fixture
def suite(own: Dashboard, request: pytest.FixtureRequest) -> str:
    """The id of a suite with a case that fails and one that passes."""
    made: str = own.client.ok("POST", SUITES, {"name": request.node.name})["suiteId"]
    put(own, made, EASY, BOOTS)
    return made


def start(own: Dashboard, visitor: Visitor, suite: str, *fields: tuple[str, str]) -> Page:
    """Start a run by its form."""
    form = visitor.get(own.path("evaluations", "suites", suite, "run"))
    path = own.path("evaluations", "suites", suite, "runs")
    lanes = [] if any(name == "lane" for name, _ in fields) else LANES
    return send(visitor, path, [("form_token", form.form_token), *lanes, *fields])


def run(own: Dashboard, visitor: Visitor, suite: str, *fields: tuple[str, str]) -> Page:
    """Start a run, let the worker finish it, and return its page."""
    page = start(own, visitor, suite, *fields)
    assert page.status == 200, text_of(page)
    own.cloud.run_tasks()
    return visitor.get(page.path)


def run_id_of(page: Page) -> str:
    return page.path.partition("?")[0].rpartition("/")[2]


def test_a_run_is_followed_until_it_is_done_and_its_failing_cases_come_first(
    own: Dashboard, visitor: Visitor, suite: str
) -> None:
    waiting = start(own, visitor, suite)
    assert "waiting for a worker" in waiting.text
    assert 'hx-trigger="every 1s"' in waiting.text
    assert '<meta http-equiv="refresh"' in waiting.text, "without JavaScript, too"

    own.cloud.run_tasks()

    done = visitor.get(waiting.path)
    assert "hx-trigger" not in done.text
    assert "Passed 1 of 2" in text_of(done)
    order = re.findall(r'/cases/([^?"]+)', done.text)
    assert order == ["boots%2F1", "easy"]
    failed = visitor.get(own.path("evaluations", "runs", run_id_of(done), only="failed"))
    assert re.findall(r'/cases/([^?"]+)', failed.text) == ["boots%2F1"]


def test_a_result_says_where_each_requirement_was_lost(own: Dashboard, visitor: Visitor, suite: str) -> None:
    run_id = run_id_of(run(own, visitor, suite))
    page = visitor.get(own.path("evaluations", "runs", run_id, "cases", "boots/1"))
    assert page.status == 200
    outcomes = [" ".join(html.unescape(re.sub(r"<[^>]+>", " ", found)).split()) for found in outcomes_of(page)]
    assert outcomes == [
        "not found text sixty <i>days</i>",
        "in the context document faq / returns rank 1 of org",
        "in the context fact red boots rank 2 of permanent",
        "in the context text thirty days rank 1 of org",
        "not found document other",
    ]
    assert re.search(r"Mara bought <mark>red boots</mark>\.", page.text)
    assert re.search(r'<mark class="unwanted">thirty days</mark>|<mark>Boots can be returned within thirty', page.text)
    assert "<i>days" not in page.text
    assert "<b>red" not in page.text
    assert visitor.get(own.path("evaluations", "runs", run_id, "cases", "unknown")).status == 404

    small = run(own, visitor, suite, ("context_chars", "240"), ("lane_chars", "100"))
    assert "characters of the context: 240" in text_of(small)
    lost = visitor.get(own.path("evaluations", "runs", run_id_of(small), "cases", "boots/1"))
    assert re.search(r"cut at half budget|found, not in the context", text_of(lost)), text_of(lost)
    without = run(own, visitor, suite, *LANES[:3])
    page = visitor.get(own.path("evaluations", "runs", run_id_of(without), "cases", "boots/1"))
    assert "the lane org was not asked" in text_of(page)


def outcomes_of(page: Page) -> list[str]:
    lists = re.findall(r'<ul class="outcomes">(.*?)</ul>', page.text, re.DOTALL)
    return [item for found in lists for item in re.findall(r"<li>(.*?)</li>", found, re.DOTALL)]


def test_a_case_that_was_changed_or_deleted_since_is_shown_as_it_was(
    own: Dashboard, visitor: Visitor, suite: str
) -> None:
    run_id = run_id_of(run(own, visitor, suite))
    path = own.path("evaluations", "runs", run_id, "cases", "easy")
    put(own, suite, {**EASY, "question": "Something else?"})
    changed = text_of(visitor.get(path))
    assert "changed since" in changed
    assert "Can boots be returned?" in changed
    own.client.ok("DELETE", f"{SUITES}/{suite}/cases/easy")
    assert "deleted since" in text_of(visitor.get(path))


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ([("lane", "")], "choose at least one lane"),
        ([("context_chars", "5")], "use a number from 100 to 100,000"),
        ([("top_k_org", "many")], "hits of org: use a number from 0 to 1,000"),
        ([("min_confidence", "2")], "use a number from 0 to 1"),
        ([("document_set", "docset_x")], "unknown document set"),
        ([("prompt", "version:7")], "has no such version"),
        ([("prompt", "text")], "write the text"),
        ([("prompt", "other")], "choose one of the list"),
        ([("judge", "true")], "the server has no judge"),
    ],
)
def test_a_candidate_that_is_wrong_starts_nothing_and_is_still_there(
    own: Dashboard, visitor: Visitor, suite: str, fields: list[tuple[str, str]], problem: str
) -> None:
    page = start(own, visitor, suite, *fields, ("timeout_ms", "77"))
    assert page.status in (404, 422)
    assert problem in text_of(page)
    assert 'value="77"' in page.text
    assert own.client.ok("GET", f"{RUNS}?suite={suite}")["runs"] == []


def test_a_run_is_canceled_and_deleted(own: Dashboard, visitor: Visitor, suite: str) -> None:
    waiting = start(own, visitor, suite)
    path = waiting.path.partition("?")[0]
    canceled = visitor.post(f"{path}/cancel", path)
    assert "It was canceled after 0" in canceled.text
    assert visitor.post(f"{path}/delete", path).status == 422
    assert "This suite was never run" in visitor.post(f"{path}/delete", path, confirm="true").text
    assert visitor.get(path).status == 404


def test_the_history_marks_versions_and_two_runs_are_compared(own: Dashboard, visitor: Visitor, suite: str) -> None:
    first = run(own, visitor, suite)
    assert "Compare with the run before" not in first.text
    put(own, suite, {**EASY, "id": "new"})
    second = run(own, visitor, suite, ("prompt", "text"), ("prompt_text", "Be <b>kind</b>."))
    assert "&lt;b&gt;kind" in second.text
    worse = run(own, visitor, suite, *LANES[:3])
    third = run(own, visitor, suite)

    history = visitor.get(own.path("evaluations", "suites", suite))
    rows = re.findall(r"<tr( data-skip)?[^>]* data-mark=\"([^\"]*)\">", history.text)
    assert [(bool(skip), mark) for skip, mark in rows] == [(False, "suite 2"), (True, ""), (True, ""), (False, "")]

    compared = visitor.get(own.path("evaluations", "runs", run_id_of(worse), "comparison", against=run_id_of(third)))
    assert compared.status == 200
    text = text_of(compared)
    assert "3 cases worse" in text
    assert "lanes: profile, working, permanent" in text
    assert "Recalled 100.0 %" not in text
    last = visitor.get(own.path("evaluations", "runs", run_id_of(third), "comparison"))
    assert "3 cases better" in text_of(last), "the run before is the last one"
    since = visitor.get(own.path("evaluations", "runs", run_id_of(third), "comparison", against=run_id_of(first)))
    assert "1 added" in text_of(since)
    assert "No case differs" not in since.text

    beside = own.path("evaluations", "runs", run_id_of(worse), "comparison", "boots/1", against=run_id_of(third))
    text = text_of(visitor.get(beside))
    assert "gone - Boots can be returned within thirty days" in text
    added = own.path("evaluations", "runs", run_id_of(third), "comparison", "new", against=run_id_of(first))
    assert "The case was not part of this run" in visitor.get(added).text
    assert visitor.get(own.path("evaluations", "runs", run_id_of(first), "comparison")).status == 404
    like = visitor.get(own.path("evaluations", "suites", suite, "run", like=run_id_of(worse)))
    assert 'value="org" checked' not in like.text
    assert 'value="permanent" checked' in like.text


def test_a_copy_of_the_present_documents_is_searched_after_they_have_changed(dashboard: Dashboard) -> None:
    own = fill_project(dashboard.cloud, "copied-documents")
    visitor = own.visitor()
    suite = own.client.ok("POST", SUITES, {"name": "S"})["suiteId"]
    put(own, suite, EASY)
    sets = own.path("evaluations", "document-sets")
    assert "No documents are kept yet" in visitor.get(sets).text
    kept = visitor.post(sets, sets, name="Before <b>it</b>")
    assert "Before &lt;b&gt;it" in kept.text
    own.cloud.run_tasks()
    own.client.ok("DELETE", "/v1/voice-sdk/index/faq/documents/returns")
    own.cloud.run_tasks()
    assert "Passed 0 of 1" in text_of(run(own, visitor, suite))
    form = visitor.get(own.path("evaluations", "suites", suite, "run"))
    [set_id] = re.findall(r'<option value="(docset_[^"]+)"', form.text)
    then = text_of(run(own, visitor, suite, ("document_set", set_id)))
    assert "Passed 1 of 1" in then
    assert "documents: Before <b>it</b>" in then
    gone = visitor.post(f"{sets}/{set_id}/delete", sets)
    assert "No documents are kept yet" in gone.text
    assert "deleted since" in text_of(visitor.get(own.path("evaluations", "suites", suite)))


def test_a_judge_grades_the_answers_and_its_words_are_text(tmp_path: Path) -> None:
    with FakeChatServer() as model:
        judge = {"judge_base_url": f"{model.url}/v1", "judge_model": "small", "judge_api_key": "sk-secret"}
        prices = {"judge_prompt_price": 1e6, "judge_completion_price": 1e6}
        with running(f"sqlite:///{tmp_path / 'cloud.db'}", tmp_path, **judge, **prices) as cloud:
            own = fill_project(cloud)
            visitor = own.visitor()
            suite = own.client.ok("POST", SUITES, {"name": "Judged"})["suiteId"]
            put(own, suite, {**EASY, "expectedAnswer": "Thirty days."}, {**EASY, "id": "not judged"})
            assert "to small, and costs tokens" in visitor.get(own.path("evaluations", "suites", suite, "run")).text
            usage = {"prompt_tokens": 100, "completion_tokens": 10, "total_tokens": 110}
            model.send(completion("<b>Ten</b> days.", usage))
            model.send(completion(json.dumps({"verdict": "wrong", "reason": "It says <i>ten</i>."}), usage))
            done = run(own, visitor, suite, ("judge", "true"))
            assert re.search(r"Answers 0\.0 % 1 wrong, [\d,]+ tokens, cost 220\.0", text_of(done)), text_of(done)
            result = visitor.get(own.path("evaluations", "runs", run_id_of(done), "cases", "easy"))
            shown = "Verdict wrong Expected Thirty days. Answered <b>Ten</b> days. Because It says <i>ten</i>."
            assert shown in text_of(result)
            assert "<b>Ten" not in result.text
            plain = visitor.get(own.path("evaluations", "runs", run_id_of(done), "cases", "not judged"))
            assert "The judge" not in plain.text
            again = visitor.get(own.path("evaluations", "suites", suite, "run", like=run_id_of(done)))
            assert re.search(r'name="judge" value="true" checked', again.text)
            model.fail_with(500)
            failed = run(own, visitor, suite, ("judge", "true"))
            page = visitor.get(own.path("evaluations", "runs", run_id_of(failed), "cases", "easy"))
            assert "Verdict unclear" in text_of(page)
            assert "the model failed: InternalServerError" in text_of(page)
