"""Runs of suites: create, list, cancel and delete them, and list their results. Workers score the cases."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from sqlalchemy import delete, func, select

from memoair_cloud.cursors import PageOrder, ResultPage
from memoair_cloud.database.evaluation_models import (
    EvaluationDocumentSet,
    EvaluationResult,
    EvaluationRun,
    PendingCase,
    SuiteCase,
)
from memoair_cloud.errors import ConflictError, InvalidRequestError, NotFoundError
from memoair_cloud.evaluation.document_set_states import DocumentSetState
from memoair_cloud.evaluation.locking import keep_callers
from memoair_cloud.evaluation.run_states import TRANSITIONS, RunState, is_open
from memoair_cloud.evaluation.suites import load_suite
from memoair_cloud.identifiers import new_id
from memoair_cloud.prompts.agents import describe_actor
from memoair_cloud.prompts.labels import get_labeled_prompt
from memoair_cloud.prompts.versions import get_prompt
from memoair_cloud.tenancy.access import Tenant
from memoair_cloud.tenancy.scoped import ScopedSession
from memoair_evaluation.candidate import Candidate, InvalidCandidateError, PromptChoice, parse_candidate
from memoair_protocol.timestamps import utc_now

SUITE_KIND = "suite"
# A project whose runs wait for longer does not get its results sooner by queueing more.
MAX_OPEN_RUNS = 20
_LATEST_FIRST = PageOrder[EvaluationRun](
    (EvaluationRun.created_at, EvaluationRun.id), (datetime, str), lambda row: (row.created_at, row.id), descending=True
)
_BY_POSITION = PageOrder[EvaluationResult](
    (EvaluationResult.position, EvaluationResult.case_id), (int, str), lambda row: (row.position, row.case_id)
)
_UNSYNCHRONIZED = {"synchronize_session": False}


def create_run(
    tenant: Tenant,
    suite_id: str,
    candidate: Mapping[str, Any] | None = None,
    *,
    with_judge: bool = False,
    accepts: bool = False,
) -> EvaluationRun:
    """Queue a run of a suite. Queue its processing after that.

    Args:
        tenant: The agent.
        suite_id: The suite.
        candidate: What differs from the present state, as `memoair_evaluation.candidate` reads it.
        with_judge: Whether a judge answers from prompt and context, and grades the answers.
        accepts: Whether later runs are compared with it even if it is worse than the ones before.

    Raises:
        NotFoundError: If the agent has no such suite, or the candidate's documents or prompt do not exist.
        InvalidRequestError: If the candidate is invalid, or the suite is empty.
        ConflictError: If too many runs of the project are open.
    """
    parsed = parse_run_candidate(tenant, candidate or {})
    with tenant.begin_write() as session:
        suite = load_suite(session, suite_id, lock=True)
        if session.scalar(select(SuiteCase.id).where(SuiteCase.suite_id == suite.id).limit(1)) is None:
            raise InvalidRequestError("the suite has no cases", field="suiteId")
        wanted = {"judge": with_judge, "accept": accepts}
        return add_run(session, SUITE_KIND, suite.id, parsed, {name: True for name, value in wanted.items() if value})


def parse_run_candidate(tenant: Tenant, content: Mapping[str, Any]) -> Candidate:
    """Return a candidate whose prompt exists.

    Raises:
        InvalidRequestError: If it is invalid; the message names the field and not its value.
        NotFoundError: If the agent has no such prompt.
    """
    try:
        candidate = parse_candidate(content)
    except InvalidCandidateError as error:
        field = ".".join(filter(None, ("candidate", error.field)))
        raise InvalidRequestError(f"{field}: {error.problem}", field=field) from None
    find_prompt(tenant, candidate.prompt)
    return candidate


def add_run(
    session: ScopedSession, kind: str, suite_id: str | None, candidate: Candidate, settings: Mapping[str, Any]
) -> EvaluationRun:
    """Add a run of the session's agent in a transaction, and return it.

    Args:
        session: The transaction. It has locked the suite, if there is one.
        kind: What is run: see `memoair_cloud.evaluation.run_worker`.
        suite_id: The suite, if there is one.
        candidate: What differs from the present state.
        settings: What else was asked for.

    Raises:
        NotFoundError: If the candidate's documents do not exist.
        ConflictError: If they could not be built or are not complete, or too many runs of the project are open.
    """
    count = select(func.count()).select_from(EvaluationRun).where(EvaluationRun.is_open)
    if (session.scalar(count) or 0) >= MAX_OPEN_RUNS:
        message = f"{MAX_OPEN_RUNS} runs of the project are not over: wait for one, or cancel it"
        raise ConflictError(message, limit=MAX_OPEN_RUNS)
    _check_documents(session, candidate.document_set_id)
    now = utc_now()
    run = EvaluationRun(
        project_id=session.scope.project_id,
        id=new_id("run"),
        agent_id=session.scope.agent_id or "",
        suite_id=suite_id,
        document_set_id=candidate.document_set_id,
        kind=kind,
        state=RunState.QUEUED.value,
        is_open=True,
        candidate=candidate.to_wire(),
        settings=dict(settings),
        created_at=now,
        created_by=describe_actor(session.scope.actor),
        updated_at=now,
        failures=0,
        total=0,
        done=0,
    )
    session.add(run)
    return run


def find_prompt(tenant: Tenant, choice: PromptChoice | None) -> tuple[str | None, int | None]:
    """Return the text and the version of the prompt that a run uses; by default that of the label ``production``.

    Returns:
        Text and version. A text that was given has no version; an agent without a prompt has neither.

    Raises:
        NotFoundError: If a version or a label was chosen that does not exist.
    """
    if choice is not None and choice.text is not None:
        return choice.text, None
    try:
        if choice is not None and choice.version is not None:
            prompt = get_prompt(tenant, choice.version)
        else:
            label = "production" if choice is None or choice.label is None else choice.label
            prompt = get_labeled_prompt(tenant, label)
    except NotFoundError:
        if choice is None:
            return None, None
        raise
    return prompt.text, prompt.version


def get_run(tenant: Tenant, run_id: str) -> EvaluationRun:
    """Return a run of the tenant's agent; raise `NotFoundError` if it does not exist."""
    with tenant.begin_read() as session:
        return load_run(session, run_id)


