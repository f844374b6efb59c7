"""Drop what is older than a project's periods, in many small transactions.

Each transaction locks one caller and drops a bounded number of rows, so that calls go on beside it. Nothing is recorded
about how far the work has come: what is due is read from the tables, so a worker that dies leaves the rest to the next.
"""

from collections.abc import Iterable
from datetime import datetime
from typing import Any

import attrs
from sqlalchemy import ColumnElement, Engine, Select, and_, case, delete, func, inspect, or_, select, tuple_
from sqlalchemy.orm import InstrumentedAttribute, Session

from memoair_cloud.calls.users import lock_user
from memoair_cloud.database.caller_tables import CALLER_TABLES, CallerTable, Lifetime
from memoair_cloud.database.models import CallEvent, CallSession, EndUser, Project
from memoair_cloud.database.outcome_models import CallOutcome
from memoair_cloud.evaluation.replay_changes import delete_replay_results
from memoair_cloud.memories.erasure import erase_inactive_user
from memoair_cloud.memories.reconcile import MemoryReconciler
from memoair_cloud.outcomes.resolving import drop_abandoned_outcomes, is_abandoned
from memoair_cloud.retention.holds import is_held, not_held_condition
from memoair_cloud.retention.policy import RetentionPolicy, lock_project
from memoair_cloud.tenancy.access import Tenant
from memoair_cloud.tenancy.scoped import ScopedSession
from memoair_protocol.corrections import corrected_event_id
from memoair_protocol.enums import EventType

_ACTOR = "retention"
# What a transaction drops at most: some tens of milliseconds, for which the caller's other writers wait.
_MAX_EVENTS = 500
_MAX_SESSIONS = 50
_MAX_ROWS = 1_000
_MAX_USERS = 100
_UNSYNCHRONIZED = {"synchronize_session": False}


@attrs.define
class DroppedCounts:
    """How much was dropped.

    Attributes:
        turns: Turns, without those of dropped callers.
        sessions: Calls of which nothing is left.
        facts: Facts that went with their turns.
        callers: Whole callers.
        traces: Recall traces.
        outcomes: Outcomes whose calls never arrived. Others go with their calls.
        batches: The number of transactions.
    """

    turns: int = 0
    sessions: int = 0
    facts: int = 0
    callers: int = 0
    traces: int = 0
    outcomes: int = 0
    batches: int = 0


def find_projects_to_enforce(engine: Engine, now: datetime) -> list[str]:
    """Return the projects that have data older than their periods, without what holds cover."""
    with Session(engine) as session:
        rows = session.execute(
            select(
                Project.keep_turns_days, Project.keep_callers_days, Project.keep_traces_days, Project.drops_facts
            ).distinct()
        )
        policies = [RetentionPolicy(row[0], row[1], row[2], drops_facts=row[3]) for row in rows]
        due: set[str] = set()
        for policy in policies:
            same = and_(
                Project.keep_turns_days.is_not_distinct_from(policy.turns_days),
                Project.keep_callers_days.is_not_distinct_from(policy.callers_days),
                Project.keep_traces_days.is_not_distinct_from(policy.traces_days),
                Project.drops_facts.is_(policy.drops_facts),
            )
            for model, is_old in _due_rows(policy, now):
                found = select(model).where(model.project_id == Project.id, is_old).exists()
                due.update(session.scalars(select(Project.id).where(same, found)))
        return sorted(due)


def enforce_retention(tenant: Tenant, now: datetime, counts: DroppedCounts, max_batches: int = 200) -> bool:
    """Drop what is older than a project's periods.

    Args:
        tenant: The project.
        now: The present time.
        counts: What is dropped is added to it.
        max_batches: The maximum number of transactions. The rest is for the next call, so that others get their turn.

    Returns:
        Whether anything may be left to drop.

    Raises:
        NotFoundError: If the project was deleted.
    """
    with tenant.begin_read() as session:
        policy = RetentionPolicy.of(_get_project(session))
    limit = counts.batches + max_batches
    has_more = False
    for user_id in _find_inactive_users(tenant, policy, now):
        if counts.batches >= limit:
            return True
        counts.batches += 1
        counts.callers += erase_inactive_user(tenant, user_id, policy.callers_cutoff(now) or now) is not None
        has_more = True
    for user_id in _find_users_to_trim(tenant, policy, now):
        has_more = True
        is_user_done = False
        while not is_user_done:
            if counts.batches >= limit:
                return True
            counts.batches += 1
            is_user_done = _trim_user(tenant, user_id, policy, now, counts)
    for table in CALLER_TABLES:
        while table.lifetime is Lifetime.TRACES and (dropped := _drop_old_rows(tenant, table, policy, now)):
            counts.batches, counts.traces = counts.batches + 1, counts.traces + dropped
            if counts.batches >= limit:
                return True
    while dropped := _drop_abandoned_outcomes(tenant, policy, now):
        counts.batches, counts.outcomes = counts.batches + 1, counts.outcomes + dropped
        if counts.batches >= limit:
            return True
    return has_more


