"""Suites of an agent: cases that say what must be recalled. Each change of the cases increments the suite's version."""

from typing import Any

import attrs
from sqlalchemy import func, select
from sqlalchemy.exc import IntegrityError

from memoair_cloud.cursors import PageOrder, ResultPage
from memoair_cloud.database.evaluation_models import EvaluationSuite, SuiteCase
from memoair_cloud.errors import BatchTooLargeError, ConflictError, NotFoundError
from memoair_cloud.evaluation.locking import keep_callers
from memoair_cloud.identifiers import new_id
from memoair_cloud.prompts.agents import describe_actor
from memoair_cloud.tenancy.access import Tenant
from memoair_cloud.tenancy.scoped import ScopedSession
from memoair_protocol.timestamps import utc_now

# Suites are written by people. A program that creates one for each of its runs is mistaken.
MAX_SUITES = 200
_BY_NAME = PageOrder[EvaluationSuite](
    (EvaluationSuite.name, EvaluationSuite.id), (str, str), lambda row: (row.name, row.id)
)


@attrs.frozen
class SuiteDetail:
    """A suite, and how large it is.

    Attributes:
        suite: Its row.
        case_count: The number of its cases.
    """

    suite: EvaluationSuite
    case_count: int


def create_suite(tenant: Tenant, name: str, description: str = "") -> SuiteDetail:
    """Create an empty suite of the tenant's agent.

    Args:
        tenant: The agent.
        name: Its name, unique among the suites of the agent.
        description: What it is for, for people.

    Raises:
        InvalidRequestError: If the tenant names no agent.
        ConflictError: If the agent has a suite with this name.
        BatchTooLargeError: If the agent has too many suites.
    """
    now = utc_now()
    suite = EvaluationSuite(
        project_id=tenant.scope.project_id,
        id=new_id("suite"),
        agent_id=tenant.require_agent(),
        name=name,
        description=description,
        version=0,
        created_at=now,
        created_by=describe_actor(tenant.scope.actor),
        updated_at=now,
    )
    try:
        with tenant.begin_write() as session:
            count = session.scalar(select(func.count()).select_from(EvaluationSuite).where(_is_own(tenant))) or 0
            if count >= MAX_SUITES:
                raise BatchTooLargeError(f"an agent can have at most {MAX_SUITES} suites", limit=MAX_SUITES)
            _check_name_is_free(session, tenant, name)
            session.add(suite)
    except IntegrityError:  # a concurrent request was first
        raise _make_conflict() from None
    return SuiteDetail(suite, 0)


def list_suites(tenant: Tenant, cursor: str | None, limit: int, name: str | None = None) -> ResultPage[SuiteDetail]:
    """Return a page of the suites of the tenant's agent, by name.

    Args:
        tenant: The agent.
        cursor: The cursor of the previous page, or None.
        limit: The maximum number of suites.
        name: Only the suite with this name.

    Raises:
        InvalidRequestError: If the cursor is invalid.
    """
    statement = select(EvaluationSuite).where(_is_own(tenant))
    if name is not None:
        statement = statement.where(EvaluationSuite.name == name)
    with tenant.begin_read() as session:
        page = _BY_NAME.fetch_page(session, statement, cursor, limit)
        ids = [row.id for row in page.rows]
        counted = select(SuiteCase.suite_id, func.count()).where(SuiteCase.suite_id.in_(ids))
        counts = {row[0]: row[1] for row in session.execute(counted.group_by(SuiteCase.suite_id))}
    return ResultPage([SuiteDetail(row, counts.get(row.id, 0)) for row in page.rows], page.next_cursor)


def get_suite(tenant: Tenant, suite_id: str) -> SuiteDetail:
    """Return a suite of the tenant's agent.

    Raises:
        NotFoundError: If the agent has no such suite.
    """
    with tenant.begin_read() as session:
        return _describe(session, load_suite(session, suite_id))


def change_suite(tenant: Tenant, suite_id: str, name: str | None = None, description: str | None = None) -> SuiteDetail:
    """Change the name or the description of a suite; None keeps it. Its version counts its cases and stays.

    Raises:
        NotFoundError: If the agent has no such suite.
        ConflictError: If the agent has another suite with this name.
    """
    try:
        with tenant.begin_write() as session:
            suite = load_suite(session, suite_id, lock=True)
            if name is not None and name != suite.name:
                _check_name_is_free(session, tenant, name)
                suite.name = name
            if description is not None:
                suite.description = description
            suite.updated_at = utc_now()
            return _describe(session, suite)
    except IntegrityError:  # a concurrent request was first
        raise _make_conflict() from None


def delete_suite(tenant: Tenant, suite_id: str) -> SuiteDetail:
    """Delete a suite with its cases, its runs and their results, and return what it was.

    A run that is in progress ends.

    Raises:
        NotFoundError: If the agent has no such suite.
    """
    with tenant.begin_write() as session:
        suite = load_suite(session, suite_id, lock=True)
        detail = _describe(session, suite)
        keep_callers(session, [suite_id])
        session.delete(suite)
        return detail


def load_suite(session: ScopedSession, suite_id: str, *, lock: bool = False) -> EvaluationSuite:
    """Return a suite of the session's agent, locked if need be: writers of its cases queue for its row.

    Raises:
        NotFoundError: If the agent has no such suite.
    """
    is_own = EvaluationSuite.agent_id == session.scope.agent_id
    statement = select(EvaluationSuite).where(EvaluationSuite.id == suite_id, is_own)
    suite = session.scalar(statement.with_for_update(key_share=True) if lock else statement)
    if suite is None:
        raise NotFoundError("unknown suite of this agent", resource="suite")
    return suite


def _describe(session: ScopedSession, suite: EvaluationSuite) -> SuiteDetail:
    count = select(func.count()).select_from(SuiteCase).where(SuiteCase.suite_id == suite.id)
    return SuiteDetail(suite, session.scalar(count) or 0)


def _is_own(tenant: Tenant) -> Any:
    return EvaluationSuite.agent_id == tenant.scope.agent_id


def _check_name_is_free(session: ScopedSession, tenant: Tenant, name: str) -> None:
    statement = select(EvaluationSuite.id).where(_is_own(tenant), EvaluationSuite.name == name)
    if session.scalar(statement) is not None:
        raise _make_conflict()


def _make_conflict() -> ConflictError:
    return ConflictError("the agent has a suite with this name already", field="name")
