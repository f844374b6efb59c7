"""Routes for projects and their agents."""

from http import HTTPStatus

from fastapi import APIRouter

from memoair_cloud.errors import BatchTooLargeError, ConflictError, NotFoundError
from memoair_cloud.http.body_parsing import JsonRoute
from memoair_cloud.http.dependencies import AccountTenant, ServicesDep
from memoair_cloud.http.errors import COMMON_ERRORS, error_responses
from memoair_cloud.http.exact_path import PathId
from memoair_cloud.http.schemas.projects import (
    AgentIn,
    AgentOut,
    AgentsOut,
    ProjectIn,
    ProjectOut,
    ProjectPatch,
    ProjectsOut,
)
from memoair_cloud.tenancy import projects

router = APIRouter(prefix="/v1/projects", tags=["projects"], route_class=JsonRoute)


@router.post(
    "",
    status_code=HTTPStatus.CREATED,
    operation_id="createProject",
    responses=error_responses(COMMON_ERRORS, ConflictError, BatchTooLargeError),
)
def create_project(tenant: AccountTenant, body: ProjectIn) -> ProjectOut:
    """Create a project."""
    project = projects.create_project(tenant, body.name, body.slug, body.description or "")
    return ProjectOut.model_validate(project)


@router.get("", operation_id="listProjects", responses=error_responses(COMMON_ERRORS))
def list_projects(tenant: AccountTenant) -> ProjectsOut:
    """List all projects of the account."""
    return ProjectsOut(projects=[ProjectOut.model_validate(project) for project in projects.list_projects(tenant)])


@router.get("/{project_id}", operation_id="getProject", responses=error_responses(COMMON_ERRORS, NotFoundError))
def get_project(tenant: AccountTenant, project_id: PathId) -> ProjectOut:
    """Return a project."""
    return ProjectOut.model_validate(projects.get_project(tenant.for_project(project_id)))


@router.patch(
    "/{project_id}",
    operation_id="changeProject",
    responses=error_responses(COMMON_ERRORS, NotFoundError, BatchTooLargeError),
)
def change_project(tenant: AccountTenant, project_id: PathId, body: ProjectPatch, services: ServicesDep) -> ProjectOut:
    """Set what is never learned in a project, which recall traces it has, and how long its data is kept."""
    retention = {} if body.retention is None else body.retention.changes()
    tenant = tenant.for_project(project_id)
    project = projects.change_project(
        tenant,
        body.excluded_kinds,
        retention,
        body.recall_traces,
        changes_trace_mode="recall_traces" in body.model_fields_set,
    )
    if body.excluded_kinds is not None:
        services.queue.enqueue_exclusion(project_id)
    if retention:
        services.queue.enqueue_retention(project_id)
    return ProjectOut.model_validate(project)


@router.post(
    "/{project_id}/agents",
    status_code=HTTPStatus.CREATED,
    operation_id="createAgent",
    responses=error_responses(COMMON_ERRORS, NotFoundError, ConflictError, BatchTooLargeError),
)
def create_agent(tenant: AccountTenant, project_id: PathId, body: AgentIn) -> AgentOut:
    """Create an agent in a project."""
    return AgentOut.model_validate(projects.create_agent(tenant.for_project(project_id), body.name, body.agent_type))


@router.get("/{project_id}/agents", operation_id="listAgents", responses=error_responses(COMMON_ERRORS, NotFoundError))
def list_agents(tenant: AccountTenant, project_id: PathId) -> AgentsOut:
    """List a project's agents."""
    agents = projects.list_agents(tenant.for_project(project_id))
    return AgentsOut(agents=[AgentOut.model_validate(agent) for agent in agents])