def preview_retention(tenant: Tenant, policy: RetentionPolicy, now: datetime) -> dict[str, int]:
    """Return how much would go now under a policy, by kind, and how many callers holds keep.

    Args:
        tenant: The project.
        policy: The policy.
        now: The present time.
    """
    turns_cutoff, callers_cutoff = policy.turns_cutoff(now), policy.callers_cutoff(now)
    with tenant.begin_read() as session:
        going = and_(EndUser.last_seen_at < callers_cutoff, _is_free(EndUser.id)) if callers_cutoff else None
        callers = 0 if going is None else _count(session, select(func.count()).select_from(EndUser).where(going))
        turns = sessions = traces = 0
        if turns_cutoff is not None:
            is_old = CallSession.started_at < turns_cutoff, _is_free(CallSession.user_id)
            sessions = _count(
                session,
                select(func.count()).select_from(CallSession).where(*is_old, CallSession.last_event_at < turns_cutoff),
            )
            turns = _count(session, _select_turn_count(*is_old).where(CallEvent.occurred_at < turns_cutoff))
        if going is not None:
            goes = CallSession.user_id.in_(select(EndUser.id).where(going))
            stays = CallEvent.occurred_at >= turns_cutoff if turns_cutoff is not None else CallEvent.seq >= 0
            turns += _count(session, _select_turn_count(goes).where(stays))
        for table in CALLER_TABLES:
            if table.lifetime is Lifetime.TRACES and (is_trace_old := _is_row_old(table, policy, now)) is not None:
                traces += _count(session, select(func.count()).select_from(table.model).where(is_trace_old))
        held = _count(session, select(func.count()).select_from(EndUser).where(~_is_free(EndUser.id)))
    return {"turns": turns, "sessions": sessions, "callers": callers, "traces": traces, "heldCallers": held}


def _due_rows(policy: RetentionPolicy, now: datetime) -> Iterable[tuple[Any, ColumnElement[bool]]]:
    """Yield tables with the conditions that select what is due in them."""
    if (cutoff := policy.callers_cutoff(now)) is not None:
        yield EndUser, and_(EndUser.last_seen_at < cutoff, _is_free(EndUser.id))
    if (cutoff := policy.turns_cutoff(now)) is not None:
        yield CallSession, and_(CallSession.started_at < cutoff, _is_free(CallSession.user_id))
        if policy.drops_facts:
            yield EndUser, and_(_has_old_facts(), _is_free(EndUser.id))
    for table in CALLER_TABLES:
        if table.lifetime is Lifetime.TRACES and (is_old := _is_row_old(table, policy, now)) is not None:
            yield table.model, is_old
    yield CallOutcome, is_abandoned(now, policy.turns_cutoff(now))


def _has_old_facts() -> ColumnElement[bool]:
    """Return the condition that facts of a user may be older than the turns that were dropped."""
    return and_(
        EndUser.turns_dropped_until.is_not(None),
        or_(EndUser.facts_dropped_until.is_(None), EndUser.facts_dropped_until < EndUser.turns_dropped_until),
    )


def _is_free(user_id: InstrumentedAttribute[str]) -> ColumnElement[bool]:
    return not_held_condition(user_id, user_id.class_.project_id)


def _get_project(session: ScopedSession) -> Project:
    return session.scalars(select(Project).where(Project.id == session.scope.project_id)).one()


def _find_inactive_users(tenant: Tenant, policy: RetentionPolicy, now: datetime) -> list[str]:
    cutoff = policy.callers_cutoff(now)
    if cutoff is None:
        return []
    with tenant.begin_read() as session:
        statement = select(EndUser.id).where(EndUser.last_seen_at < cutoff, _is_free(EndUser.id))
        return list(session.scalars(statement.order_by(EndUser.last_seen_at, EndUser.id).limit(_MAX_USERS)))


def _find_users_to_trim(tenant: Tenant, policy: RetentionPolicy, now: datetime) -> list[str]:
    """Return users with turns, or facts of dropped turns, that are to be dropped."""
    cutoff = policy.turns_cutoff(now)
    if cutoff is None:
        return []
    old_calls = select(CallSession.user_id).where(CallSession.started_at < cutoff, _is_free(CallSession.user_id))
    old_facts = select(EndUser.id).where(_has_old_facts(), _is_free(EndUser.id)).limit(_MAX_USERS)
    with tenant.begin_read() as session:
        users = list(session.scalars(old_calls.order_by(CallSession.started_at).limit(_MAX_USERS)))
        users += session.scalars(old_facts) if policy.drops_facts else ()
    return list(dict.fromkeys(users))


