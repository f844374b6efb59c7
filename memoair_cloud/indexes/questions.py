"""Which questions found a document, and which found nothing: from recall traces, as far as they are kept.

A trace has the words of a question only in the mode "text". Otherwise it leads to the call in which it was asked.
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime

import attrs
from sqlalchemy import func, select

from memoair_cloud.cursors import ResultPage
from memoair_cloud.database.recall_trace_models import RecalledDocument, RecallTrace
from memoair_cloud.recall_traces.queries import list_document_recalls
from memoair_cloud.tenancy.access import Tenant

# Without an index on hits of one lane, the latest searches that found nothing at all are looked through.
_NOTHING_FOUND_ROWS = 20


@attrs.frozen
class DocumentQuestion:
    """A search, and the question that was asked.

    Attributes:
        trace_id: Its recall trace.
        occurred_at: When it was asked.
        user_id: The caller; None for a search without one.
        session_id: The call.
        turn_event_id: The turn that followed it.
        question: The words; None if they are not kept.
        rank: The place of the document among the hits, from 1; 0 if nothing was found.
        score: The score of the document.
    """

    trace_id: str
    occurred_at: datetime
    user_id: str | None
    session_id: str
    turn_event_id: str | None
    question: str | None
    rank: int = 0
    score: float = 0.0


def list_document_questions(
    tenant: Tenant, index_name: str, document_id: str, cursor: str | None, limit: int
) -> ResultPage[DocumentQuestion]:
    """Return a page of the searches that found a document, latest first.

    Raises:
        InvalidRequestError: If the cursor is invalid.
    """
    page = list_document_recalls(tenant, index_name, document_id, cursor, limit)
    traces = _load_traces(tenant, [row.trace_id for row in page.rows])
    questions = [
        _make_question(traces[row.trace_id], row.rank, row.score) for row in page.rows if row.trace_id in traces
    ]
    return ResultPage(questions, page.next_cursor)


def list_unanswered_questions(tenant: Tenant, since: datetime, until: datetime) -> Sequence[DocumentQuestion]:
    """Return the latest searches of a period that found nothing, in no lane."""
    statement = select(RecallTrace).where(
        RecallTrace.occurred_at >= since, RecallTrace.occurred_at < until, RecallTrace.found_count == 0
    )
    with tenant.begin_read() as session:
        latest_first = statement.order_by(RecallTrace.occurred_at.desc(), RecallTrace.id.desc())
        return [_make_question(trace) for trace in session.scalars(latest_first.limit(_NOTHING_FOUND_ROWS))]


def count_document_searches(
    tenant: Tenant, index_name: str, document_ids: Iterable[str], since: datetime, until: datetime
) -> dict[str, int]:
    """Return how many searches of a period found each document; those that none found are missing."""
    statement = (
        select(RecalledDocument.document_id, func.count(RecalledDocument.trace_id.distinct()))
        .where(RecalledDocument.index_name == index_name, RecalledDocument.document_id.in_(list(document_ids)))
        .where(RecalledDocument.occurred_at >= since, RecalledDocument.occurred_at < until)
        .group_by(RecalledDocument.document_id)
    )
    with tenant.begin_read() as session:
        return {row[0]: row[1] for row in session.execute(statement)}


def _load_traces(tenant: Tenant, trace_ids: Sequence[str]) -> Mapping[str, RecallTrace]:
    with tenant.begin_read() as session:
        return {row.id: row for row in session.scalars(select(RecallTrace).where(RecallTrace.id.in_(trace_ids)))}


def _make_question(trace: RecallTrace, rank: int = 0, score: float = 0.0) -> DocumentQuestion:
    question = trace.details.get("query")
    return DocumentQuestion(
        trace.id,
        trace.occurred_at,
        trace.user_id,
        trace.session_id,
        trace.turn_event_id,
        question if isinstance(question, str) else None,
        rank,
        score,
    )
