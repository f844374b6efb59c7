"""The pages of suites, cases, and turns that become cases, over HTTP, as a browser without JavaScript uses them."""

import html
import json
import re
from typing import Any

import pytest
from dashboard.test_access import make_key
from sqlalchemy import event
from support.clouds import turn
from support.dashboards import Dashboard, Page, Visitor, fill_project

from memoair_cloud.tenancy.grants import KeyScope

_FIELD = re.compile(
    r'<textarea[^>]*name="(\w+)"[^>]*>(.*?)</textarea>|<select name="(\w+)">(.*?)</select>|<input ([^>]*)>', re.DOTALL
)
SUITES = "/v1/voice-sdk/evaluations/suites"
CASE = {
    "id": "boots-1",
    "question": "How long can I return boots?",
    "given": {
        "profile": {"name": "Mara", "summary": "Buys boots."},
        "facts": ["Mara lives in Lisbon.", {"text": "Mara likes red.", "kind": "preference"}],
        "turns": [{"turnId": "t-1", "sessionId": "s-1", "user": "I bought boots.", "metadata": {"line": "shop"}}],
    },
    "talk": [{"user": "Hello.", "assistant": "Hello, Mara."}],
    "at": "2026-01-07T10:00:00Z",
    "must": [{"document": "returns", "index": "faq"}, {"text": "thirty days"}, {"turn": "t-1", "session": "s-1"}],
    "mustNot": [{"fact": "lives in Oslo"}],
    "expectedAnswer": "Thirty days.",
    "filter": {"plan": "premium"},
    "tags": ["returns"],
    "notes": "Asked every day.",
    "lanes": ["permanent", "org"],
}


@pytest.fixture(scope="module")
def own(dashboard: Dashboard) -> Dashboard:
    """A project for the tests of this module."""
    return fill_project(dashboard.cloud, "evaluated")


@pytest.fixture(scope="module")
def visitor(own: Dashboard) -> Visitor:
    return own.visitor()


@pytest.fixture
def suite(own: Dashboard, request: pytest.FixtureRequest) -> str:
    """The id of an empty suite of the test's own."""
    made: str = own.client.ok("POST", SUITES, {"name": request.node.name})["suiteId"]
    return made


def put(own: Dashboard, suite: str, *cases: dict[str, Any]) -> None:
    own.client.ok("PUT", f"{SUITES}/{suite}/cases", {"cases": list(cases)})


def text_of(page: Page) -> str:
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", page.text)).split())


def fields_of(page: Page, nth_form: int) -> list[tuple[str, str]]:
    """Return what a browser would send of a form of a page, as it is."""
    form = re.findall(r"<form[^>]*method=\"post\".*?</form>", page.text, re.DOTALL)[nth_form]
    fields = []
    pattern = (
        r"<textarea[^>]*name=\"(\w+)\"[^>]*>(.*?)</textarea>|<select name=\"(\w+)\">(.*?)</select>|<input ([^>]*)>"
    )
    for area, content, select, options, given in re.findall(pattern, form, re.DOTALL):
        attributes = dict(re.findall(r'([\w-]+)="([^"]*)"', given))
        if area:
            fields.append((area, html.unescape(content)))
        elif select:
            chosen = re.search(r'value="([^"]*)" selected', options) or re.search(r'value="([^"]*)"', options)
            assert chosen
            fields.append((select, html.unescape(chosen[1])))
        elif attributes.get("type") not in ("checkbox", "radio") or " checked" in given:
            fields.append((attributes["name"], html.unescape(attributes.get("value", "on"))))
    return fields


def send(visitor: Visitor, path: str, fields: list[tuple[str, str]]) -> Page:
    page = visitor.request("POST", path, fields)  # type: ignore[arg-type]
    return visitor.get(page.headers["location"]) if page.status == 303 else page


def test_a_suite_is_made_renamed_and_deleted(own: Dashboard, visitor: Visitor) -> None:
    agent = own.client.identity["agent"]
    made = visitor.post(
        own.path("evaluations", "suites"), own.path("evaluations"), agent_id=agent, name="Lines", description="All."
    )
    suite = made.path.rpartition("/")[2]
    assert "This suite has no cases yet." in made.text
    listed = text_of(visitor.get(own.path("evaluations")))
    assert "Lines Returns 0 never" in listed
    assert "Lines" not in visitor.get(own.path("evaluations", agent="agent_of_another")).text

    again = visitor.post(own.path("evaluations", "suites"), own.path("evaluations"), agent_id=agent, name="Lines")
    assert (again.status, "has a suite with this name" in again.text) == (409, True)
    here = own.path("evaluations", "suites", suite)
    renamed = visitor.post(f"{here}/rename", here, name="Other lines", description="")
    assert "<h1>Other lines</h1>" in renamed.text
    assert visitor.post(f"{here}/delete", here, confirmation="Lines").status == 422
    assert visitor.post(f"{here}/delete", here, confirmation="Other lines").status == 200
    assert visitor.get(here).status == 404


