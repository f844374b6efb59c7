"""The page of the audit log."""

from typing import Annotated

from fastapi import APIRouter, Query, Response

from memoair_cloud.audit.queries import list_audit_entries
from memoair_cloud.dashboard.page_route import PageRoute
from memoair_cloud.dashboard.project_page import PAGE_ROWS, CursorParam, PageDep

router = APIRouter(prefix="/p/{project_id}/audit", route_class=PageRoute)


@router.get("")
def show_audit(
    page: PageDep,
    caller: Annotated[str, Query(max_length=512)] = "",
    changed: Annotated[str, Query(max_length=512, description="only changes of this agent")] = "",
    cursor: CursorParam = None,
) -> Response:
    """List who read or changed what about callers, and who changed agents."""
    agent_id = changed.strip() or None
    found = list_audit_entries(page.tenant, caller.strip() or None, cursor, PAGE_ROWS, agent_id=agent_id)
    values = {"entries": found.rows, "next_cursor": found.next_cursor, "cursor": cursor}
    values |= {"caller": caller, "changed": changed}
    return page.render("audit.html", "audit", **values)
