"""The pages to erase a caller: what will be deleted, the confirmation, and the receipt."""

from fastapi import APIRouter, Response

from memoair_cloud.calls.queries import get_user
from memoair_cloud.dashboard.page_route import PageRoute
from memoair_cloud.dashboard.project_page import PageDep, Text
from memoair_cloud.errors import InvalidRequestError
from memoair_cloud.http.exact_path import PathId
from memoair_cloud.memories.erasure import erase_user

router = APIRouter(prefix="/p/{project_id}/callers/{user_id}/erase", route_class=PageRoute)


@router.get("")
def show_erasure(page: PageDep, user_id: PathId) -> Response:
    """Say what will be deleted, and ask to confirm it."""
    detail = get_user(page.tenant, user_id)
    return page.render("erase.html", "callers", user=detail.user, is_held=detail.is_held, counts=detail.counts)


@router.post("")
def erase(page: PageDep, user_id: PathId, confirmation: Text = "") -> Response:
    """Erase a caller, and show the receipt."""
    user = get_user(page.tenant, user_id).user
    if confirmation.strip() not in {user.id, user.name or user.id}:
        raise InvalidRequestError(
            "nothing was erased: type the id or the name of the caller exactly as it is shown", field="confirmation"
        )
    return page.render("receipt.html", "callers", receipt=erase_user(page.tenant, user_id))