def list_runs(
    tenant: Tenant, cursor: str | None, limit: int, *, suite_id: str | None = None, kind: str | None = None
) -> ResultPage[EvaluationRun]:
    """Return a page of the runs of the tenant's agent, latest first.

    Args:
        tenant: The agent.
        cursor: The cursor of the previous page, or None.
        limit: The maximum number of runs.
        suite_id: Only runs of this suite.
        kind: Only runs of this kind.

    Raises:
        NotFoundError: If the agent has no such suite.
        InvalidRequestError: If the cursor is invalid.
    """
    statement = select(EvaluationRun).where(EvaluationRun.agent_id == tenant.scope.agent_id)
    with tenant.begin_read() as session:
        if suite_id is not None:
            statement = statement.where(EvaluationRun.suite_id == load_suite(session, suite_id).id)
        if kind is not None:
            statement = statement.where(EvaluationRun.kind == kind)
        return _LATEST_FIRST.fetch_page(session, statement, cursor, limit)


def cancel_run(tenant: Tenant, run_id: str) -> EvaluationRun:
    """End a run. Its results so far stay, and its worker stops at the next case.

    Raises:
        NotFoundError: If the agent has no such run.
        ConflictError: If it is over already.
    """
    with tenant.begin_write() as session:
        run = load_run(session, run_id, lock=True)
        end_run(session, run, RunState.CANCELED)
        return run


def delete_run(tenant: Tenant, run_id: str) -> EvaluationRun:
    """Delete a run that is over, with its results, and return what it was.

    Raises:
        NotFoundError: If the agent has no such run.
        ConflictError: If it is not over.
    """
    with tenant.begin_write() as session:
        run = load_run(session, run_id, lock=True)
        if run.is_open:
            raise ConflictError("the run is not over: cancel it first", state=run.state)
        keep_callers(session, run_ids=[run_id])
        session.delete(run)
        return run


