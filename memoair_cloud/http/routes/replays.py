"""Routes for replays: start one, list what changes, accept changes as cases."""

from http import HTTPStatus

from fastapi import APIRouter

from memoair_cloud.audit.log import AuditAction
from memoair_cloud.errors import BatchTooLargeError, ConflictError
from memoair_cloud.evaluation import replay_changes
from memoair_cloud.evaluation.replay_accepting import accept_changes
from memoair_cloud.evaluation.replays import create_replay
from memoair_cloud.http.dependencies import AgentTenant, Cursor, Limit, ServicesDep
from memoair_cloud.http.errors import PROJECT_ERRORS, error_responses
from memoair_cloud.http.exact_path import PathId
from memoair_cloud.http.schemas.evaluation_runs import RunOut
from memoair_cloud.http.schemas.replays import (
    AcceptanceOut,
    AcceptancesOut,
    AcceptIn,
    ReplayChangeDetailOut,
    ReplayChangeOut,
    ReplayChangesOut,
    ReplayIn,
)

router = APIRouter(prefix="/v1/voice-sdk/evaluations", tags=["evaluations"])

_READS = error_responses(PROJECT_ERRORS, ConflictError)


@router.post(
    "/replays",
    status_code=HTTPStatus.CREATED,
    operation_id="createReplay",
    responses=error_responses(PROJECT_ERRORS, ConflictError, BatchTooLargeError),
)
def start_replay(tenant: AgentTenant, services: ServicesDep, body: ReplayIn) -> RunOut:
    """Ask the questions of a period's calls again, of what is known now and of a candidate. The audit log records it.

    The calls are those of the agent that X-Agent-Id names. A worker does it; `getRun` tells how far it is.
    """
    run = create_replay(tenant, body.candidate, body.since, body.until, body.max_questions)
    services.queue.enqueue_evaluations(tenant.scope.project_id)
    return RunOut.of(run)


@router.get("/runs/{replay_id}/changes", operation_id="listReplayChanges", responses=_READS)
def list_changes(
    tenant: AgentTenant, services: ServicesDep, replay_id: PathId, cursor: Cursor = None, limit: Limit = 100
) -> ReplayChangesOut:
    """List the questions of a replay whose contexts change, the largest changes first."""
    page = replay_changes.list_changes(tenant, replay_id, cursor, limit)
    read = [(change.user_id, change.session_id) for change in page.rows]
    services.reads.record_all(tenant, AuditAction.READ_CALL, read)
    return ReplayChangesOut(
        changes=[ReplayChangeOut.model_validate(change) for change in page.rows], next=page.next_cursor
    )


@router.get("/runs/{replay_id}/changes/{change_id}", operation_id="getReplayChange", responses=_READS)
def get_change(
    tenant: AgentTenant, services: ServicesDep, replay_id: PathId, change_id: PathId
) -> ReplayChangeDetailOut:
    """Return a question whose context changes, with both contexts, and both side by side."""
    change = replay_changes.get_change(tenant, replay_id, change_id)
    services.reads.record(tenant, AuditAction.READ_CALL, change.user_id, change.session_id)
    return ReplayChangeDetailOut.of(change)


@router.post(
    "/runs/{replay_id}/changes/accept",
    operation_id="acceptReplayChanges",
    responses=error_responses(PROJECT_ERRORS, ConflictError, BatchTooLargeError),
)
def accept(tenant: AgentTenant, replay_id: PathId, body: AcceptIn) -> AcceptancesOut:
    """Copy questions of a replay to a suite as cases, redacted. Repeating the request adds nothing."""
    accepted = accept_changes(
        tenant, replay_id, body.suite_id, body.case_ids, kinds=body.require, keeps_text=body.keep_text
    )
    return AcceptancesOut(cases=[AcceptanceOut.model_validate(each) for each in accepted])
