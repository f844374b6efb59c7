"""Callers, their sessions and what was said in them, by the page."""

from datetime import datetime

from sqlalchemy import select

from memoair_cloud.cursors import PageOrder, ResultPage
from memoair_cloud.database.models import CallEvent, CallSession, EndUser
from memoair_cloud.errors import ConflictError, NotFoundError
from memoair_cloud.tenancy.access import Tenant
from memoair_cloud.tenancy.scoped import ScopedSession

# By id and not by the last call: a list that is sorted anew while it is read would leave callers out.
_USER_ORDER = PageOrder[EndUser]((EndUser.id,), (str,), lambda user: (user.id,))
_SESSION_ORDER = PageOrder[CallSession](
    (CallSession.started_at, CallSession.id),
    (datetime, str),
    lambda call: (call.started_at, call.id),
    descending=True,
)
_EVENT_ORDER = PageOrder[CallEvent]((CallEvent.seq, CallEvent.id), (int, str), lambda event: (event.seq, event.id))


def list_users(tenant: Tenant, cursor: str | None, limit: int) -> ResultPage[EndUser]:
    """The project's callers, by id."""
    with tenant.begin_read() as session:
        return _USER_ORDER.fetch_page(session, select(EndUser), cursor, limit)


def list_sessions(tenant: Tenant, user_id: str, cursor: str | None, limit: int) -> ResultPage[CallSession]:
    """A caller's sessions, the latest first; raises `NotFoundError` for a caller of whom nothing is known."""
    with tenant.begin_read() as session:
        if session.scalar(select(EndUser.id).where(EndUser.id == user_id)) is None:
            raise NotFoundError("there is no such caller")
        return _SESSION_ORDER.fetch_page(
            session, select(CallSession).where(CallSession.user_id == user_id), cursor, limit
        )


def list_events(tenant: Tenant, session_id: str, cursor: str | None, limit: int) -> ResultPage[CallEvent]:
    """A session's events, in order; raises `NotFoundError`, or `ConflictError` where only X-User-Id could tell which it is."""
    with tenant.begin_read() as session:
        user_id = _resolve_user(session, session_id)
        statement = select(CallEvent).where(CallEvent.user_id == user_id, CallEvent.session_id == session_id)
        return _EVENT_ORDER.fetch_page(session, statement, cursor, limit)


def _resolve_user(session: ScopedSession, session_id: str) -> str:
    # A session's id is the client's own, so two callers may have the same.
    statement = select(CallSession.user_id).where(CallSession.id == session_id)
    if session.scope.user_id is not None:
        statement = statement.where(CallSession.user_id == session.scope.user_id)
    user_ids = session.scalars(statement.limit(2)).all()
    if not user_ids:
        raise NotFoundError("there is no such session")
    if len(user_ids) > 1:
        raise ConflictError(
            "several callers have a session of this id; X-User-Id tells which is meant", field="X-User-Id"
        )
    return user_ids[0]
