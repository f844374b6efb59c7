"""Routes for evaluations: suites of an agent, and their cases."""

from collections.abc import Iterable
from http import HTTPStatus
from typing import Annotated

from fastapi import APIRouter, Query

from memoair_cloud.audit.log import AuditAction
from memoair_cloud.database.evaluation_models import SuiteCase
from memoair_cloud.errors import BatchTooLargeError, ConflictError, InvalidRequestError
from memoair_cloud.evaluation import cases, suites
from memoair_cloud.evaluation.case_copying import CaseDraft, copy_case_from_turn
from memoair_cloud.http.body_parsing import CasesRoute
from memoair_cloud.http.dependencies import AgentTenant, Cursor, Limit, Services, ServicesDep
from memoair_cloud.http.errors import PROJECT_ERRORS, error_responses
from memoair_cloud.http.exact_path import PathId
from memoair_cloud.http.schemas.evaluations import (
    CaseChangesOut,
    CaseFromTurnIn,
    CaseOut,
    CasesIn,
    CasesOut,
    CopiedCaseOut,
    RawCase,
    SuiteChangeIn,
    SuiteIn,
    SuiteOut,
    SuitesOut,
)
from memoair_protocol.limits import MAX_CASES

router = APIRouter(prefix="/v1/voice-sdk/evaluations/suites", tags=["evaluations"], route_class=CasesRoute)

_READS = error_responses(PROJECT_ERRORS)
_CHANGES = error_responses(PROJECT_ERRORS, ConflictError, BatchTooLargeError)


@router.post("", status_code=HTTPStatus.CREATED, operation_id="createSuite", responses=_CHANGES)
def create_suite(tenant: AgentTenant, body: SuiteIn) -> SuiteOut:
    """Create an empty suite of the agent that X-Agent-Id names."""
    return SuiteOut.of(suites.create_suite(tenant, body.name, body.description))


@router.get("", operation_id="listSuites", responses=_READS)
def list_suites(
    tenant: AgentTenant,
    name: Annotated[str | None, Query(max_length=200, description="only the suite with this name")] = None,
    cursor: Cursor = None,
    limit: Limit = 100,
) -> SuitesOut:
    """List the suites of the agent that X-Agent-Id names, by name."""
    page = suites.list_suites(tenant, cursor, limit, name)
    return SuitesOut(suites=[SuiteOut.of(detail) for detail in page.rows], next=page.next_cursor)


@router.get("/{suite_id}", operation_id="getSuite", responses=_READS)
def get_suite(tenant: AgentTenant, suite_id: PathId) -> SuiteOut:
    """Return a suite."""
    return SuiteOut.of(suites.get_suite(tenant, suite_id))


@router.patch("/{suite_id}", operation_id="changeSuite", responses=error_responses(PROJECT_ERRORS, ConflictError))
def change_suite(tenant: AgentTenant, suite_id: PathId, body: SuiteChangeIn) -> SuiteOut:
    """Change the name or the description of a suite."""
    return SuiteOut.of(suites.change_suite(tenant, suite_id, body.name, body.description))


@router.delete("/{suite_id}", operation_id="deleteSuite", responses=_READS)
def delete_suite(tenant: AgentTenant, suite_id: PathId) -> SuiteOut:
    """Delete a suite with its cases and runs, and return what it was."""
    return SuiteOut.of(suites.delete_suite(tenant, suite_id))


@router.put("/{suite_id}/cases", operation_id="putCases", responses=_CHANGES)
def put_cases(tenant: AgentTenant, suite_id: PathId, body: CasesIn) -> CaseChangesOut:
    """Add cases, or replace those with the same ids. All are valid, or none is saved."""
    if len(body.cases) > MAX_CASES:
        raise BatchTooLargeError(f"a request can have at most {MAX_CASES:,} cases", limit=MAX_CASES)
    parsed = cases.parse_cases(body.cases)
    changes = cases.put_cases(tenant, suite_id, parsed, replaces_all=body.replace_all)
    return CaseChangesOut.model_validate(changes)


@router.get("/{suite_id}/cases", operation_id="listCases", responses=_READS)
def list_cases(
    tenant: AgentTenant, services: ServicesDep, suite_id: PathId, cursor: Cursor = None, limit: Limit = 100
) -> CasesOut:
    """List the cases of a suite, in its order."""
    page = cases.list_cases(tenant, suite_id, cursor, limit)
    _record_reads(tenant, services, page.rows)
    return CasesOut(cases=[CaseOut.model_validate(row) for row in page.rows], next=page.next_cursor)


@router.post("/{suite_id}/cases/from-turn", status_code=HTTPStatus.CREATED, operation_id="copyCase", responses=_CHANGES)
def copy_case(tenant: AgentTenant, suite_id: PathId, body: CaseFromTurnIn) -> CopiedCaseOut:
    """Copy a case from a turn of a call, with what was known at that moment, redacted. The audit log records it."""
    values = body.model_dump(exclude={"keep_text"})
    return CopiedCaseOut.of_copy(copy_case_from_turn(tenant, suite_id, CaseDraft(**values, keeps_text=body.keep_text)))


@router.get("/{suite_id}/cases/{case_id}", operation_id="getCase", responses=_READS)
def get_case(tenant: AgentTenant, services: ServicesDep, suite_id: PathId, case_id: PathId) -> CaseOut:
    """Return a case."""
    row = cases.get_case(tenant, suite_id, case_id)
    _record_reads(tenant, services, [row])
    return CaseOut.model_validate(row)


@router.put("/{suite_id}/cases/{case_id}", operation_id="putCase", responses=_CHANGES)
def put_case(tenant: AgentTenant, services: ServicesDep, suite_id: PathId, case_id: PathId, body: RawCase) -> CaseOut:
    """Add a case, or replace the one with this id. One that was copied from a caller stays tied to them."""
    case = cases.parse_content({"id": case_id, **body})
    if case.id != case_id:
        raise InvalidRequestError("id: the path names another case", field="id")
    cases.put_cases(tenant, suite_id, [case])
    return get_case(tenant, services, suite_id, case_id)


@router.delete("/{suite_id}/cases/{case_id}", operation_id="deleteCase", responses=_READS)
def delete_case(tenant: AgentTenant, services: ServicesDep, suite_id: PathId, case_id: PathId) -> CaseOut:
    """Delete a case, and return what it was. Results of earlier runs stay."""
    row = cases.delete_case(tenant, suite_id, case_id)
    _record_reads(tenant, services, [row])
    return CaseOut.model_validate(row)


def _record_reads(tenant: AgentTenant, services: Services, rows: Iterable[SuiteCase]) -> None:
    """Record in the audit log that words of callers are read: those of cases that were copied from them."""
    read = [(row.user_id, (row.source or {}).get("sessionId")) for row in rows if row.user_id is not None]
    services.reads.record_all(tenant, AuditAction.READ_CALL, read)
