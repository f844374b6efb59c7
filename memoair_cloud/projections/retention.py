"""The projection of a project's retention, by which machines drop old turns themselves, also offline."""

from typing import Any

from sqlalchemy import select

from memoair_cloud.database.models import Project
from memoair_cloud.retention.holds import is_held, list_held_users
from memoair_cloud.tenancy.access import Tenant
from memoair_protocol.hashes import hash_user_id


def build_retention_projection(tenant: Tenant, held_version: int | None) -> dict[str, Any] | None:
    """Return how long machines keep turns, as JSON; None if the machine has this version."""
    with tenant.begin_read() as session:
        project_id = tenant.scope.project_id
        project = session.scalars(select(Project).where(Project.id == project_id)).one()
        if project.retention_version == held_version:
            return None
        return {
            "version": project.retention_version,
            "turnsDays": project.keep_turns_days,
            "held": is_held(session, None),
            "heldUsers": [hash_user_id(project_id, user_id) for user_id in list_held_users(session)],
        }
