"""Outcomes that arrived before their calls: give them to the call when it arrives, or drop them if it never does."""

from collections.abc import Iterable
from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, Engine, and_, delete, or_, select, tuple_
from sqlalchemy.orm import Session

from memoair_cloud.calls.users import lock_user
from memoair_cloud.database.models import CallSession, ForgottenUser
from memoair_cloud.database.outcome_models import CallOutcome
from memoair_cloud.outcomes.reporting import hash_outcome
from memoair_cloud.retention.holds import not_held_condition
from memoair_cloud.tenancy.access import Tenant
from memoair_cloud.tenancy.scoped import ScopedSession
from memoair_protocol.hashes import hash_user_id

# How long an outcome waits for its call. A machine that was offline sends its calls within days.
WAITS_FOR_CALL = timedelta(days=30)
_MAX_RACE_AGE = timedelta(days=1)
_MAX_ROWS = 1_000
_UNSYNCHRONIZED = {"synchronize_session": False}


def link_to_new_calls(session: ScopedSession, user_id: str, session_ids: Iterable[str]) -> None:
    """Give the outcomes that wait for calls to them.

    Args:
        session: The transaction that has saved the calls and has locked the user's row.
        user_id: The user.
        session_ids: Their new calls.
    """
    digest = hash_user_id(session.scope.project_id, user_id)
    is_theirs = or_(CallOutcome.user_digest.is_(None), CallOutcome.user_digest == digest)
    waiting = select(CallOutcome).where(
        CallOutcome.session_id.in_(set(session_ids)), CallOutcome.user_id.is_(None), is_theirs
    )
    # Reports write in this order: of a call and a report at the same time, neither waits for the other's second row.
    locked = session.scalars(waiting.order_by(CallOutcome.session_id, CallOutcome.id).with_for_update()).all()
    for row in sorted(locked, key=lambda row: (row.session_id, row.received_at)):
        row_id = hash_outcome(digest, row.session_id, row.outcome, row.outcome_id)
        if row.id != row_id:  # it named no user; what names them is another report of the same outcome
            key = session.scope.project_id, row.session_id, row_id
            other = session.get(CallOutcome, key)
            if other is not None and other.received_at >= row.received_at:
                session.delete(row)
                continue
            if other is not None:
                session.delete(other)
                session.flush()
        row.id, row.user_id, row.user_digest = row_id, user_id, digest
        session.flush()


def erase_waiting_outcomes(
    session: ScopedSession, user_digest: str, session_ids: Iterable[str], until: datetime | None = None
) -> None:
    """Delete the outcomes of an erased user that wait for a call. Those of known calls go with the calls.

    Args:
        session: The transaction that erases the user and has locked their row.
        user_digest: The hash of the user's id.
        session_ids: Their calls.
        until: Delete only outcomes up to this time.
    """
    is_of_call = and_(CallOutcome.user_digest.is_(None), CallOutcome.session_id.in_(set(session_ids)))
    is_theirs = or_(CallOutcome.user_digest == user_digest, is_of_call)
    statement = delete(CallOutcome).where(CallOutcome.user_id.is_(None), is_theirs)
    if until is not None:
        statement = statement.where(CallOutcome.reported_at <= until)
    session.execute(statement, execution_options=_UNSYNCHRONIZED)


def find_projects_with_waiting_outcomes(engine: Engine, now: datetime) -> list[str]:
    """Return the projects that have an outcome without its call although the call is there.

    That happens if both arrive at the same moment: neither transaction sees the other's rows. So only what arrived
    lately is looked at.
    """
    with Session(engine) as session:
        is_recent = CallOutcome.received_at > now - _MAX_RACE_AGE
        same = and_(CallSession.project_id == CallOutcome.project_id, CallSession.id == CallOutcome.session_id)
        found = select(CallOutcome.project_id).join(CallSession, same).where(CallOutcome.user_id.is_(None), is_recent)
        return sorted(session.scalars(found.distinct()))


