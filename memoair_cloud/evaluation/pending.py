"""What a run has not asked yet: each case waits in a row, and its result takes its place in one transaction."""

from collections.abc import Collection
from typing import Any

from sqlalchemy import delete, select

from memoair_cloud.database.evaluation_models import PendingCase
from memoair_cloud.evaluation.locking import find_present_users
from memoair_cloud.tenancy.scoped import ScopedSession


def take_pending(
    session: ScopedSession, run_id: str, case_ids: Collection[str], user_ids: Collection[str | None]
) -> set[str]:
    """Remove pending cases of a run, and return the ids of those that were there.

    An erasure has taken the pending cases of its caller: they must not come back as results.

    Args:
        session: The session of the transaction that writes their results.
        run_id: The run.
        case_ids: The cases.
        user_ids: The callers that they belong to. They are locked against erasure; None is for text that was given.
    """
    find_present_users(session, {user_id for user_id in user_ids if user_id is not None})
    is_meant = PendingCase.run_id == run_id, PendingCase.case_id.in_(case_ids)
    found = set(session.scalars(select(PendingCase.case_id).where(*is_meant)))
    session.execute(delete(PendingCase).where(*is_meant), execution_options={"synchronize_session": False})
    return found


def make_result(
    row: PendingCase, scores: dict[str, Any], details: dict[str, Any], change: float = 0.0
) -> dict[str, Any]:
    """Return the result of a pending case, by the columns of its row.

    Args:
        row: The pending case.
        scores: Its scores.
        details: The trace, the context, and what else is shown of it.
        change: Of a replay: how much its context changes, 0 to 1.
    """
    return {
        "run_id": row.run_id,
        "case_id": row.case_id,
        "position": row.position,
        "case_sha256": row.sha256,
        "user_id": row.user_id,
        "change": change,
        "scores": scores,
        "details": details,
    }
