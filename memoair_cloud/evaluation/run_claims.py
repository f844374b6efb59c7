"""Claims of runs: one worker at a time has a run, and each transaction that writes for it checks that.

A worker has a run for a few seconds, and others come first then: a long run does not hold up those of other projects.
The claim of a worker that was killed expires, and another worker goes on with the cases that are pending.
"""

import secrets
import time
from datetime import datetime, timedelta

import attrs
from sqlalchemy import ColumnElement, and_, select, update

from memoair_cloud.database.evaluation_models import EvaluationDocumentSet, EvaluationRun
from memoair_cloud.database.leases import is_over
from memoair_cloud.database.models import Project
from memoair_cloud.evaluation.document_set_builder import find_present_copy
from memoair_cloud.evaluation.document_set_states import DocumentSetState
from memoair_cloud.evaluation.run_states import RunState
from memoair_cloud.evaluation.runs import end_run
from memoair_cloud.indexes.blobs import BlobStore
from memoair_cloud.tenancy.access import Tenant
from memoair_cloud.tenancy.scoped import ScopedSession
from memoair_evaluation.candidate import Candidate, parse_candidate
from memoair_evaluation.judge import Judge
from memoair_protocol.timestamps import utc_now

# A worker renews its claim with each batch. A judge has four minutes for a case.
CLAIM = timedelta(minutes=5)
# So often in a row, without any result in between, a worker may stop in the middle.
MAX_FAILURES = 3
SLICE_S = 10.0


class LostClaimError(Exception):
    """The run was canceled or deleted, or another worker has taken it over."""


class RunFailedError(Exception):
    """A run cannot go on. The message says why, in words that quote no caller and no document."""


@attrs.frozen
class ClaimedRun:
    """A run that this worker has.

    Attributes:
        tenant: The agent of the run.
        blobs: The store of index files.
        judge: The judge of the server; None if it has none.
        run: Its row, as it was when it was claimed.
        claim: The claim.
        ends_at: When others are to get their turn, on the monotonic clock.
    """

    tenant: Tenant
    blobs: BlobStore
    judge: Judge | None
    run: EvaluationRun
    claim: str
    ends_at: float

    @property
    def candidate(self) -> Candidate:
        """What differs from the present state."""
        return parse_candidate(self.run.candidate)

    @property
    def is_time_over(self) -> bool:
        """Whether others are to get their turn: return from processing, and it goes on later."""
        return time.monotonic() >= self.ends_at

    def check(self, session: ScopedSession) -> EvaluationRun:
        """Return the run, locked, and renew the claim. Call it first in each transaction that writes for the run.

        Raises:
            LostClaimError: If the worker must stop.
        """
        is_mine = EvaluationRun.id == self.run.id, EvaluationRun.claim == self.claim
        row = session.scalar(select(EvaluationRun).where(*is_mine).with_for_update(key_share=True))
        if row is None:
            raise LostClaimError
        row.updated_at = utc_now()
        row.claimed_until = row.updated_at + CLAIM
        return row

    def release(self) -> None:
        """Let another worker go on."""
        with self.tenant.begin_write() as session:
            session.execute(
                update(EvaluationRun)
                .where(EvaluationRun.id == self.run.id, EvaluationRun.claim == self.claim)
                .values(claim=None, claimed_until=None, updated_at=utc_now()),
                execution_options={"synchronize_session": False},
            )


class _NotReadyError(Exception):
    """The documents of a run are not built yet."""


def due_condition(now: datetime) -> ColumnElement[bool]:
    """Return the condition that a run is not over and no worker has it."""
    return and_(EvaluationRun.is_open, is_over(EvaluationRun.claimed_until, now, CLAIM))


def claim_run(tenant: Tenant, blobs: BlobStore, judge: Judge | None, *, compares: frozenset[str]) -> ClaimedRun | None:
    """Take the run of a project that has waited longest, and return it; None if none can go on now.

    Args:
        tenant: The project.
        blobs: The store of index files.
        judge: The judge of the server, if it has one.
        compares: The kinds that compare with the present documents.
    """
    now = utc_now()
    in_turn = select(EvaluationRun).where(due_condition(now)).order_by(EvaluationRun.updated_at, EvaluationRun.id)
    with tenant.begin_write() as session:
        for run in session.scalars(in_turn.with_for_update(skip_locked=True, key_share=True)).all():
            if run.claim is not None:  # its worker did not come back
                run.failures += 1
                run.claim = run.claimed_until = None
            if run.failures >= MAX_FAILURES:
                end_run(session, run, RunState.FAILED, f"interrupted {run.failures} times")
                continue
            if run.state == RunState.QUEUED.value:
                try:
                    _fix_documents(session, run, compares=run.kind in compares)
                except _NotReadyError:
                    continue
                except RunFailedError as error:
                    end_run(session, run, RunState.FAILED, str(error))
                    continue
            run.claim, run.claimed_until = secrets.token_hex(8), now + CLAIM
            agent = tenant.for_agent(run.agent_id)
            return ClaimedRun(agent, blobs, judge, run, run.claim, time.monotonic() + SLICE_S)
    return None


def _fix_documents(session: ScopedSession, run: EvaluationRun, *, compares: bool) -> None:
    """Fix which documents a run searches, and those that it compares with.

    Raises:
        RunFailedError: If they were removed, or could not be built.
        _NotReadyError: If they are being built.
    """
    has_own = bool(run.candidate.get("documents"))
    present = searched = None
    if compares or not has_own:
        present = searched = find_present_copy(session, run.created_at)
        org_version = session.scalar(select(Project.org_version).where(Project.id == run.project_id))
        if present is None and org_version:
            raise _NotReadyError
        _require_ready(present, "of the project")
    if has_own:
        searched = session.get(EvaluationDocumentSet, (run.project_id, run.document_set_id))
        if searched is None:
            raise RunFailedError("the documents of the candidate were removed")
        _require_ready(searched, "of the candidate")
    run.document_set_id = None if searched is None else searched.id
    run.present_set_id = None if present is None or not compares else present.id
    run.org_version = 0 if searched is None else searched.org_version


def _require_ready(documents: EvaluationDocumentSet | None, whose: str) -> None:
    state = DocumentSetState.READY.value if documents is None else documents.state
    if state in (DocumentSetState.RECEIVING.value, DocumentSetState.BUILDING.value):
        raise _NotReadyError
    if documents is not None and state != DocumentSetState.READY.value:
        raise RunFailedError(f"the documents {whose} cannot be searched: {documents.failure or 'they were removed'}")
