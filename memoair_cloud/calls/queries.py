"""Callers, their sessions and what was said in them, by the page."""

from datetime import datetime

from sqlalchemy import select

from memoair_cloud.cursors import PageOrder, ResultPage
from memoair_cloud.database.models import CallEvent, CallSession, EndUser
from memoair_cloud.errors import ConflictError, NotFoundError
from memoair_cloud.tenancy.access import Tenant
from memoair_cloud.tenancy.scoped import ScopedSession

# By id and not by the last call: a list that is sorted anew while it is read would leave callers out.
_USERS = PageOrder[EndUser]((EndUser.id,), (str,), lambda user: (user.id,))
_SESSIONS = PageOrder[CallSession](
    (CallSession.started_at, CallSession.id),
    (datetime, str),
    lambda call: (call.started_at, call.id),
    descending=True,
)
_EVENTS = PageOrder[CallEvent]((CallEvent.seq, CallEvent.id), (int, str), lambda event: (event.seq, event.id))


def list_users(tenant: Tenant, cursor: str | None, limit: int) -> ResultPage[EndUser]:
    """The project's callers, by id."""
    with tenant.reading() as session:
        return _USERS.page(session, select(EndUser), cursor, limit)


def list_sessions(tenant: Tenant, user_id: str, cursor: str | None, limit: int) -> ResultPage[CallSession]:
    """A caller's sessions, the latest first; raises `NotFoundError` for a caller of whom nothing is known."""
    with tenant.reading() as session:
        if session.scalar(select(EndUser.id).where(EndUser.id == user_id)) is None:
            raise NotFoundError("there is no such caller")
        return _SESSIONS.page(session, select(CallSession).where(CallSession.user_id == user_id), cursor, limit)


def list_events(tenant: Tenant, session_id: str, cursor: str | None, limit: int) -> ResultPage[CallEvent]:
    """A session's events, in order; raises `NotFoundError`, or `ConflictError` where only X-User-Id could tell which it is."""
    with tenant.reading() as session:
        user_id = _whose(session, session_id)
        wanted = select(CallEvent).where(CallEvent.user_id == user_id, CallEvent.session_id == session_id)
        return _EVENTS.page(session, wanted, cursor, limit)


def _whose(session: ScopedSession, session_id: str) -> str:
    # A session's id is the client's own, so two callers may have the same.
    callers = select(CallSession.user_id).where(CallSession.id == session_id)
    if session.scope.user_id is not None:
        callers = callers.where(CallSession.user_id == session.scope.user_id)
    found = session.scalars(callers.limit(2)).all()
    if not found:
        raise NotFoundError("there is no such session")
    if len(found) > 1:
        raise ConflictError(
            "several callers have a session of this id; X-User-Id tells which is meant", field="X-User-Id"
        )
    return found[0]
