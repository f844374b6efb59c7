"""Figures of calls: how many, of how many callers, and what of them is behind."""

from collections.abc import Sequence
from datetime import datetime

import attrs
from sqlalchemy import and_, case, distinct, func, select

from memoair_cloud.calls.search import CallFilter, CallState, call_conditions
from memoair_cloud.database.models import CallSession
from memoair_cloud.tenancy.access import Tenant


@attrs.frozen
class CallFigures:
    """Figures of the calls that started in a period.

    Attributes:
        calls: The number of calls.
        callers: The number of different callers.
        turns: The number of turns.
        open: The number of calls of which no end has arrived.
        late: The number of calls that arrived long after they happened: their machines were offline, or are behind.
        failed: The number of calls from which learning failed, and has not succeeded since.
        last_received_at: When the last event of these calls arrived; None without calls.
    """

    calls: int
    callers: int
    turns: int
    open: int
    late: int
    failed: int
    last_received_at: datetime | None


@attrs.frozen
class LearningBacklog:
    """What is to be learned in a project, whenever the calls were.

    Attributes:
        waiting: The number of ended calls that wait.
        oldest_at: When the call that has waited longest received its last event; None if none waits.
        dead: The number of calls that are not retried, because learning failed too often.
        dead_reasons: The types of their last errors, with the number of calls.
    """

    waiting: int
    oldest_at: datetime | None
    dead: int
    dead_reasons: Sequence[tuple[str, int]]


def count_calls(tenant: Tenant, since: datetime, until: datetime, agent_id: str | None = None) -> CallFigures:
    """Return the figures of a period.

    Args:
        tenant: The project.
        since: The first moment of the period.
        until: The first moment after it.
        agent_id: Only calls of this agent.
    """
    in_period = CallFilter(since, until, agent_id)
    states = (CallState.OPEN, CallState.LATE, CallState.FAILED)
    with tenant.begin_read() as session:
        # All in one statement, so that the rows of the period are read once.
        in_state = [and_(*call_conditions(session, CallFilter(state=state))) for state in states]
        statement = select(
            func.count(),
            func.count(distinct(CallSession.user_id)),
            func.sum(CallSession.turn_count),
            *(func.sum(case((condition, 1), else_=0)) for condition in in_state),
            func.max(CallSession.received_at),
        ).where(*call_conditions(session, in_period))
        row = session.execute(statement.select_from(CallSession)).one()
    calls, callers, turns, is_open, late, failed = (int(value or 0) for value in row[:-1])
    return CallFigures(calls, callers, turns, is_open, late, failed, row[-1])


def count_calls_by_day(
    tenant: Tenant, days: Sequence[tuple[datetime, datetime]], agent_id: str | None = None
) -> list[tuple[int, int]]:
    """Return the number of calls and of turns for each day.

    A day is given by its bounds, because its length depends on the time zone.

    Args:
        tenant: The project.
        days: The first moment of each day, and the first moment after it.
        agent_id: Only calls of this agent.
    """
    counts = []
    with tenant.begin_read() as session:
        for since, until in days:
            conditions = call_conditions(session, CallFilter(since, until, agent_id))
            statement = select(func.count(), func.sum(CallSession.turn_count)).select_from(CallSession)
            calls, turns = session.execute(statement.where(*conditions)).one()
            counts.append((calls, int(turns or 0)))
    return counts


def get_learning_backlog(tenant: Tenant, agent_id: str | None = None) -> LearningBacklog:
    """Return what is to be learned in a project, of one agent's calls or of all."""
    with tenant.begin_read() as session:
        waiting = call_conditions(session, CallFilter(agent_id=agent_id, state=CallState.BACKLOG))
        statement = select(func.count(), func.min(CallSession.received_at)).select_from(CallSession)
        count, oldest_at = session.execute(statement.where(*waiting)).one()
        dead = call_conditions(session, CallFilter(agent_id=agent_id, state=CallState.DEAD))
        reason = func.coalesce(CallSession.failure, "")
        by_reason = select(reason, func.count()).select_from(CallSession).where(*dead).group_by(reason).order_by(reason)
        reasons = [(str(name), int(number)) for name, number in session.execute(by_reason)]
    return LearningBacklog(count, oldest_at, sum(number for _, number in reasons), reasons)
