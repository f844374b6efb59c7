"""Erasures that a machine remembers and this database does not: it was restored from a backup made before them.

Machines know erased users by a hash of their ids, as this database does. What the backup has of such a user is erased
again; calls after the erasure stay.
"""

from collections.abc import Mapping
from datetime import datetime

from sqlalchemy import delete, func, select, update

from memoair_cloud.calls.users import lock_user, record_erased_sessions
from memoair_cloud.database.engine import purge_wal
from memoair_cloud.database.models import (
    CallerProfile,
    CallSession,
    EndUser,
    ForgottenUser,
    Memory,
)
from memoair_cloud.evaluation.locking import erase_evaluations
from memoair_cloud.outcomes.resolving import erase_waiting_outcomes
from memoair_cloud.recall_traces.erasure import erase_traces
from memoair_cloud.retention.holds import is_held
from memoair_cloud.retention.policy import lock_project
from memoair_cloud.tenancy.access import Tenant
from memoair_cloud.tenancy.scoped import ScopedSession
from memoair_protocol.hashes import hash_user_id
from memoair_protocol.timestamps import utc_now


def replay_erasures(tenant: Tenant, erasures: Mapping[str, datetime]) -> int:
    """Erase users again up to the times at which they were erased.

    Args:
        tenant: The project.
        erasures: The time of each erasure by the hash of the user's id. Times in the future count as now.

    Returns:
        The number of erasures that were not known, or not up to that time. Users that a hold covers are not erased.
    """
    unknown = _find_unknown(tenant, erasures)
    user_ids = _find_user_ids(tenant, set(unknown)) if unknown else {}
    replayed = 0
    for digest, erased_at in unknown.items():
        with tenant.begin_write() as session:
            replayed += _replay(session, digest, user_ids.get(digest), min(erased_at, utc_now()))
    if unknown:
        purge_wal(tenant.engine)
    return replayed


def _find_unknown(tenant: Tenant, erasures: Mapping[str, datetime]) -> dict[str, datetime]:
    with tenant.begin_read() as session:
        statement = select(ForgottenUser.digest, ForgottenUser.forgotten_at).where(ForgottenUser.digest.in_(erasures))
        known = {row.digest: row.forgotten_at for row in session.execute(statement)}
    return {digest: at for digest, at in erasures.items() if digest not in known or known[digest] < at}


def _find_user_ids(tenant: Tenant, digests: set[str]) -> dict[str, str]:
    """Return the users of the project with these hashes. All users are hashed: this happens after a restore only."""
    with tenant.begin_read() as session:
        project_id = tenant.scope.project_id
        hashed = ((hash_user_id(project_id, user_id), user_id) for user_id in session.scalars(select(EndUser.id)))
        return {digest: user_id for digest, user_id in hashed if digest in digests}


def _replay(session: ScopedSession, digest: str, user_id: str | None, erased_at: datetime) -> bool:
    """Erase a user again; return False if a hold forbids it."""
    user = lock_user(session, user_id) if user_id is not None else None
    project_id = session.scope.project_id
    project = lock_project(session)  # as in an erasure, the user before the project
    if user is not None and is_held(session, user.id):
        return False
    erasure = session.get(ForgottenUser, (project_id, digest)) or ForgottenUser(
        project_id=project_id, digest=digest, memory_version=0, profile_version=0
    )
    project.forgotten_version += 1
    erasure.version, erasure.forgotten_at = project.forgotten_version, erased_at
    erasure.asked_version, erasure.asked_at = erasure.version, erased_at
    last = user or erasure
    erasure.memory_version, erasure.profile_version = last.memory_version + 1, last.profile_version + 1
    session.add(erasure)
    session.flush()
    if user is not None:
        _erase_until(session, user, erased_at)
    else:
        erase_waiting_outcomes(session, digest, (), erased_at)
    return True


def _erase_until(session: ScopedSession, user: EndUser, erased_at: datetime) -> None:
    """Delete a user's calls up to a time, and all that was learned; the later calls are learned from again."""
    is_earlier = CallSession.user_id == user.id, CallSession.started_at <= erased_at
    session_ids = session.scalars(select(CallSession.id).where(*is_earlier)).all()
    record_erased_sessions(session, user.id, session_ids)
    unsynchronized = {"synchronize_session": False}
    erase_traces(session, user.id, erased_at)
    # All of them: what they have of a later call may quote what was said before the erasure.
    erase_evaluations(session, user.id)
    digest = hash_user_id(session.scope.project_id, user.id)
    erase_waiting_outcomes(session, digest, session_ids, erased_at)
    later = select(func.count(), func.min(CallSession.started_at)).select_from(CallSession)
    later_count, first_at = session.execute(
        later.where(CallSession.user_id == user.id, CallSession.started_at > erased_at)
    ).one()
    if not later_count:
        session.execute(delete(EndUser).where(EndUser.id == user.id), execution_options=unsynchronized)
        session.expunge(user)
        return
    for statement in (
        delete(CallSession).where(*is_earlier),
        delete(Memory).where(Memory.user_id == user.id),
        delete(CallerProfile).where(CallerProfile.user_id == user.id),
        update(CallSession)
        .where(CallSession.user_id == user.id)
        .values(learned_count=0, failures=0, retry_at=None, claimed_until=None),
    ):
        session.execute(statement, execution_options=unsynchronized)
    user.session_count, user.first_seen_at = later_count, first_at
    if user.described_at is not None and user.described_at <= erased_at:
        user.name, user.details, user.described_at = None, {}, None
    user.memory_version += 2  # above the version of the erasure
    user.memory_floor = user.memory_version
    user.profile_version += 2
