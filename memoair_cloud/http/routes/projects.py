"""Projects and their agents."""

from http import HTTPStatus
from typing import Annotated

from fastapi import APIRouter, Path

from memoair_cloud.faults import Conflict, Invalid, NotFound, TooLarge
from memoair_cloud.http.dependencies import AccountTenant
from memoair_cloud.http.errors import EVERYWHERE, documented
from memoair_cloud.http.schemas import AgentIn, AgentOut, AgentsOut, ProjectIn, ProjectOut, ProjectsOut
from memoair_cloud.http.wire_request import WireRoute
from memoair_cloud.names import check_identifier
from memoair_cloud.tenancy import projects
from memoair_cloud.tenancy.access import Tenant

router = APIRouter(prefix="/v1/projects", tags=["projects"], route_class=WireRoute)

ProjectId = Annotated[str, Path(min_length=1)]


def _within(tenant: Tenant, project_id: str) -> Tenant:
    try:
        return tenant.in_project(check_identifier(project_id))
    except ValueError as error:
        raise Invalid(f"the project's id: {error}") from None


@router.post(
    "",
    status_code=HTTPStatus.CREATED,
    operation_id="createProject",
    responses=documented(EVERYWHERE, Conflict, TooLarge),
)
def create_project(tenant: AccountTenant, body: ProjectIn) -> ProjectOut:
    """Make a project."""
    made = projects.create_project(tenant, body.name, body.slug, body.description or "")
    return ProjectOut.model_validate(made)


@router.get("", operation_id="listProjects", responses=documented(EVERYWHERE))
def list_projects(tenant: AccountTenant) -> ProjectsOut:
    """All projects of the account."""
    return ProjectsOut(projects=[ProjectOut.model_validate(each) for each in projects.list_projects(tenant)])


@router.get("/{project_id}", operation_id="getProject", responses=documented(EVERYWHERE, NotFound))
def get_project(tenant: AccountTenant, project_id: ProjectId) -> ProjectOut:
    """One project."""
    return ProjectOut.model_validate(projects.get_project(_within(tenant, project_id)))


@router.post(
    "/{project_id}/agents",
    status_code=HTTPStatus.CREATED,
    operation_id="createAgent",
    responses=documented(EVERYWHERE, NotFound, Conflict, TooLarge),
)
def create_agent(tenant: AccountTenant, project_id: ProjectId, body: AgentIn) -> AgentOut:
    """Make an agent in a project."""
    return AgentOut.model_validate(projects.create_agent(_within(tenant, project_id), body.name, body.agent_type))


@router.get("/{project_id}/agents", operation_id="listAgents", responses=documented(EVERYWHERE, NotFound))
def list_agents(tenant: AccountTenant, project_id: ProjectId) -> AgentsOut:
    """A project's agents."""
    found = projects.list_agents(_within(tenant, project_id))
    return AgentsOut(agents=[AgentOut.model_validate(each) for each in found])
