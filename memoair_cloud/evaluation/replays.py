"""Replays: runs that ask the questions of past calls again, of what is known now and of a candidate."""

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import select

from memoair_cloud.audit.log import AuditAction, record_agent_change
from memoair_cloud.cursors import PageOrder, ResultPage
from memoair_cloud.database.evaluation_models import EvaluationRun
from memoair_cloud.errors import InvalidRequestError
from memoair_cloud.evaluation.replay_changes import REPLAY_KIND, load_replay_run
from memoair_cloud.evaluation.runs import add_run, parse_run_candidate
from memoair_cloud.tenancy.access import Tenant
from memoair_evaluation.candidate import Candidate, RecallSettings
from memoair_protocol.timestamps import format_utc, parse_timestamp

DEFAULT_QUESTIONS = 1_000
MAX_QUESTIONS = 10_000
MAX_PERIOD = timedelta(days=400)
_LATEST_FIRST = PageOrder[EvaluationRun](
    (EvaluationRun.created_at, EvaluationRun.id), (datetime, str), lambda row: (row.created_at, row.id), descending=True
)


def create_replay(
    tenant: Tenant,
    candidate: Mapping[str, Any],
    since: datetime,
    until: datetime,
    max_questions: int = DEFAULT_QUESTIONS,
) -> EvaluationRun:
    """Create a replay of the agent's calls. A worker chooses the questions and asks them.

    The audit log says who has calls of which period read.

    Args:
        tenant: The agent.
        candidate: What differs from the present state, as JSON.
        since: The first moment of the period in which the questions were asked.
        until: The first moment after it.
        max_questions: The maximum number of questions, chosen evenly over the turns of the period.

    Raises:
        InvalidRequestError: If the candidate or the period is invalid, or the candidate changes no context.
        NotFoundError: If there is no such set of documents or prompt.
        ConflictError: If the documents are not complete, or too many runs of the project are open.
    """
    agent_id = tenant.require_agent()
    if not since < until:
        raise InvalidRequestError("from must be before to", field="from")
    if until - since > MAX_PERIOD:
        raise InvalidRequestError(f"the period is longer than {MAX_PERIOD.days} days", field="from")
    if not 1 <= max_questions <= MAX_QUESTIONS:
        raise InvalidRequestError(f"maxQuestions: from 1 to {MAX_QUESTIONS:,}", field="maxQuestions")
    parsed = parse_run_candidate(tenant, candidate)
    _check_changes_something(parsed)
    period = {"from": format_utc(since), "to": format_utc(until), "maxQuestions": max_questions}
    with tenant.begin_write() as session:
        run = add_run(session, REPLAY_KIND, None, parsed, period)
        record_agent_change(session, AuditAction.REPLAYED_CALLS, agent_id, run.id, period)
        return run


def _check_changes_something(candidate: Candidate) -> None:
    """Raise `InvalidRequestError` if a candidate recalls the same as the present state, whatever is asked."""
    if candidate.document_set_id is not None or candidate.recall != RecallSettings(
        timeout_ms=candidate.recall.timeout_ms
    ):
        return
    message = "a prompt alone changes no context" if candidate.prompt is not None else "this is the present state"
    raise InvalidRequestError(f"{message}: choose other documents or recall settings", field="candidate")


def get_replay(tenant: Tenant, run_id: str) -> EvaluationRun:
    """Return a replay of the tenant's agent; raises as `load_replay_run`."""
    with tenant.begin_read() as session:
        return load_replay_run(session, run_id)


def list_replays(tenant: Tenant, agent_id: str | None, cursor: str | None, limit: int) -> ResultPage[EvaluationRun]:
    """Return a page of the replays of an agent, or of all agents of the project, latest first.

    Raises:
        InvalidRequestError: If the cursor is invalid.
    """
    statement = select(EvaluationRun).where(EvaluationRun.kind == REPLAY_KIND)
    if agent_id is not None:
        statement = statement.where(EvaluationRun.agent_id == agent_id)
    with tenant.begin_read() as session:
        return _LATEST_FIRST.fetch_page(session, statement, cursor, limit)


def get_period(run: EvaluationRun) -> tuple[datetime, datetime]:
    """Return the period of a replay: its first moment, and the first moment after it."""
    return parse_timestamp(run.settings["from"]), parse_timestamp(run.settings["to"])
