"""Lists of recall traces, for the API and the dashboard."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import attrs
from sqlalchemy import Select, select

from memoair_cloud.cursors import PageOrder, ResultPage
from memoair_cloud.database.models import CallSession
from memoair_cloud.database.recall_trace_models import RecalledDocument, RecallTrace
from memoair_cloud.errors import ConflictError, NotFoundError
from memoair_cloud.tenancy.access import Tenant
from memoair_cloud.tenancy.scoped import ScopedSession
from memoair_protocol.enums import LaneName

_BY_TIME = PageOrder[RecallTrace](
    (RecallTrace.occurred_at, RecallTrace.id), (datetime, str), lambda trace: (trace.occurred_at, trace.id)
)
_LATEST_FIRST = attrs.evolve(_BY_TIME, descending=True)
_DOCUMENT_ORDER = PageOrder[RecalledDocument](
    (RecalledDocument.occurred_at, RecalledDocument.trace_id, RecalledDocument.rank),
    (datetime, str, int),
    lambda row: (row.occurred_at, row.trace_id, row.rank),
    descending=True,
)


@attrs.frozen
class TraceFilter:
    """Which traces of a project to list.

    Attributes:
        since: The first moment of the period.
        until: The first moment after it.
        agent_id: Only searches of this agent.
        user_id: Only searches of this user.
        missed_lane: Only searches in which this lane was asked and gave nothing: late, loading or failed.
        is_degraded: Only searches with or without a missed lane.
        has_found: Only searches that found something, or nothing.
        min_ms: Only searches that took at least this long, in milliseconds.
    """

    since: datetime
    until: datetime
    agent_id: str | None = None
    user_id: str | None = None
    missed_lane: LaneName | None = None
    is_degraded: bool | None = None
    has_found: bool | None = None
    min_ms: float | None = None


def list_session_traces(
    tenant: Tenant, session_id: str, cursor: str | None, limit: int, turn_id: str | None = None
) -> ResultPage[RecallTrace]:
    """Return a page of the traces of a session, in time order.

    Args:
        tenant: The project, and the user if several have a session with this id.
        session_id: The session.
        cursor: The cursor of the previous page, or None.
        limit: The maximum number of traces.
        turn_id: Only the traces of this turn, as the application calls it.

    Raises:
        NotFoundError: If nothing is known of such a session.
        ConflictError: If several users have a session with this id and the tenant names no user.
        InvalidRequestError: If the cursor is invalid.
    """
    with tenant.begin_read() as session:
        statement = _of_session(session, session_id)
        if not _is_known(session, session_id):
            raise NotFoundError("unknown session")
        if turn_id is not None:
            statement = statement.where(RecallTrace.turn_id == turn_id)
        return _BY_TIME.fetch_page(session, statement, cursor, limit)


def list_traces_of_turns(tenant: Tenant, session_id: str, event_ids: Sequence[str]) -> dict[str, list[RecallTrace]]:
    """Return the traces of some turns of a session by the turn's event, each list in time order.

    Args:
        tenant: The project, and the user if several have a session with this id.
        session_id: The session.
        event_ids: The events of the turns. Those without traces are not in the result.

    Raises:
        ConflictError: If several users have a session with this id and the tenant names no user.
    """
    found: dict[str, list[RecallTrace]] = {}
    with tenant.begin_read() as session:
        statement = _of_session(session, session_id).where(RecallTrace.turn_event_id.in_(event_ids))
        for trace in session.scalars(statement.order_by(RecallTrace.occurred_at, RecallTrace.id)):
            if trace.turn_event_id is not None:
                found.setdefault(trace.turn_event_id, []).append(trace)
    return found


def get_trace(tenant: Tenant, trace_id: str) -> RecallTrace:
    """Return a trace; raise `NotFoundError` for an unknown one, or one of another user than the tenant names."""
    with tenant.begin_read() as session:
        trace = session.get(RecallTrace, (session.scope.project_id, trace_id))
        if trace is None or session.scope.user_id not in (None, trace.user_id):
            raise NotFoundError("unknown recall trace")
        return trace


def list_traces(tenant: Tenant, trace_filter: TraceFilter, cursor: str | None, limit: int) -> ResultPage[RecallTrace]:
    """Return a page of the project's traces that match a filter, latest first.

    Raises:
        InvalidRequestError: If the cursor is invalid.
    """
    statement = select(RecallTrace).where(*_conditions(trace_filter))
    with tenant.begin_read() as session:
        return _LATEST_FIRST.fetch_page(session, statement, cursor, limit)


def list_user_traces(tenant: Tenant, user_id: str, cursor: str | None, limit: int) -> ResultPage[RecallTrace]:
    """Return a page of all traces of a user, latest first: for an export of the user's data.

    Raises:
        InvalidRequestError: If the cursor is invalid.
    """
    with tenant.begin_read() as session:
        statement = select(RecallTrace).where(RecallTrace.user_id == user_id)
        return _LATEST_FIRST.fetch_page(session, statement, cursor, limit)


def list_document_recalls(
    tenant: Tenant, index_name: str, document_id: str, cursor: str | None, limit: int
) -> ResultPage[RecalledDocument]:
    """Return a page of the searches that found a document, latest first; `get_trace` tells the rest.

    Raises:
        InvalidRequestError: If the cursor is invalid.
    """
    with tenant.begin_read() as session:
        statement = select(RecalledDocument).where(
            RecalledDocument.index_name == index_name, RecalledDocument.document_id == document_id
        )
        return _DOCUMENT_ORDER.fetch_page(session, statement, cursor, limit)


def _is_known(session: ScopedSession, session_id: str) -> bool:
    """Return whether a session has traces or events, of the scope's user if it names one."""
    traces = select(RecallTrace.id).where(RecallTrace.session_id == session_id)
    calls = select(CallSession.id).where(CallSession.id == session_id)
    if (user_id := session.scope.user_id) is not None:
        traces, calls = traces.where(RecallTrace.user_id == user_id), calls.where(CallSession.user_id == user_id)
    return any(session.scalar(statement.limit(1)) is not None for statement in (traces, calls))


