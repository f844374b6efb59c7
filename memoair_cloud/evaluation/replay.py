"""Run a replay: choose its questions, ask each one twice, keep what changes.

The questions are chosen once. Each waits as a pending case, and its result takes its place in the same transaction. So
a worker that takes over goes on where the other one was, and no question counts twice. Pending cases and results belong
to their callers, and go with them.
"""

from collections.abc import Callable, Sequence
from itertools import islice
from typing import Any

from sqlalchemy import delete, select

from memoair_cloud.database.evaluation_models import EvaluationResult, EvaluationRun, PendingCase
from memoair_cloud.evaluation.locking import find_present_users
from memoair_cloud.evaluation.replay_changes import summarize_changes
from memoair_cloud.evaluation.replay_questions import PastQuestion, choose_questions, get_question
from memoair_cloud.recall_preview.preview import load_user
from memoair_cloud.tenancy.access import Tenant
from memoair_cloud.tenancy.scoped import ScopedSession
from memoair_evaluation.replaying import ReplayedQuestion, ReplaySide, replay_questions
from memoair_protocol.timestamps import format_utc, parse_timestamp

# Locks a run and renews the claim of its worker; raises if it was canceled, or another worker has it.
CheckClaim = Callable[[ScopedSession], EvaluationRun]
# A transaction writes so many results: the progress moves, and a canceled run ends soon.
_RESULTS_AT_ONCE = 50
# In the run's settings, once its questions are chosen: the number of turns of the period, and of those of its questions
# that could not be asked.
_TURN_COUNT, _LEFT_OUT = "turns", "leftOut"
_UNSYNCHRONIZED = {"synchronize_session": False}


def run_replay(
    tenant: Tenant, run: EvaluationRun, check: CheckClaim, present: ReplaySide, candidate: ReplaySide
) -> None:
    """Ask the questions of a replay that were not asked yet.

    Args:
        tenant: The project.
        run: The run, which this worker has claimed.
        check: Locks the run and renews the claim; raises if it was canceled, or another worker has it.
        present: The present state.
        candidate: The candidate.
    """
    if _TURN_COUNT not in run.settings:
        _choose(tenant, run, check)
    while (batch := _next_caller(tenant, run.id)) is not None:
        user_id, waiting = batch
        user, _ = load_user(tenant, user_id)
        by_event = {row.content["eventId"]: row for row in waiting}
        replayed = replay_questions(user, by_event, get_question, present, candidate)
        while results := list(islice(replayed, _RESULTS_AT_ONCE)):
            _write(tenant, run.id, check, [(by_event.pop(result.first_id), result) for result in results])
        if by_event:  # of turns that were dropped since, or of a caller with too many
            _drop(tenant, run.id, check, user_id, [row.case_id for row in by_event.values()])


def summarize_replay(session: ScopedSession, run: EvaluationRun) -> dict[str, Any]:
    """Return the scores of a replay whose questions were all asked."""
    return {**summarize_changes(session, run.id), **{name: run.settings[name] for name in (_TURN_COUNT, _LEFT_OUT)}}


def _choose(tenant: Tenant, run: EvaluationRun, check: CheckClaim) -> None:
    settings = run.settings
    since, until = parse_timestamp(settings["from"]), parse_timestamp(settings["to"])
    with tenant.begin_read() as session:
        chosen = choose_questions(session, run.agent_id, since, until, settings["maxQuestions"])
    with tenant.begin_write() as session:
        row = check(session)
        present = find_present_users(session, {question.user_id for question in chosen.questions})
        kept = [question for question in chosen.questions if question.user_id in present]
        session.bulk_insert(PendingCase, [_to_pending(run.id, *numbered) for numbered in enumerate(kept)])
        row.total, row.done = len(kept), 0
        row.settings = {**settings, _TURN_COUNT: chosen.turn_count, _LEFT_OUT: 0}
    run.settings = row.settings


def _to_pending(run_id: str, position: int, question: PastQuestion) -> dict[str, Any]:
    return {
        "run_id": run_id,
        "case_id": f"question-{position + 1}",
        "position": position,
        "content": {"eventId": question.event_id, "occurredAt": format_utc(question.occurred_at)},
        "sha256": "",
        "user_id": question.user_id,
    }


def _next_caller(tenant: Tenant, run_id: str) -> tuple[str, Sequence[PendingCase]] | None:
    """Return the caller of the first question that waits, and all of their questions that do."""
    waiting = select(PendingCase).where(PendingCase.run_id == run_id).order_by(PendingCase.position)
    with tenant.begin_read() as session:
        first = session.scalar(waiting.limit(1))
        if first is None or first.user_id is None:
            return None
        return first.user_id, session.scalars(waiting.where(PendingCase.user_id == first.user_id)).all()


def _write(
    tenant: Tenant, run_id: str, check: CheckClaim, results: Sequence[tuple[PendingCase, ReplayedQuestion]]
) -> None:
    with tenant.begin_write() as session:
        run = check(session)
        # An erasure has taken the pending cases of its caller: they must not come back as results.
        find_present_users(session, {row.user_id for row, _ in results if row.user_id is not None})
        left = set(_take(session, run_id, [row.case_id for row, _ in results]))
        rows = [_to_result(row, result) for row, result in results if row.case_id in left]
        session.bulk_insert(EvaluationResult, rows)
        run.done += len(rows)


def _drop(tenant: Tenant, run_id: str, check: CheckClaim, user_id: str, case_ids: Sequence[str]) -> None:
    with tenant.begin_write() as session:
        run = check(session)
        find_present_users(session, {user_id})
        count = len(_take(session, run_id, case_ids))
        run.total -= count
        run.settings = {**run.settings, _LEFT_OUT: run.settings[_LEFT_OUT] + count}


def _take(session: ScopedSession, run_id: str, case_ids: Sequence[str]) -> Sequence[str]:
    """Remove pending cases, and return which were there."""
    is_meant = PendingCase.run_id == run_id, PendingCase.case_id.in_(case_ids)
    found = session.scalars(select(PendingCase.case_id).where(*is_meant)).all()
    session.execute(delete(PendingCase).where(*is_meant), execution_options=_UNSYNCHRONIZED)
    return found


def _to_result(row: PendingCase, result: ReplayedQuestion) -> dict[str, Any]:
    place = {"sessionId": result.session_id, "eventId": result.event_id, "occurredAt": row.content["occurredAt"]}
    words = {"question": result.question, "before": result.before, "after": result.after}
    is_changed = result.change.is_changed
    return {
        "run_id": row.run_id,
        "case_id": row.case_id,
        "position": row.position,
        "case_sha256": row.sha256,
        "user_id": row.user_id,
        "change": result.change.change,
        "scores": result.change.to_wire() if is_changed else {},
        "details": {**place, **words} if is_changed else place,
    }
