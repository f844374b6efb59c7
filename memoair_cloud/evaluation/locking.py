"""The order of locks between evaluations and erasures: no two transactions can wait for each other.

An erasure deletes cases and results of a caller in suites and runs of any number. It locks the caller first, as all
writers of their data do, then the suites and the runs, each in the order of their ids, and only then it deletes. Who
changes the cases of a suite has locked the suite, who writes or deletes the results of a run has locked the run, and
neither waits for a caller's lock after that: to insert a row that refers to a caller, see `find_present_users`.
"""

from collections.abc import Collection, Sequence

from sqlalchemy import or_, select

from memoair_cloud.database.evaluation_models import (
    EvaluationResult,
    EvaluationRun,
    EvaluationSuite,
    PendingCase,
    SuiteCase,
)
from memoair_cloud.database.models import EndUser
from memoair_cloud.tenancy.scoped import ScopedSession


def lock_evaluations_of_user(session: ScopedSession, user_id: str) -> Sequence[EvaluationSuite]:
    """Lock what has copies of a caller's words, before they are deleted; return the suites with cases of theirs.

    Args:
        session: A transaction that has locked the user.
        user_id: The user.
    """
    run_ids = {
        *session.scalars(select(EvaluationResult.run_id).where(EvaluationResult.user_id == user_id).distinct()),
        *session.scalars(select(PendingCase.run_id).where(PendingCase.user_id == user_id).distinct()),
    }
    with_cases = set(session.scalars(select(SuiteCase.suite_id).where(SuiteCase.user_id == user_id).distinct()))
    of_runs = select(EvaluationRun.suite_id).where(EvaluationRun.id.in_(run_ids), EvaluationRun.suite_id.is_not(None))
    suite_ids = {*with_cases, *session.scalars(of_runs)}
    statement = select(EvaluationSuite).where(EvaluationSuite.id.in_(suite_ids)).order_by(EvaluationSuite.id)
    suites = session.scalars(statement.with_for_update(key_share=True)).all()
    _lock_runs_by_id(session, run_ids)
    return [suite for suite in suites if suite.id in with_cases]


def lock_runs(
    session: ScopedSession, suite_ids: Collection[str] = (), agent_id: str | None = None
) -> Sequence[EvaluationRun]:
    """Lock the runs of suites and of an agent, before they are deleted, and return them.

    Args:
        session: A transaction that has locked the suites.
        suite_ids: The suites.
        agent_id: The agent; None for none.
    """
    is_meant = or_(EvaluationRun.suite_id.in_(suite_ids), EvaluationRun.agent_id == agent_id)
    ids = session.scalars(select(EvaluationRun.id).where(is_meant)).all()
    return _lock_runs_by_id(session, ids)


def lock_evaluations_of_agent(session: ScopedSession, agent_id: str) -> None:
    """Lock the suites and the runs of an agent, before they are deleted with it."""
    statement = select(EvaluationSuite.id).where(EvaluationSuite.agent_id == agent_id).order_by(EvaluationSuite.id)
    suite_ids = session.scalars(statement.with_for_update(key_share=True)).all()
    lock_runs(session, suite_ids, agent_id)


def find_present_users(session: ScopedSession, user_ids: Collection[str]) -> set[str]:
    """Return which of some callers were not erased, so that rows can refer to them until the transaction ends.

    It waits for an erasure that is about to commit, which has all its locks already.
    """
    if not user_ids:
        return set()
    statement = select(EndUser.id).where(EndUser.id.in_(sorted(user_ids))).order_by(EndUser.id)
    return set(session.scalars(statement.with_for_update(read=True, key_share=True)))


def _lock_runs_by_id(session: ScopedSession, run_ids: Collection[str]) -> Sequence[EvaluationRun]:
    statement = select(EvaluationRun).where(EvaluationRun.id.in_(run_ids)).order_by(EvaluationRun.id)
    return session.scalars(statement.with_for_update(key_share=True)).all()
