"""Tenant isolation: on every route, one account can neither see, change nor detect another's resources."""

import json
from collections.abc import Callable
from datetime import date
from typing import Any

import attrs
import pytest
from sqlalchemy import delete, insert, select, text, update
from sqlalchemy.orm import Session, aliased
from support.clouds import Client, RunningCloud, files_body, recall_trace, session_end, session_start, turn
from support.waiting import eventually

from memoair_cloud.consolidation import Extraction, ModelUsage
from memoair_cloud.database.base import Base
from memoair_cloud.database.models import Account, Agent, ApiKey, Project
from memoair_cloud.errors import NotFoundError
from memoair_cloud.evaluation.run_claims import claim_run
from memoair_cloud.evaluation.run_worker import RUN_KINDS, begin_run
from memoair_cloud.memories.model_usage import ModelAccounting
from memoair_cloud.tenancy.access import Tenant, authenticate, find_project_tenant
from memoair_cloud.tenancy.scoped import OutOfScopeError, Scope

INDEX = {"name": "faq", "documents": [{"id": "d", "text": "Boots can be returned."}]}
HOLD = {"reason": "case 12"}
FILES = files_body({"a.txt": b"Boots can be returned."})
AGENT = {"name": "Returns", "agentType": "voice"}
CASE = {"id": "given", "question": "Can I return the boots?"}
TURN = {"userId": "caller", "sessionId": "call-1", "eventId": "said"}
PERIOD = {"from": "2026-03-01T00:00:00Z", "to": "2026-03-08T00:00:00Z"}
DOCUMENT = {"indexName": "faq", "id": "d", "text": "Boots can be returned."}
EVALUATION_ROUTES: list[tuple[str, str, Any]] = [
    ("POST", "/suites", {"name": "exchanges"}),
    ("GET", "/suites", None),
    ("GET", "/suites/{suite}", None),
    ("PATCH", "/suites/{suite}", {"description": "Returns"}),
    ("PUT", "/suites/{suite}/cases", {"cases": [CASE]}),
    ("GET", "/suites/{suite}/cases", None),
    ("POST", "/suites/{suite}/cases/from-turn", TURN),
    ("PUT", "/suites/{suite}/cases/copied", {**CASE, "id": "copied"}),
    ("GET", "/suites/{suite}/cases/copied", None),
    ("POST", "/document-sets", {"name": "new"}),
    ("GET", "/document-sets", None),
    ("GET", "/document-sets/{set}", None),
    ("POST", "/document-sets/{set}/documents", {"documents": [DOCUMENT]}),
    ("POST", "/document-sets/{set}/complete", None),
    ("POST", "/replays", {"candidate": {"recall": {"lanes": ["org"]}}, **PERIOD}),
    ("GET", "/runs/{replay}/changes", None),
    ("GET", "/runs/{replay}/changes/question-1", None),
    ("POST", "/runs/{replay}/changes/accept", {"suiteId": "{suite}", "caseIds": ["question-1"]}),
    ("POST", "/runs", {"suiteId": "{suite}"}),
    ("GET", "/runs", None),
    ("GET", "/runs/{run}", None),
    ("GET", "/runs/{run}/results", None),
    ("GET", "/runs/{run}/results/copied", None),
    ("GET", "/runs/{run}/comparison", None),
    ("DELETE", "/runs/{run}", None),
    ("DELETE", "/document-sets/{set}", None),
    ("DELETE", "/suites/{suite}/cases/copied", None),
    ("DELETE", "/suites/{suite}", None),
]
# Every route under /v1 with ids, which are those of A's resources, and a valid body.
ROUTES: dict[tuple[str, str], Any] = {
    ("GET", "/v1/projects/{project}"): None,
    ("PATCH", "/v1/projects/{project}"): {"excludedKinds": ["phone"]},
    ("GET", "/v1/projects/{project}/agents"): None,
    ("GET", "/v1/projects/{project}/agents/{agent}"): None,
    ("POST", "/v1/projects/{project}/agents"): AGENT,
    ("POST", "/v1/voice-sdk/index/create"): INDEX,
    ("GET", "/v1/voice-sdk/index/list"): None,
    ("GET", "/v1/voice-sdk/index/faq"): None,
    ("GET", "/v1/voice-sdk/index/faq/documents"): None,
    ("GET", "/v1/voice-sdk/index/faq/documents/d"): None,
    ("GET", "/v1/voice-sdk/index/faq/documents/d/searches"): None,
    ("GET", "/v1/voice-sdk/index/faq/uploads"): None,
    ("GET", "/v1/voice-sdk/index/faq/uploads/{upload}"): None,
    ("POST", "/v1/voice-sdk/index/faq/uploads/{upload}/files"): FILES,
    ("GET", "/v1/voice-sdk/index/faq/uploads/{upload}/files"): None,
    ("POST", "/v1/voice-sdk/index/faq/uploads/{upload}/start"): {},
    ("GET", "/v1/voice-sdk/index/faq/uploads/{upload}/changes"): None,
    ("DELETE", "/v1/voice-sdk/index/faq/uploads/{upload}"): None,
    ("POST", "/v1/voice-sdk/index/faq/uploads"): {},
    ("DELETE", "/v1/voice-sdk/index/faq/documents/d"): None,
    ("DELETE", "/v1/voice-sdk/index/faq"): None,
    ("POST", "/v1/voice-sdk/events"): {"events": [turn("intruder")]},
    ("POST", "/v1/voice-sdk/recall-traces"): {"traces": [recall_trace("intruder")]},
    ("GET", "/v1/voice-sdk/recall-traces/searched"): None,
    ("POST", "/v1/voice-sdk/outcomes"): {"outcomes": [{"sessionId": "call-1", "outcome": "intruder"}]},
    ("GET", "/v1/voice-sdk/outcomes"): None,
    ("GET", "/v1/voice-sdk/analytics/prompts"): None,
    ("GET", "/v1/voice-sdk/analytics/prompts/comparison?before=1&after=2"): None,
    **{(method, f"/v1/voice-sdk/evaluations{path}"): body for method, path, body in EVALUATION_ROUTES},
    ("GET", "/v1/voice-sdk/bootstrap"): None,
    ("GET", "/v1/voice-sdk/projections/org"): None,
    ("GET", "/v1/voice-sdk/projections/org/file/{file}"): None,
    ("GET", "/v1/voice-sdk/projections/profile"): None,
    ("GET", "/v1/voice-sdk/projections/permanent"): None,
    ("GET", "/v1/voice-sdk/projections/forgotten"): None,
    ("POST", "/v1/voice-sdk/erasures"): {"users": [{"digest": "0" * 64, "forgottenAt": "2026-03-02T09:30:00Z"}]},
    ("GET", "/v1/voice-sdk/users"): None,
    ("GET", "/v1/voice-sdk/users/caller/memories"): None,
    ("GET", "/v1/voice-sdk/users/caller/memories/{memory}"): None,
    ("GET", "/v1/voice-sdk/users/caller/memories/{memory}/history"): None,
    ("PATCH", "/v1/voice-sdk/users/caller/memories/{memory}"): {"text": "Caller lives in Rome."},
    ("POST", "/v1/voice-sdk/users/caller/memories/{memory}/undo"): None,
    ("DELETE", "/v1/voice-sdk/users/caller/memories/{memory}"): None,
    ("GET", "/v1/voice-sdk/users/caller/sessions"): None,
    ("GET", "/v1/voice-sdk/sessions"): None,
    ("GET", "/v1/voice-sdk/sessions/call-1"): None,
    ("GET", "/v1/voice-sdk/sessions/call-1/events"): None,
    ("GET", "/v1/voice-sdk/sessions/call-1/recall-traces"): None,
    ("GET", "/v1/voice-sdk/projections/retention"): None,
    ("POST", "/v1/projects/{project}/retention/preview"): {"turnsDays": 1},
    ("POST", "/v1/projects/{project}/holds"): HOLD,
    ("GET", "/v1/projects/{project}/holds"): None,
    ("POST", "/v1/projects/{project}/holds/lift"): HOLD,
    ("GET", "/v1/voice-sdk/users/caller"): None,
    ("GET", "/v1/voice-sdk/users/caller/export"): None,
    ("POST", "/v1/voice-sdk/users/caller/holds"): HOLD,
    ("GET", "/v1/voice-sdk/users/caller/holds"): None,
    ("POST", "/v1/voice-sdk/users/caller/holds/lift"): HOLD,
    ("GET", "/v1/voice-sdk/erasures/{receipt}"): None,
    ("DELETE", "/v1/voice-sdk/users/caller"): None,
    ("GET", "/v1/voice-sdk/audit"): None,
    ("GET", "/v1/voice-sdk/prompts"): None,
    ("POST", "/v1/voice-sdk/prompts"): {"text": "Be brief."},
    ("GET", "/v1/voice-sdk/prompts/1"): None,
    ("GET", "/v1/voice-sdk/prompts/1/diff"): None,
    ("GET", "/v1/voice-sdk/prompt-labels"): None,
    ("GET", "/v1/voice-sdk/prompt-labels/production"): None,
    ("PUT", "/v1/voice-sdk/prompt-labels/production"): {"version": 1},
    ("GET", "/v1/voice-sdk/prompt-labels/production/moves"): None,
    ("POST", "/v1/voice-sdk/prompt-labels/production/rollback"): None,
    ("DELETE", "/v1/voice-sdk/prompt-labels/production"): None,
    # Last, because the routes above need them.
    ("DELETE", "/v1/projects/{project}/agents/{agent}"): None,
    ("DELETE", "/v1/projects/{project}"): None,
}
# In B's own project, these routes contain no id of A's resources.
WITHOUT_IDS = {
    "/v1/voice-sdk/index/create",
    "/v1/voice-sdk/index/list",
    "/v1/voice-sdk/index/faq/uploads",
    "/v1/voice-sdk/events",
    "/v1/voice-sdk/recall-traces",
    "/v1/voice-sdk/outcomes",
    "/v1/voice-sdk/analytics/prompts",
    "/v1/voice-sdk/analytics/prompts/comparison?before=1&after=2",
    "/v1/voice-sdk/bootstrap",
    "/v1/voice-sdk/projections/org",
    "/v1/voice-sdk/projections/profile",
    "/v1/voice-sdk/projections/permanent",
    "/v1/voice-sdk/projections/forgotten",
    "/v1/voice-sdk/projections/retention",
    "/v1/voice-sdk/erasures",
    "/v1/voice-sdk/users",
    "/v1/voice-sdk/sessions",
    "/v1/voice-sdk/users/caller",
    "/v1/voice-sdk/audit",
    "/v1/voice-sdk/prompts",
    "/v1/voice-sdk/prompt-labels",
    "/v1/voice-sdk/evaluations/suites",
    "/v1/voice-sdk/evaluations/document-sets",
    "/v1/voice-sdk/evaluations/runs",
    "/v1/voice-sdk/evaluations/replays",
}
# But these do: an id of A's caller, and of A's suite in the body.
WITH_IDS = {("GET", "/v1/voice-sdk/users/caller"), ("POST", "/v1/voice-sdk/evaluations/runs")}
ROUTE_IDS = [f"{method} {path}" for method, path in ROUTES]


