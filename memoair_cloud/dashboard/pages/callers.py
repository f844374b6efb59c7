"""The pages of callers: the list, and a caller with facts and calls."""

from typing import Annotated

from fastapi import APIRouter, Query, Response

from memoair_cloud.audit.log import AuditAction
from memoair_cloud.calls.queries import list_sessions
from memoair_cloud.calls.search import search_users
from memoair_cloud.calls.users import get_user_profile
from memoair_cloud.dashboard.page_route import PageRoute
from memoair_cloud.dashboard.project_page import PAGE_ROWS, CursorParam, PageDep, SearchText
from memoair_cloud.http.exact_path import PathId
from memoair_cloud.memories.editing import list_memories

router = APIRouter(prefix="/p/{project_id}/callers", route_class=PageRoute)

_CALLS_SHOWN = 20


@router.get("")
def show_callers(page: PageDep, q: SearchText = "", cursor: CursorParam = None) -> Response:
    """List callers, last seen first."""
    found = search_users(page.tenant, q, cursor, PAGE_ROWS)
    values = {"users": found.rows, "next_cursor": found.next_cursor, "cursor": cursor, "q": q}
    return page.render("callers.html", "callers", **values)


@router.get("/{user_id}")
def show_caller(
    page: PageDep,
    user_id: PathId,
    facts_cursor: CursorParam = None,
    calls_cursor: CursorParam = None,
    history: Annotated[bool, Query(description="also facts that no longer hold")] = False,
) -> Response:
    """Show a caller: who they are, what is known about them, and their calls."""
    user, profile = get_user_profile(page.tenant, user_id)
    facts = list_memories(page.tenant, user_id, facts_cursor, PAGE_ROWS, history=history)
    calls = list_sessions(page.tenant, user_id, calls_cursor, _CALLS_SHOWN)
    page.record_read(AuditAction.READ_CALLER, user_id)
    return page.render(
        "caller.html",
        "callers",
        user=user,
        profile=profile,
        facts=facts,
        calls=calls,
        history=history,
        facts_cursor=facts_cursor,
        calls_cursor=calls_cursor,
    )
