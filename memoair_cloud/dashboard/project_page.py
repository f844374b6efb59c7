"""What the pages of a project share: the tenant, the project, its agents, and the view that the address asks for."""

from collections.abc import Iterable, Sequence
from http import HTTPStatus
from typing import Annotated, Any

import attrs
from fastapi import Depends, Form, Query, Request, Response
from fastapi.responses import RedirectResponse

from memoair_cloud.audit.log import AuditAction
from memoair_cloud.dashboard.rendering import href, render
from memoair_cloud.dashboard.view import View, read_view
from memoair_cloud.dashboard.visitor import Visitor
from memoair_cloud.database.models import Agent, Project
from memoair_cloud.http.dependencies import Services
from memoair_cloud.http.exact_path import PathId
from memoair_cloud.tenancy.access import Tenant
from memoair_cloud.tenancy.grants import Action
from memoair_cloud.tenancy.projects import get_project_with_agents

PAGE_ROWS = 50


@attrs.frozen
class ProjectPage:
    """A request for a page of a project.

    Attributes:
        request: The request.
        visitor: Who asks.
        tenant: The project, as far as the visitor may access it.
        project: The project's row.
        agents: Its agents.
        view: The period, the time zone and the agent.
        services: The services of the application.
    """

    request: Request
    visitor: Visitor
    tenant: Tenant
    project: Project
    agents: Sequence[Agent]
    view: View
    services: Services

    def href(self, *parts: str, **changes: str | int | None) -> str:
        """Return the address of a page of the project, which shows the same view."""
        return href("p", self.project.id, *parts, query=self.view.query(**changes))

    def render(self, template: str, nav: str = "", **values: Any) -> Response:
        """Return a page.

        Args:
            template: The name of the template.
            nav: The entry of the navigation that it belongs to.
            **values: Values of the template.
        """
        names = {agent.id: agent.name for agent in self.agents}
        context = {
            "page": self,
            "project": self.project,
            "agents": self.agents,
            "agent_names": names,
            "view": self.view,
            "link": self.href,
            "nav": nav,
            "can_write": self.visitor.can_write,
        }
        return render(self.request, template, {**context, **values})

    def redirect(self, *parts: str, **changes: str | int | None) -> Response:
        """Redirect to a page of the project, after a form was accepted."""
        return RedirectResponse(self.href(*parts, **changes), HTTPStatus.SEE_OTHER)

    def require_write(self) -> None:
        """Raise `ForbiddenError` if the visitor may change nothing, before their form is looked at."""
        self.tenant.grant.check(Action.WRITE, self.project.id)

    def record_read(self, action: AuditAction, user_id: str, target: str | None = None) -> None:
        """Record in the audit log that a caller's data is shown."""
        self.services.reads.record(self.tenant, action, user_id, target)

    def record_reads(self, action: AuditAction, read: Iterable[tuple[str, str | None]]) -> None:
        """Record that data of several callers is shown, in one transaction."""
        self.services.reads.record_all(self.tenant, action, read)


def get_visitor(request: Request) -> Visitor:
    """Return the visitor that the route has admitted."""
    visitor: Visitor = request.state.visitor
    return visitor


VisitorDep = Annotated[Visitor, Depends(get_visitor)]


def get_project_page(request: Request, visitor: VisitorDep, project_id: PathId) -> ProjectPage:
    """Return the request for a page of the project that the path names; raise `NotFoundError` for unknown ones."""
    tenant = visitor.tenant.for_project(project_id)
    project, agents = get_project_with_agents(tenant)
    return ProjectPage(request, visitor, tenant, project, agents, read_view(request), request.app.state.services)


PageDep = Annotated[ProjectPage, Depends(get_project_page)]
CursorParam = Annotated[str | None, Query(max_length=4_096)]
SearchText = Annotated[str, Query(max_length=200)]
Text = Annotated[str, Form(max_length=1_000)]