@attrs.frozen
class TwoAccounts:
    a: Client
    b: Client
    dump: Callable[[], dict[str, list[Any]]]
    ids: dict[str, str]  # of A's resources

    def path(self, route: str) -> str:
        """Return a route with the ids of A's resources."""
        return route.format(project=self.a.identity["project"], **self.ids)

    def body(self, body: Any) -> Any:
        """Return a body with the id of A's suite."""
        return json.loads(json.dumps(body).replace("{suite}", self.ids["suite"])) if isinstance(body, dict) else body


@pytest.fixture(scope="module")
def two(cloud: RunningCloud) -> TwoAccounts:
    """Return two accounts for tests that must not change them."""
    return make_two_accounts(cloud)


def make_two_accounts(cloud: RunningCloud) -> TwoAccounts:
    """Create an account with one resource of each kind, and another with only a project and an agent."""
    a, b = cloud.tenant("acme").with_identity(user="caller"), cloud.tenant("acme").with_identity(user="caller")
    a.send(session_start("start"), turn("said", said="I live in Lisbon."), session_end("end"))
    a.send_traces(recall_trace("searched"))
    for prompt in ("Be polite.", "Be polite and brief."):
        a.ok("POST", "/v1/voice-sdk/prompts", {"text": prompt, "labels": ["production"]})
    a.ok("POST", "/v1/voice-sdk/outcomes", {"outcomes": [{"sessionId": "call-1", "outcome": "resolved", "score": 1}]})
    a.ok("POST", "/v1/voice-sdk/index/create", INDEX)
    uploads = {}
    for index in ("faq", "site"):
        uploads[index] = a.ok("POST", f"/v1/voice-sdk/index/{index}/uploads", {})["uploadId"]
        a.ok("POST", f"/v1/voice-sdk/index/{index}/uploads/{uploads[index]}/files", FILES)
    a.ok("POST", f"/v1/voice-sdk/index/site/uploads/{uploads['site']}/start", {"dryRun": True})
    erased = a.with_identity(user="somebody")
    erased.send(turn("said"))
    receipt = a.ok("DELETE", erased.path)["digest"]
    for step in ("holds", "holds/lift"):
        a.ok("POST", f"{a.path}/{step}", HOLD)
    ids = {"agent": a.identity["agent"], "upload": uploads["faq"], "receipt": receipt}
    cloud.run_tasks()
    tenant = find_project_tenant(cloud.services.engine, a.identity["project"])
    assert tenant is not None
    ids |= make_evaluations(cloud, a, tenant)
    ModelAccounting().record(tenant, Extraction((), "chat", usage=ModelUsage()), date(2026, 3, 2))
    [memory] = a.memories()
    ids |= {"memory": memory["memoryId"], "file": a.ok("GET", "/v1/voice-sdk/bootstrap")["orgFile"]["sha256"]}
    a.ok("PATCH", f"{a.path}/memories/{ids['memory']}", {"text": "Ana lives in Oslo."})

    def dump() -> dict[str, list[Any]]:
        found = {}
        with cloud.services.engine.connect() as connection:
            for table in Base.metadata.sorted_tables:
                if "project_id" in table.c and table.name != "api_keys":  # a key may be for one project
                    is_of_project = table.c.project_id == a.identity["project"]
                elif table.name == "projects":
                    is_of_project = table.c.id == a.identity["project"]
                else:
                    continue
                found[table.name] = sorted(map(repr, connection.execute(select(table).where(is_of_project))))
        return found

    assert all(rows for name, rows in dump().items())
    return TwoAccounts(a, b, dump, ids)


