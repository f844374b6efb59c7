"""What a replay has found: the questions whose contexts change, the largest changes first."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import attrs
from sqlalchemy import delete, func, select

from memoair_cloud.cursors import PageOrder, ResultPage
from memoair_cloud.database.evaluation_models import EvaluationResult, EvaluationRun
from memoair_cloud.errors import ConflictError, NotFoundError
from memoair_cloud.evaluation.runs import load_run
from memoair_cloud.tenancy.access import Tenant
from memoair_cloud.tenancy.scoped import ScopedSession
from memoair_evaluation.context_diff import DiffRow, diff_contexts
from memoair_evaluation.replay import ReplaySummary
from memoair_protocol.timestamps import parse_timestamp

REPLAY_KIND = "replay"
_ROWS_AT_ONCE = 500
_LARGEST_FIRST = PageOrder[EvaluationResult](
    (EvaluationResult.change, -EvaluationResult.position),
    (float, int),
    lambda row: (row.change, -row.position),
    descending=True,
)


@attrs.frozen
class ReplayChange:
    """A question whose context changes.

    Attributes:
        case_id: Its id in the run.
        user_id: The caller.
        session_id: The call.
        event_id: The turn in which it was asked.
        occurred_at: When it was asked.
        question: The question.
        change: How much of the context changes, 0 to 1.
        appeared: What only the candidate recalls, as `memoair_evaluation.replay.RecalledItem` writes it.
        vanished: What only the present state recalls.
        before: The context of the present state.
        after: The context of the candidate.
    """

    case_id: str
    user_id: str
    session_id: str
    event_id: str
    occurred_at: datetime
    question: str = attrs.field(repr=False)
    change: float
    appeared: Sequence[dict[str, Any]] = attrs.field(repr=False)
    vanished: Sequence[dict[str, Any]] = attrs.field(repr=False)
    before: str = attrs.field(repr=False)
    after: str = attrs.field(repr=False)

    @property
    def diff(self) -> list[DiffRow]:
        """Both contexts side by side."""
        return diff_contexts(self.before, self.after)


def list_changes(tenant: Tenant, run_id: str, cursor: str | None, limit: int) -> ResultPage[ReplayChange]:
    """Return a page of the questions of a replay whose contexts change, the largest changes first.

    Raises:
        NotFoundError: If the agent has no such replay.
        InvalidRequestError: If the cursor is invalid.
    """
    with tenant.begin_read() as session:
        load_replay_run(session, run_id)
        statement = select(EvaluationResult).where(EvaluationResult.run_id == run_id, EvaluationResult.change > 0)
        page = _LARGEST_FIRST.fetch_page(session, statement, cursor, limit)
    return ResultPage([_to_change(row) for row in page.rows], page.next_cursor)


def get_change(tenant: Tenant, run_id: str, case_id: str) -> ReplayChange:
    """Return a question whose context changes.

    Raises:
        NotFoundError: If the agent has no such replay, or the replay no such change. It goes with its caller.
    """
    with tenant.begin_read() as session:
        load_replay_run(session, run_id)
        row = session.get(EvaluationResult, (session.scope.project_id, run_id, case_id))
        if row is None or not row.change:
            raise NotFoundError("unknown change of this replay", resource="change")
        return _to_change(row)


def count_changes(tenant: Tenant, run_id: str) -> int:
    """Return how many contexts change, as far as a replay has come."""
    with tenant.begin_read() as session:
        is_changed = EvaluationResult.run_id == run_id, EvaluationResult.change > 0
        return session.scalar(select(func.count()).select_from(EvaluationResult).where(*is_changed)) or 0


def summarize_changes(session: ScopedSession, run_id: str) -> dict[str, Any]:
    """Return the summary of a replay, from its results. It has no words of callers, and stays when they go."""
    summary = ReplaySummary()
    statement = select(EvaluationResult.change, EvaluationResult.scores).where(EvaluationResult.run_id == run_id)
    ordered = statement.order_by(EvaluationResult.position).execution_options(yield_per=_ROWS_AT_ONCE)
    for change, scores in session.execute(ordered):
        summary.add(scores, is_changed=change > 0)
    return summary.to_wire()


def delete_replay_results(session: ScopedSession, user_id: str) -> None:
    """Delete what replays have found for a caller when turns or facts of theirs go: contexts may quote them.

    Args:
        session: A transaction that has locked the caller.
        user_id: The caller.
    """
    runs = select(EvaluationRun.id).where(EvaluationRun.kind == REPLAY_KIND)
    is_meant = EvaluationResult.user_id == user_id, EvaluationResult.run_id.in_(runs)
    session.execute(delete(EvaluationResult).where(*is_meant), execution_options={"synchronize_session": False})


def load_replay_run(session: ScopedSession, run_id: str, *, lock: bool = False) -> EvaluationRun:
    """Return a replay of the session's agent.

    Raises:
        NotFoundError: If the agent has no such run.
        ConflictError: If it is the run of a suite.
    """
    run = load_run(session, run_id, lock=lock)
    if run.kind != REPLAY_KIND:
        raise ConflictError("this is the run of a suite: it has results, and no changes", kind=run.kind)
    return run


def _to_change(row: EvaluationResult) -> ReplayChange:
    details = row.details
    return ReplayChange(
        case_id=row.case_id,
        user_id=row.user_id or "",
        session_id=details["sessionId"],
        event_id=details["eventId"],
        occurred_at=parse_timestamp(details["occurredAt"]),
        question=details["question"],
        change=row.change,
        appeared=row.scores["appeared"],
        vanished=row.scores["vanished"],
        before=details["before"],
        after=details["after"],
    )
