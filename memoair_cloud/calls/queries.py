"""Paginated lists of users, their sessions and the events of a session."""

import json
from datetime import datetime
from enum import Enum

import attrs
from sqlalchemy import ColumnElement, Text, or_, select, type_coerce

from memoair_cloud.cursors import PageOrder, ResultPage
from memoair_cloud.database.caller_tables import CALLER_TABLES
from memoair_cloud.database.models import CallEvent, CallSession, EndUser
from memoair_cloud.errors import ConflictError, NotFoundError
from memoair_cloud.retention.holds import is_held
from memoair_cloud.tenancy.access import Tenant
from memoair_cloud.tenancy.scoped import ScopedSession

# Sorted by id, not by the last call: a list that changes its order while it is read would skip users.
_USER_ORDER = PageOrder[EndUser]((EndUser.id,), (str,), lambda user: (user.id,))
_LAST_SEEN_ORDER = PageOrder[EndUser](
    (EndUser.last_seen_at, EndUser.id), (datetime, str), lambda user: (user.last_seen_at, user.id), descending=True
)
_SESSION_ORDER = PageOrder[CallSession](
    (CallSession.started_at, CallSession.id),
    (datetime, str),
    lambda call: (call.started_at, call.id),
    descending=True,
)
_EVENT_ORDER = PageOrder[CallEvent]((CallEvent.seq, CallEvent.id), (int, str), lambda event: (event.seq, event.id))


class UserOrder(str, Enum):
    """The sort orders of users."""

    ID = "id"
    LAST_SEEN = "lastSeen"  # latest first


@attrs.frozen
class UserFilter:
    """Which users to list.

    Attributes:
        text: Words, each of which occurs in the name, the id or the metadata. Case does not matter for a to z.
        seen_after: The time since when they were heard of.
        seen_before: The time since when they were not.
    """

    text: str = ""
    seen_after: datetime | None = None
    seen_before: datetime | None = None

    def conditions(self) -> list[ColumnElement[bool]]:
        """Return the SQL conditions."""
        metadata = type_coerce(EndUser.details, Text())
        found = []
        for word in self.text.split():
            stored = json.dumps(word)[1:-1]  # as `memoair_cloud.database.columns.Json` writes it
            fields = (EndUser.name, word), (EndUser.id, word), (metadata, stored)
            found.append(or_(*(column.icontains(part, autoescape=True) for column, part in fields)))
        if self.seen_after is not None:
            found.append(EndUser.last_seen_at >= self.seen_after)
        if self.seen_before is not None:
            found.append(EndUser.last_seen_at < self.seen_before)
        return found


@attrs.frozen
class UserDetail:
    """A user, and what is kept of them.

    Attributes:
        user: The user.
        is_held: Whether a legal hold covers them.
        counts: The number of their rows by kind.
    """

    user: EndUser
    is_held: bool
    counts: dict[str, int]


def list_users(
    tenant: Tenant,
    cursor: str | None,
    limit: int,
    user_filter: UserFilter = UserFilter(),
    order: UserOrder = UserOrder.ID,
) -> ResultPage[EndUser]:
    """Return a page of the project's users.

    Args:
        tenant: The project.
        cursor: The cursor of the previous page, or None.
        limit: The maximum number of users.
        user_filter: Which users.
        order: The sort order.
    """
    with tenant.begin_read() as session:
        page_order = _USER_ORDER if order is UserOrder.ID else _LAST_SEEN_ORDER
        return page_order.fetch_page(session, select(EndUser).where(*user_filter.conditions()), cursor, limit)


def get_user(tenant: Tenant, user_id: str) -> UserDetail:
    """Return a user and how much is kept of them; raise `NotFoundError` if they are unknown."""
    with tenant.begin_read() as session:
        user = session.scalar(select(EndUser).where(EndUser.id == user_id))
        if user is None:
            raise NotFoundError("unknown user")
        counts = {table.name: table.count(session, user_id) for table in CALLER_TABLES}
        return UserDetail(user, is_held(session, user_id), counts)


def list_sessions(tenant: Tenant, user_id: str, cursor: str | None, limit: int) -> ResultPage[CallSession]:
    """Return a page of a user's sessions, latest first; raise `NotFoundError` for an unknown user."""
    with tenant.begin_read() as session:
        if session.scalar(select(EndUser.id).where(EndUser.id == user_id)) is None:
            raise NotFoundError("unknown user")
        return _SESSION_ORDER.fetch_page(
            session, select(CallSession).where(CallSession.user_id == user_id), cursor, limit
        )


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