def test_a_form_that_is_sent_as_it_is_changes_nothing_of_a_case(own: Dashboard, visitor: Visitor, suite: str) -> None:
    put(own, suite, CASE)
    before = own.client.ok("GET", f"{SUITES}/{suite}/cases/boots-1")
    path = own.path("evaluations", "suites", suite, "cases", "boots-1", "edit")

    saved = send(visitor, path, fields_of(visitor.get(path), 1))

    assert "The case is saved" in saved.text
    assert own.client.ok("GET", f"{SUITES}/{suite}/cases/boots-1") == before
    assert own.client.ok("GET", f"{SUITES}/{suite}")["version"] == 1, "nothing has changed"
    shown = text_of(saved)
    for part in ("Mara lives in Lisbon.", "I bought boots.", "faq / returns", "lives in Oslo", "Asked every day."):
        assert part in shown


def test_a_case_is_written_by_form_and_deleted(own: Dashboard, visitor: Visitor, suite: str) -> None:
    here = own.path("evaluations", "suites", suite)
    fields = [(name, value) for name, value in fields_of(visitor.get(f"{here}/new"), 1) if value]
    typed = {"case_id": "new/1", "question": "Is it <b>late</b>?", "fact_text": "Mara lives in Lisbon."}
    rows = [("must_kind", "document"), ("must_value", "returns"), ("must_place", "faq")]
    rows += [
        ("must_kind", "text"),
        ("must_value", "thirty\r\ndays"),
        ("must_place", ""),
        ("talk_user", "Hi."),
        ("talk_assistant", ""),
    ]
    kept = [(name, value) for name, value in fields if not name.startswith(("must", "talk"))]

    saved = send(visitor, f"{here}/new", [*kept, *typed.items(), *rows])

    assert saved.status == 200, text_of(saved)
    case = own.client.ok("GET", f"{SUITES}/{suite}/cases/new%2F1")["content"]
    assert case == {
        "id": "new/1",
        "question": "Is it <b>late</b>?",
        "given": {"facts": ["Mara lives in Lisbon."]},
        "talk": [{"user": "Hi."}],
        "must": [{"document": "returns", "index": "faq"}, {"text": "thirty\ndays"}],
    }
    again = send(visitor, f"{here}/new", [*kept, *typed.items(), *rows])
    assert (again.status, "has a case with this id already" in again.text) == (422, True)
    assert "thirty\ndays</textarea>" in again.text, "what was typed is still there"

    path = own.path("evaluations", "suites", suite, "cases", "new/1")
    assert visitor.post(f"{path}/delete", path).status == 422
    assert "The case is deleted" in visitor.post(f"{path}/delete", path, confirm="true").text
    assert visitor.get(path).status == 404


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("{", "not valid JSON, line 1"),
        ("[]", "a case is a JSON object"),
        ('{"id": "boots-1", "question": " "}', "question: is empty"),
        ('{"id": "boots-1", "question": "x", "must": [{"fact": "a", "text": "b"}]}', "exactly one of fact, document"),
        ('{"id": "other", "question": "x"}', "an id does not change"),
    ],
)
def test_a_case_that_is_wrong_as_json_says_where_and_is_still_there(
    own: Dashboard, visitor: Visitor, suite: str, content: str, problem: str
) -> None:
    put(own, suite, CASE)
    path = own.path("evaluations", "suites", suite, "cases", "boots-1", "edit")
    fields = dict(fields_of(visitor.get(path), 2))

    page = send(visitor, path, [*{**fields, "content": content}.items()])

    assert page.status == 422
    assert problem in text_of(page)
    assert content in html.unescape(page.text)
    good = json.dumps({**CASE, "question": "And now?"})
    assert "And now?" in send(visitor, path, [*{**fields, "content": good}.items()]).text
    late = send(visitor, path, [*{**fields, "content": json.dumps(CASE)}.items()])
    assert "someone has changed the case" in late.text, "the form was opened before"


