"""Erase a user: delete all their data, return a receipt, and make sure that none of it comes back."""

from datetime import datetime
from typing import Any

import attrs
from sqlalchemy import delete, func, select

from memoair_cloud.audit.log import AuditAction, forget_user_in_audit, record_change
from memoair_cloud.calls.users import find_erasure, lock_or_create_user
from memoair_cloud.database.engine import purge_wal
from memoair_cloud.database.models import (
    Base,
    CallerProfile,
    CallEvent,
    CallSession,
    EndUser,
    ForgottenSession,
    ForgottenUser,
    Memory,
    MemoryChange,
    Project,
)
from memoair_cloud.database.recall_trace_models import RecallTrace
from memoair_cloud.identifiers import hash_session_id
from memoair_cloud.recall_traces.erasure import erase_traces
from memoair_cloud.tenancy.access import Tenant
from memoair_cloud.tenancy.scoped import ScopedSession
from memoair_protocol.hashes import hash_user_id
from memoair_protocol.timestamps import utc_now

_COUNTED_TABLES: dict[str, type[Base]] = {
    "sessions": CallSession,
    "events": CallEvent,
    "memories": Memory,
    "memory_changes": MemoryChange,
    "profiles": CallerProfile,
    "recall_traces": RecallTrace,
}


@attrs.frozen
class ErasureReceipt:
    """The receipt for an erased user.

    Attributes:
        user_id: The id of the user.
        forgotten_at: When the user was erased.
        removed: The number of removed rows by kind.
    """

    user_id: str
    forgotten_at: datetime
    removed: dict[str, int]


def erase_user(tenant: Tenant, user_id: str) -> ErasureReceipt:
    """Delete all data of a user, including work that is queued for it. Erasing twice is harmless.

    From now on, events from before this moment and events of known calls are rejected, whenever they arrive. An unknown
    user is recorded, too, because a machine may have been offline. Only hashes of the ids of the user and of their
    calls are recorded.

    Args:
        tenant: The project.
        user_id: The user.
    """
    with tenant.begin_write() as session:
        user = lock_or_create_user(session, user_id, utc_now())  # unknown users, too: concurrent writers must wait
        now = utc_now()
        # Lock the user before the project: a slow writer of the user's data must not hold up the whole project.
        project_id = session.scope.project_id
        statement = select(Project).where(Project.id == project_id).with_for_update(key_share=True)
        project = session.scalars(statement.execution_options(populate_existing=True)).one()
        removed = {name: _count_rows(session, model, user_id) for name, model in _COUNTED_TABLES.items()}
        removed["queued"] = _count_pending_calls(session, user_id)
        project.forgotten_version += 1
        erasure = find_erasure(session, user_id) or ForgottenUser(
            project_id=project_id, digest=hash_user_id(project_id, user_id)
        )
        erasure.version = project.forgotten_version
        erasure.forgotten_at = max(now, user.last_seen_at)  # a machine's clock may be slightly ahead
        erasure.memory_version, erasure.profile_version = user.memory_version + 1, user.profile_version + 1
        session.add(erasure)
        session_ids = session.scalars(select(CallSession.id).where(CallSession.user_id == user_id)).all()
        session.insert_missing(
            ForgottenSession,
            [{"digest": hash_session_id(project_id, user_id, session_id)} for session_id in session_ids],
        )
        record_change(session, AuditAction.ERASED_CALLER, user_id)
        session.flush()
        forget_user_in_audit(session, user_id)
        session.expunge_all()
        erase_traces(session, user_id)
        # Deleting the user's row cascades to all rows that refer to it.
        session.execute(delete(EndUser).where(EndUser.id == user_id))
        receipt = ErasureReceipt(user_id, erasure.forgotten_at, removed)
    purge_wal(tenant.engine)
    return receipt


def _count_rows(session: ScopedSession, model: Any, user_id: str) -> int:
    return session.scalars(select(func.count()).select_from(model).where(model.user_id == user_id)).one()


def _count_pending_calls(session: ScopedSession, user_id: str) -> int:
    """Return the number of calls that were not consolidated yet."""
    is_pending = CallSession.user_id == user_id, CallSession.learned_count < CallSession.event_count
    return session.scalars(select(func.count()).select_from(CallSession).where(*is_pending)).one()
