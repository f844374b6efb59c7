"""What people look for in evaluations: suites of all agents, cases by their words, failing cases, a suite's history."""

import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any

import attrs
from sqlalchemy import ColumnElement, Text, case, func, or_, select, tuple_, type_coerce

from memoair_cloud.cursors import PageOrder, ResultPage
from memoair_cloud.database.evaluation_models import (
    EvaluationDocumentSet,
    EvaluationResult,
    EvaluationRun,
    EvaluationSuite,
    SuiteCase,
)
from memoair_cloud.errors import NotFoundError
from memoair_cloud.evaluation.document_set_states import DocumentSetState
from memoair_cloud.tenancy.access import Tenant
from memoair_cloud.tenancy.scoped import ScopedSession

_BY_NAME = PageOrder[EvaluationSuite](
    (EvaluationSuite.name, EvaluationSuite.agent_id, EvaluationSuite.id),
    (str, str, str),
    lambda suite: (suite.name, suite.agent_id, suite.id),
)
_BY_POSITION = PageOrder[SuiteCase]((SuiteCase.position, SuiteCase.id), (int, str), lambda row: (row.position, row.id))
# As `memoair_cloud.database.columns.Json` writes it. A text in quotes cannot contain it: its quotes are escaped.
_HAS_FAILED = type_coerce(EvaluationResult.scores, Text()).contains('"passed":false', autoescape=True)
_FAILED_FIRST = case((_HAS_FAILED, 0), else_=1)
_BY_FAILURE = PageOrder[EvaluationResult](
    (_FAILED_FIRST, EvaluationResult.position, EvaluationResult.case_id),
    (int, int, str),
    lambda row: (0 if row.scores.get("passed") is False else 1, row.position, row.case_id),
)
_LATEST_FIRST = PageOrder[EvaluationRun](
    (EvaluationRun.created_at, EvaluationRun.id),
    (datetime, str),
    lambda run: (run.created_at, run.id),
    descending=True,
)


@attrs.frozen
class SuiteSummary:
    """A suite in a list.

    Attributes:
        suite: The suite.
        case_count: The number of its cases.
        latest_run: Its latest run; None if it was never run.
    """

    suite: EvaluationSuite
    case_count: int
    latest_run: EvaluationRun | None


@attrs.frozen
class HistoryEntry:
    """A run in the history of a suite.

    Attributes:
        run: The run.
        is_candidate: Whether it was not of the present state, so that it is no point of the suite's history.
        changes: What differed from the run before: names such as ``prompt``, with the versions before and after.
    """

    run: EvaluationRun
    is_candidate: bool
    changes: Mapping[str, tuple[Any, Any]]


def list_suite_summaries(
    tenant: Tenant, agent_id: str | None, cursor: str | None, limit: int
) -> ResultPage[SuiteSummary]:
    """Return a page of the suites of an agent, or of all agents of the project, by name.

    Args:
        tenant: The project.
        agent_id: The agent; None for all.
        cursor: The cursor of the previous page, or None.
        limit: The maximum number of suites.

    Raises:
        InvalidRequestError: If the cursor is invalid.
    """
    statement = select(EvaluationSuite)
    if agent_id is not None:
        statement = statement.where(EvaluationSuite.agent_id == agent_id)
    with tenant.begin_read() as session:
        page = _BY_NAME.fetch_page(session, statement, cursor, limit)
        ids = [suite.id for suite in page.rows]
        counted = select(SuiteCase.suite_id, func.count()).where(SuiteCase.suite_id.in_(ids))
        counts = {row[0]: row[1] for row in session.execute(counted.group_by(SuiteCase.suite_id))}
        order = [column.desc() for column in _LATEST_FIRST.columns]
        runs = select(EvaluationRun).order_by(*order).limit(1)
        latest = {suite_id: session.scalar(runs.where(EvaluationRun.suite_id == suite_id)) for suite_id in ids}
    summaries = [SuiteSummary(suite, counts.get(suite.id, 0), latest[suite.id]) for suite in page.rows]
    return ResultPage(summaries, page.next_cursor)


def find_suite_agent(tenant: Tenant, suite_id: str) -> str:
    """Return the agent that owns a suite; raise `NotFoundError` if there is no such suite in the project."""
    with tenant.begin_read() as session:
        agent_id = session.scalar(select(EvaluationSuite.agent_id).where(EvaluationSuite.id == suite_id))
    if agent_id is None:
        raise NotFoundError("unknown suite", resource="suite")
    return agent_id


def find_run_agent(tenant: Tenant, run_id: str) -> str:
    """Return the agent that owns a run; raise `NotFoundError` if there is no such run in the project."""
    with tenant.begin_read() as session:
        agent_id = session.scalar(select(EvaluationRun.agent_id).where(EvaluationRun.id == run_id))
    if agent_id is None:
        raise NotFoundError("unknown run", resource="run")
    return agent_id