def _trim_user(tenant: Tenant, user_id: str, policy: RetentionPolicy, now: datetime, counts: DroppedCounts) -> bool:
    """Drop a batch of a user's old events, and at the end their facts; return whether nothing is left to drop."""
    cutoff = policy.turns_cutoff(now)
    with tenant.begin_write() as session:
        user = lock_user(session, user_id)
        # The project's lock orders this after a hold on the whole project, or before it.
        project = lock_project(session)
        if user is None or cutoff is None or is_held(session, user_id) or RetentionPolicy.of(project) != policy:
            return True
        is_done = _drop_events(session, user, cutoff, counts)
        if is_done and policy.drops_facts and user.turns_dropped_until is not None:
            reconciler = MemoryReconciler(session, user, now, _ACTOR)
            withdrawn = reconciler.withdraw_older(user.turns_dropped_until)
            counts.facts += withdrawn
            if withdrawn:
                delete_replay_results(session, user_id)
            user.facts_dropped_until = user.turns_dropped_until
        return is_done


def _drop_events(session: ScopedSession, user: EndUser, cutoff: datetime, counts: DroppedCounts) -> bool:
    old_calls = select(CallSession).where(CallSession.user_id == user.id, CallSession.started_at < cutoff)
    calls = {call.id: call for call in session.scalars(old_calls.order_by(CallSession.started_at).limit(_MAX_SESSIONS))}
    if not calls:
        return True
    events = session.execute(
        select(CallEvent.id, CallEvent.type, CallEvent.session_id, CallEvent.payload)
        .where(CallEvent.user_id == user.id, CallEvent.session_id.in_(calls), CallEvent.occurred_at < cutoff)
        .limit(_MAX_EVENTS)
    ).all()
    session.execute(
        delete(CallEvent).where(CallEvent.user_id == user.id, CallEvent.id.in_([event.id for event in events])),
        execution_options=_UNSYNCHRONIZED,
    )
    delete_replay_results(session, user.id)
    for event in events:
        if event.type == EventType.TURN.value and corrected_event_id(event.payload) is None:
            calls[event.session_id].turn_count -= 1
            counts.turns += 1
    counts.sessions += _update_calls(session, user, calls)
    user.turns_dropped_until = max(cutoff, user.turns_dropped_until or cutoff)
    user.memory_version += 1
    return False


def _update_calls(session: ScopedSession, user: EndUser, calls: dict[str, CallSession]) -> int:
    """Bring calls up to date after some of their events were dropped; return how many were deleted."""
    left = {
        row.session_id: row
        for row in session.execute(
            select(
                CallEvent.session_id, func.count().label("event_count"), func.min(CallEvent.occurred_at).label("first")
            )
            .where(CallEvent.user_id == user.id, CallEvent.session_id.in_(calls))
            .group_by(CallEvent.session_id)
        )
    }
    empty = [session_id for session_id in calls if session_id not in left]
    for session_id, call in calls.items():
        if session_id in empty:
            session.expunge(call)
            continue
        row = left[session_id]
        if call.event_count != row.event_count:
            # A worker that has read the dropped turns must not write what it found: it has lost its claim.
            call.learned_count = row.event_count if call.learned_count >= call.event_count else 0
            call.event_count, call.claimed_until = row.event_count, None
        call.started_at = row.first
    session.flush()
    session.execute(
        delete(CallSession).where(CallSession.user_id == user.id, CallSession.id.in_(empty)),
        execution_options=_UNSYNCHRONIZED,
    )
    user.session_count -= len(empty)
    return len(empty)


def _is_row_old(table: CallerTable, policy: RetentionPolicy, now: datetime) -> ColumnElement[bool] | None:
    cutoff = policy.traces_cutoff(now)
    if cutoff is None or table.time_column is None:
        return None
    return and_(getattr(table.model, table.time_column) < cutoff, _is_free(getattr(table.model, "user_id")))  # noqa: B009


def _drop_old_rows(tenant: Tenant, table: CallerTable, policy: RetentionPolicy, now: datetime) -> int:
    is_old = _is_row_old(table, policy, now)
    if is_old is None:
        return 0
    columns = [getattr(table.model, key.name) for key in inspect(table.model).primary_key]
    with tenant.begin_write() as session:
        lock_project(session)
        keys = [tuple(row) for row in session.execute(select(*columns).where(is_old).limit(_MAX_ROWS))]
        if keys:
            session.execute(delete(table.model).where(tuple_(*columns).in_(keys)), execution_options=_UNSYNCHRONIZED)
        return len(keys)


def _drop_abandoned_outcomes(tenant: Tenant, policy: RetentionPolicy, now: datetime) -> int:
    with tenant.begin_write() as session:
        lock_project(session)
        return drop_abandoned_outcomes(session, now, policy.turns_cutoff(now))


def _select_turn_count(*calls: ColumnElement[bool]) -> Select[Any]:
    """Select the number of turns of some calls; corrections are not counted, as far as the cloud counts them."""
    same_call = and_(
        CallEvent.project_id == CallSession.project_id,
        CallEvent.user_id == CallSession.user_id,
        CallEvent.session_id == CallSession.id,
    )
    count = func.sum(case((CallEvent.type == EventType.TURN.value, 1), else_=0))
    return select(count).select_from(CallSession).join(CallEvent, same_call).where(*calls)


def _count(session: ScopedSession, statement: Select[Any]) -> int:
    count: int | None = session.scalar(statement)
    return count or 0