def make_evaluations(cloud: RunningCloud, client: Client, tenant: Tenant) -> dict[str, str]:
    """Create a suite with two cases, runs, one of them in progress, a replay and a document set; return their ids."""
    root = "/v1/voice-sdk/evaluations"
    suite = client.ok("POST", f"{root}/suites", {"name": "returns"})["suiteId"]
    client.ok("PUT", f"{root}/suites/{suite}/cases", {"cases": [CASE]})
    client.ok("POST", f"{root}/suites/{suite}/cases/from-turn", {**TURN, "caseId": "copied"})
    body = {"candidate": {"recall": {"lanes": ["org"]}}, **PERIOD}
    replay = client.ok("POST", f"{root}/replays", body)["runId"]
    runs = []
    for _ in range(3):
        runs.append(client.ok("POST", f"{root}/runs", {"suiteId": suite})["runId"])
        if len(runs) < 3:
            cloud.run_tasks()
    claimed = claim_run(tenant, cloud.services.blobs, None, compares=frozenset())
    assert claimed is not None
    begin_run(claimed, RUN_KINDS["suite"])
    set_id = client.ok("POST", f"{root}/document-sets", {"name": "new"})["setId"]
    return {"suite": suite, "run": runs[1], "replay": replay, "set": set_id}


def test_the_route_matrix_is_complete(cloud: RunningCloud) -> None:
    spec = cloud.account().ok("GET", "/openapi.json")
    shapes = {"{project_id}": "{project}", "{name}": "faq", "{document_id}": "d", "{user_id}": "caller"}
    shapes |= {"{session_id}": "call-1", "{memory_id}": "{memory}", "{sha256}": "{file}", "{digest}": "{receipt}"}
    shapes["{agent_id}"] = "{agent}"
    shapes["{trace_id}"] = "searched"
    shapes["{upload_id}"] = "{upload}"
    shapes["{version}"] = "1"
    shapes |= {"{suite_id}": "{suite}", "{run_id}": "{run}", "{set_id}": "{set}", "{case_id}": "copied"}
    shapes |= {"{replay_id}": "{replay}", "{change_id}": "question-1"}
    routes = set()
    for path, methods in spec["paths"].items():
        path = path.replace("/prompt-labels/{name}", "/prompt-labels/production")
        for name, value in shapes.items():
            path = path.replace(name, value)
        routes |= {(method.upper(), path) for method in methods if path.startswith("/v1/")}

    assert routes - {("POST", "/v1/projects"), ("GET", "/v1/projects")} == {
        (method, path.partition("?")[0]) for method, path in ROUTES
    }