def search_cases(tenant: Tenant, suite_id: str, text: str, cursor: str | None, limit: int) -> ResultPage[SuiteCase]:
    """Return a page of the cases of a suite that contain all words of a text, in their order; empty finds all.

    Letters beyond ASCII are found as they are written.

    Raises:
        InvalidRequestError: If the cursor is invalid.
    """
    statement = select(SuiteCase).where(SuiteCase.suite_id == suite_id)
    content = type_coerce(SuiteCase.content, Text())
    for word in text.split():
        stored = json.dumps(word)[1:-1]  # as `memoair_cloud.database.columns.Json` writes it
        found: list[ColumnElement[bool]] = [
            SuiteCase.id.icontains(word, autoescape=True),
            content.icontains(stored, autoescape=True),
        ]
        statement = statement.where(or_(*found))
    with tenant.begin_read() as session:
        return _BY_POSITION.fetch_page(session, statement, cursor, limit)


def count_cases(tenant: Tenant, suite_id: str) -> int:
    """Return the number of cases of a suite."""
    statement = select(func.count()).select_from(SuiteCase).where(SuiteCase.suite_id == suite_id)
    with tenant.begin_read() as session:
        return session.scalar(statement) or 0


def list_results_failed_first(
    tenant: Tenant, run_id: str, cursor: str | None, limit: int, *, only_failed: bool = False
) -> ResultPage[EvaluationResult]:
    """Return a page of the results of a run: the failing cases, then the others, each in the order of the suite.

    Args:
        tenant: The project.
        run_id: The run.
        cursor: The cursor of the previous page, or None.
        limit: The maximum number of results.
        only_failed: Leave the others out.

    Raises:
        InvalidRequestError: If the cursor is invalid.
    """
    statement = select(EvaluationResult).where(EvaluationResult.run_id == run_id)
    if only_failed:
        statement = statement.where(_HAS_FAILED)
    with tenant.begin_read() as session:
        return _BY_FAILURE.fetch_page(session, statement, cursor, limit)


def list_history(tenant: Tenant, suite_id: str, cursor: str | None, limit: int) -> ResultPage[HistoryEntry]:
    """Return a page of the runs of a suite, latest first, with what differed from the run of the present state before.

    Args:
        tenant: The project.
        suite_id: The suite.
        cursor: The cursor of the previous page, or None.
        limit: The maximum number of runs.

    Raises:
        InvalidRequestError: If the cursor is invalid.
    """
    statement = select(EvaluationRun).where(EvaluationRun.suite_id == suite_id)
    with tenant.begin_read() as session:
        page = _LATEST_FIRST.fetch_page(session, statement, cursor, limit)
        before = None if page.next_cursor is None else _find_earlier(session, page.rows[-1])
    entries = []
    for run in reversed(page.rows):
        is_candidate = bool(run.candidate)
        entries.append(HistoryEntry(run, is_candidate, {} if is_candidate else _compare_versions(before, run)))
        if not is_candidate and run.started_at is not None:
            before = run
    return ResultPage(entries[::-1], page.next_cursor)


def _find_earlier(session: ScopedSession, run: EvaluationRun) -> EvaluationRun | None:
    """Return the latest run of the present state before a run, among the hundred runs before it."""
    earlier = select(EvaluationRun).where(
        EvaluationRun.suite_id == run.suite_id, tuple_(*_LATEST_FIRST.columns) < tuple_(run.created_at, run.id)
    )
    order = [column.desc() for column in _LATEST_FIRST.columns]
    rows = session.scalars(earlier.order_by(*order).limit(100))
    return next((row for row in rows if not row.candidate and row.started_at is not None), None)


def _compare_versions(before: EvaluationRun | None, run: EvaluationRun) -> dict[str, tuple[Any, Any]]:
    if before is None or run.started_at is None:
        return {}
    versions = {
        "prompt": (before.prompt_version, run.prompt_version),
        "index": (before.org_version, run.org_version),
        "suite": (before.suite_version, run.suite_version),
        "engine": (before.engine_version, run.engine_version),
    }
    return {name: (old, new) for name, (old, new) in versions.items() if old != new}


def load_set_names(tenant: Tenant) -> dict[str, str]:
    """Return the names of the project's document sets by id, with a note if it was deleted."""
    row = EvaluationDocumentSet
    with tenant.begin_read() as session:
        found = session.execute(select(row.id, row.name, row.state).where(~row.is_pinned))
        removed = DocumentSetState.REMOVED.value
        return {each.id: f"{each.name}, deleted since" if each.state == removed else each.name for each in found}


def list_case_sources(tenant: Tenant, suite_id: str) -> list[tuple[str, str | None]]:
    """Return the callers of whose calls a suite has copies, each with the call, once."""
    statement = select(SuiteCase.user_id, SuiteCase.source).where(
        SuiteCase.suite_id == suite_id, SuiteCase.user_id.is_not(None)
    )
    with tenant.begin_read() as session:
        found = {(row[0], (row[1] or {}).get("sessionId")) for row in session.execute(statement)}
    return sorted(found, key=str)
