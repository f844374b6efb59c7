"""Figures of calls: how many, of how many callers, and what of them is behind."""

from collections.abc import Sequence
from datetime import datetime

import attrs
from sqlalchemy import and_, case, distinct, func, select

from memoair_cloud.analytics.prompt_key import PromptKey
from memoair_cloud.calls.search import CallFilter, CallState, call_conditions
from memoair_cloud.database.models import CallSession
from memoair_cloud.tenancy.access import Tenant


@attrs.frozen
class CallCounts:
    """Counts of calls. Those of two periods can be added.

    Attributes:
        calls: The number of calls.
        turns: The number of turns.
        open: The number of calls of which no end has arrived.
        late: The number of calls that arrived long after they happened: their machines were offline, or are behind.
        failed: The number of calls from which learning failed, and has not succeeded since.
        last_received_at: When the last event of these calls arrived; None without calls.
    """

    calls: int = 0
    turns: int = 0
    open: int = 0
    late: int = 0
    failed: int = 0
    last_received_at: datetime | None = None

    def __add__(self, other: "CallCounts") -> "CallCounts":
        """Return the counts of both."""
        moments = [at for at in (self.last_received_at, other.last_received_at) if at is not None]
        return CallCounts(
            self.calls + other.calls,
            self.turns + other.turns,
            self.open + other.open,
            self.late + other.late,
            self.failed + other.failed,
            max(moments, default=None),
        )


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


def count_callers(tenant: Tenant, since: datetime, until: datetime, agent_id: str | None = None) -> int:
    """Return the number of different callers of the calls that started in a period.

    Args:
        tenant: The project.
        since: The first moment of the period.
        until: The first moment after it.
        agent_id: Only calls of this agent.
    """
    with tenant.begin_read() as session:
        conditions = call_conditions(session, CallFilter(since, until, agent_id))
        statement = select(func.count(distinct(CallSession.user_id))).select_from(CallSession)
        return session.scalar(statement.where(*conditions)) or 0


def count_calls_by_prompt(tenant: Tenant, since: datetime, until: datetime) -> dict[PromptKey, CallCounts]:
    """Return counts of the calls that started in a period, by agent and version of its prompt.

    Args:
        tenant: The project.
        since: The first moment of the period.
        until: The first moment after it.
    """
    with tenant.begin_read() as session:
        states = [
            func.count(case((and_(*call_conditions(session, CallFilter(state=state))), 1))).label(state.value)
            for state in (CallState.OPEN, CallState.LATE, CallState.FAILED)
        ]
        counts = func.count().label("calls"), func.sum(CallSession.turn_count).label("turns"), *states
        last_received_at = func.max(CallSession.received_at).label("last_received_at")
        conditions = call_conditions(session, CallFilter(since, until))
        key = CallSession.agent_id, CallSession.prompt_version
        statement = select(*key, *counts, last_received_at).select_from(CallSession).where(*conditions)
        return {
            PromptKey(row.agent_id, row.prompt_version): CallCounts(
                row.calls, int(row.turns), row.open, row.late, row.failed, row.last_received_at
            )
            for row in session.execute(statement.group_by(*key))
        }


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