@pytest.mark.parametrize(("route", "body"), ROUTES.items(), ids=ROUTE_IDS)
def test_resources_of_another_account_are_not_found_and_not_changed(
    two: TwoAccounts, route: tuple[str, str], body: Any
) -> None:
    method, path = route[0], two.path(route[1])
    before = two.dump()

    foreign = two.b.with_identity(project=two.a.identity["project"], agent=two.a.identity["agent"])
    nowhere = two.b.with_identity(project="proj_of_nobody", agent="agent_of_nobody")
    answers = [foreign.call(method, path, two.body(body))]
    if not path.startswith("/v1/projects"):
        answers.append(nowhere.call(method, path, two.body(body)))
        answers.append(two.b.with_identity(agent=two.a.identity["agent"] + "_x").call(method, path, two.body(body)))
        if path not in WITHOUT_IDS or route in WITH_IDS:
            answers.append(two.b.call(method, path, two.body(body)))
    else:
        nothing = route[1].format(project="proj_of_nobody", **two.ids)
        answers.append(two.b.call(method, nothing, two.body(body)))

    assert {(answer.status, answer.body["error"]["code"]) for answer in answers} == {(404, "cloud.not_found")}
    assert answers[0].body == answers[1].body, "what exists elsewhere reads like what exists nowhere"
    assert two.dump() == before
    assert not any(two.b.ok("GET", "/v1/voice-sdk/users").values())