def test_many_turns_are_kept_by_the_form(own: Dashboard, visitor: Visitor, suite: str) -> None:
    turns = [{"user": f"Sentence {number}."} for number in range(41)]
    put(own, suite, {**CASE, "given": {"turns": turns}, "must": [], "mustNot": [{"text": "x"}]})
    path = own.path("evaluations", "suites", suite, "cases", "boots-1", "edit")
    form = visitor.get(path)
    shown = visitor.get(own.path("evaluations", "suites", suite, "cases", "boots-1", left_out="3"))
    assert "the oldest 3 turns were left out" in shown.text
    assert "41 turns of earlier calls stay as they are" in form.text
    fields = [(name, "Changed?" if name == "question" else value) for name, value in fields_of(form, 1)]
    assert "Changed?" in send(visitor, path, fields).text
    assert own.client.ok("GET", f"{SUITES}/{suite}/cases/boots-1")["content"]["given"]["turns"] == turns


def test_a_suite_is_exported_and_imported(own: Dashboard, visitor: Visitor, suite: str) -> None:
    put(own, suite, CASE, {**CASE, "id": "two", "question": "Grüße, <b>wo</b>?"})
    here = own.path("evaluations", "suites", suite)
    export = visitor.get(f"{here}/export")
    assert export.headers["content-disposition"] == 'attachment; filename="suite.jsonl"'
    assert [json.loads(line)["id"] for line in export.text.splitlines()] == ["boots-1", "two"]

    shorter = json.dumps({**CASE, "id": "three"}).encode()
    assert "1 case imported" in visitor.post_files(f"{here}/import", here, {"s.jsonl": shorter}).text
    assert (
        "1 case imported" in visitor.post_files(f"{here}/import", here, {"s.jsonl": shorter}, replace_all="true").text
    )
    assert [case["caseId"] for case in own.client.ok("GET", f"{SUITES}/{suite}/cases")["cases"]] == ["three"]
    visitor.post_files(f"{here}/import", here, {"s.jsonl": export.text.encode()}, replace_all="true")
    assert visitor.get(f"{here}/export").text == export.text


@pytest.mark.parametrize(
    ("content", "problems"),
    [
        (b"", ["the file has no case"]),
        (
            b'{"id": "a"}\n\n{"id": "b", "question": "x", "<b>": 1}\nno',
            ["line 1: question: required", "line 3", "line 4"],
        ),
        (b"\xff\xfe", ["line 1"]),
        (
            b'{"id": "a", "question": "x"}\n{"id": "a", "question": "y"}',
            ["line 2: id: line 1 has a case with the same id"],
        ),
    ],
    ids=["empty", "invalid", "binary", "twice"],
)
def test_an_import_with_a_wrong_line_changes_nothing_and_names_it(
    own: Dashboard, visitor: Visitor, suite: str, content: bytes, problems: list[str]
) -> None:
    put(own, suite, CASE)
    here = own.path("evaluations", "suites", suite)
    page = visitor.post_files(f"{here}/import", here, {"suite.jsonl": content}, replace_all="true")
    assert page.status == 422
    assert "Nothing was imported" in page.text
    assert all(problem in text_of(page) for problem in problems), text_of(page)
    assert "<b>" not in page.text
    assert [case["caseId"] for case in own.client.ok("GET", f"{SUITES}/{suite}/cases")["cases"]] == ["boots-1"]


def test_an_import_of_too_many_cases_says_so(own: Dashboard, visitor: Visitor, suite: str) -> None:
    """More than any database takes as parameters of one statement."""
    put(own, suite, CASE)
    here = own.path("evaluations", "suites", suite)
    content = "".join(f'{{"id": "c{number}", "question": "x"}}\n' for number in range(70_000)).encode()
    page = visitor.post_files(f"{here}/import", here, {"suite.jsonl": content})
    assert page.status == 422
    assert "a suite can have at most 10,000 cases" in text_of(page)
    one_too_many = content[: content.index(b'{"id": "c10000"')]
    page = visitor.post_files(f"{here}/import", here, {"suite.jsonl": one_too_many})
    assert (page.status, "at most 10,000 cases" in text_of(page)) == (422, True), "with the one that is there"


