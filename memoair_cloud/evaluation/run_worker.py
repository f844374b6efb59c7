"""Process runs in the background: build what they search, begin them, go on with them, end them, drop old ones."""

import logging
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import datetime
from typing import Any

import attrs
from sqlalchemy import Engine, and_, func, select
from sqlalchemy.exc import InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.orm import Session

from memoair_cloud.database.evaluation_models import (
    EvaluationDocumentSet,
    EvaluationResult,
    EvaluationRun,
    EvaluationSuite,
    PendingCase,
)
from memoair_cloud.errors import NotFoundError
from memoair_cloud.evaluation import document_set_builder, run_claims
from memoair_cloud.evaluation.document_set_builder import (
    build_document_sets,
    clean_up_document_sets,
    ensure_present_copy,
)
from memoair_cloud.evaluation.locking import keep_callers
from memoair_cloud.evaluation.replay import begin_replay, process_replay, summarize_replay
from memoair_cloud.evaluation.replay_changes import REPLAY_KIND
from memoair_cloud.evaluation.run_claims import ClaimedRun, LostClaimError, RunFailedError, claim_run
from memoair_cloud.evaluation.run_states import RunState
from memoair_cloud.evaluation.runs import SUITE_KIND, end_run, find_prompt, move_run
from memoair_cloud.evaluation.suite_run import begin_suite_run, process_suite_run, summarize_suite_run
from memoair_cloud.indexes.blobs import BlobStore
from memoair_cloud.retention.holds import not_held_condition
from memoair_cloud.tenancy.access import Tenant, find_project_tenant
from memoair_cloud.tenancy.scoped import ScopedSession
from memoair_cloud.version import installed_version
from memoair_evaluation.judge import Judge
from memoair_index import ContainerError
from memoair_protocol.starvation import is_starved
from memoair_protocol.timestamps import utc_now

log = logging.getLogger(__name__)

# Of each suite, and of the replays of each agent; those that are not over are not counted.
KEPT_RUNS = 100


@attrs.frozen
class RunKind:
    """A kind of run.

    Attributes:
        begin: Fixes what is to be done, as pending cases, in the transaction in which the run begins.
        process: Does a part of it, and returns when nothing is pending or `ClaimedRun.is_time_over`.
        summarize: Returns the scores of the run, in the transaction in which it ends.
        compares: Whether it compares with the present documents.
    """

    begin: Callable[[ScopedSession, EvaluationRun], None]
    process: Callable[[ClaimedRun], None]
    summarize: Callable[[ScopedSession, EvaluationRun], Mapping[str, Any]]
    compares: bool = False


RUN_KINDS: Mapping[str, RunKind] = {
    SUITE_KIND: RunKind(begin_suite_run, process_suite_run, summarize_suite_run),
    REPLAY_KIND: RunKind(begin_replay, process_replay, summarize_replay, compares=True),
}
_COMPARING = frozenset(name for name, kind in RUN_KINDS.items() if kind.compares)


def find_projects_with_evaluations(engine: Engine, now: datetime) -> list[str]:
    """Return the projects in which a run or a document set is to be processed or cleaned up."""
    with Session(engine) as session:
        found = set(session.scalars(select(EvaluationRun.project_id).where(run_claims.due_condition(now)).distinct()))
        is_due = document_set_builder.due_condition(now)
        found.update(session.scalars(select(EvaluationDocumentSet.project_id).where(is_due).distinct()))
        found.update(session.scalars(select(EvaluationRun.project_id).where(_is_dropped()).distinct()))
        return sorted(found)


def process_evaluations(
    engine: Engine,
    blobs: BlobStore,
    project_id: str,
    judge: Judge | None = None,
    on_scored: Callable[[int], None] = lambda _: None,
) -> bool:
    """Build the document sets of a project that are due, and go on with one of its runs for a few seconds.

    Concurrent workers do not collide: each has another run.

    Args:
        engine: The database of the server.
        blobs: The store of index files.
        project_id: The project.
        judge: The judge of the server, if it has one.
        on_scored: Called with the number of cases that were scored.

    Returns:
        Whether a run can go on, so that this is to be called again.

    Raises:
        OSError: If the blob store does not respond. Sets and runs stay as they are, and are continued later.
    """
    tenant = find_project_tenant(engine, project_id)
    if tenant is None:
        return False
    _ensure_present_copies(tenant)
    build_document_sets(tenant, blobs)
    claimed = claim_run(tenant, blobs, judge, compares=_COMPARING)
    if claimed is not None:
        done_before = claimed.run.done
        _go_on(claimed)
        with suppress(NotFoundError):  # the agent or the project was deleted
            on_scored(max(0, _count_done(claimed) - done_before))
    clean_up_document_sets(tenant, blobs)
    _drop_old_runs(tenant)
    return claimed is not None and _has_due_run(tenant)


def _ensure_present_copies(tenant: Tenant) -> None:
    """Let the present documents be copied for runs that wait for them."""
    with tenant.begin_read() as session:
        queued = select(EvaluationRun).where(EvaluationRun.state == RunState.QUEUED.value)
        runs = session.scalars(queued.order_by(EvaluationRun.created_at)).all()
    needing = [run for run in runs if run.kind in _COMPARING or not run.candidate.get("documents")]
    if needing:
        ensure_present_copy(tenant, needing[-1].created_at)