def test_the_owner_can_use_every_route(cloud: RunningCloud) -> None:
    own = make_two_accounts(cloud)
    for (method, path), body in ROUTES.items():
        assert own.a.call(method, own.path(path), own.body(body)).status in (200, 201), path


def test_every_route_rejects_unknown_keys(two: TwoAccounts, cloud: RunningCloud) -> None:
    before = two.dump()
    (first,) = cloud.accounts.list_keys(authenticate(cloud.services.engine, str(two.a.key)).account_id)

    for key in (None, "", "memoair_pk_unknown", "ü", str(two.a.key) + "x", first.hint):
        stranger = Client(two.a.url, key, **two.a.identity)
        for method, path in [*ROUTES, ("GET", "/v1/projects"), ("POST", "/v1/projects")]:
            refusal = stranger.error_of(method, two.path(path), ROUTES.get((method, path)))
            assert refusal == (401, "cloud.unauthorized"), (method, path, key)
    assert two.dump() == before


def test_lists_contain_only_the_accounts_own_resources(two: TwoAccounts) -> None:
    for client in (two.a, two.b):
        (project,) = client.ok("GET", "/v1/projects")["projects"]
        assert project["id"] == client.identity["project"]
        (agent,) = client.ok("GET", f"/v1/projects/{project['id']}/agents")["agents"]
        assert agent["id"] == client.identity["agent"]


def test_ids_are_derived_from_slugs_if_they_are_free(cloud: RunningCloud) -> None:
    client, other = cloud.account(), cloud.account()
    slug = f"beta-{client.key and client.key[-6:].lower().translate(str.maketrans('-_', 'xx'))}"
    created = client.ok("POST", "/v1/projects", {"name": "Beta", "slug": slug, "description": "Triage"})

    assert created == {**created, "id": f"proj_{slug}", "name": "Beta", "slug": slug, "description": "Triage"}
    assert client.ok("GET", f"/v1/projects/proj_{slug}") == created
    assert client.error_of("POST", "/v1/projects", {"name": "Again", "slug": slug}) == (409, "cloud.conflict")
    theirs = other.ok("POST", "/v1/projects", {"name": "Beta", "slug": slug})
    assert theirs["slug"] == slug
    assert theirs["id"].startswith(f"proj_{slug}_")
    agents = [client.ok("POST", f"/v1/projects/proj_{slug}/agents", {"name": "Triage IVR"})["id"] for _ in range(4)]
    assert agents[:2] == [f"agent_{slug}_triage", f"agent_{slug}_triage_ivr"]
    assert len(set(agents)) == 4


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"name": "A"},
        {"name": "", "slug": "a"},
        {"name": "A", "slug": "A b"},
        {"name": "A", "slug": "a/../b"},
        {"name": "A", "slug": "x" * 61},
        {"name": 5, "slug": "a"},
        {"name": "A", "slug": "a\n"},
    ],
)
def test_an_invalid_project_is_rejected(cloud: RunningCloud, body: Any) -> None:
    assert cloud.account().error_of("POST", "/v1/projects", body) == (422, "cloud.invalid")


