"""Run a suite: fix its cases when the run begins, score them in batches, and add up the scores.

Each case waits as a pending case, and its result takes its place in the same transaction. So a worker that takes over
goes on where the other one stopped, no case counts twice, and changes of the suite do not reach a run in progress.
"""

import time
from collections.abc import Mapping, Sequence
from typing import Any

import attrs
from sqlalchemy import func, select

from memoair_cloud.database.evaluation_models import (
    EvaluationResult,
    EvaluationRun,
    EvaluationSuite,
    PendingCase,
    SuiteCase,
)
from memoair_cloud.evaluation.comparison import mark_worse
from memoair_cloud.evaluation.document_sets import open_set_documents
from memoair_cloud.evaluation.pending import make_result, take_pending
from memoair_cloud.evaluation.run_claims import ClaimedRun, RunFailedError
from memoair_cloud.evaluation.runs import find_prompt
from memoair_cloud.tenancy.scoped import ScopedSession
from memoair_evaluation.candidate import PromptChoice, RecallSettings
from memoair_evaluation.case import InvalidCaseError, parse_case
from memoair_evaluation.engine import Engine, open_engine
from memoair_evaluation.judge import Judge
from memoair_evaluation.scoring import CaseScores, aggregate
from memoair_runtime.preview import InvalidSearchError

# What a transaction writes at most, so that the progress moves and a canceled run ends soon.
_MAX_BATCH = 50
_MAX_BATCH_S = 1.0
# So many cases in a row that the judge could not grade end a run: each may take minutes, in which a worker does nothing
# else.
MAX_JUDGE_FAILURES = 5
_JUDGE_FAILURES = "judgeFailures"  # in the run's settings: how many there are at its end, so far
_UNSYNCHRONIZED = {"synchronize_session": False}


def begin_suite_run(session: ScopedSession, run: EvaluationRun) -> None:
    """Fix the cases of a run, in the transaction in which it begins. The suite is locked."""
    run.suite_version = session.scalars(select(EvaluationSuite.version).where(EvaluationSuite.id == run.suite_id)).one()
    columns = {
        "run_id": run.id,
        "case_id": SuiteCase.id,
        "position": SuiteCase.position,
        "content": SuiteCase.content,
        "sha256": SuiteCase.sha256,
        "user_id": SuiteCase.user_id,
    }
    session.copy_rows(SuiteCase, PendingCase, columns, SuiteCase.suite_id == run.suite_id)
    count = select(func.count()).select_from(PendingCase).where(PendingCase.run_id == run.id)
    run.total = session.scalar(count) or 0


def process_suite_run(claimed: ClaimedRun) -> None:
    """Score pending cases until none is left, or until others are to get their turn.

    Raises:
        LostClaimError: If the worker must stop.
        RunFailedError: If a case cannot be scored, or the judge does not respond.
        OSError: If the index file cannot be read.
    """
    scorer = _Scorer.of(claimed)
    with (
        open_set_documents(claimed.tenant, claimed.blobs, claimed.run.document_set_id) as documents,
        open_engine(documents) as engine,
    ):
        while pending := _load_pending(claimed):
            _score_batch(claimed, engine, scorer, pending)
            if claimed.is_time_over:
                return


def summarize_suite_run(session: ScopedSession, run: EvaluationRun) -> dict[str, Any]:
    """Return the scores of a run whose cases were all scored, and note whether it is worse than its baseline."""
    mark_worse(session, run)
    statement = select(EvaluationResult.scores).where(EvaluationResult.run_id == run.id)
    return aggregate(CaseScores.from_wire(scores) for scores in session.scalars(statement)).to_wire()