def test_cases_are_found_by_their_words_page_by_page(own: Dashboard, visitor: Visitor, suite: str) -> None:
    cases = [{"id": f"case-{n}", "question": f"Question {n}?", "must": [{"text": "x"}]} for n in range(60)]
    put(own, suite, *cases, {**cases[0], "id": "grüße", "question": "Grüße?", "tags": ["50%"]})
    here = own.path("evaluations", "suites", suite)
    first = visitor.get(here)
    assert (first.text.count("Question 1?"), first.text.count("Question 59?")) == (1, 0)
    following = re.search(r'href="([^"]+cursor=[^"]+)" rel="next"', first.text)
    assert following
    assert "Question 59?" in visitor.get(html.unescape(following[1])).text
    for text, count in (("question case-7", 1), ("Grüße", 1), ("50%", 1), ("%", 1), ("nothing", 0)):
        found = visitor.get(own.path("evaluations", "suites", suite, q=text)).text
        assert found.count("/cases/") == count, text


@pytest.mark.parametrize("keeps_text", [False, True])
def test_a_turn_becomes_a_case_which_an_erasure_takes_unless_its_text_is_kept(
    dashboard: Dashboard, keeps_text: bool
) -> None:
    own = fill_project(dashboard.cloud, f"turn-{keeps_text}".lower())
    visitor = own.visitor()
    call = visitor.get(own.path("callers", own.user_id, "calls", "call-b"))
    path = own.path("callers", own.user_id, "calls", "call-b", "turns", "b-1", "case")
    assert f'href="{path}"' in call.text
    assert path in visitor.get(own.path("searches")).text
    form = visitor.get(path)
    assert "How long can I return the boots?" in form.text
    [document] = re.findall(r'name="hit_must" value="([^"]+)"', form.text)
    assert json.loads(html.unescape(document)) == {"document": "returns", "index": "faq"}

    fields = [("form_token", form.form_token), ("agent_id", own.client.identity["agent"]), ("suite_id", "")]
    nothing = send(visitor, path, [*fields, ("suite_name", "From calls")])
    assert "say what must be recalled" in text_of(nothing)
    both = [("hit_must", html.unescape(document)), ("hit_must_not", html.unescape(document))]
    assert "ticked as both" in text_of(send(visitor, path, [*fields, *both]))
    unnamed = send(visitor, path, [*fields, both[0]])
    assert "a name has 1 to 200 characters" in text_of(unnamed)
    assert 'must be recalled" checked' in unnamed.text, "what was ticked is still ticked"
    assert "No suites yet" in visitor.get(own.path("evaluations")).text
    extra = [("must_not_kind", "text"), ("must_not_value", "forever"), ("must_not_place", "")]
    chosen = [*fields, both[0], *extra, ("suite_name", "From calls"), ("case_id", "boots")]
    made = send(visitor, path, [*chosen, ("keep_text", str(keeps_text).lower())])

    assert made.status == 200, text_of(made)
    assert "How long can I return the boots?" in made.text
    assert ("a turn of caller/1" in text_of(made)) is not keeps_text
    case_path = made.path.partition("?")[0]
    assert "faq / returns" in text_of(made)
    assert "forever" in made.text
    erase = own.path("callers", own.user_id, "erase")
    assert visitor.post(erase, erase, confirmation=own.user_id).status == 200
    assert visitor.get(case_path).status == (200 if keeps_text else 404)
    assert ("boots" in visitor.get(case_path.rpartition("/cases/")[0]).text.lower()) is keeps_text


def test_a_turn_without_a_recorded_search_is_asked_again(own: Dashboard, visitor: Visitor) -> None:
    form = visitor.get(own.path("callers", own.user_id, "calls", "call-b", "turns", "b-2", "case"))
    assert "it was asked again" in form.text
    values = [json.loads(html.unescape(value)) for value in re.findall(r'name="hit_must" value="([^"]+)"', form.text)]
    assert any("Lisbon" in value.get("fact", "") for value in values), values
    for wrong in (("call-a", "b-2"), ("call-b", "nothing"), ("nothing", "b-2")):
        assert visitor.get(own.path("callers", own.user_id, "calls", wrong[0], "turns", wrong[1], "case")).status == 404