def _of_session(session: ScopedSession, session_id: str) -> Select[Any]:
    """Return a statement for the traces of a session of one user."""
    statement = select(RecallTrace).where(RecallTrace.session_id == session_id)
    if session.scope.user_id is not None:
        return statement.where(RecallTrace.user_id == session.scope.user_id)
    users = select(RecallTrace.user_id).where(RecallTrace.session_id == session_id).distinct()
    if len(session.scalars(users.limit(2)).all()) > 1:
        raise ConflictError("several users have a session with this id: set X-User-Id", field="X-User-Id")
    return statement


def _conditions(trace_filter: TraceFilter) -> list[Any]:
    conditions = [RecallTrace.occurred_at >= trace_filter.since, RecallTrace.occurred_at < trace_filter.until]
    if trace_filter.agent_id is not None:
        conditions.append(RecallTrace.agent_id == trace_filter.agent_id)
    if trace_filter.user_id is not None:
        conditions.append(RecallTrace.user_id == trace_filter.user_id)
    if trace_filter.missed_lane is not None:
        lane = trace_filter.missed_lane.value
        is_missed = [RecallTrace.lane_statuses.contains(f"{lane}:{status}") for status in ("late", "loading", "error")]
        conditions.append(is_missed[0] | is_missed[1] | is_missed[2])
    if trace_filter.is_degraded is not None:
        conditions.append(RecallTrace.is_degraded == trace_filter.is_degraded)
    if trace_filter.has_found is not None:
        conditions.append(RecallTrace.found_count > 0 if trace_filter.has_found else RecallTrace.found_count == 0)
    if trace_filter.min_ms is not None:
        conditions.append(RecallTrace.total_us >= round(trace_filter.min_ms * 1e3))
    return conditions
