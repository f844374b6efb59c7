"""Routes for runs: queue, watch, cancel and compare them, and read their results."""

from http import HTTPStatus
from typing import Annotated

from fastapi import APIRouter, Query

from memoair_cloud.audit.log import AuditAction
from memoair_cloud.errors import ConflictError, InvalidRequestError
from memoair_cloud.evaluation import runs
from memoair_cloud.evaluation.comparison import LAST, compare_runs
from memoair_cloud.http.body_parsing import CasesRoute
from memoair_cloud.http.dependencies import AgentTenant, Cursor, Limit, ServicesDep
from memoair_cloud.http.errors import PROJECT_ERRORS, error_responses
from memoair_cloud.http.exact_path import PathId
from memoair_cloud.http.schemas.evaluation_runs import (
    ComparisonOut,
    ResultDetailOut,
    ResultOut,
    ResultsOut,
    RunIn,
    RunOut,
    RunsOut,
)

router = APIRouter(prefix="/v1/voice-sdk/evaluations/runs", tags=["evaluations"], route_class=CasesRoute)

_READS = error_responses(PROJECT_ERRORS)
_CHANGES = error_responses(PROJECT_ERRORS, ConflictError)


@router.post("", status_code=HTTPStatus.CREATED, operation_id="createRun", responses=_CHANGES)
def create_run(tenant: AgentTenant, services: ServicesDep, body: RunIn) -> RunOut:
    """Queue a run of a suite. A worker begins it, with the cases, documents and prompt as they are then."""
    if body.judge and services.judge is None:
        raise InvalidRequestError("the server has no judge: set MEMOAIR_CLOUD_JUDGE_BASE_URL", field="judge")
    run = runs.create_run(tenant, body.suite_id, body.candidate, with_judge=body.judge, accepts=body.accept)
    services.queue.enqueue_evaluations(tenant.scope.project_id)
    return RunOut.of(run)


@router.get("", operation_id="listRuns", responses=_READS)
def list_runs(
    tenant: AgentTenant,
    suite: Annotated[str | None, Query(max_length=512, description="only runs of this suite")] = None,
    kind: Annotated[str | None, Query(max_length=40, description="only runs of this kind: suite or replay")] = None,
    cursor: Cursor = None,
    limit: Limit = 100,
) -> RunsOut:
    """List the runs of the agent that X-Agent-Id names, latest first."""
    page = runs.list_runs(tenant, cursor, limit, suite_id=suite, kind=kind)
    return RunsOut(runs=[RunOut.of(row) for row in page.rows], next=page.next_cursor)


@router.get("/{run_id}", operation_id="getRun", responses=_READS)
def get_run(tenant: AgentTenant, run_id: PathId) -> RunOut:
    """Return a run and how far it is."""
    return RunOut.of(runs.get_run(tenant, run_id))


@router.delete("/{run_id}", operation_id="deleteRun", responses=_CHANGES)
def delete_run(
    tenant: AgentTenant,
    run_id: PathId,
    only_open: Annotated[bool, Query(alias="onlyOpen", description="only cancel: reject a run that is over")] = False,
) -> RunOut:
    """Cancel a run that is not over; delete one that is, with its results."""
    is_open = only_open or runs.get_run(tenant, run_id).is_open
    return RunOut.of(runs.cancel_run(tenant, run_id) if is_open else runs.delete_run(tenant, run_id))


@router.get("/{run_id}/results", operation_id="listResults", responses=_CHANGES)
def list_results(tenant: AgentTenant, run_id: PathId, cursor: Cursor = None, limit: Limit = 100) -> ResultsOut:
    """List the scores of the cases of a run, in the order of its suite; of a run in progress those so far."""
    page = runs.list_results(tenant, run_id, cursor, limit)
    return ResultsOut(results=[ResultOut.model_validate(row) for row in page.rows], next=page.next_cursor)


@router.get("/{run_id}/results/{case_id}", operation_id="getResult", responses=_CHANGES)
def get_result(tenant: AgentTenant, services: ServicesDep, run_id: PathId, case_id: PathId) -> ResultDetailOut:
    """Return the result of a case, with the case as it was, the trace of the search and the context."""
    row = runs.get_result(tenant, run_id, case_id)
    if row.user_id is not None:
        services.reads.record(tenant, AuditAction.READ_CALL, row.user_id)
    return ResultDetailOut.of(row)


@router.get("/{run_id}/comparison", operation_id="compareRuns", responses=_CHANGES)
def compare(
    tenant: AgentTenant,
    run_id: PathId,
    against: Annotated[str, Query(max_length=512, description="a run of the same suite, or `last`")] = LAST,
    same: Annotated[bool, Query(description="list the cases that score the same, too")] = False,
) -> ComparisonOut:
    """Compare a run with another one of its suite; `last`: the last one with an equal candidate that was not worse."""
    return ComparisonOut.of(compare_runs(tenant, run_id, against), with_same=same)
