"""The page of the legal holds on a caller: place one, lift it."""

from fastapi import APIRouter, Response

from memoair_cloud.calls.queries import get_user
from memoair_cloud.dashboard.page_route import PageRoute
from memoair_cloud.dashboard.project_page import PageDep, ProjectPage, Text
from memoair_cloud.errors import InvalidRequestError
from memoair_cloud.http.exact_path import PathId
from memoair_cloud.identifiers import sanitize_text
from memoair_cloud.retention import holds

router = APIRouter(prefix="/p/{project_id}/callers/{user_id}/holds", route_class=PageRoute)


@router.get("")
def show_holds(page: PageDep, user_id: PathId) -> Response:
    """List the holds on a caller, lifted ones included."""
    detail = get_user(page.tenant, user_id)
    own = holds.list_holds(page.tenant, user_id)
    of_project = [hold for hold in holds.list_holds(page.tenant, None) if hold.lifted_at is None]
    is_standing = any(hold.lifted_at is None for hold in own)
    values = {"user": detail.user, "holds": own, "of_project": of_project, "is_standing": is_standing}
    return page.render("holds.html", "callers", **values)


@router.post("/place")
def place_hold(page: PageDep, user_id: PathId, reason: Text = "") -> Response:
    """Place a hold on a caller."""
    holds.place_hold(page.tenant, user_id, _require_reason(reason), _actor(page))
    return page.redirect("callers", user_id, "holds")


@router.post("/lift")
def lift_hold(page: PageDep, user_id: PathId, reason: Text = "") -> Response:
    """Lift the hold on a caller."""
    holds.lift_hold(page.tenant, user_id, _require_reason(reason), _actor(page))
    return page.redirect("callers", user_id, "holds")


def _require_reason(reason: str) -> str:
    if not reason.strip():
        raise InvalidRequestError("a reason is required: it stays on record", field="reason")
    return sanitize_text(reason.strip())


def _actor(page: ProjectPage) -> str:
    actor = page.tenant.scope.actor
    return page.visitor.name if actor is None else actor.id
