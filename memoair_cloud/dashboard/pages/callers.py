"""The pages of callers: the list, and a caller with facts and calls."""

from collections.abc import Iterator
from typing import IO, Annotated

from fastapi import APIRouter, Query, Response
from fastapi.responses import StreamingResponse
from starlette.background import BackgroundTask

from memoair_cloud.audit.log import AuditAction
from memoair_cloud.calls.export import write_export
from memoair_cloud.calls.queries import UserFilter, UserOrder, get_user, list_sessions, list_users
from memoair_cloud.calls.users import get_user_profile
from memoair_cloud.dashboard.page_route import PageRoute
from memoair_cloud.dashboard.project_page import PAGE_ROWS, CursorParam, PageDep, SearchText
from memoair_cloud.http.exact_path import PathId
from memoair_cloud.memories.editing import list_memories
from memoair_cloud.outcomes.queries import load_outcomes_of_calls

router = APIRouter(prefix="/p/{project_id}/callers", route_class=PageRoute)

_CALLS_SHOWN = 20
_BLOCK_BYTES = 256 << 10


@router.get("")
def show_callers(page: PageDep, q: SearchText = "", cursor: CursorParam = None) -> Response:
    """List callers, last seen first."""
    found = list_users(page.tenant, cursor, PAGE_ROWS, UserFilter(q), UserOrder.LAST_SEEN)
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
    is_held = get_user(page.tenant, user_id).is_held
    facts = list_memories(page.tenant, user_id, facts_cursor, PAGE_ROWS, history=history)
    calls = list_sessions(page.tenant, user_id, calls_cursor, _CALLS_SHOWN)
    page.record_read(AuditAction.READ_CALLER, user_id)
    return page.render(
        "caller.html",
        "callers",
        user=user,
        profile=profile,
        is_held=is_held,
        facts=facts,
        calls=calls,
        outcomes=load_outcomes_of_calls(page.tenant, calls.rows),
        history=history,
        facts_cursor=facts_cursor,
        calls_cursor=calls_cursor,
    )


@router.get("/{user_id}/export")
def export_caller(page: PageDep, user_id: PathId) -> Response:
    """Return everything that is kept of a caller as a file."""
    file = write_export(page.tenant, user_id)
    try:
        page.record_read(AuditAction.EXPORTED_CALLER, user_id)
    except BaseException:
        file.close()
        raise
    headers = {"Content-Length": str(file.tell()), "Content-Disposition": 'attachment; filename="caller.json"'}
    file.seek(0)
    return StreamingResponse(
        _read_blocks(file), media_type="application/json", headers=headers, background=BackgroundTask(file.close)
    )


def _read_blocks(file: IO[bytes]) -> Iterator[bytes]:
    while block := file.read(_BLOCK_BYTES):
        yield block
