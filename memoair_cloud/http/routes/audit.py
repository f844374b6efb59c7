"""The route of the audit log."""

from typing import Annotated

from fastapi import APIRouter, Query

from memoair_cloud.audit.queries import list_audit_entries
from memoair_cloud.http.dependencies import Cursor, Limit, ProjectTenant
from memoair_cloud.http.errors import PROJECT_ERRORS, error_responses
from memoair_cloud.http.schemas.audit import AuditEntryOut, AuditOut

router = APIRouter(prefix="/v1/voice-sdk", tags=["operations"])

UserFilter = Annotated[
    str | None, Query(alias="userId", max_length=512, description="only entries about this user, also if erased")
]
AgentFilter = Annotated[
    str | None, Query(alias="agentId", max_length=512, description="only changes of this agent, also if deleted")
]


@router.get("/audit", operation_id="listAuditEntries", responses=error_responses(PROJECT_ERRORS))
def list_audit(
    tenant: ProjectTenant,
    user_id: UserFilter = None,
    agent_id: AgentFilter = None,
    cursor: Cursor = None,
    limit: Limit = 100,
) -> AuditOut:
    """List who read or changed what about callers, and who changed an agent's prompt, latest first."""
    page = list_audit_entries(tenant, user_id, cursor, limit, agent_id=agent_id)
    return AuditOut(entries=[AuditEntryOut.model_validate(row) for row in page.rows], next=page.next_cursor)
