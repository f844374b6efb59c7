"""Routes for outcomes: report them, and list them."""

from typing import Annotated, Any

from fastapi import APIRouter, Query
from pydantic import ValidationError

from memoair_cloud.errors import BatchTooLargeError
from memoair_cloud.http.body_parsing import OutcomesRoute
from memoair_cloud.http.dependencies import Cursor, Limit, ProjectTenant, ServicesDep
from memoair_cloud.http.errors import PROJECT_ERRORS, error_responses
from memoair_cloud.http.schemas.base import Identifier, UtcTime
from memoair_cloud.http.schemas.outcomes import (
    OutcomeIn,
    OutcomeOut,
    OutcomeReceiptOut,
    OutcomesIn,
    OutcomesOut,
    RejectedOutcomeOut,
)
from memoair_cloud.outcomes.queries import OutcomeFilter
from memoair_cloud.outcomes.queries import list_outcomes as query_outcomes
from memoair_cloud.outcomes.reporting import OutcomeReceipt, ReportedOutcome, report_outcomes
from memoair_protocol.limits import MAX_OUTCOMES

router = APIRouter(prefix="/v1/voice-sdk/outcomes", tags=["outcomes"], route_class=OutcomesRoute)

Time = Annotated[UtcTime | None, Query(description="RFC 3339; without an offset in UTC")]


@router.post("", operation_id="reportOutcomes", responses=error_responses(PROJECT_ERRORS, BatchTooLargeError))
def report(tenant: ProjectTenant, services: ServicesDep, body: OutcomesIn) -> OutcomeReceiptOut:
    """Save outcomes of calls. Reporting one again replaces it. X-User-Id names the user of those that name none."""
    if len(body.outcomes) > MAX_OUTCOMES:
        raise BatchTooLargeError(f"a batch can have at most {MAX_OUTCOMES} outcomes", limit=MAX_OUTCOMES)
    rejected: list[RejectedOutcomeOut] = []
    valid: list[tuple[int, ReportedOutcome]] = []
    for index, content in enumerate(body.outcomes):
        try:
            valid.append((index, _parse(content).to_outcome(tenant.scope.user_id)))
        except ValidationError as error:
            rejected.append(RejectedOutcomeOut(index=index, reason=_describe(error)))
    receipt = report_outcomes(tenant, [outcome for _, outcome in valid], is_dry_run=body.dry_run)
    rejected += [RejectedOutcomeOut(index=valid[row.index][0], reason=row.reason) for row in receipt.rejected]
    if not body.dry_run:
        services.days.drop_outcomes(tenant.scope.project_id, receipt.began_at)
        _count(services, receipt, len(rejected))
    return OutcomeReceiptOut(
        accepted=receipt.accepted,
        unknown_sessions=receipt.unknown_sessions,
        rejected=sorted(rejected, key=lambda row: row.index),
    )


@router.get("", operation_id="listOutcomes", responses=error_responses(PROJECT_ERRORS))
def list_outcomes(
    tenant: ProjectTenant,
    outcome: Annotated[str | None, Query(max_length=64, description="only those of this name")] = None,
    session_id: Annotated[Identifier | None, Query(alias="sessionId")] = None,
    known: Annotated[bool | None, Query(description="only those whose call has arrived, or has not")] = None,
    since: Time = None,
    until: Time = None,
    cursor: Cursor = None,
    limit: Limit = 100,
) -> OutcomesOut:
    """List the outcomes of a project, latest first; those of one user's calls if X-User-Id names one."""
    wanted = OutcomeFilter(since, until, outcome, session_id, tenant.scope.user_id, known)
    page = query_outcomes(tenant, wanted, cursor, limit)
    return OutcomesOut(outcomes=[OutcomeOut.model_validate(row) for row in page.rows], next=page.next_cursor)


def _parse(content: Any) -> OutcomeIn:
    return OutcomeIn.model_validate(content)


def _describe(error: ValidationError) -> str:
    """Return what is wrong, and not what was sent."""
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    place = ".".join(map(str, first["loc"]))
    return f"{place}: {first['msg']}" if place else str(first["msg"])


def _count(services: ServicesDep, receipt: OutcomeReceipt, rejected: int) -> None:
    for result, count in (("accepted", receipt.accepted), ("rejected", rejected)):
        services.metrics.outcomes.labels(result).inc(count)
