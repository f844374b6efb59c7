"""Paginated lists of users, their sessions and the events of a session."""

from datetime import datetime

import attrs
from sqlalchemy import Select, select

from memoair_cloud.cursors import PageOrder, ResultPage
from memoair_cloud.database.models import CallEvent, CallSession, EndUser
from memoair_cloud.errors import ConflictError, NotFoundError
from memoair_cloud.tenancy.access import Tenant
from memoair_cloud.tenancy.scoped import ScopedSession

# Sorted by id, not by the last call: a list that changes its order while it is read would skip users.
_USER_ORDER = PageOrder[EndUser]((EndUser.id,), (str,), lambda user: (user.id,))
_SESSION_ORDER = PageOrder[CallSession](
    (CallSession.started_at, CallSession.id),
    (datetime, str),
    lambda call: (call.started_at, call.id),
    descending=True,
)
_PROJECT_SESSION_ORDER = PageOrder[CallSession](
    (CallSession.started_at, CallSession.user_id, CallSession.id),
    (datetime, str, str),
    lambda call: (call.started_at, call.user_id, call.id),
    descending=True,
)
_EVENT_ORDER = PageOrder[CallEvent]((CallEvent.seq, CallEvent.id), (int, str), lambda event: (event.seq, event.id))


@attrs.frozen
class SessionFilter:
    """Limits which sessions of a project are listed. None means no limit.

    Attributes:
        agent_id: Only sessions of this agent.
        since: Only sessions that started at this time or later.
        until: Only sessions that started before this time.
    """

    agent_id: str | None = None
    since: datetime | None = None
    until: datetime | None = None

    def apply(self, statement: Select[tuple[CallSession]]) -> Select[tuple[CallSession]]:
        """Return a statement that selects only such sessions."""
        if self.agent_id is not None:
            statement = statement.where(CallSession.agent_id == self.agent_id)
        if self.since is not None:
            statement = statement.where(CallSession.started_at >= self.since)
        if self.until is not None:
            statement = statement.where(CallSession.started_at < self.until)
        return statement


def list_users(tenant: Tenant, cursor: str | None, limit: int) -> ResultPage[EndUser]:
    """Return a page of the project's users, sorted by id."""
    with tenant.begin_read() as session:
        return _USER_ORDER.fetch_page(session, select(EndUser), cursor, limit)


def list_sessions(tenant: Tenant, user_id: str, cursor: str | None, limit: int) -> ResultPage[CallSession]:
    """Return a page of a user's sessions, latest first; raise `NotFoundError` for an unknown user."""
    with tenant.begin_read() as session:
        if session.scalar(select(EndUser.id).where(EndUser.id == user_id)) is None:
            raise NotFoundError("unknown user")
        return _SESSION_ORDER.fetch_page(
            session, select(CallSession).where(CallSession.user_id == user_id), cursor, limit
        )


def list_project_sessions(
    tenant: Tenant, wanted: SessionFilter, cursor: str | None, limit: int
) -> ResultPage[CallSession]:
    """Return a page of the sessions of all users of a project, latest first; of one user if the tenant names one."""
    with tenant.begin_read() as session:
        statement = wanted.apply(select(CallSession))
        if tenant.scope.user_id is not None:
            statement = statement.where(CallSession.user_id == tenant.scope.user_id)
        return _PROJECT_SESSION_ORDER.fetch_page(session, statement, cursor, limit)


def get_session(tenant: Tenant, session_id: str) -> CallSession:
    """Return a session.

    Raises:
        NotFoundError: If there is no such session.
        ConflictError: If several users have a session with this id and the tenant names no user.
    """
    with tenant.begin_read() as session:
        user_id = _resolve_user(session, session_id)
        return session.scalars(
            select(CallSession).where(CallSession.user_id == user_id, CallSession.id == session_id)
        ).one()


def list_events(tenant: Tenant, session_id: str, cursor: str | None, limit: int) -> ResultPage[CallEvent]:
    """Return a page of a session's events in order.

    Raises:
        NotFoundError: If there is no such session.
        ConflictError: If several users have a session with this id and the tenant names no user.
    """
    with tenant.begin_read() as session:
        user_id = _resolve_user(session, session_id)
        statement = select(CallEvent).where(CallEvent.user_id == user_id, CallEvent.session_id == session_id)
        return _EVENT_ORDER.fetch_page(session, statement, cursor, limit)


def _resolve_user(session: ScopedSession, session_id: str) -> str:
    # Clients choose session ids, so two users may have the same one.
    statement = select(CallSession.user_id).where(CallSession.id == session_id)
    if session.scope.user_id is not None:
        statement = statement.where(CallSession.user_id == session.scope.user_id)
    user_ids = session.scalars(statement.limit(2)).all()
    if not user_ids:
        raise NotFoundError("unknown session")
    if len(user_ids) > 1:
        raise ConflictError("several users have a session with this id: set X-User-Id", field="X-User-Id")
    return user_ids[0]