def test_an_account_can_have_several_keys_and_a_revoked_one_is_rejected(cloud: RunningCloud) -> None:
    first = cloud.accounts.create("Fundamento")
    second = cloud.accounts.issue_key(first.account_id, "second")
    clients = [Client(cloud.url, issued.key) for issued in (first, second)]

    assert all(len(issued.key) >= len("memoair_pk_") + 43 for issued in (first, second))
    project = clients[0].ok("POST", "/v1/projects", {"name": "Acme", "slug": "acme"})
    assert clients[1].ok("GET", "/v1/projects") == {"projects": [project]}
    cloud.accounts.revoke_key(first.key_id)
    assert clients[0].error_of("GET", "/v1/projects") == (401, "cloud.unauthorized")
    assert clients[1].ok("GET", "/v1/projects") == {"projects": [project]}
    # When a key was used is written in the background.
    eventually(lambda: all(key.last_used_at for key in cloud.accounts.list_keys(first.account_id)), 30)
    keys = cloud.accounts.list_keys(first.account_id)
    assert [key.revoked_at is not None for key in keys] == [True, False]
    with pytest.raises(NotFoundError):
        cloud.accounts.revoke_key("key_x")


def test_keys_are_not_stored_in_the_database(cloud: RunningCloud) -> None:
    issued = cloud.accounts.create("Fundamento")

    with cloud.services.engine.connect() as connection:
        rows = [repr(tuple(row)) for row in connection.execute(select(ApiKey.__table__))]
    assert not [row for row in rows if issued.key in row or issued.key.removeprefix("memoair_pk_") in row]
    assert issued.key not in repr(issued)


@pytest.fixture
def scoped(two: TwoAccounts, cloud: RunningCloud) -> Tenant:
    """Return the tenant that a route of B's gets."""
    return make_tenant(two, cloud)


def make_tenant(two: TwoAccounts, cloud: RunningCloud) -> Tenant:
    credentials = authenticate(cloud.services.engine, str(two.b.key))
    return Tenant(cloud.services.engine, Scope(credentials.account_id, two.b.identity["project"]))


def test_a_query_without_an_owner_condition_gets_only_its_own_rows(cloud: RunningCloud) -> None:
    two = make_two_accounts(cloud)
    scoped = make_tenant(two, cloud)
    other = aliased(Agent)
    a_project = two.a.identity["project"]
    with scoped.begin_write() as session:
        assert {row.project_id for row in session.scalars(select(Agent))} == {two.b.identity["project"]}
        joined = select(Agent.id, other.project_id).join(other, other.id != "")
        assert {row.project_id for row in session.execute(joined)} == {two.b.identity["project"]}
        assert session.get(Project, a_project) is None
        assert session.get(Agent, (a_project, two.a.identity["agent"])) is None
        assert session.scalars(select(Agent).where(Agent.project_id == a_project)).all() == []
        within = select(Project.id).where(select(Agent.id).where(Agent.project_id == a_project).exists())
        assert session.scalars(within).all() == []
        session.execute(update(Agent).values(name="changed"))
        session.execute(delete(Agent).where(Agent.project_id == a_project))
    assert [agent["name"] for agent in list_agents(two.a)] == ["Returns"]
    assert [agent["name"] for agent in list_agents(two.b)] == ["changed"]


def test_statements_that_cannot_be_scoped_are_rejected(two: TwoAccounts, scoped: Tenant, cloud: RunningCloud) -> None:
    before = two.dump()
    foreign = {"project_id": two.a.identity["project"], "id": "agent_x", "name": "", "agent_type": "voice"}
    statements: list[Any] = [
        text("SELECT 1"),
        select(Account),
        select(Agent.__table__),
        insert(Agent).values(foreign),
        insert(Agent.__table__).values(foreign),
        delete(Account),
    ]
    for statement in statements:
        with scoped.begin_write() as session, pytest.raises(OutOfScopeError):
            session.execute(statement)
    with scoped.begin_write() as session, pytest.raises(OutOfScopeError):
        session.execute(insert(Agent), [foreign])
    with pytest.raises(OutOfScopeError), scoped.begin_write() as session:
        session.add(Agent(**foreign))
    with Session(cloud.services.engine) as session:
        stolen = session.get(Agent, (two.a.identity["project"], two.a.identity["agent"]))
        assert stolen is not None
        session.expunge(stolen)
    stolen.name = "stolen"
    with pytest.raises(OutOfScopeError), scoped.begin_write() as session:
        session.add(stolen)
    assert two.dump() == before


def test_a_scope_without_a_project_reaches_no_project_rows(scoped: Tenant) -> None:
    account = attrs.evolve(scoped, scope=Scope(scoped.scope.account_id))
    with account.begin_read() as session:
        assert session.scalars(select(Agent)).all() == []
        assert len(session.scalars(select(Project)).all()) == 1


def list_agents(client: Client) -> Any:
    return client.ok("GET", f"/v1/projects/{client.identity['project']}/agents")["agents"]