@attrs.define
class _Scorer:
    """What all cases of a run are scored with.

    Attributes:
        settings: The settings of the searches.
        judge: The judge; None if none was asked for.
        prompt: The prompt for the judge; None for a plain one.
        judge_failures: How many of the last cases in a row the judge could not grade.
        failure: Why, as the name of an error.
    """

    settings: RecallSettings
    judge: Judge | None
    prompt: str | None
    judge_failures: int = 0
    failure: str | None = None

    @classmethod
    def of(cls, claimed: ClaimedRun) -> "_Scorer":
        candidate = claimed.candidate
        if not claimed.run.settings.get("judge"):
            return cls(candidate.recall, None, None)
        if claimed.judge is None:
            raise RunFailedError("this worker has no judge: set MEMOAIR_CLOUD_JUDGE_BASE_URL and ..._JUDGE_MODEL")
        choice = candidate.prompt
        if claimed.run.prompt_version is not None:  # what was found when the run began
            choice = PromptChoice(version=claimed.run.prompt_version)
        failures = claimed.run.settings.get(_JUDGE_FAILURES, 0)
        return cls(candidate.recall, claimed.judge, find_prompt(claimed.tenant, choice)[0], failures)

    @property
    def has_lost_judge(self) -> bool:
        """Whether the judge has failed too often in a row."""
        return self.judge_failures >= MAX_JUDGE_FAILURES

    def score(self, engine: Engine, row: PendingCase) -> dict[str, Any]:
        """Return the result of a case, by the columns of its row."""
        case = parse_case(row.content)
        result = engine.run_case(case, self.settings)
        scores = result.scores
        details: dict[str, Any] = {
            "case": {name: value for name, value in row.content.items() if name != "given"},
            "trace": dict(result.trace),
            "context": result.context,
            "halfContext": result.half_context,
        }
        if self.judge is not None and case.expected_answer:
            grade = self.judge.grade(case, result.context, self.prompt)
            scores = attrs.evolve(scores, answer=grade.to_scores())
            details["answer"] = grade.to_details()
            self.failure = grade.failure
            self.judge_failures = 0 if grade.failure is None else self.judge_failures + 1
        return make_result(row, scores.to_wire(), details)


def _load_pending(claimed: ClaimedRun) -> Sequence[PendingCase]:
    statement = select(PendingCase).where(PendingCase.run_id == claimed.run.id)
    with claimed.tenant.begin_read() as session:
        in_order = statement.order_by(PendingCase.position, PendingCase.case_id)
        return session.scalars(in_order.limit(_MAX_BATCH)).all()


def _score_batch(claimed: ClaimedRun, engine: Engine, scorer: _Scorer, pending: Sequence[PendingCase]) -> None:
    """Score some cases and save their results; not all of them, if that takes long."""
    results: list[dict[str, Any]] = []
    started_at = time.monotonic()
    for row in pending:
        try:
            results.append(scorer.score(engine, row))
        except (InvalidCaseError, InvalidSearchError) as error:  # a case of an earlier version of the server
            raise RunFailedError(f"the case at position {row.position + 1} is invalid: {error}") from None
        if scorer.has_lost_judge or time.monotonic() - started_at >= _MAX_BATCH_S:
            break
    save_results(claimed, results, scorer.judge_failures)
    if scorer.has_lost_judge:
        raise RunFailedError(f"the judge has failed for {scorer.judge_failures} cases in a row: {scorer.failure}")


def save_results(claimed: ClaimedRun, results: Sequence[Mapping[str, Any]], judge_failures: int = 0) -> None:
    """Put results in the places of their pending cases, in one transaction.

    Results of callers who were erased since are dropped: their pending cases are gone.

    Args:
        claimed: The run.
        results: The results by the columns of their rows.
        judge_failures: How many of the last cases in a row the judge could not grade.

    Raises:
        LostClaimError: If the worker must stop.
    """
    with claimed.tenant.begin_write() as session:
        run = claimed.check(session)
        left = take_pending(session, run.id, [row["case_id"] for row in results], [row["user_id"] for row in results])
        kept = [row for row in results if row["case_id"] in left]
        if kept:
            session.bulk_insert(EvaluationResult, kept)
        run.done += len(kept)
        run.total -= len(results) - len(kept)
        run.failures = 0
        if judge_failures != run.settings.get(_JUDGE_FAILURES, 0):
            run.settings = {**run.settings, _JUDGE_FAILURES: judge_failures}
