"""Run a replay: choose its questions, ask each one twice, keep what changes.

The questions are chosen once. Each waits as a pending case, and its result takes its place in the same transaction. So
a worker that takes over goes on where the other one was, and no question counts twice. Pending cases and results belong
to their callers, and go with them. A question is asked again if the caller's memory has changed since it was read:
something of it may have been deleted, and must not come back as a result.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import Any

from sqlalchemy import select

from memoair_cloud.database.evaluation_models import EvaluationResult, EvaluationRun, PendingCase
from memoair_cloud.database.models import EndUser
from memoair_cloud.evaluation.document_sets import open_set_documents
from memoair_cloud.evaluation.locking import find_present_users, lock_memory_versions
from memoair_cloud.evaluation.pending import make_result, take_pending
from memoair_cloud.evaluation.replay_changes import summarize_changes
from memoair_cloud.evaluation.replay_questions import PastQuestion, choose_questions, get_question
from memoair_cloud.evaluation.run_claims import ClaimedRun
from memoair_cloud.recall_preview.preview import load_user
from memoair_cloud.tenancy.scoped import ScopedSession
from memoair_evaluation.engine import open_engine
from memoair_evaluation.replaying import ReplayedQuestion, ReplaySide, replay_questions
from memoair_protocol.timestamps import format_utc, parse_timestamp

# A transaction writes so many results: the progress moves, and a canceled run ends soon.
_RESULTS_AT_ONCE = 50
# In the run's settings, once its questions are chosen: the number of turns of the period, and of those of its questions
# that could not be asked.
_TURN_COUNT, _LEFT_OUT = "turns", "leftOut"
_UNSYNCHRONIZED = {"synchronize_session": False}


def begin_replay(_: ScopedSession, run: EvaluationRun) -> None:
    """Fix nothing yet: to choose the questions takes longer than others can wait for this transaction."""
    run.total = 0


def process_replay(claimed: ClaimedRun) -> None:
    """Ask questions until none is left, or until others are to get their turn.

    Raises:
        LostClaimError: If the worker must stop.
        OSError: If an index file cannot be read.
    """
    if _TURN_COUNT not in claimed.run.settings:
        _choose(claimed)
    with _open_sides(claimed) as (present, candidate):
        while waiting := _load_caller(claimed):
            _replay_caller(claimed, waiting, present, candidate)
            if claimed.is_time_over:  # only then, so that each worker does something
                return


def summarize_replay(session: ScopedSession, run: EvaluationRun) -> dict[str, Any]:
    """Return the scores of a replay whose questions were all asked."""
    return {**summarize_changes(session, run.id), **{name: run.settings[name] for name in (_TURN_COUNT, _LEFT_OUT)}}


@contextmanager
def _open_sides(claimed: ClaimedRun) -> Iterator[tuple[ReplaySide, ReplaySide]]:
    run, settings = claimed.run, claimed.candidate.recall
    with (
        open_set_documents(claimed.tenant, claimed.blobs, run.present_set_id) as documents,
        open_engine(documents) as engine,
    ):
        if run.document_set_id == run.present_set_id:
            yield ReplaySide(engine), ReplaySide(engine, settings)
            return
        with (
            open_set_documents(claimed.tenant, claimed.blobs, run.document_set_id) as others,
            open_engine(others) as other_engine,
        ):
            yield ReplaySide(engine), ReplaySide(other_engine, settings)


def _choose(claimed: ClaimedRun) -> None:
    run, settings = claimed.run, claimed.run.settings
    since, until = parse_timestamp(settings["from"]), parse_timestamp(settings["to"])
    with claimed.tenant.begin_read() as session:
        chosen = choose_questions(session, run.agent_id, since, until, settings["maxQuestions"])
    with claimed.tenant.begin_write() as session:
        row = claimed.check(session)
        present = find_present_users(session, {question.user_id for question in chosen.questions})
        kept = [question for question in chosen.questions if question.user_id in present]
        if kept:
            session.bulk_insert(PendingCase, [_to_pending(run.id, *numbered) for numbered in enumerate(kept)])
        row.total, row.done = len(kept), 0
        row.settings = {**settings, _TURN_COUNT: chosen.turn_count, _LEFT_OUT: 0}


def _replay_caller(
    claimed: ClaimedRun, waiting: Sequence[PendingCase], present: ReplaySide, candidate: ReplaySide
) -> None:
    user_id = waiting[0].user_id or ""
    version = _read_memory_version(claimed, user_id)  # before it is read: what changes in between counts as a change
    user, _ = load_user(claimed.tenant, user_id)
    by_event = {row.content["eventId"]: row for row in waiting}
    replayed = replay_questions(user, set(by_event), get_question, present, candidate)
    while results := list(islice(replayed, _RESULTS_AT_ONCE)):
        is_current = _write(claimed, [(by_event.pop(result.first_id), result) for result in results], version)
        if not is_current or claimed.is_time_over:
            return
    if by_event:  # of turns that were dropped since, or of a caller with too many
        _drop(claimed, list(by_event.values()))


def _read_memory_version(claimed: ClaimedRun, user_id: str) -> int | None:
    with claimed.tenant.begin_read() as session:
        return session.scalar(select(EndUser.memory_version).where(EndUser.id == user_id))


def _to_pending(run_id: str, position: int, question: PastQuestion) -> dict[str, Any]:
    return {
        "run_id": run_id,
        "case_id": f"question-{position + 1}",
        "position": position,
        "content": {"eventId": question.event_id, "occurredAt": format_utc(question.occurred_at)},
        "sha256": "",
        "user_id": question.user_id,
    }


def _load_caller(claimed: ClaimedRun) -> Sequence[PendingCase]:
    """Return all questions that wait of the caller of the first one; empty if none waits."""
    waiting = select(PendingCase).where(PendingCase.run_id == claimed.run.id).order_by(PendingCase.position)
    with claimed.tenant.begin_read() as session:
        first = session.scalar(waiting.limit(1))
        return [] if first is None else session.scalars(waiting.where(PendingCase.user_id == first.user_id)).all()


def _write(claimed: ClaimedRun, results: Sequence[tuple[PendingCase, ReplayedQuestion]], version: int | None) -> bool:
    """Write results of one caller; return False if their memory is not that of a version any more."""
    with claimed.tenant.begin_write() as session:
        run = claimed.check(session)
        versions = lock_memory_versions(session, {row.user_id for row, _ in results if row.user_id is not None})
        if any(present != version for present in versions.values()):
            return False
        left = _take(session, [row for row, _ in results])
        rows = [_to_result(row, result) for row, result in results if row.case_id in left]
        if rows:
            session.bulk_insert(EvaluationResult, rows)
        run.done += len(rows)
        run.failures = 0
        return True


def _drop(claimed: ClaimedRun, waiting: Sequence[PendingCase]) -> None:
    with claimed.tenant.begin_write() as session:
        run = claimed.check(session)
        count = len(_take(session, waiting))
        run.total -= count
        run.settings = {**run.settings, _LEFT_OUT: run.settings[_LEFT_OUT] + count}


def _take(session: ScopedSession, waiting: Sequence[PendingCase]) -> set[str]:
    """Remove pending cases of a run, and return the ids of those that were there."""
    return take_pending(session, waiting[0].run_id, [row.case_id for row in waiting], [row.user_id for row in waiting])


def _to_result(row: PendingCase, result: ReplayedQuestion) -> dict[str, Any]:
    place = {"sessionId": result.session_id, "eventId": result.event_id, "occurredAt": row.content["occurredAt"]}
    words = {"question": result.question, "before": result.before, "after": result.after}
    is_changed = result.change.is_changed
    scores = result.change.to_wire() if is_changed else {}
    return make_result(row, scores, {**place, **words} if is_changed else place, result.change.change)
