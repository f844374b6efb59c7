"""Forgetting a caller: all that is kept of him, with a receipt, and nothing of it comes back."""

from datetime import datetime
from typing import Any

import attrs
from sqlalchemy import delete, func, select

from memoair_cloud.calls.callers import forgotten, locked_or_new_caller
from memoair_cloud.database.models import (
    Base,
    CallerProfile,
    CallEvent,
    CallSession,
    EndUser,
    ForgottenUser,
    Memory,
    MemoryChange,
    Project,
)
from memoair_cloud.moments import utc_now
from memoair_cloud.names import user_digest
from memoair_cloud.tenancy.access import Tenant
from memoair_cloud.tenancy.scoped import ScopedSession

_TABLES: dict[str, type[Base]] = {
    "sessions": CallSession,
    "events": CallEvent,
    "memories": Memory,
    "memory_changes": MemoryChange,
    "profiles": CallerProfile,
}


@attrs.frozen
class Forgetting:
    """When a caller was forgotten, and how many rows of him there were, by what they held."""

    user_id: str
    forgotten_at: datetime
    removed: dict[str, int]


def forget(tenant: Tenant, user_id: str) -> Forgetting:
    """Remove all that is kept of a caller, and what is still to be learned from it. Twice is no harm.

    From now on an event that was said before this moment is refused, whenever it comes. So this is noted also for one
    of whom nothing is known here: a device may have been offline. What is noted is a hash of his id.
    """
    with tenant.writing() as session:
        project = session.scalars(
            select(Project).where(Project.id == session.scope.project_id).with_for_update(key_share=True)
        ).one()
        now = utc_now()
        user = locked_or_new_caller(session, user_id, now)  # also where there is none: who writes now must wait
        removed = {name: _count(session, model, user_id) for name, model in _TABLES.items()}
        removed["queued"] = _queued(session, user_id)
        project.forgotten_version += 1
        before = forgotten(session, user_id)
        profile = session.get(CallerProfile, (session.scope.project_id, user_id))
        versions = [profile.version if profile else 0, before.profile_version if before else 0]
        noted = before or ForgottenUser(
            project_id=session.scope.project_id, digest=user_digest(session.scope.project_id, user_id)
        )
        noted.forgotten_at, noted.version = now, project.forgotten_version
        noted.memory_version, noted.profile_version = user.memory_version + 1, max(versions) + 1
        session.add(noted)
        session.flush()
        session.expunge_all()
        # Whatever refers to the caller goes with his row.
        session.execute(delete(EndUser).where(EndUser.id == user_id))
        return Forgetting(user_id, now, removed)


def _count(session: ScopedSession, model: Any, user_id: str) -> int:
    return session.scalars(select(func.count()).select_from(model).where(model.user_id == user_id)).one()


def _queued(session: ScopedSession, user_id: str) -> int:
    """How many calls were still to be learned from."""
    waiting = CallSession.user_id == user_id, CallSession.learned_count < CallSession.event_count
    return session.scalars(select(func.count()).select_from(CallSession).where(*waiting)).one()
