"""The list of projects, which is the home page unless there is only one."""

from fastapi import APIRouter, Request, Response
from fastapi.responses import RedirectResponse

from memoair_cloud.dashboard.page_route import PageRoute
from memoair_cloud.dashboard.project_page import VisitorDep
from memoair_cloud.dashboard.rendering import href, render
from memoair_cloud.errors import NotFoundError
from memoair_cloud.tenancy.projects import list_projects

router = APIRouter(route_class=PageRoute)


@router.get("")
def show_home(visitor: VisitorDep, request: Request) -> Response:
    """Lead to the only project, or to the list of projects."""
    projects = list_projects(visitor.tenant)
    if len(projects) == 1:
        return RedirectResponse(href("p", projects[0].id), 303)
    return render(request, "projects.html", {"projects": projects})


@router.get("/projects")
def show_projects(visitor: VisitorDep, request: Request) -> Response:
    """List the projects that the visitor may access."""
    return render(request, "projects.html", {"projects": list_projects(visitor.tenant)})


# Included last: what no other route knows gets a page, too.
fallback_router = APIRouter(route_class=PageRoute)


@fallback_router.get("/{path:path}")
def show_nothing(path: str) -> Response:  # noqa: ARG001
    """Say that there is no such page."""
    raise NotFoundError("there is no page with this address")
