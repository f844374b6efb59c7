"""Projects and their agents."""

import uuid
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from sqlalchemy import select
from sqlalchemy.exc import IntegrityError

from memoair_cloud.audit.log import AuditAction, record_agent_change
from memoair_cloud.database.models import Agent, Project
from memoair_cloud.errors import ConflictError, NotFoundError
from memoair_cloud.evaluation.locking import lock_evaluations_of_agent
from memoair_cloud.identifiers import random_suffix, slugify
from memoair_cloud.retention.policy import lock_project, set_policy
from memoair_cloud.tenancy.access import Tenant
from memoair_cloud.tenancy.scoped import ScopedSession
from memoair_protocol.enums import TraceMode
from memoair_protocol.timestamps import utc_now


def create_project(tenant: Tenant, name: str, slug: str, description: str) -> Project:
    """Create a project with the id ``proj_<slug>``, or with a random suffix if another account has that id.

    Raises:
        ConflictError: If this account already has a project with this slug.
    """
    for project_id in (f"proj_{slug}", f"proj_{slug}_{random_suffix()}"):
        project = Project(
            id=project_id,
            account_id=tenant.scope.account_id,
            name=name,
            slug=slug,
            description=description,
            created_at=utc_now(),
            org_version=0,
            epoch=uuid.uuid4().hex,  # a project that a backup lacks may be created again with the same id
        )
        try:
            with tenant.begin_write() as session:
                if session.scalar(select(Project.id).where(Project.slug == slug)):
                    raise ConflictError("this account already has a project with this slug", field="slug")
                session.add(project)
        except IntegrityError:  # another account has the id, or a concurrent request of this account created it first
            continue
        return project
    raise ConflictError("this account already has a project with this slug", field="slug")


def list_projects(tenant: Tenant) -> list[Project]:
    """Return the account's projects, oldest first."""
    with tenant.begin_read() as session:
        return list(session.scalars(select(Project).order_by(Project.created_at, Project.id)))


def get_project(tenant: Tenant) -> Project:
    """Return the project of a tenant."""
    with tenant.begin_read() as session:
        project = session.get(Project, tenant.scope.project_id)
        if project is None:
            raise NotFoundError("unknown project")
        return project


def get_project_with_agents(tenant: Tenant) -> tuple[Project, list[Agent]]:
    """Return the project of a tenant and its agents, oldest first; raise `NotFoundError` if it does not exist."""
    with tenant.begin_read() as session:
        project = session.get(Project, tenant.scope.project_id)
        if project is None:
            raise NotFoundError("unknown project", resource="project")
        return project, list(session.scalars(select(Agent).order_by(Agent.created_at, Agent.id)))


def change_project(
    tenant: Tenant,
    kinds: Sequence[str] | None,
    retention: Mapping[str, Any],
    trace_mode: TraceMode | None = None,
    *,
    changes_trace_mode: bool = False,
) -> Project:
    """Change the settings of a project. What they concern of earlier data is removed in the background.

    Args:
        tenant: The project.
        kinds: What is never learned; None for no change.
        retention: New values of fields of `memoair_cloud.retention.policy.RetentionPolicy`.
        trace_mode: What is kept of searches by machines that set nothing; None for their default.
        changes_trace_mode: Whether to set it.

    Raises:
        NotFoundError: If the project is unknown.
    """
    with tenant.begin_write() as session:
        project = lock_project(session)
        if kinds is not None:
            project.has_new_exclusions = project.has_new_exclusions or not set(kinds) <= set(project.excluded_kinds)
            project.excluded_kinds = list(dict.fromkeys(kinds))
        if changes_trace_mode:
            project.recall_traces = None if trace_mode is None else trace_mode.value
        set_policy(project, retention)
        return project


def create_agent(tenant: Tenant, name: str, agent_type: str) -> Agent:
    """Create an agent. Its id contains the project and the first word of its name, if that id is free.

    Raises:
        ConflictError: If no free id was found.
    """
    project_part = tenant.scope.project_id.removeprefix("proj_")
    for agent_id in _candidate_agent_ids(project_part, slugify(name)):
        agent = Agent(
            project_id=tenant.scope.project_id, id=agent_id, name=name, agent_type=agent_type, created_at=utc_now()
        )
        try:
            with tenant.begin_write() as session:
                if session.scalar(select(Agent.id).where(Agent.id == agent_id)):
                    continue
                session.add(agent)
        except IntegrityError:  # a concurrent request took the id
            continue
        return agent
    raise ConflictError("no free id found for the agent; try again")


def get_agent(tenant: Tenant, agent_id: str) -> Agent:
    """Return an agent of the project; raise `NotFoundError` if it does not exist."""
    with tenant.begin_read() as session:
        return _get_agent(session, agent_id)


def delete_agent(tenant: Tenant, agent_id: str) -> Agent:
    """Delete an agent, and return what it was; raise `NotFoundError` if it does not exist.

    Its calls stay, its prompts and evaluations go with it, and requests that name it are rejected.
    """
    with tenant.begin_write() as session:
        agent = _get_agent(session, agent_id)
        lock_evaluations_of_agent(session, agent_id)
        record_agent_change(session, AuditAction.DELETED_AGENT, agent_id)
        session.delete(agent)
        return agent


def _get_agent(session: ScopedSession, agent_id: str) -> Agent:
    agent = session.scalar(select(Agent).where(Agent.id == agent_id))
    if agent is None:
        raise NotFoundError("unknown agent in this project", resource="agent")
    return agent


def list_agents(tenant: Tenant) -> list[Agent]:
    """Return the project's agents, oldest first."""
    with tenant.begin_read() as session:
        return list(session.scalars(select(Agent).order_by(Agent.created_at, Agent.id)))


def _candidate_agent_ids(project: str, slug: str) -> Iterator[str]:
    # For "Returns concierge" of Acme: agent_acme_returns first, then the whole name, then a random suffix.
    first_word = slug.partition("-")[0]
    if first_word:
        yield f"agent_{project}_{first_word}"
        yield f"agent_{project}_{slug.replace('-', '_')}"
    for _ in range(3):
        yield f"agent_{project}_{random_suffix()}"
