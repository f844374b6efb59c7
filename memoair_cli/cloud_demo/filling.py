"""Fill a new cloud with the calls of the demo, by the services that a machine's requests reach."""

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta

import attrs

from memoair_cli.cloud_demo.planning import PlannedCall
from memoair_cli.cloud_demo.prompts import DemoPrompts
from memoair_cli.cloud_demo.recording import record_call
from memoair_cli.cloud_demo.script import PhoneLine
from memoair_cloud.calls.ingest import ingest
from memoair_cloud.consolidation import RuleExtractor
from memoair_cloud.http.dependencies import Services
from memoair_cloud.indexes.builder import build_org_index
from memoair_cloud.indexes.documents import NewDocument, put_documents
from memoair_cloud.memories.extraction_worker import ExtractionWorker
from memoair_cloud.recall_preview.preview import open_preview_of_user
from memoair_cloud.recall_traces.ingest import ingest_traces
from memoair_cloud.tenancy.access import Tenant, authenticate
from memoair_cloud.tenancy.accounts import Accounts, IssuedKey
from memoair_cloud.tenancy.projects import change_project, create_agent, create_project
from memoair_protocol.enums import TraceMode
from memoair_runtime.preview import PreviewDocuments, PreviewUser, open_documents

ACCOUNT_NAME = "demo"


class FillError(Exception):
    """A call of the demo was rejected, which is a fault of the demo."""


@attrs.define
class _Clock:
    """What time it is for the server while it gets a call."""

    now: datetime


def fill_cloud(
    services: Services, lines: Sequence[PhoneLine], calls: Sequence[PlannedCall], on_progress: Callable[[], None]
) -> IssuedKey:
    """Make an account with the phone lines as projects, and let them have their calls, one after the other.

    The server learns from each call before the next one, so that searches find what they would have found then.

    Args:
        services: The services of a cloud that is empty.
        lines: The phone lines.
        calls: The calls, in the order in which they end.
        on_progress: Called after each phone line and each call.

    Returns:
        The first key of the account.
    """
    # The first search of a process loads what all others share, and takes longer than an agent would wait.
    unknown_caller = open_documents(PreviewDocuments()).open_user(PreviewUser())
    unknown_caller.search({"sessionId": "warm-up", "query": "Hello?"})
    key = Accounts(services.engine).create(ACCOUNT_NAME)
    account = authenticate(services.engine, key.key).make_tenant(services.engine)
    tenants = {}
    prompts = {}
    for line in lines:
        tenants[line.slug] = _create_project(services, account, line)
        prompts[line.slug] = DemoPrompts.push(tenants[line.slug], calls)
        on_progress()
    clock = _Clock(calls[0].arrived_at)
    worker = ExtractionWorker(
        services.engine,
        RuleExtractor(),
        timedelta(seconds=services.settings.session_idle_s),
        services.settings.make_speaker_time(),
        now=lambda: clock.now,
    )
    for call in calls:
        clock.now = call.arrived_at
        version = prompts[call.line.slug].find_version(call)
        _let_call(services, tenants[call.line.slug], call, version, worker, clock)
        on_progress()
    return key


def _create_project(services: Services, account: Tenant, line: PhoneLine) -> Tenant:
    project = create_project(account, line.project, line.slug, line.description)
    tenant = account.for_project(project.id)
    # With words, so that a visitor sees what was asked. By default, only ids and numbers are kept.
    change_project(tenant, None, {}, TraceMode.TEXT, changes_trace_mode=True)
    agent = create_agent(tenant, line.agent, "voice")
    documents = [NewDocument(row["id"], row["text"], row.get("metadata") or {}) for row in line.documents]
    put_documents(tenant, line.index_name, documents, None)
    build_org_index(services.engine, services.blobs, project.id)
    return attrs.evolve(tenant, scope=attrs.evolve(tenant.scope, agent_id=agent.id))


def _let_call(
    services: Services,
    tenant: Tenant,
    call: PlannedCall,
    prompt_version: int,
    worker: ExtractionWorker,
    clock: _Clock,
) -> None:
    user_id = call.caller["id"]
    user_tenant = tenant.for_user(user_id)
    with open_preview_of_user(tenant, services.blobs, user_id) as memory:
        recorded = record_call(call, memory.search, memory.apply_event, prompt_version)
    receipt = ingest(user_tenant, recorded.encoded_events(), now=clock.now)
    if receipt.rejected:
        raise FillError(f"{call.session_id}: {receipt.rejected[0].message}")
    worker.process_next_call(tenant.scope.project_id)
    traces = ingest_traces(user_tenant, recorded.traces)
    if traces.rejected:
        raise FillError(f"{call.session_id}: {traces.rejected[0].message}")