def list_results(tenant: Tenant, run_id: str, cursor: str | None, limit: int) -> ResultPage[EvaluationResult]:
    """Return a page of the results of a run, in the order of its suite; those of a run in progress so far.

    Raises:
        NotFoundError: If the agent has no such run.
        ConflictError: If it is a replay.
        InvalidRequestError: If the cursor is invalid.
    """
    with tenant.begin_read() as session:
        _load_suite_run(session, run_id)
        statement = select(EvaluationResult).where(EvaluationResult.run_id == run_id)
        return _BY_POSITION.fetch_page(session, statement, cursor, limit)


def get_result(tenant: Tenant, run_id: str, case_id: str) -> EvaluationResult:
    """Return the result of a case.

    Raises:
        NotFoundError: If the agent has no such run, or the run no such result.
        ConflictError: If it is a replay.
    """
    with tenant.begin_read() as session:
        _load_suite_run(session, run_id)
        row = session.get(EvaluationResult, (session.scope.project_id, run_id, case_id))
        if row is None:
            raise NotFoundError("this run has no result for such a case", resource="case")
        return row


def load_run(session: ScopedSession, run_id: str, *, lock: bool = False) -> EvaluationRun:
    """Return a run of the session's agent, locked if need be; raise `NotFoundError` if it does not exist."""
    is_own = EvaluationRun.agent_id == session.scope.agent_id
    statement = select(EvaluationRun).where(EvaluationRun.id == run_id, is_own)
    run = session.scalar(statement.with_for_update(key_share=True) if lock else statement)
    if run is None:
        raise NotFoundError("unknown run of this agent", resource="run")
    return run


def _load_suite_run(session: ScopedSession, run_id: str) -> EvaluationRun:
    """Return the run of a suite. The results of a replay are words of callers: they are read as its changes only."""
    run = load_run(session, run_id)
    if run.kind != SUITE_KIND:
        raise ConflictError("this is a replay: it has changes, and no results", kind=run.kind)
    return run


def move_run(run: EvaluationRun, state: RunState) -> None:
    """Set the state of a run; raise `ConflictError` if it cannot follow the present one."""
    if state not in TRANSITIONS[RunState(run.state)]:
        raise ConflictError("the run is in a state in which this is impossible", state=run.state)
    run.state, run.is_open, run.updated_at = state.value, is_open(state), utc_now()
    if not run.is_open:
        run.finished_at = run.updated_at
        run.claim = run.claimed_until = None


def end_run(session: ScopedSession, run: EvaluationRun, state: RunState, failure: str | None = None) -> None:
    """End a run that is locked, and drop what it has not scored.

    Args:
        session: The transaction.
        run: The run.
        state: Its last state.
        failure: Why it failed, in words that quote no caller and no document.
    """
    move_run(run, state)
    run.failure = failure
    keep_callers(session, run_ids=[run.id])
    session.execute(delete(PendingCase).where(PendingCase.run_id == run.id), execution_options=_UNSYNCHRONIZED)
    count = select(func.count()).select_from(EvaluationResult).where(EvaluationResult.run_id == run.id)
    run.done = session.scalar(count) or 0  # callers may have been erased since


def _check_documents(session: ScopedSession, set_id: str | None) -> None:
    if set_id is None:
        return
    is_meant = EvaluationDocumentSet.id == set_id, ~EvaluationDocumentSet.is_pinned
    # Locked, so that the set is not removed before the run refers to it.
    row = session.scalar(select(EvaluationDocumentSet).where(*is_meant).with_for_update(read=True))
    if row is None or row.state == DocumentSetState.REMOVED.value:
        raise NotFoundError("unknown document set", resource="documentSet")
    if row.state not in (DocumentSetState.BUILDING.value, DocumentSetState.READY.value):
        raise ConflictError("the document set is not complete, or could not be built", state=row.state)