def test_words_of_cases_are_text_on_every_page(own: Dashboard, visitor: Visitor, suite: str) -> None:
    code = "</textarea><script>alert(1)</script>\"'><img src=x onerror=alert(1)>{{ 7 * 7 }}"
    wild = {
        "id": code[:40],
        "question": code,
        "given": {"profile": {"name": code}, "facts": [code], "turns": [{"user": code, "turnId": code[:60]}]},
        "talk": [{"user": code, "assistant": code}],
        "must": [{"fact": code}, {"document": code, "index": code}],
        "mustNot": [{"text": code}],
        "expectedAnswer": code,
        "filter": {"plan": code},
        "tags": [code[:60]],
        "notes": code,
    }  # fmt: skip
    put(own, suite, wild)
    here = ("evaluations", "suites", suite)
    own.client.ok("PATCH", f"{SUITES}/{suite}", {"name": code, "description": code})
    own.client.send(turn("wild-1", "wild", 2, code))
    pages = [("evaluations",), here, (*here, "cases", wild["id"]), (*here, "cases", wild["id"], "edit"), (*here, "new")]
    pages.append(("callers", own.user_id, "calls", "wild", "turns", "wild-1", "case"))
    for parts in pages:
        page = visitor.get(own.path(*parts))
        assert page.status == 200, parts
        assert "{{ 7 * 7 }}" in page.text or parts[-1] == "new"
        assert not re.search(r"<script>|<img|</textarea>&#34;", page.text), parts
    found = visitor.get(own.path(*here, q=code))
    assert "<script>" not in found.text


def test_reading_copies_of_calls_is_in_the_audit_log(dashboard: Dashboard) -> None:
    own = fill_project(dashboard.cloud, "audited-cases")
    suite = own.client.ok("POST", SUITES, {"name": "S"})["suiteId"]
    copy = {"userId": own.user_id, "sessionId": "call-b", "eventId": "b-1", "caseId": "c", "must": [{"text": "days"}]}
    own.client.ok("POST", f"{SUITES}/{suite}/cases/from-turn", copy)
    run_id = own.client.ok("POST", "/v1/voice-sdk/evaluations/runs", {"suiteId": suite})["runId"]
    own.cloud.run_tasks()
    here, run = ("evaluations", "suites", suite), ("evaluations", "runs", run_id)
    for parts in (
        here,
        (*here, "export"),
        (*here, "cases", "c"),
        (*here, "cases", "c", "edit"),
        run,
        (*run, "cases", "c"),
    ):
        key_id, key = make_key(own, KeyScope.READ)  # the same reading by the same key is recorded once an hour
        assert own.visitor(key).get(own.path(*parts)).status == 200
        entries = own.client.ok("GET", "/v1/voice-sdk/audit")["entries"]
        read = [(entry["action"], entry["userId"]) for entry in entries if entry["actorId"] == key_id]
        assert ("call.read", own.user_id) in read, parts


def test_reading_copies_of_several_calls_is_recorded_at_once(dashboard: Dashboard) -> None:
    """A suite may have copies of thousands of calls: not a transaction for each."""
    own = fill_project(dashboard.cloud, "audited-at-once")
    suite = own.client.ok("POST", SUITES, {"name": "S"})["suiteId"]
    for call in ("a", "b"):
        copy = {"userId": own.user_id, "sessionId": f"call-{call}", "eventId": f"{call}-1", "must": [{"text": "x"}]}
        own.client.ok("POST", f"{SUITES}/{suite}/cases/from-turn", {**copy, "caseId": call})
    written: list[str] = []

    def note(_c: Any, _r: Any, statement: str, *_: Any) -> None:
        if statement.startswith("INSERT INTO audit_entries"):
            written.append(statement)

    for page in ("", "/export"):
        key_id, key = make_key(own, KeyScope.READ)
        visitor = own.visitor(key)
        event.listen(own.cloud.services.engine, "before_cursor_execute", note)
        try:
            assert visitor.get(own.path("evaluations", "suites", suite) + page).status == 200
        finally:
            event.remove(own.cloud.services.engine, "before_cursor_execute", note)
        entries = own.client.ok("GET", "/v1/voice-sdk/audit")["entries"]
        assert {entry["target"] for entry in entries if entry["actorId"] == key_id} == {"call-a", "call-b"}
    assert len(written) == 2


def test_an_empty_project_says_what_to_do_first(dashboard: Dashboard) -> None:
    client = dashboard.cloud.account()
    visitor = dashboard.visitor(str(client.key))
    project = client.ok("POST", "/v1/projects", {"name": "Empty", "slug": "no-suites"})["id"]
    assert "memoair agent create" in visitor.get(f"/dashboard/p/{project}/evaluations").text
    client.ok("POST", f"/v1/projects/{project}/agents", {"name": "Shop", "agentType": "voice"})
    assert "Make this turn a case" in visitor.get(f"/dashboard/p/{project}/evaluations").text
