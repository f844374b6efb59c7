"""Compare the results of two runs of a suite."""

from typing import Any

import attrs
from sqlalchemy import Select, and_, or_, select

from memoair_cloud.database.evaluation_models import EvaluationResult, EvaluationRun
from memoair_cloud.errors import ConflictError, NotFoundError
from memoair_cloud.evaluation.run_states import RunState
from memoair_cloud.evaluation.runs import SUITE_KIND, load_run
from memoair_cloud.tenancy.access import Tenant
from memoair_cloud.tenancy.scoped import ScopedSession
from memoair_evaluation.comparison import Comparison, ScoredCase, compare
from memoair_evaluation.scoring import CaseScores

LAST = "last"
_WORSE, _ACCEPTED = "isWorse", "accept"


@attrs.frozen
class ComparedRuns:
    """Two runs side by side.

    Attributes:
        before: The earlier run.
        after: The later run.
        comparison: What has become of each case, and of all together.
    """

    before: EvaluationRun
    after: EvaluationRun
    comparison: Comparison


def compare_runs(tenant: Tenant, run_id: str, against: str = LAST) -> ComparedRuns:
    """Compare a run with another one of its suite.

    Args:
        tenant: The agent.
        run_id: The run.
        against: The run to compare with; ``last`` for what `find_baseline` finds.

    Raises:
        NotFoundError: If the agent has no such runs, or it has no baseline.
        ConflictError: If one of them is not done, or they are not of one suite.
    """
    with tenant.begin_read() as session:
        after = load_run(session, run_id)
        before = find_baseline(session, after) if against == LAST else load_run(session, against)
        if before is None:
            raise NotFoundError("the suite has no earlier run to compare with", resource="run")
        if after.kind != SUITE_KIND or (before.kind, before.suite_id) != (after.kind, after.suite_id):
            raise ConflictError("only runs of one suite can be compared", field="against")
        for run in (before, after):
            if run.state != RunState.DONE.value:
                raise ConflictError("only runs that are done can be compared", runId=run.id, state=run.state)
        return ComparedRuns(before, after, compare(_load_cases(session, before), _load_cases(session, after)))


def mark_worse(session: ScopedSession, run: EvaluationRun) -> None:
    """Note on a run whose cases were all scored that it is worse than its baseline: later runs do not count it.

    Unless it was started with ``accept``: then the change is intended.
    """
    before = None if run.settings.get(_ACCEPTED) else find_baseline(session, run)
    if before is not None and compare(_load_cases(session, before), _load_cases(session, run)).is_worse:
        run.settings = {**run.settings, _WORSE: True}


def find_baseline(session: ScopedSession, run: EvaluationRun) -> EvaluationRun | None:
    """Return the last run before a run that had an equal candidate and was not worse than its own baseline.

    So a bad run stays bad when it is repeated, and an experiment is no measure of the present state. Document sets
    count as equal, because the same folder is sent as another set for each run.
    """
    candidate = _without_set_id(run)
    earlier = session.scalars(_select_runs_before(run))
    return next(
        (each for each in earlier if not each.settings.get(_WORSE) and _without_set_id(each) == candidate), None
    )


def find_run_before(session: ScopedSession, run: EvaluationRun) -> EvaluationRun | None:
    """Return the last run of the same suite that was created before a run and is done; None without one."""
    return session.scalar(_select_runs_before(run).limit(1))


def _without_set_id(run: EvaluationRun) -> dict[str, Any]:
    return {name: name == "documents" or value for name, value in run.candidate.items()}


def _select_runs_before(run: EvaluationRun) -> Select[EvaluationRun]:
    """Select the runs of the same suite that were created before a run and are done, latest first."""
    is_earlier = or_(
        EvaluationRun.created_at < run.created_at,
        and_(EvaluationRun.created_at == run.created_at, EvaluationRun.id < run.id),
    )
    is_same = EvaluationRun.suite_id == run.suite_id, EvaluationRun.kind == run.kind
    statement = select(EvaluationRun).where(*is_same, is_earlier, EvaluationRun.state == RunState.DONE.value)
    return statement.order_by(EvaluationRun.created_at.desc(), EvaluationRun.id.desc())


def _load_cases(session: ScopedSession, run: EvaluationRun) -> list[ScoredCase]:
    row = EvaluationResult
    statement = select(row.case_id, row.case_sha256, row.scores).where(row.run_id == run.id)
    found = session.execute(statement.order_by(row.position, row.case_id))
    return [ScoredCase(each.case_id, each.case_sha256, CaseScores.from_wire(each.scores)) for each in found]
