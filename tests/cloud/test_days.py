"""Figures day by day: what they count, how long those of a day that is over are kept, and that accounts are apart."""

from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from functools import partial
from typing import Any

import attrs
import pytest
from sqlalchemy import event
from support.clouds import Client, RunningCloud, recall_trace, session_end, session_start, turn

from memoair_cloud.analytics.calls import CallCounts, count_callers, get_learning_backlog
from memoair_cloud.analytics.days import DayCache, compute_recall, compute_recall_by_agent
from memoair_cloud.calls.search import CallFilter, CallState, list_calls
from memoair_cloud.errors import NotFoundError
from memoair_cloud.outcomes.queries import OutcomeFilter, list_outcomes
from memoair_cloud.tenancy.access import Tenant, authenticate
from memoair_protocol.timestamps import format_utc, utc_now


def tenant_of(cloud: RunningCloud, client: Client) -> Tenant:
    account = authenticate(cloud.services.engine, str(client.key)).make_tenant(cloud.services.engine)
    return account.for_project(client.identity["project"])


def day_before(days: int) -> tuple[datetime, datetime]:
    midnight = datetime.combine(utc_now().date(), datetime.min.time(), timezone.utc)
    return midnight - timedelta(days=days), midnight - timedelta(days=days - 1)


def send_call(client: Client, name: str, at: datetime, *, is_open: bool = False, total_ms: float = 1.0) -> None:
    said = format_utc(at)
    end = [] if is_open else [session_end(f"{name}-end", name, 3, occurredAt=said)]
    client.send(
        session_start(f"{name}-start", name, 1, occurredAt=said), turn(f"{name}-1", name, 2, occurredAt=said), *end
    )
    client.send_traces(recall_trace(f"{name}-trace", sessionId=name, occurredAt=said, totalMs=total_ms))


def test_calls_and_searches_count_on_their_day(cloud: RunningCloud) -> None:
    client = cloud.tenant("days")
    tenant, (today, tomorrow), (third, second) = tenant_of(cloud, client), day_before(0), day_before(3)
    send_call(client, "now", max(today, utc_now() - timedelta(minutes=1)))
    send_call(client, "then", third + timedelta(hours=1), total_ms=7.0)
    send_call(client.with_identity(user="someone"), "open", third + timedelta(hours=23, minutes=59), is_open=True)

    found = cloud.services.days.load_days(tenant, [(third, second), (today, tomorrow)])

    # What happened three days ago has just arrived: late.
    counts = [attrs.evolve(day.count_calls(), last_received_at=None) for day in found]
    assert counts == [CallCounts(2, 2, 1, 2, 0), CallCounts(1, 1, 0, 0, 0)]
    arrived_at = [day.count_calls().last_received_at for day in found]
    assert all(at is not None and at > utc_now() - timedelta(minutes=5) for at in arrived_at)
    assert (found[0].count_calls() + found[1].count_calls()).last_received_at == max(filter(None, arrived_at))
    assert [day.compute_recall().count for day in found] == [2, 1]
    assert compute_recall(found).count == 3
    agent_id = client.identity["agent"]
    assert compute_recall_by_agent(found)[agent_id] == compute_recall(found, agent_id) == compute_recall(found)
    assert (found[0].count_calls("agent_other"), compute_recall(found, "agent_other").count) == (CallCounts(), 0)
    assert count_callers(tenant, third, second) == 2
    assert count_callers(tenant, third, tomorrow) == 2
    assert count_callers(tenant, third, second, "agent_other") == 0


def test_a_day_that_is_over_is_read_again_after_ten_minutes_and_today_always(cloud: RunningCloud) -> None:
    client = cloud.tenant("kept")
    tenant, now = tenant_of(cloud, client), 0.0
    cache, days = DayCache(lambda: now), [day_before(3), day_before(0)]
    minute_ago = max(days[1][0], utc_now() - timedelta(minutes=1))
    for name, at in (("a", days[0][0]), ("b", minute_ago)):
        send_call(client, name, at)
    assert [day.count_calls().calls for day in cache.load_days(tenant, days)] == [1, 1]
    for name, at in (("c", days[0][0]), ("d", minute_ago)):
        send_call(client, name, at)

    now = 599.0
    assert [day.count_calls().calls for day in cache.load_days(tenant, days)] == [1, 2]
    now = 600.0
    assert [day.count_calls().calls for day in cache.load_days(tenant, days)] == [2, 2]


def test_what_is_kept_of_a_day_is_only_for_its_account(cloud: RunningCloud) -> None:
    client, other = cloud.tenant("mine"), cloud.tenant("theirs")
    day = day_before(3)
    send_call(client, "a", day[0])
    cloud.services.days.load_days(tenant_of(cloud, client), [day])

    stranger = tenant_of(cloud, other).for_project(client.identity["project"])
    with pytest.raises(NotFoundError):
        cloud.services.days.load_days(stranger, [day])
    assert cloud.services.days.load_days(tenant_of(cloud, other), [day])[0].count_calls().calls == 0


