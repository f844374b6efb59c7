"""Legal holds: an order to keep the data of a caller, or of all callers of a project.

While it stands, no period drops anything of what it covers, and erasures are rejected. Who placed and lifted it, when
and why stays on record, until the caller is erased.
"""

from collections.abc import Sequence

from sqlalchemy import ColumnElement, and_, or_, select
from sqlalchemy.orm import InstrumentedAttribute

from memoair_cloud.audit.log import AuditAction, record_change
from memoair_cloud.calls.users import lock_user
from memoair_cloud.database.models import EndUser, LegalHold
from memoair_cloud.errors import ConflictError, LegalHoldError, NotFoundError
from memoair_cloud.identifiers import new_id
from memoair_cloud.retention.policy import lock_project
from memoair_cloud.tenancy.access import Tenant
from memoair_cloud.tenancy.scoped import ScopedSession
from memoair_protocol.timestamps import utc_now


def is_held(session: ScopedSession, user_id: str | None) -> bool:
    """Return whether a hold covers a user; for None, whether one covers the whole project."""
    covers: ColumnElement[bool] = LegalHold.user_id.is_(None)
    if user_id is not None:
        covers = or_(covers, LegalHold.user_id == user_id)
    return session.scalar(select(LegalHold.id).where(LegalHold.lifted_at.is_(None), covers).limit(1)) is not None


def check_not_held(session: ScopedSession, user_id: str) -> None:
    """Raise `LegalHoldError` if a hold covers a user. The user and the project must be locked."""
    if is_held(session, user_id):
        raise LegalHoldError("a legal hold covers this user: nothing is erased until it is lifted")


def not_held_condition(
    user_id: InstrumentedAttribute[str], project_id: InstrumentedAttribute[str]
) -> ColumnElement[bool]:
    """Return the condition that no hold on the user stands, nor on the whole project."""
    covers = and_(
        LegalHold.project_id == project_id,
        LegalHold.lifted_at.is_(None),
        or_(LegalHold.user_id.is_(None), LegalHold.user_id == user_id),
    )
    return ~select(LegalHold.id).where(covers).exists()


def place_hold(tenant: Tenant, user_id: str | None, reason: str, placed_by: str) -> LegalHold:
    """Place a hold on a user, or on all users of a project.

    Args:
        tenant: The project.
        user_id: The user; None for all.
        reason: Why, for people.
        placed_by: Who, for people.

    Raises:
        NotFoundError: If the user is unknown.
        ConflictError: If there is such a hold already.
    """
    with tenant.begin_write() as session:
        _lock(session, user_id)
        if session.scalar(select(LegalHold.id).where(LegalHold.lifted_at.is_(None), _is_about(user_id))) is not None:
            raise ConflictError("there is such a hold already")
        hold = LegalHold(
            project_id=session.scope.project_id,
            id=new_id("hold"),
            user_id=user_id,
            reason=reason,
            placed_at=utc_now(),
            placed_by=placed_by,
        )
        session.add(hold)
        if user_id is not None:
            record_change(session, AuditAction.HELD_CALLER, user_id)
        return hold


def lift_hold(tenant: Tenant, user_id: str | None, reason: str, lifted_by: str) -> LegalHold:
    """Lift the hold on a user, or on all users of a project. It stays on record.

    Args:
        tenant: The project.
        user_id: The user; None for the hold on all.
        reason: Why, for people.
        lifted_by: Who, for people.

    Raises:
        NotFoundError: If there is no such hold.
    """
    with tenant.begin_write() as session:
        _lock(session, user_id)
        hold = session.scalar(select(LegalHold).where(LegalHold.lifted_at.is_(None), _is_about(user_id)))
        if hold is None:
            raise NotFoundError("no such hold")
        hold.lifted_at, hold.lifted_by, hold.lift_reason = utc_now(), lifted_by, reason
        if user_id is not None:
            record_change(session, AuditAction.RELEASED_CALLER, user_id)
        return hold


def list_holds(tenant: Tenant, user_id: str | None) -> Sequence[LegalHold]:
    """Return the holds on a user, or those on all users of a project, earliest first, lifted ones included."""
    with tenant.begin_read() as session:
        if user_id is not None and session.scalar(select(EndUser.id).where(EndUser.id == user_id)) is None:
            raise NotFoundError("unknown user")
        statement = select(LegalHold).where(_is_about(user_id))
        return session.scalars(statement.order_by(LegalHold.placed_at, LegalHold.id)).all()


def list_held_users(session: ScopedSession) -> Sequence[str]:
    """Return the users that holds of their own cover, sorted."""
    statement = select(LegalHold.user_id).where(LegalHold.lifted_at.is_(None), LegalHold.user_id.is_not(None))
    return sorted({user_id for user_id in session.scalars(statement) if user_id is not None})


def _lock(session: ScopedSession, user_id: str | None) -> None:
    """Lock what a hold is about, as erasures and the dropping of old data do: neither overlooks the other."""
    if user_id is not None and lock_user(session, user_id) is None:
        raise NotFoundError("unknown user")
    lock_project(session).retention_version += 1


def _is_about(user_id: str | None) -> ColumnElement[bool]:
    return LegalHold.user_id.is_(None) if user_id is None else LegalHold.user_id == user_id
