"""Search for calls, as people look for them: by agent, period and state."""

from datetime import datetime, timedelta, timezone
from enum import Enum
from typing import Any

import attrs
from sqlalchemy import ColumnElement, Float, and_, cast, func, literal_column, select

from memoair_cloud.cursors import PageOrder, ResultPage
from memoair_cloud.database.models import CallSession, EndUser
from memoair_cloud.database.outcome_models import CallOutcome
from memoair_cloud.memories import extraction_worker
from memoair_cloud.tenancy.access import Tenant
from memoair_cloud.tenancy.scoped import ScopedSession

# A machine sends a turn within seconds. Calls that arrive later come from a machine that was offline or is behind.
LATE_AFTER = timedelta(minutes=10)

_LATEST_FIRST = PageOrder[CallSession](
    (CallSession.started_at, CallSession.user_id, CallSession.id),
    (datetime, str, str),
    lambda call: (call.started_at, call.user_id, call.id),
    descending=True,
)

# Every call has arrived after that. But with a condition on this column, SQLite uses the small index of calls that are
# to be learned; else it reads all calls in the order of time (of 200,000 calls 1.2 s instead of 1 ms).
_IS_UNLEARNED = and_(
    CallSession.learned_count < CallSession.event_count,
    CallSession.received_at >= datetime(1970, 1, 1, tzinfo=timezone.utc),
)
IS_BACKLOG = and_(
    _IS_UNLEARNED, CallSession.ended_at.is_not(None), CallSession.failures < extraction_worker.MAX_FAILURES
)
IS_DEAD = and_(_IS_UNLEARNED, CallSession.failures >= extraction_worker.MAX_FAILURES)


class CallState(str, Enum):
    """Which calls to list."""

    ALL = "all"
    OPEN = "open"  # no end has arrived
    BACKLOG = "backlog"  # ended, and facts are still to be learned from it
    FAILED = "failed"  # learning from it failed at least once since its last event
    DEAD = "dead"  # learning failed too often to be retried
    LATE = "late"  # its last event arrived long after it happened


@attrs.frozen
class CallFilter:
    """Which calls of a project to list.

    Attributes:
        since: The first moment of the period in which they started; None for all.
        until: The first moment after it; None for all.
        agent_id: Only calls of this agent.
        user_id: Only calls of this user.
        state: Only calls in this state.
        outcome: Only calls with an outcome of this name.
        prompt_version: Only calls with this version of their agent's prompt.
    """

    since: datetime | None = None
    until: datetime | None = None
    agent_id: str | None = None
    user_id: str | None = None
    state: CallState = CallState.ALL
    outcome: str | None = None
    prompt_version: int | None = None


def list_calls(tenant: Tenant, call_filter: CallFilter, cursor: str | None, limit: int) -> ResultPage[CallSession]:
    """Return a page of the project's calls, latest first.

    Args:
        tenant: The project.
        call_filter: Which calls.
        cursor: The cursor of the previous page, or None.
        limit: The maximum number of calls.

    Raises:
        InvalidRequestError: If the cursor is invalid.
    """
    with tenant.begin_read() as session:
        statement = select(CallSession).where(*call_conditions(session, call_filter))
        return _LATEST_FIRST.fetch_page(session, statement, cursor, limit)


def load_user_names(tenant: Tenant, user_ids: set[str]) -> dict[str, str]:
    """Return the names of some users, as far as they have one."""
    if not user_ids:
        return {}
    with tenant.begin_read() as session:
        rows = session.execute(select(EndUser.id, EndUser.name).where(EndUser.id.in_(user_ids)))
        return {row.id: row.name for row in rows if row.name}


def call_conditions(session: ScopedSession, call_filter: CallFilter) -> list[ColumnElement[bool]]:
    """Return the conditions of a filter."""
    conditions: list[ColumnElement[bool]] = []
    if call_filter.since is not None:
        conditions.append(CallSession.started_at >= call_filter.since)
    if call_filter.until is not None:
        conditions.append(CallSession.started_at < call_filter.until)
    if call_filter.agent_id is not None:
        conditions.append(CallSession.agent_id == call_filter.agent_id)
    if call_filter.user_id is not None:
        conditions.append(CallSession.user_id == call_filter.user_id)
    if call_filter.outcome is not None:
        conditions.append(_has_outcome(call_filter.outcome))
    if call_filter.prompt_version is not None:
        conditions.append(CallSession.prompt_version == call_filter.prompt_version)
    by_state: dict[CallState, list[ColumnElement[bool]]] = {
        CallState.ALL: [],
        CallState.OPEN: [CallSession.ended_at.is_(None)],
        CallState.BACKLOG: [IS_BACKLOG],
        CallState.FAILED: [CallSession.failure.is_not(None), _IS_UNLEARNED],
        CallState.DEAD: [IS_DEAD],
        CallState.LATE: [_delay_s(session) > LATE_AFTER.total_seconds()],
    }
    return conditions + by_state[call_filter.state]


def _has_outcome(outcome: str) -> ColumnElement[bool]:
    is_of_call = and_(
        CallOutcome.project_id == CallSession.project_id,
        CallOutcome.user_id == CallSession.user_id,
        CallOutcome.session_id == CallSession.id,
    )
    return select(CallOutcome.id).where(is_of_call, CallOutcome.outcome == outcome).exists()


def _delay_s(session: ScopedSession) -> ColumnElement[Any]:
    """Return the seconds between the last event of a call and its arrival."""
    received, happened = CallSession.received_at, CallSession.last_event_at
    if session.get_bind().dialect.name == "sqlite":
        days = func.julianday(received) - func.julianday(happened)
        return cast(days, Float) * literal_column("86400.0")
    return func.extract("epoch", received - happened)
