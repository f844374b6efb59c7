"""Who may see and change what: sessions, forms, scopes of keys, a proxy that authenticates, and other accounts."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest
import urllib3
from fastapi.routing import APIRoute
from sqlalchemy import update
from sqlalchemy.orm import Session
from support.clouds import Client, running, turn
from support.dashboards import Dashboard, Visitor, fill_project

from memoair_cloud.dashboard.router import PAGE_ROUTERS
from memoair_cloud.database.access_models import DashboardSession
from memoair_cloud.database.engine import WRITE_OPTION
from memoair_cloud.tenancy.grants import Grant, KeyScope
from memoair_protocol.timestamps import format_utc, utc_now

FORMS = [
    ("retry",),
    ("callers", "caller/1", "erase"),
    ("callers", "caller/1", "holds", "place"),
    ("callers", "caller/1", "holds", "lift"),
    ("callers", "caller/1", "facts", "{fact}", "correct"),
    ("callers", "caller/1", "facts", "{fact}", "undo"),
    ("callers", "caller/1", "facts", "{fact}", "delete"),
    ("documents", "faq", "delete"),
    ("documents", "faq", "document", "returns", "delete"),
    ("documents", "faq", "uploads"),
    ("documents", "faq", "uploads", "{upload}", "files"),
    ("documents", "faq", "uploads", "{upload}", "start"),
    ("documents", "faq", "uploads", "{upload}", "cancel"),
    ("evaluations", "suites"),
    ("evaluations", "suites", "{suite}", "rename"),
    ("evaluations", "suites", "{suite}", "delete"),
    ("evaluations", "suites", "{suite}", "import"),
    ("evaluations", "suites", "{suite}", "new"),
    ("evaluations", "suites", "{suite}", "cases", "{case}", "edit"),
    ("evaluations", "suites", "{suite}", "cases", "{case}", "delete"),
    ("callers", "caller/1", "calls", "call-b", "turns", "b-1", "case"),
    ("evaluations", "suites", "{suite}", "runs"),
    ("evaluations", "runs", "{run}", "cancel"),
    ("evaluations", "runs", "{run}", "delete"),
    ("evaluations", "document-sets"),
    ("evaluations", "document-sets", "{set}", "delete"),
    ("evaluations", "replays"),
    ("evaluations", "replays", "{replay}", "accept"),
    ("evaluations", "replays", "{replay}", "cancel"),
    ("evaluations", "replays", "{replay}", "delete"),
    ("prompts",),
    ("prompts", "1", "label"),
    ("prompts", "labels", "production", "move"),
    ("prompts", "labels", "production", "rollback"),
    ("prompts", "labels", "production", "remove"),
    ("outcomes", "upload"),
]
# A form that leads to another page, and changes nothing.
NAMING = ("documents",)
FIELDS = {"confirmation": "caller/1", "confirm": "true", "text": "Other.", "value": "x", "reason": "x"}
FIELDS |= {"label": "staging", "version": "1", "expected": "2"}
PAGES = [
    (),
    ("callers",),
    ("callers", "caller/1"),
    ("callers", "caller/1", "erase"),
    ("callers", "caller/1", "holds"),
    ("callers", "caller/1", "export"),
    ("callers", "caller/1", "facts", "{fact}"),
    ("callers", "caller/1", "calls", "call-b"),
    ("callers", "caller/1", "calls", "call-b", "again"),
    ("calls",),
    ("searches",),
    ("try",),
    ("audit",),
    ("documents",),
    ("documents", "faq"),
    ("documents", "faq", "document", "returns"),
    ("documents", "faq", "upload"),
    ("documents", "faq", "uploads", "{upload}"),
    ("evaluations",),
    ("evaluations", "suites", "{suite}"),
    ("evaluations", "suites", "{suite}", "export"),
    ("evaluations", "suites", "{suite}", "new"),
    ("evaluations", "suites", "{suite}", "cases", "{case}"),
    ("evaluations", "suites", "{suite}", "cases", "{case}", "edit"),
    ("callers", "caller/1", "calls", "call-b", "turns", "b-1", "case"),
    ("evaluations", "suites", "{suite}", "run"),
    ("evaluations", "runs", "{run}"),
    ("evaluations", "runs", "{run}", "cases", "{case}"),
    ("evaluations", "runs", "{run}", "comparison"),
    ("evaluations", "runs", "{run}", "comparison", "{case}"),
    ("evaluations", "document-sets"),
    ("evaluations", "replays"),
    ("evaluations", "replays", "new"),
    ("evaluations", "replays", "{replay}"),
    ("prompts",),
    ("prompts", "new"),
    ("prompts", "compare"),
    ("prompts", "1"),
    ("prompts", "labels", "production"),
    ("outcomes",),
    ("outcomes", "upload"),
    ("prompt-figures",),
]
# What a page needs in its address.
QUERIES = {"again": {"turn": "b-1"}, "compare": {"old": "1", "new": "production"}}
SUITES = "/v1/voice-sdk/evaluations/suites"
RUNS = "/v1/voice-sdk/evaluations/runs"


def fill(parts: tuple[str, ...], dashboard: Dashboard) -> tuple[str, ...]:
    ids = {}
    if "{fact}" in parts:
        ids["{fact}"] = dashboard.client.memories()[0]["memoryId"]
    if "{upload}" in parts:
        path = "/v1/voice-sdk/index/faq/uploads"
        known = dashboard.client.ok("GET", path)["uploads"]
        ids["{upload}"] = (known[0] if known else dashboard.client.ok("POST", path, {}))["uploadId"]
    if parts[:1] == ("evaluations",):
        ids |= fill_evaluations(dashboard)
    return tuple(ids.get(part, part) for part in parts)


@lru_cache(maxsize=1)
def fill_evaluations(dashboard: Dashboard) -> dict[str, str]:
    """Return the ids of a suite with a case, of its latest run, and of a document set; make them once."""
    client, root = dashboard.client, "/v1/voice-sdk/evaluations"
    suites = client.ok("GET", f"{SUITES}?name=access")["suites"]
    if not suites:
        suites = [client.ok("POST", SUITES, {"name": "access"})]
        case = {"id": "one", "question": "Late?", "must": [{"text": "x"}]}
        client.ok("PUT", f"{SUITES}/{suites[0]['suiteId']}/cases", {"cases": [case]})
        client.ok("POST", f"{root}/document-sets", {"name": "access", "copyPresent": True})
        for _ in range(2):
            client.ok("POST", f"{root}/runs", {"suiteId": suites[0]["suiteId"]})
            dashboard.cloud.run_tasks()
    suite = suites[0]["suiteId"]
    run = client.ok("GET", f"{root}/runs?suite={suite}&limit=1")["runs"][0]["runId"]
    set_id = client.ok("GET", f"{root}/document-sets?limit=1")["documentSets"][0]["setId"]
    return {"{suite}": suite, "{case}": "one", "{run}": run, "{set}": set_id, "{replay}": find_replay(dashboard)}


def find_replay(dashboard: Dashboard) -> str:
    """Return the id of a replay that is over."""
    found = dashboard.client.ok("GET", f"{RUNS}?kind=replay")["runs"]
    if not found:
        period = {"from": format_utc(utc_now() - timedelta(days=1)), "to": format_utc(utc_now())}
        body = {"candidate": {"recall": {"lanes": ["org"]}}, **period}
        found = [dashboard.client.ok("POST", "/v1/voice-sdk/evaluations/replays", body)]
        dashboard.cloud.run_tasks()
    return str(found[0]["runId"])


def fields_of(parts: tuple[str, ...], token: str) -> dict[str, str] | tuple[bytes, str]:
    """Return what a form sends, complete, so that nothing but its sender is wrong."""
    if parts[-1] in ("uploads", "files", "import"):
        file = ("notes.txt", b"Boots.", "text/plain")
        return urllib3.encode_multipart_formdata([("form_token", token), ("files", file)])
    confirmation = {"documents": "faq"}.get(parts[0], "caller/1")
    return {"form_token": token, **FIELDS, "confirmation": confirmation}


def read_state(dashboard: Dashboard, parts: tuple[str, ...]) -> list[Any]:
    """Return what a form could change."""
    agent = dashboard.client
    if parts[-1] == "case" or parts[0] == "evaluations":
        suites = agent.ok("GET", SUITES)["suites"]
        cases = [agent.ok("GET", f"{SUITES}/{suite['suiteId']}/cases")["cases"] for suite in suites]
        others = [agent.ok("GET", f"/v1/voice-sdk/evaluations/{name}") for name in ("runs", "document-sets")]
        return [suites, cases, others]
    labels = agent.ok("GET", "/v1/voice-sdk/prompt-labels")
    return [agent.memories(), labels, agent.ok("GET", "/v1/voice-sdk/prompts")]


def make_key(dashboard: Dashboard, scope: KeyScope, project_id: str | None = None) -> tuple[str, str]:
    """Return the id and the key of a new key of the account."""
    accounts = dashboard.cloud.accounts
    account_id = next(
        known.account_id for known in accounts.list_keys() if str(dashboard.client.key).startswith(known.hint)
    )
    issued = accounts.issue_key(account_id, "scoped", Grant(scope, project_id))
    return issued.key_id, issued.key


def forge(token: str) -> str:
    """Return a token with another signature. Its first character: some bits of the last one do not matter."""
    text, _, signature = token.rpartition(".")
    return f"{text}.{'B' if signature[0] == 'A' else 'A'}{signature[1:]}"


@contextmanager
def running_again(shared: Dashboard, **settings: Any) -> Iterator[str]:
    """Run another server on the same database, and yield its URL."""
    url = shared.cloud.services.engine.url
    folder = Path(str(url.database)).parent
    with running(url.render_as_string(hide_password=False), folder, **settings) as cloud:
        yield cloud.url


@pytest.fixture(scope="module")
def owner(dashboard: Dashboard) -> Visitor:
    return dashboard.visitor()


@pytest.fixture(scope="module")
def reader(dashboard: Dashboard) -> Visitor:
    return dashboard.visitor(make_key(dashboard, KeyScope.READ)[1])


@pytest.fixture(scope="module")
def stranger(dashboard: Dashboard) -> Visitor:
    return dashboard.visitor(dashboard.cloud.tenant("stranger").key)


def test_the_matrices_of_pages_and_forms_are_complete() -> None:
    routes = {
        (method, route.path.removeprefix("/p/{project_id}"))
        for router in PAGE_ROUTERS
        for route in router.routes
        if isinstance(route, APIRoute)
        for method in route.methods
        if "{project_id}" in route.path
    }
    names = {"{user_id}": "caller%1", "{session_id}": "call-b", "{memory_id}": "{fact}"}
    names |= {"{suite_id}": "{suite}", "{case_id}": "{case}", "{event_id}": "b-1"}
    names |= {"{run_id}": "{run}", "{set_id}": "{set}", "{replay_id}": "{replay}"}
    names |= {"{name}": "faq", "{document_id}": "returns", "{upload_id}": "{upload}"}
    names |= {"{version}": "1", "{label}": "production"}
    found = set()
    for method, path in routes:
        for name, value in names.items():
            path = path.replace(name, value)
        found.add((method, path))
    listed = {("GET", parts) for parts in PAGES} | {("POST", parts) for parts in (*FORMS, NAMING)}
    assert found == {(method, "".join(f"/{part.replace('/', '%')}" for part in parts)) for method, parts in listed}


def test_a_page_that_was_sent_to_a_colleague_survives_their_signing_in(dashboard: Dashboard) -> None:
    visitor = Visitor(dashboard.cloud.url)
    page = visitor.request("GET", dashboard.path("callers", "caller/1", tz="Asia/Tokyo"))
    assert page.status == 303
    form = visitor.get(page.headers["location"])
    next_path = re.search(r'name="next" value="([^"]+)"', form.text)
    assert next_path

    shown = visitor.sign_in(str(dashboard.client.key), next_path[1].replace("&amp;", "&"))

    assert "Ana Sousa" in shown.text
    assert "JST" in shown.text


@pytest.mark.parametrize("address", ["https://evil.example/", "//evil.example", "/\\evil.example", "/v1/projects", ""])
def test_signing_in_leads_to_no_other_place_than_the_dashboard(dashboard: Dashboard, address: str) -> None:
    visitor = Visitor(dashboard.cloud.url)
    token = visitor.get("/dashboard/sign-in").form_token
    fields = {"form_token": token, "key": str(dashboard.client.key), "next": address}
    page = visitor.request("POST", "/dashboard/sign-in", fields)
    assert (page.status, page.headers["location"]) == (303, "/dashboard")


def test_the_cookie_is_out_of_reach_of_scripts_and_holds_no_key(dashboard: Dashboard) -> None:
    visitor = Visitor(dashboard.cloud.url)
    token = visitor.get("/dashboard/sign-in").form_token
    page = visitor.request(
        "POST", "/dashboard/sign-in", {"form_token": token, "key": str(dashboard.client.key), "next": "/dashboard"}
    )
    [cookie] = [line for line in page.headers.getlist("set-cookie") if line.startswith("memoair_session=")]
    assert "HttpOnly" in cookie
    assert "SameSite=lax" in cookie
    assert "Path=/dashboard" in cookie
    assert "memoair_pk_" not in cookie


def test_a_wrong_key_is_refused_and_attempts_are_throttled(dashboard: Dashboard) -> None:
    with running_again(dashboard) as other:
        visitor = Visitor(other)
        pages = [visitor.post("/dashboard/sign-in", "/dashboard/sign-in", key="memoair_pk_x") for _ in range(11)]
    assert {page.status for page in pages[:10]} == {401}
    assert pages[-1].status == 429
    assert "Wait" in pages[-1].text
    assert not any("memoair_pk_x" in page.text for page in pages)


@pytest.mark.parametrize("fault", ["none", "forged", "signed out", "revoked", "idle", "old"])
def test_without_a_session_that_counts_there_is_only_the_page_to_sign_in(dashboard: Dashboard, fault: str) -> None:
    key_id, key = make_key(dashboard, KeyScope.EVERYTHING)
    visitor = dashboard.visitor(key)
    assert visitor.request("GET", dashboard.path()).status == 200
    if fault == "none":
        visitor.cookies.clear()
    elif fault == "forged":
        head, _, tail = visitor.cookies["memoair_session"].partition(".")
        visitor.cookies["memoair_session"] = f"{head[:-1]}{'A' if head[-1] != 'A' else 'B'}.{tail}"
    elif fault == "signed out":
        cookies = dict(visitor.cookies)
        visitor.post("/dashboard/sign-out", dashboard.path())
        visitor.cookies = cookies  # the cookie, which someone has copied
    elif fault == "revoked":
        dashboard.cloud.accounts.revoke_key(key_id)
    else:
        age = timedelta(hours=2) if fault == "idle" else timedelta(hours=13)
        column = "seen_at" if fault == "idle" else "created_at"
        with Session(dashboard.cloud.services.engine.execution_options(**{WRITE_OPTION: True})) as session:
            row = session.query(DashboardSession).filter_by(key_id=key_id).one()
            statement = update(DashboardSession).where(DashboardSession.key_id == key_id)
            session.execute(statement.values({column: getattr(row, column) - age}))
            session.commit()

    for parts in PAGES:
        page = visitor.request("GET", dashboard.path(*fill(parts, dashboard)))
        assert page.status == 303, parts
        assert page.headers["location"].startswith("/dashboard/sign-in?next=%2Fdashboard"), parts
        assert page.text == ""
    assert visitor.request("GET", dashboard.path(), HX_Request="true").headers["hx-redirect"]


FAULTS = ("missing", "forged", "of another person", "other site")
# All routes share one check: one fault shows that a route has it.
FAULTY_FORMS = [
    (fault, parts) for fault in FAULTS for parts in FORMS if fault == "missing" or parts[0] != "evaluations"
]


@pytest.mark.parametrize(
    ("fault", "parts"), FAULTY_FORMS, ids=lambda value: value if isinstance(value, str) else "/".join(value)
)
def test_a_form_that_is_not_of_this_person_changes_nothing(
    dashboard: Dashboard, owner: Visitor, reader: Visitor, parts: tuple[str, ...], fault: str
) -> None:
    path = dashboard.path(*fill(parts, dashboard))
    own_token = owner.get("/dashboard/projects").form_token
    token = {
        "missing": "",
        "forged": forge(own_token),
        "of another person": reader.get("/dashboard/projects").form_token,
        "other site": own_token,
    }[fault]
    before = read_state(dashboard, parts)

    headers = {"Sec_Fetch_Site": "cross-site"} if fault == "other site" else {}
    fields = fields_of(parts, token)
    page = owner.request("POST", path, fields, **headers)

    assert page.status == 403
    assert "Other." not in page.text
    assert read_state(dashboard, parts) == before


@pytest.mark.parametrize("parts", PAGES, ids="/".join)
def test_a_key_that_may_only_read_sees_all_pages_without_forms_to_change_anything(
    dashboard: Dashboard, reader: Visitor, parts: tuple[str, ...]
) -> None:
    query = QUERIES.get("".join(parts[-1:]), {})
    page = reader.get(dashboard.path(*fill(parts, dashboard), **query))
    assert page.status == 200
    if parts[-1:] != ("export",):  # a file
        assert page.text.count('method="post"') == 1, "only to sign out"


@pytest.mark.parametrize("parts", FORMS, ids="/".join)
def test_a_key_that_may_only_read_changes_nothing(
    dashboard: Dashboard, reader: Visitor, parts: tuple[str, ...]
) -> None:
    path = dashboard.path(*fill(parts, dashboard))  # makes what it names
    before = read_state(dashboard, parts)
    token = reader.get("/dashboard/projects").form_token
    fields = fields_of(parts, token)

    page = reader.request("POST", path, fields)

    assert page.status == 403
    assert "which does not allow this" in page.text
    assert read_state(dashboard, parts) == before


def test_a_key_that_only_sends_calls_may_not_sign_in_nor_read(dashboard: Dashboard) -> None:
    key = make_key(dashboard, KeyScope.INGEST)[1]
    page = Visitor(dashboard.cloud.url).sign_in(key)
    assert page.status == 403
    client = Client(dashboard.cloud.url, key, **dashboard.client.identity)
    assert client.send(turn("sent", "sent-by-a-machine"))["accepted"] == ["sent"]
    for path in ("/v1/projects", "/v1/voice-sdk/users", "/v1/voice-sdk/bootstrap", "/v1/voice-sdk/audit"):
        assert client.error_of("GET", path) == (403, "cloud.forbidden"), path
    assert client.error_of("DELETE", client.path) == (403, "cloud.forbidden")
    client.close()


def test_a_key_for_one_project_reaches_no_other(dashboard: Dashboard) -> None:
    account = Client(dashboard.cloud.url, dashboard.client.key)
    other = account.ok("POST", "/v1/projects", {"name": "Other", "slug": "other-of-scopes"})["id"]
    key = make_key(dashboard, KeyScope.EVERYTHING, dashboard.project_id)[1]
    client = Client(dashboard.cloud.url, key, **dashboard.client.identity)

    assert [row["id"] for row in client.ok("GET", "/v1/projects")["projects"]] == [dashboard.project_id]
    assert client.error_of("POST", "/v1/projects", {"name": "New", "slug": "new"}) == (403, "cloud.forbidden")
    assert client.error_of("GET", f"/v1/projects/{other}") == (403, "cloud.forbidden")
    elsewhere = client.with_identity(project=other, agent="", user="x")
    assert elsewhere.with_identity().error_of("GET", "/v1/voice-sdk/users")[0] in (403, 422)
    visitor = dashboard.visitor(key)
    assert other not in visitor.get("/dashboard/projects").text
    assert visitor.get(f"/dashboard/p/{other}").status == 403
    assert visitor.get(dashboard.path("callers")).status == 200
    for one in (account, client, elsewhere):
        one.close()


@pytest.mark.parametrize("parts", [*PAGES, *FORMS], ids="/".join)
def test_another_account_can_see_and_change_nothing(
    dashboard: Dashboard, stranger: Visitor, parts: tuple[str, ...]
) -> None:
    path, before = dashboard.path(*fill(parts, dashboard)), read_state(dashboard, parts or ("",))
    unknown = path.replace(dashboard.project_id, "proj_of_nobody")
    if parts in FORMS:
        token = stranger.get("/dashboard/projects").form_token
        fields = {"form_token": token, **FIELDS}
        pages = [stranger.request("POST", address, fields) for address in (path, unknown)]
    else:
        pages = [stranger.request("GET", address) for address in (path, unknown)]
    assert [page.status for page in pages] == [404, 404]
    texts = [re.sub(r'name="form_token" value="[^"]+"', "", page.text) for page in pages]
    assert texts[0] == texts[1], "what exists elsewhere looks like what exists nowhere"
    assert read_state(dashboard, parts or ("",)) == before


def test_sessions_count_on_all_servers_of_a_database(dashboard: Dashboard) -> None:
    visitor = dashboard.visitor()
    with running_again(dashboard) as url:
        visitor.url = url
        assert visitor.request("GET", dashboard.path()).status == 200


def test_a_proxy_is_trusted_only_if_the_settings_say_so(dashboard: Dashboard) -> None:
    account_id = next(
        known.account_id
        for known in dashboard.cloud.accounts.list_keys()
        if str(dashboard.client.key).startswith(known.hint)
    )
    named = {"X-Forwarded-User": "dana@example.com"}
    assert Visitor(dashboard.cloud.url, **named).request("GET", dashboard.path()).status == 303

    settings = {"dashboard_proxy_header": "X-Forwarded-User", "dashboard_proxy_account": account_id}
    with running_again(dashboard, dashboard_proxy_addresses="10.0.0.0/8", **settings) as url:
        assert Visitor(url, **named).request("GET", dashboard.path()).status == 303, "not from a trusted address"
    with running_again(
        dashboard, dashboard_proxy_addresses="127.0.0.1", dashboard_proxy_scope="read", **settings
    ) as url:
        assert Visitor(url).request("GET", dashboard.path()).status == 303, "the proxy named nobody"
        visitor = Visitor(url, **named)
        shown = visitor.get(dashboard.path("callers", "caller/1"))
        assert "dana@example.com" in shown.text
        assert "read only" in shown.text
        assert "Sign out" not in shown.text
        assert "dana@example.com" in visitor.get(dashboard.path("audit")).text
        secure = Visitor(url, **{"X-Forwarded-Proto": "https"}).request("GET", "/dashboard/sign-in")
        assert "Secure" in secure.headers["set-cookie"]
    assert (
        "Secure"
        not in Visitor(dashboard.cloud.url, **{"X-Forwarded-Proto": "https"})
        .request("GET", "/dashboard/sign-in")
        .headers["set-cookie"]
    )


def test_without_the_dashboard_there_is_no_page(dashboard: Dashboard) -> None:
    with running_again(dashboard, dashboard=False) as url:
        assert Visitor(url).request("GET", "/dashboard").status == 404
        assert Visitor(url).request("GET", "/docs").status == 200


def test_reading_and_changing_a_caller_is_in_the_audit_log_with_who_did_it(dashboard: Dashboard) -> None:
    own = fill_project(dashboard.cloud, "audited")
    key_id, key = make_key(own, KeyScope.READ)
    visitor = own.visitor(key)
    for _ in range(3):
        visitor.get(own.path("callers", own.user_id))
    visitor.get(own.path("callers", own.user_id, "calls", "call-b"))
    own.client.ok("GET", f"{own.client.path}/sessions")

    entries = own.client.ok("GET", "/v1/voice-sdk/audit")["entries"]

    by_key = [(entry["action"], entry["target"]) for entry in entries if entry["actorId"] == key_id]
    assert sorted(by_key, key=str) == [("call.read", "call-b"), ("caller.read", None)], "each once"
    assert {entry["userId"] for entry in entries if entry["agentId"] is None} == {own.user_id}
    assert any(entry["action"] == "caller.read" and entry["actorId"] != key_id for entry in entries)
