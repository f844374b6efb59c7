"""Save recall traces: each one once, in any order. They never matter to the turns that they belong to."""

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Any

import attrs
from sqlalchemy import select

from memoair_cloud.calls.erased_events import MAX_CLOCK_SKEW
from memoair_cloud.calls.users import find_erased_sessions, find_erasure, lock_or_create_user
from memoair_cloud.database.models import Project
from memoair_cloud.database.recall_trace_models import RecalledDocument, RecallTrace
from memoair_cloud.errors import ApiError, InvalidRequestError, UserErasedError
from memoair_cloud.recall_traces.linking import link_to_stored_turns
from memoair_cloud.recall_traces.parsing import IncomingTrace, extract_trace_id, parse_trace
from memoair_cloud.tenancy.access import Tenant
from memoair_cloud.tenancy.grants import Action
from memoair_cloud.tenancy.scoped import ScopedSession
from memoair_protocol.timestamps import utc_now


@attrs.frozen
class TraceRejection:
    """A trace that was rejected.

    Attributes:
        trace_id: The id of the trace; None if it has none that can be read.
        code: The error code.
        message: Why it was rejected.
    """

    trace_id: str | None
    code: str
    message: str


@attrs.define
class TraceIngestResult:
    """The outcome of a batch. Every trace of the batch is in exactly one of the three lists.

    Attributes:
        accepted: The ids of new traces.
        duplicate: The ids of traces that were saved before, or occur twice in the batch.
        rejected: The traces that were not saved, with the reasons.
    """

    accepted: list[str] = attrs.field(factory=list)
    duplicate: list[str] = attrs.field(factory=list)
    rejected: list[TraceRejection] = attrs.field(factory=list)

    def record_rejection(self, trace_id: str | None, error: ApiError) -> None:
        """Record a rejected trace."""
        self.rejected.append(TraceRejection(trace_id, error.code, error.message))


def ingest_traces(tenant: Tenant, batch: Iterable[Any]) -> TraceIngestResult:
    """Save traces of one user, or of searches without a user.

    Invalid traces are rejected one by one; the others are saved. Traces that are older than the project keeps them, and
    those from before an erasure of their user, are rejected.

    Args:
        tenant: The project, the agent, and the user that the traces belong to, if any.
        batch: The traces, each as decoded JSON.
    """
    result = TraceIngestResult()
    traces: dict[str, IncomingTrace] = {}
    for content in batch:
        try:
            trace = parse_trace(content)
        except ApiError as error:
            result.record_rejection(extract_trace_id(content), error)
        else:
            if traces.setdefault(trace.trace_id, trace) is not trace:
                result.duplicate.append(trace.trace_id)
    with tenant.begin_write(Action.INGEST) as session:
        if traces:
            _store_traces(session, list(traces.values()), result)
    return result


def _store_traces(session: ScopedSession, traces: list[IncomingTrace], result: TraceIngestResult) -> None:
    user_id, now = session.scope.user_id, utc_now()
    # An erasure of the user waits for this transaction, or this one for it: no trace is left behind.
    user = None if user_id is None else lock_or_create_user(session, user_id, now)
    kept = _select_new_traces(session, traces, now, result)
    rows = [_trace_row(session, trace, now) for trace in kept]
    session.insert_missing(RecallTrace, rows)
    session.insert_missing(RecalledDocument, [row for trace in kept for row in _document_rows(trace, now)])
    if user_id is not None:
        wanted: dict[str, set[str]] = {}
        for trace in kept:
            if trace.turn_id is not None and trace.turn_event_id is None:
                wanted.setdefault(trace.session_id, set()).add(trace.turn_id)
        link_to_stored_turns(session, user_id, wanted)
    if user is not None and not user.session_count:  # the row was just created: a trace alone makes no user
        session.delete(user)
    result.accepted.extend(trace.trace_id for trace in kept)


def _select_new_traces(
    session: ScopedSession, traces: list[IncomingTrace], now: datetime, result: TraceIngestResult
) -> list[IncomingTrace]:
    """Return the traces to save; record the outcome of the others in the result."""
    user_id = session.scope.user_id
    days = session.scalars(select(Project.keep_traces_days).where(Project.id == session.scope.project_id)).one()
    oldest = None if days is None else now - timedelta(days=days)
    statement = select(RecallTrace.id).where(RecallTrace.id.in_([trace.trace_id for trace in traces]))
    stored_ids = set(session.scalars(statement))
    erasure = None if user_id is None else find_erasure(session, user_id)
    erased_sessions = set[str]()
    if erasure is not None and user_id is not None:
        erased_sessions = find_erased_sessions(session, user_id, {trace.session_id for trace in traces})
    new_traces = []
    for trace in traces:
        if trace.trace_id in stored_ids:
            result.duplicate.append(trace.trace_id)
        elif trace.session_id in erased_sessions or (erasure and trace.occurred_at <= erasure.forgotten_at):
            result.record_rejection(trace.trace_id, UserErasedError("the user was erased after this search"))
        elif oldest is not None and trace.occurred_at <= oldest:
            message = f"occurredAt: older than the {days} days for which the project keeps traces"
            result.record_rejection(trace.trace_id, InvalidRequestError(message))
        else:
            new_traces.append(trace)
    return new_traces


def _occurred_at(trace: IncomingTrace, now: datetime) -> datetime:
    """Return when a search began; the timestamp of a clock that is far ahead becomes now."""
    return trace.occurred_at if trace.occurred_at <= now + MAX_CLOCK_SKEW else now


def _trace_row(session: ScopedSession, trace: IncomingTrace, now: datetime) -> dict[str, Any]:
    return {
        "id": trace.trace_id,
        "user_id": session.scope.user_id,
        "session_id": trace.session_id,
        "turn_id": trace.turn_id,
        "turn_event_id": trace.turn_event_id,
        "agent_id": session.scope.agent_id,
        "occurred_at": _occurred_at(trace, now),
        "received_at": now,
        **trace.columns,
    }


def _document_rows(trace: IncomingTrace, now: datetime) -> Iterable[dict[str, Any]]:
    for rank, hit in enumerate(trace.documents, 1):
        yield {
            "trace_id": trace.trace_id,
            "rank": rank,
            "index_name": hit.index_name,
            "document_id": hit.document_id,
            "occurred_at": _occurred_at(trace, now),
            "score": hit.score or 0.0,
        }
