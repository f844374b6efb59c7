"""Routes for recall traces: ingest them, list those of a session or a turn, return one."""

from typing import Annotated

from fastapi import APIRouter, Query

from memoair_cloud.audit.log import AuditAction
from memoair_cloud.errors import BatchTooLargeError, ConflictError
from memoair_cloud.http.body_parsing import TracesRoute
from memoair_cloud.http.dependencies import Cursor, Limit, ProjectTenant, ServicesDep
from memoair_cloud.http.errors import PROJECT_ERRORS, error_responses
from memoair_cloud.http.exact_path import PathId
from memoair_cloud.http.schemas.recall_traces import TraceOut, TraceReceiptOut, TracesIn, TracesOut
from memoair_cloud.recall_traces import queries
from memoair_cloud.recall_traces.ingest import ingest_traces
from memoair_protocol.limits import MAX_TRACES

router = APIRouter(prefix="/v1/voice-sdk", tags=["recall traces"], route_class=TracesRoute)

TurnId = Annotated[str | None, Query(max_length=1_024, description="only the searches before this turn")]


@router.post(
    "/recall-traces", operation_id="ingestRecallTraces", responses=error_responses(PROJECT_ERRORS, BatchTooLargeError)
)
def ingest_recall_traces(tenant: ProjectTenant, services: ServicesDep, body: TracesIn) -> TraceReceiptOut:
    """Save recall traces, each one once: of the user that X-User-Id names, or of searches without a user."""
    if len(body.traces) > MAX_TRACES:
        raise BatchTooLargeError(f"a batch can have at most {MAX_TRACES} traces", limit=MAX_TRACES)
    result = ingest_traces(tenant, body.traces)
    for outcome in ("accepted", "duplicate", "rejected"):
        services.metrics.recall_traces.labels(outcome).inc(len(getattr(result, outcome)))
    return TraceReceiptOut.model_validate(result)


@router.get(
    "/sessions/{session_id:path}/recall-traces",
    operation_id="listRecallTraces",
    responses=error_responses(PROJECT_ERRORS, ConflictError),
)
def list_recall_traces(
    tenant: ProjectTenant,
    services: ServicesDep,
    session_id: PathId,
    turn: TurnId = None,
    cursor: Cursor = None,
    limit: Limit = 100,
) -> TracesOut:
    """List the searches of a session in order. If several users have a session with this id, X-User-Id selects one."""
    page = queries.list_session_traces(tenant, session_id, cursor, limit, turn)
    for user_id in {row.user_id for row in page.rows if row.user_id is not None}:
        services.reads.record(tenant, AuditAction.READ_CALL, user_id, session_id)
    return TracesOut(traces=[TraceOut.model_validate(row) for row in page.rows], next=page.next_cursor)


@router.get("/recall-traces/{trace_id:path}", operation_id="getRecallTrace", responses=error_responses(PROJECT_ERRORS))
def get_recall_trace(tenant: ProjectTenant, services: ServicesDep, trace_id: PathId) -> TraceOut:
    """Return the record of a search."""
    trace = queries.get_trace(tenant, trace_id)
    if trace.user_id is not None:
        services.reads.record(tenant, AuditAction.READ_CALL, trace.user_id, trace.session_id)
    return TraceOut.model_validate(trace)