def explain(cloud: RunningCloud, read: Callable[[], object], table: str = "call_sessions") -> list[str]:
    """Return how SQLite runs the statements of a call over a table."""
    statements: list[tuple[str, Any]] = []

    def record(_: Any, __: Any, sql: str, parameters: Any, *___: Any) -> None:
        if f"FROM {table}" in sql:
            statements.append((sql, parameters))

    event.listen(cloud.services.engine, "before_cursor_execute", record)
    read()
    event.remove(cloud.services.engine, "before_cursor_execute", record)
    with cloud.services.engine.connect() as connection:
        plans = [connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {sql}", values).all() for sql, values in statements]
    return [" ".join(row[-1] for row in plan) for plan in plans]


def test_figures_of_calls_are_read_from_their_indexes(cloud: RunningCloud) -> None:
    if cloud.services.engine.dialect.name != "sqlite":
        pytest.skip("PostgreSQL chooses by statistics; benchmarks/dashboard.py measures it")
    client = cloud.tenant("indexes")
    tenant, (since, until) = tenant_of(cloud, client), day_before(3)

    backlog = explain(cloud, lambda: get_learning_backlog(tenant))
    assert len(backlog) == 2
    assert all("INDEX ix_call_sessions_unlearned" in plan for plan in backlog)
    for state in (CallState.BACKLOG, CallState.DEAD, CallState.FAILED):
        [anytime] = explain(cloud, partial(list_calls, tenant, CallFilter(state=state), None, 50))
        assert "INDEX ix_call_sessions_unlearned" in anytime
    for agent_id in (None, client.identity["agent"]):
        [callers] = explain(cloud, partial(count_callers, tenant, since, until, agent_id))
        assert "COVERING INDEX ix_call_sessions_started_at" in callers
    [latest] = explain(cloud, partial(list_calls, tenant, CallFilter(since, until), None, 50))
    assert "INDEX ix_call_sessions_started_at" in latest
    assert "TEMP B-TREE" not in latest
    named = partial(list_outcomes, tenant, OutcomeFilter(outcome="resolved"), None, 50)
    [rare] = explain(cloud, named, "call_outcomes")  # PostgreSQL finds the calls of a rare outcome by it, too
    assert "INDEX ix_call_outcomes_outcome" in rare
    assert "TEMP B-TREE" not in rare


def test_what_is_kept_of_outcomes_is_bounded(cloud: RunningCloud, monkeypatch: pytest.MonkeyPatch) -> None:
    """An application may make up a name for each call, and no one may ask for a day again."""
    monkeypatch.setattr("memoair_cloud.analytics.outcomes._MAX_NAMES", 2)
    client = cloud.tenant("outcome-names")
    tenant, now = tenant_of(cloud, client), 0.0
    cache = DayCache(lambda: now)
    for number in range(2):
        send_call(client, f"call-{number}", day_before(3)[0] + timedelta(hours=1))
        names = ("unique-0", "unique-1", "unique-2", "very-often") if number else ("very-often",)
        outcomes = [{"sessionId": f"call-{number}", "outcome": name} for name in names]
        client.ok("POST", "/v1/voice-sdk/outcomes", {"outcomes": outcomes})

    [found] = cache.load_outcome_days(tenant, [day_before(3)])
    [tally] = found.values()
    assert {name: each.count for name, each in tally.by_name.items()} == {"very-often": 2, "unique-0": 1}
    assert tally.reported == 2
    now = 600.0
    cache.load_outcome_days(tenant, [day_before(4)])
    assert len(cache._outcomes._days) == 1


def test_outcomes_are_read_by_runs_of_days_and_not_for_what_lies_between(cloud: RunningCloud) -> None:
    """The first and the last days of a period are read for each page, and those between are in memory."""
    client = cloud.tenant("outcome-days")
    tenant = tenant_of(cloud, client)
    days = [day_before(number) for number in (9, 4, 3)]
    for number in (9, 8, 4, 3):
        begin, _ = day_before(number)
        send_call(client, f"call-{number}", begin + timedelta(hours=1))
        outcome = {"sessionId": f"call-{number}", "outcome": "resolved", "score": number}
        client.ok("POST", "/v1/voice-sdk/outcomes", {"outcomes": [outcome]})
    statements: list[Any] = []

    def record(_: Any, __: Any, sql: str, parameters: Any, *___: Any) -> None:
        if "FROM call_sessions" in sql:
            statements.append(parameters)

    event.listen(cloud.services.engine, "before_cursor_execute", record)
    cache = DayCache()
    found = [cache.load_outcome_days(tenant, days) for _ in range(2)][-1]
    event.remove(cloud.services.engine, "before_cursor_execute", record)

    assert len(statements) == 2, "one for each run, and none for what is in memory"
    assert [[tally.reported for tally in day.values()] for day in found] == [[1], [1], [1]]
    assert [tally.by_name["resolved"].scores.mean for day in found for tally in day.values()] == [9.0, 4.0, 3.0]
