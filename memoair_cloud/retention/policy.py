"""The periods after which a project's data is dropped, and the times that follow from them."""

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

import attrs
from sqlalchemy import select

from memoair_cloud.database.models import Project
from memoair_cloud.errors import NotFoundError
from memoair_cloud.tenancy.access import Tenant
from memoair_cloud.tenancy.scoped import ScopedSession
from memoair_protocol.retention import find_cutoff

# No period is shorter. Newer data never has to be compared with a period.
MIN_PERIOD = timedelta(days=1)


@attrs.frozen
class RetentionPolicy:
    """For how many days a project keeps data; None for ever.

    Attributes:
        turns_days: Turns, counted from when they were said.
        callers_days: Whole callers, counted from their last event.
        traces_days: Recall traces, counted from the recall.
        drops_facts: Whether facts go with the turns that they were learned from.
    """

    turns_days: int | None = None
    callers_days: int | None = None
    traces_days: int | None = None
    drops_facts: bool = False

    @classmethod
    def of(cls, project: Project) -> "RetentionPolicy":
        """Return the policy of a project."""
        return cls(
            project.keep_turns_days,
            project.keep_callers_days,
            project.keep_traces_days,
            drops_facts=project.drops_facts,
        )

    def turns_cutoff(self, now: datetime) -> datetime | None:
        """Return the time before which turns are dropped; None if none are."""
        return find_cutoff(now, self.turns_days)

    def callers_cutoff(self, now: datetime) -> datetime | None:
        """Return the time before which the last event of an erased caller lies; None if none are erased."""
        return find_cutoff(now, self.callers_days)

    def traces_cutoff(self, now: datetime) -> datetime | None:
        """Return the time before which traces are dropped; None if none are."""
        return find_cutoff(now, self.traces_days)


_COLUMNS = {
    "turns_days": "keep_turns_days",
    "callers_days": "keep_callers_days",
    "traces_days": "keep_traces_days",
    "drops_facts": "drops_facts",
}


def load_policy(session: ScopedSession) -> RetentionPolicy:
    """Return the policy of the session's project."""
    project = session.scalars(select(Project).where(Project.id == session.scope.project_id)).one()
    return RetentionPolicy.of(project)


def set_policy(project: Project, changes: Mapping[str, Any]) -> None:
    """Change the policy of a project, within the caller's transaction.

    Args:
        project: The project.
        changes: New values of fields of `RetentionPolicy`.
    """
    before = RetentionPolicy.of(project)
    for name, value in changes.items():
        setattr(project, _COLUMNS[name], value)
    project.retention_version += RetentionPolicy.of(project) != before


def lock_project(session: ScopedSession) -> Project:
    """Return the row of the session's project, locked until the end of the transaction.

    To be locked after the row of a user, never before it.
    """
    statement = select(Project).where(Project.id == session.scope.project_id).with_for_update(key_share=True)
    project = session.scalars(statement.execution_options(populate_existing=True)).one_or_none()
    if project is None:
        raise NotFoundError("unknown project")
    return project


def preview_policy(tenant: Tenant, changes: Mapping[str, Any]) -> RetentionPolicy:
    """Return the policy that a project would have after changes."""
    with tenant.begin_read() as session:
        return attrs.evolve(load_policy(session), **changes)
