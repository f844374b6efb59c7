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
    ProjectRemovalOut,
    ProjectsOut,
)
from memoair_cloud.project_removal import remove_project
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
    """Set what is never learned in a project, which recall traces it keeps, and for how many days."""
    given = body.model_fields_set
    traces = projects.TraceSettings(body.recall_traces, "recall_traces" in given, body.recall_trace_days)
    project = projects.change_project(tenant.for_project(project_id), body.excluded_kinds, traces)
    if body.excluded_kinds is not None:
        services.queue.enqueue_exclusion(project_id)
    return ProjectOut.model_validate(project)


@router.delete("/{project_id}", operation_id="deleteProject", responses=error_responses(COMMON_ERRORS, NotFoundError))
def delete_project(tenant: AccountTenant, project_id: PathId, services: ServicesDep) -> ProjectRemovalOut:
    """Delete a project with its callers, documents and agents. Machines keep their copies."""
    return ProjectRemovalOut.model_validate(remove_project(tenant.for_project(project_id), services.blobs))


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


@router.get(
    "/{project_id}/agents/{agent_id}",
    operation_id="getAgent",
    responses=error_responses(COMMON_ERRORS, NotFoundError),
)
def get_agent(tenant: AccountTenant, project_id: PathId, agent_id: PathId) -> AgentOut:
    """Return an agent."""
    return AgentOut.model_validate(projects.get_agent(tenant.for_project(project_id), agent_id))


@router.delete(
    "/{project_id}/agents/{agent_id}",
    operation_id="deleteAgent",
    responses=error_responses(COMMON_ERRORS, NotFoundError),
)
def delete_agent(tenant: AccountTenant, project_id: PathId, agent_id: PathId) -> AgentOut:
    """Delete an agent. Its calls stay."""
    return AgentOut.model_validate(projects.delete_agent(tenant.for_project(project_id), agent_id))