def _go_on(claimed: ClaimedRun) -> None:
    kind = RUN_KINDS.get(claimed.run.kind)
    try:
        if kind is None:
            raise RunFailedError("this server does not know such runs: update it")
        if claimed.run.state == RunState.QUEUED.value:
            begin_run(claimed, kind)
        kind.process(claimed)
        if not _finish(claimed, kind):
            claimed.release()
    except (LostClaimError, NotFoundError):  # the run was ended, or deleted with its suite, agent or project
        log.info("a run was ended or taken over", extra={"action": "run_lost"})
    except RunFailedError as error:
        _fail(claimed, str(error))
    except (OperationalError, InterfaceError, PoolTimeout):
        raise  # no database: the claim expires
    except OSError:
        claimed.release()
        raise
    except ContainerError:
        _fail(claimed, "the index file of the documents is damaged")
    except Exception as error:
        if is_starved(error):
            claimed.release()
            raise
        # Only the type: a message may quote a caller or a document.
        log.error("a run failed", extra={"action": "run_failed", "fields": {"error": type(error).__name__}})
        _fail(claimed, f"a case could not be scored: {type(error).__name__}")


def begin_run(claimed: ClaimedRun, kind: RunKind) -> None:
    """Fix what a run is done with: its prompt, its cases, the engine and the judge.

    Args:
        claimed: The run, which is queued.
        kind: Its kind.

    Raises:
        LostClaimError: If the worker must stop.
        RunFailedError: If its prompt does not exist any more.
    """
    try:
        _, prompt_version = find_prompt(claimed.tenant, claimed.candidate.prompt)
    except NotFoundError as error:
        raise RunFailedError(f"the prompt of the candidate is not there any more: {error.message}") from None
    with claimed.tenant.begin_write() as session:
        if claimed.run.suite_id is not None:  # before the run, as those who delete a suite lock both
            is_meant = EvaluationSuite.id == claimed.run.suite_id
            session.scalar(select(EvaluationSuite).where(is_meant).with_for_update(read=True))
        run = claimed.check(session)
        run.prompt_version = prompt_version
        run.engine_version = installed_version()
        if run.settings.get("judge") and claimed.judge is not None:
            run.settings = {**run.settings, "judge": claimed.judge.describe()}
        kind.begin(session, run)
        move_run(run, RunState.RUNNING)
        run.started_at = run.updated_at
    for name in ("prompt_version", "settings", "total"):
        setattr(claimed.run, name, getattr(run, name))


def _finish(claimed: ClaimedRun, kind: RunKind) -> bool:
    """End a run if nothing of it is pending; return whether that is so."""
    with claimed.tenant.begin_write() as session:
        run = claimed.check(session)
        if session.scalar(select(PendingCase.case_id).where(PendingCase.run_id == run.id).limit(1)) is not None:
            return False
        run.scores = dict(kind.summarize(session, run))
        end_run(session, run, RunState.DONE)
        run.total = run.done
        return True


def _fail(claimed: ClaimedRun, failure: str) -> None:
    try:
        with claimed.tenant.begin_write() as session:
            end_run(session, claimed.check(session), RunState.FAILED, failure)
    except LostClaimError:
        log.info("a run was ended or taken over", extra={"action": "run_lost"})


def _count_done(claimed: ClaimedRun) -> int:
    with claimed.tenant.begin_read() as session:
        return session.scalar(select(EvaluationRun.done).where(EvaluationRun.id == claimed.run.id)) or 0


def _has_due_run(tenant: Tenant) -> bool:
    with tenant.begin_read() as session:
        return session.scalar(select(EvaluationRun.id).where(run_claims.due_condition(utc_now())).limit(1)) is not None


def _is_dropped() -> Any:
    """Return the condition that a run is older than the runs that are kept, and that no hold covers its callers."""
    place = func.row_number().over(
        partition_by=(EvaluationRun.project_id, EvaluationRun.agent_id, EvaluationRun.kind, EvaluationRun.suite_id),
        order_by=(EvaluationRun.created_at.desc(), EvaluationRun.id.desc()),
    )
    ranked = select(EvaluationRun.id, place.label("place")).where(~EvaluationRun.is_open).subquery()
    result = EvaluationResult
    same_run = and_(result.project_id == EvaluationRun.project_id, result.run_id == EvaluationRun.id)
    is_held = and_(result.user_id.is_not(None), ~not_held_condition(getattr(result, "user_id"), result.project_id))  # noqa: B009 - null or not
    has_held = select(result.case_id).where(same_run, is_held).exists()
    return and_(EvaluationRun.id.in_(select(ranked.c.id).where(ranked.c.place > KEPT_RUNS)), ~has_held)


def _drop_old_runs(tenant: Tenant) -> None:
    with tenant.begin_read() as session:
        run_ids = session.scalars(select(EvaluationRun.id).where(_is_dropped())).all()
    for run_id in run_ids:
        with tenant.begin_write() as session:
            statement = select(EvaluationRun).where(EvaluationRun.id == run_id, _is_dropped())
            run = session.scalar(statement.with_for_update(key_share=True))
            if run is not None:
                keep_callers(session, run_ids=[run_id])
                session.delete(run)
