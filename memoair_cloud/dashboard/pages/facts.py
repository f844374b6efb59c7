"""The page of a fact: its source and history; correct it, undo that, delete it."""

from datetime import date
from typing import Annotated

from fastapi import APIRouter, Form, Response

from memoair_cloud.audit.log import AuditAction
from memoair_cloud.dashboard.page_route import PageRoute
from memoair_cloud.dashboard.project_page import PageDep, Text
from memoair_cloud.errors import InvalidRequestError
from memoair_cloud.http.exact_path import PathId
from memoair_cloud.identifiers import sanitize_text
from memoair_cloud.memories import editing

router = APIRouter(prefix="/p/{project_id}/callers/{user_id}/facts/{memory_id}", route_class=PageRoute)

_MAX_VALUE_CHARS = 500


@router.get("")
def show_fact(page: PageDep, user_id: PathId, memory_id: PathId, done: str = "") -> Response:
    """Show a fact."""
    memory = editing.get_memory(page.tenant, user_id, memory_id)
    changes = editing.get_history(page.tenant, user_id, memory_id)
    page.record_read(AuditAction.READ_MEMORIES, user_id, memory_id)
    is_corrected = any(change.action == "corrected" for change in changes)
    values = {"memory": memory, "changes": changes, "is_corrected": is_corrected, "done": done}
    return page.render("fact.html", "callers", user_id=user_id, **values)


@router.post("/correct")
def correct_fact(
    page: PageDep,
    user_id: PathId,
    memory_id: PathId,
    text: Text = "",
    value: Text = "",
    holds_from: Text = "",
    holds_until: Text = "",
) -> Response:
    """Correct a fact. Fields that are as before stay as they are."""
    if not text.strip():
        raise InvalidRequestError("the text of a fact is required; to remove the fact, delete it", field="text")
    if len(value) > _MAX_VALUE_CHARS:
        raise InvalidRequestError(f"the value is longer than {_MAX_VALUE_CHARS} characters", field="value")
    memory = editing.get_memory(page.tenant, user_id, memory_id)
    given = {"holds_from": _parse_day("from", holds_from), "holds_until": _parse_day("until", holds_until)}
    days = {name: day for name, day in given.items() if day != getattr(memory, name)}
    text, value = sanitize_text(text.strip()), sanitize_text(value.strip())
    if (text, value) != (memory.text, memory.value) or days:
        editing.correct_memory(page.tenant, user_id, memory_id, editing.MemoryCorrection(text, value, days))
    return page.redirect("callers", user_id, "facts", memory_id, done="corrected")


@router.post("/undo")
def undo_correction(page: PageDep, user_id: PathId, memory_id: PathId) -> Response:
    """Undo the last correction of a fact."""
    editing.undo_correction(page.tenant, user_id, memory_id)
    return page.redirect("callers", user_id, "facts", memory_id, done="undone")


@router.post("/delete")
def delete_fact(
    page: PageDep, user_id: PathId, memory_id: PathId, is_confirmed: Annotated[bool, Form(alias="confirm")] = False
) -> Response:
    """Delete a fact."""
    if not is_confirmed:
        raise InvalidRequestError("tick the box to confirm: a deleted fact and its history do not come back")
    editing.delete_memory(page.tenant, user_id, memory_id)
    return page.redirect("callers", user_id)


def _parse_day(field: str, text: str) -> date | None:
    if not text.strip():
        return None
    try:
        return date.fromisoformat(text.strip())
    except ValueError:
        raise InvalidRequestError(f"{field}: use a day such as 2026-03-02", field=field) from None
