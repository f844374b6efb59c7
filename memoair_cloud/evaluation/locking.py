"""The order of locks between evaluations and erasures: no two transactions can wait for each other.

An erasure locks the caller first, as all writers of their data do, and then the suites with cases that were copied from
them, because their versions change. Who changes the cases of a suite has locked the suite. Rows of a caller go with the
row of the caller itself, which nothing can delete while a transaction has it in `find_present_users`: who deletes or
inserts results calls that first.
"""

from collections.abc import Collection, Sequence

from sqlalchemy import Select, delete, or_, select

from memoair_cloud.database.evaluation_models import (
    EvaluationResult,
    EvaluationRun,
    EvaluationSuite,
    PendingCase,
    SuiteCase,
)
from memoair_cloud.database.models import EndUser
from memoair_cloud.tenancy.scoped import ScopedSession

_USERS_AT_ONCE = 5_000  # PostgreSQL takes at most 65,535 parameters, and the runs of an agent may be about more users
_UNSYNCHRONIZED = {"synchronize_session": False}


def lock_suites_of_user(session: ScopedSession, user_id: str) -> Sequence[EvaluationSuite]:
    """Lock the suites with cases that were copied from a user, and return them.

    Args:
        session: A transaction that has locked the user.
        user_id: The user.
    """
    ids = select(SuiteCase.suite_id).where(SuiteCase.user_id == user_id)
    return _lock_suites(session, select(EvaluationSuite).where(EvaluationSuite.id.in_(ids)))


def erase_evaluations(session: ScopedSession, user_id: str) -> None:
    """Delete the cases and results of a user whose row stays, because they have called since their erasure.

    Args:
        session: A transaction that has locked the user and the project.
        user_id: The user.
    """
    for suite in lock_suites_of_user(session, user_id):
        suite.version += 1
    session.flush()
    # As if the row itself were deleted: this waits for those who have the user in `find_present_users`.
    session.scalar(select(EndUser.id).where(EndUser.id == user_id).with_for_update())
    for model in (SuiteCase, PendingCase, EvaluationResult):
        session.execute(delete(model).where(model.user_id == user_id), execution_options=_UNSYNCHRONIZED)


def lock_evaluations_of_agent(session: ScopedSession, agent_id: str) -> None:
    """Lock the suites of an agent and keep the callers of its evaluations, so that both can be deleted with it."""
    suites = _lock_suites(session, select(EvaluationSuite).where(EvaluationSuite.agent_id == agent_id))
    runs = session.scalars(select(EvaluationRun.id).where(EvaluationRun.agent_id == agent_id)).all()
    keep_callers(session, [suite.id for suite in suites], runs)


def keep_callers(session: ScopedSession, suite_ids: Collection[str] = (), run_ids: Collection[str] = ()) -> None:
    """Keep the callers of cases and results until the transaction ends, so that suites or runs can be deleted.

    Args:
        session: A transaction that has locked the suites.
        suite_ids: The suites, with all of their runs.
        run_ids: More runs.
    """
    of_suites = select(EvaluationRun.id).where(EvaluationRun.suite_id.in_(suite_ids))
    found = set(session.scalars(select(SuiteCase.user_id).where(SuiteCase.suite_id.in_(suite_ids)).distinct()))
    for model in (EvaluationResult, PendingCase):
        is_meant = or_(model.run_id.in_(run_ids), model.run_id.in_(of_suites))
        found.update(session.scalars(select(model.user_id).where(is_meant).distinct()))
    find_present_users(session, {user_id for user_id in found if user_id is not None})


def find_present_users(session: ScopedSession, user_ids: Collection[str]) -> set[str]:
    """Return which of some callers were not erased, so that rows can refer to them until the transaction ends.

    It waits for an erasure that is about to commit, which has all its locks already.
    """
    in_order, present = sorted(user_ids), set[str]()
    for start in range(0, len(in_order), _USERS_AT_ONCE):
        some = EndUser.id.in_(in_order[start : start + _USERS_AT_ONCE])
        statement = select(EndUser.id).where(some).order_by(EndUser.id)
        present.update(session.scalars(statement.with_for_update(read=True, key_share=True)))
    return present


def lock_memory_versions(session: ScopedSession, user_ids: Collection[str]) -> dict[str, int]:
    """Return the memory versions of some callers, by their ids, and let nothing change them until the transaction ends.

    It waits for writers of their data, so it is only for transactions that hold nothing that those want: no suite.
    """
    if not user_ids:
        return {}
    statement = select(EndUser).where(EndUser.id.in_(sorted(user_ids))).order_by(EndUser.id)
    in_order = statement.execution_options(populate_existing=True).with_for_update(read=True)
    return {user.id: user.memory_version for user in session.scalars(in_order)}


def _lock_suites(session: ScopedSession, statement: "Select[EvaluationSuite]") -> Sequence[EvaluationSuite]:
    in_order = statement.order_by(EvaluationSuite.id).execution_options(populate_existing=True)
    return session.scalars(in_order.with_for_update(key_share=True)).all()
