"""The audit log as people read it."""

from datetime import datetime

from sqlalchemy import select

from memoair_cloud.cursors import PageOrder, ResultPage
from memoair_cloud.database.access_models import AuditEntry
from memoair_cloud.tenancy.access import Tenant
from memoair_protocol.hashes import hash_user_id

_ENTRY_ORDER = PageOrder[AuditEntry](
    (AuditEntry.at, AuditEntry.id), (datetime, str), lambda row: (row.at, row.id), descending=True
)


def list_audit_entries(
    tenant: Tenant, user_id: str | None, cursor: str | None, limit: int, *, agent_id: str | None = None
) -> ResultPage[AuditEntry]:
    """Return a page of the project's audit log, latest entry first.

    Args:
        tenant: The project.
        user_id: Only entries about this user, also if they are erased; None for all.
        cursor: The cursor of the previous page, or None.
        limit: The maximum number of entries.
        agent_id: Only changes of this agent, also if it is deleted; None for all.

    Raises:
        InvalidRequestError: If the cursor is invalid.
    """
    statement = select(AuditEntry)
    if user_id is not None:
        statement = statement.where(AuditEntry.user_digest == hash_user_id(tenant.scope.project_id, user_id))
    if agent_id is not None:
        statement = statement.where(AuditEntry.agent_id == agent_id)
    with tenant.begin_read() as session:
        return _ENTRY_ORDER.fetch_page(session, statement, cursor, limit)
