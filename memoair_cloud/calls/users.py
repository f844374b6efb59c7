"""The row of a user, which every writer of that user's data locks first, and the records of erased users."""

from collections.abc import Iterable
from datetime import datetime
from typing import Any

from sqlalchemy import select

from memoair_cloud.database.models import CallerProfile, EndUser, ForgottenSession, ForgottenUser
from memoair_cloud.errors import NotFoundError
from memoair_cloud.identifiers import hash_session_id
from memoair_cloud.tenancy.access import Tenant
from memoair_cloud.tenancy.scoped import ScopedSession
from memoair_protocol.hashes import hash_user_id

_NO_USER = ""  # the id of no user


def lock_user(session: ScopedSession, user_id: str) -> EndUser | None:
    """Return the user's row, locked until the end of the transaction; None if the user is unknown.

    All writers of one user's data queue for this row. So what they read about the user stays true until they commit,
    and no two of them can deadlock.
    """
    statement = select(EndUser).where(EndUser.id == user_id)
    # With key share, other transactions may still insert rows that refer to this one.
    locked = statement.with_for_update(key_share=True).execution_options(populate_existing=True)
    return session.scalars(locked).one_or_none()


def lock_or_create_user(session: ScopedSession, user_id: str, seen_at: datetime) -> EndUser:
    """Lock the user's row as `lock_user` does, creating it if needed.

    If the user was erased before, the versions continue from those at the time of the erasure.
    """
    while (user := lock_user(session, user_id)) is None:
        # Another transaction may create or erase the user between these two statements, so check again.
        session.insert_missing(EndUser, [_new_user_row(user_id, seen_at)])
    if not user.memory_version and (erasure := find_erasure(session, user_id)):
        user.memory_version = user.memory_floor = erasure.memory_version
        user.profile_version = erasure.profile_version
    return user


def find_erasure(session: ScopedSession, user_id: str) -> ForgottenUser | None:
    """Return the record of the user's erasure; None if they were never erased."""
    digest = hash_user_id(session.scope.project_id, user_id)
    return session.scalars(select(ForgottenUser).where(ForgottenUser.digest == digest)).one_or_none()


def find_erased_sessions(session: ScopedSession, user_id: str, session_ids: Iterable[str]) -> set[str]:
    """Return those of a user's sessions that were known when the user was erased."""
    project_id = session.scope.project_id
    digests = {hash_session_id(project_id, user_id, session_id): session_id for session_id in session_ids}
    found = session.scalars(select(ForgottenSession.digest).where(ForgottenSession.digest.in_(digests)))
    return {digests[digest] for digest in found}


def record_erased_sessions(session: ScopedSession, user_id: str, session_ids: Iterable[str]) -> None:
    """Record the sessions of a user who is being erased: what arrives of them later is rejected.

    Each is recorded with its user, and without: an outcome need not say whose session it is about.
    """
    project_id = session.scope.project_id
    owners = (user_id, _NO_USER)
    digests = [hash_session_id(project_id, owner, session_id) for session_id in session_ids for owner in owners]
    session.insert_missing(ForgottenSession, [{"digest": digest} for digest in digests])


def find_sessions_of_erased_users(session: ScopedSession, session_ids: Iterable[str]) -> set[str]:
    """Return those sessions that a user had who was erased. Other users may have the same ids."""
    return find_erased_sessions(session, _NO_USER, session_ids)


def _new_user_row(user_id: str, seen_at: datetime) -> dict[str, Any]:
    return {
        "id": user_id,
        "name": None,
        "details": {},
        "described_at": None,
        "session_count": 0,
        "first_seen_at": seen_at,
        "last_seen_at": seen_at,
        "memory_version": 0,
        "memory_floor": 0,
        "profile_version": 0,
    }


def get_user_profile(tenant: Tenant, user_id: str) -> tuple[EndUser, CallerProfile | None]:
    """Return a user and the profile that was derived of them, if there is one.

    Raises:
        NotFoundError: If the user is unknown.
    """
    with tenant.begin_read() as session:
        key = session.scope.project_id, user_id
        user = session.get(EndUser, key)
        if user is None:
            raise NotFoundError("unknown caller")
        return user, session.get(CallerProfile, key)