def link_waiting_outcomes(tenant: Tenant, now: datetime) -> int:
    """Give the recent outcomes of a project that wait for calls to those that are there.

    Args:
        tenant: The project.
        now: The present time.

    Returns:
        The number of calls.
    """
    count, last = 0, ("", "", "")
    while True:
        rows = _find_calls_of_waiting(tenant, now, last)
        found: dict[str, set[str]] = {}
        for user_id, session_id, _, digest in rows:
            # A session id may be that of other users, too: their calls are not locked in vain at each sweep.
            if digest in (None, hash_user_id(tenant.scope.project_id, user_id)):
                found.setdefault(user_id, set()).add(session_id)
        for user_id, session_ids in found.items():
            with tenant.begin_write() as session:
                if lock_user(session, user_id) is None:
                    continue
                known = select(CallSession.id).where(CallSession.user_id == user_id, CallSession.id.in_(session_ids))
                link_to_new_calls(session, user_id, session.scalars(known).all())
        count += sum(map(len, found.values()))
        if len(rows) < _MAX_ROWS:
            return count
        last = rows[-1][:3]


def _find_calls_of_waiting(
    tenant: Tenant, now: datetime, last: tuple[str, str, str]
) -> list[tuple[str, str, str, str | None]]:
    """Return the next calls with the id of one that an outcome waits for: user, session, outcome, and hash of its user.

    Args:
        tenant: The project.
        now: The present time.
        last: The first three of the last call that was returned.
    """
    key = CallSession.user_id, CallSession.id, CallOutcome.id
    same = and_(CallSession.project_id == CallOutcome.project_id, CallSession.id == CallOutcome.session_id)
    is_recent = CallOutcome.received_at > now - _MAX_RACE_AGE
    statement = select(*key, CallOutcome.user_digest).join(CallOutcome, same)
    is_next = CallOutcome.user_id.is_(None), is_recent, tuple_(*key) > last
    with tenant.begin_read() as session:
        rows = session.execute(statement.where(*is_next).order_by(*key).limit(_MAX_ROWS))
        return [(row[0], row[1], row[2], row[3]) for row in rows]


def is_abandoned(now: datetime, turns_cutoff: datetime | None) -> ColumnElement[bool]:
    """Return the condition that selects outcomes whose calls are not expected any more.

    They have waited too long, or their user was erased after them: a report that names a user without a call locks
    nothing, so that it may be saved just after an erasure which it did not see.

    Args:
        now: The present time.
        turns_cutoff: The time before which the project's turns are dropped; None if none are.
    """
    cutoff = now - WAITS_FOR_CALL
    if turns_cutoff is not None:
        cutoff = max(cutoff, turns_cutoff)
    is_of_erased = select(ForgottenUser.digest).where(
        ForgottenUser.project_id == CallOutcome.project_id,
        ForgottenUser.digest == CallOutcome.user_digest,
        ForgottenUser.forgotten_at >= CallOutcome.reported_at,
    )
    is_recent = CallOutcome.received_at > now - _MAX_RACE_AGE  # all that wait would be too many to look at each time
    return and_(
        CallOutcome.user_id.is_(None),
        or_(CallOutcome.received_at < cutoff, and_(is_recent, is_of_erased.exists())),
        not_held_condition(CallOutcome.user_id, CallOutcome.project_id),  # type: ignore[arg-type]
    )


def drop_abandoned_outcomes(session: ScopedSession, now: datetime, turns_cutoff: datetime | None) -> int:
    """Delete some outcomes whose calls are not expected any more; return how many.

    Args:
        session: The transaction, which has locked the project.
        now: The present time.
        turns_cutoff: The time before which the project's turns are dropped; None if none are.
    """
    columns = CallOutcome.session_id, CallOutcome.id
    keys = session.execute(select(*columns).where(is_abandoned(now, turns_cutoff)).limit(_MAX_ROWS)).all()
    for session_id, row_id in keys:
        session.execute(
            delete(CallOutcome).where(CallOutcome.session_id == session_id, CallOutcome.id == row_id),
            execution_options=_UNSYNCHRONIZED,
        )
    return len(keys)
