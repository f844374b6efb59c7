"""Delete the traces of an erased user, and the words of a deleted memory from traces."""

from datetime import datetime

from sqlalchemy import delete, select

from memoair_cloud.database.recall_trace_models import RecallTrace
from memoair_cloud.tenancy.scoped import ScopedSession
from memoair_protocol.enums import TraceMode


def erase_traces(session: ScopedSession, user_id: str, until: datetime | None = None) -> int:
    """Delete the traces of a user, with what refers to them; return their number.

    Args:
        session: The transaction that erases the user and has locked their row.
        user_id: The user.
        until: Delete only traces up to this time.
    """
    statement = delete(RecallTrace).where(RecallTrace.user_id == user_id)
    if until is not None:
        statement = statement.where(RecallTrace.occurred_at <= until)
    result = session.execute(statement, execution_options={"synchronize_session": False})
    return int(result.rowcount)  # type: ignore[attr-defined]


def remove_words_of_memory(session: ScopedSession, user_id: str, memory_id: str) -> None:
    """Remove the words of the traces that recalled a memory, because its own words are deleted.

    The question stays out, too: it may repeat them.

    Args:
        session: The transaction that deletes the memory.
        user_id: The user.
        memory_id: The memory.
    """
    statement = select(RecallTrace).where(RecallTrace.user_id == user_id, RecallTrace.mode == TraceMode.TEXT.value)
    for trace in session.scalars(statement):
        hits = [hit for lane_hits in trace.details["hits"].values() for hit in lane_hits]
        if any(hit["id"] == memory_id for hit in hits):
            without_terms = {
                lane: [{name: value for name, value in hit.items() if name != "terms"} for hit in lane_hits]
                for lane, lane_hits in trace.details["hits"].items()
            }
            trace.details = {"hits": without_terms, "notes": trace.details["notes"]}
            trace.mode = TraceMode.IDS.value
