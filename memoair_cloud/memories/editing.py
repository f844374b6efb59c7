"""Memories as people see them: list, correct and delete them, and show their history."""

from collections.abc import Mapping, Sequence
from datetime import date, datetime

import attrs
from sqlalchemy import select

from memoair_cloud.audit.log import AuditAction, record_change
from memoair_cloud.calls.users import lock_user
from memoair_cloud.cursors import PageOrder, ResultPage
from memoair_cloud.database.engine import purge_wal
from memoair_cloud.database.models import EndUser, Memory, MemoryChange
from memoair_cloud.errors import ConflictError, InvalidRequestError, NotFoundError
from memoair_cloud.evaluation.replay_changes import delete_replay_results
from memoair_cloud.memories.reconcile import MemoryReconciler
from memoair_cloud.memories.states import MemoryState
from memoair_cloud.recall_traces.erasure import remove_words_of_memory
from memoair_cloud.tenancy.access import Tenant
from memoair_cloud.tenancy.scoped import ScopedSession
from memoair_protocol.timestamps import utc_now

_ACTOR = "api"
_MEMORY_ORDER = PageOrder[Memory](
    (Memory.said_at, Memory.id), (datetime, str), lambda row: (row.said_at, row.id), descending=True
)


@attrs.frozen
class MemoryCorrection:
    """A correction of a memory by hand.

    Attributes:
        text: The new text; None keeps the old.
        value: The new value, which the profile shows; None takes the new text, if there is one.
        days: New values of ``holds_from`` and ``holds_until``, where they change.
    """

    text: str | None = None
    value: str | None = None
    days: Mapping[str, date | None] = attrs.field(factory=dict)


@attrs.frozen
class MemoryEdit:
    """A change of a memory, with the text and value before it."""

    at: datetime
    action: str
    by: str
    text: str | None
    value: str | None


def list_memories(tenant: Tenant, user_id: str, cursor: str | None, limit: int, *, history: bool) -> ResultPage[Memory]:
    """Return a page of a user's memories, latest statement first.

    Args:
        tenant: The project.
        user_id: The user.
        cursor: The cursor of the previous page, or None.
        limit: The maximum number of memories.
        history: Whether to include memories that no longer hold.

    Raises:
        NotFoundError: If the user is unknown.
        InvalidRequestError: If the cursor is invalid.
    """
    states = [MemoryState.CURRENT, MemoryState.HISTORY] if history else [MemoryState.CURRENT]
    with tenant.begin_read() as session:
        if session.scalar(select(EndUser.id).where(EndUser.id == user_id)) is None:
            raise NotFoundError("unknown user")
        statement = select(Memory).where(Memory.user_id == user_id, Memory.state.in_(states))
        return _MEMORY_ORDER.fetch_page(session, statement, cursor, limit)


def get_memory(tenant: Tenant, user_id: str, memory_id: str) -> Memory:
    """Return a memory; raise `NotFoundError` if it does not exist or was deleted."""
    with tenant.begin_read() as session:
        return _get_visible_memory(session, user_id, memory_id)


def correct_memory(tenant: Tenant, user_id: str, memory_id: str, correction: MemoryCorrection) -> Memory:
    """Correct a memory.

    Raises:
        NotFoundError: If it does not exist or was deleted.
        ConflictError: If it no longer holds.
        InvalidRequestError: If it would end before it begins.
    """
    with tenant.begin_write() as session:
        reconciler = _lock_reconciler(session, user_id)
        memory = _get_visible_memory(session, user_id, memory_id)
        if memory.state != MemoryState.CURRENT:
            raise ConflictError("only current memories can be corrected: another memory has replaced this one")
        days = {"holds_from": memory.holds_from, "holds_until": memory.holds_until, **correction.days}
        if days["holds_from"] and days["holds_until"] and days["holds_from"] > days["holds_until"]:
            raise InvalidRequestError("holdsFrom must not be after holdsUntil", field="holdsFrom")
        text, value = correction.text, correction.value
        if value is None:
            value = memory.value if text is None else text
        reconciler.correct(memory, memory.text if text is None else text, value, correction.days)
        record_change(session, AuditAction.CORRECTED_MEMORY, user_id, memory_id)
        return memory


def undo_correction(tenant: Tenant, user_id: str, memory_id: str) -> Memory:
    """Give a memory the text and value from before its last correction. This is a correction, too.

    Raises:
        NotFoundError: If the memory does not exist or was deleted.
        ConflictError: If it was never corrected, or no longer holds.
    """
    with tenant.begin_write() as session:
        reconciler = _lock_reconciler(session, user_id)
        memory = _get_visible_memory(session, user_id, memory_id)
        statement = select(MemoryChange).where(
            MemoryChange.user_id == user_id, MemoryChange.memory_id == memory_id, MemoryChange.action == "corrected"
        )
        change = session.scalars(statement.order_by(MemoryChange.number.desc()).limit(1)).first()
        if change is None:
            raise ConflictError("the memory was never corrected")
        if memory.state != MemoryState.CURRENT:
            raise ConflictError("only current memories can be corrected: another memory has replaced this one")
        reconciler.correct(memory, change.text, change.value, {})
        record_change(session, AuditAction.UNDID_CORRECTION, user_id, memory_id)
        return memory


def delete_memory(tenant: Tenant, user_id: str, memory_id: str) -> datetime:
    """Delete a memory and the words of its history; raise `NotFoundError` if it does not exist.

    It is never learned again from the same turn.
    """
    with tenant.begin_write() as session:
        reconciler = _lock_reconciler(session, user_id)
        reconciler.delete(_get_visible_memory(session, user_id, memory_id))
        record_change(session, AuditAction.DELETED_MEMORY, user_id, memory_id)
        remove_words_of_memory(session, user_id, memory_id)
        delete_replay_results(session, user_id)
    purge_wal(tenant.engine)
    return reconciler.now


def get_history(tenant: Tenant, user_id: str, memory_id: str) -> Sequence[MemoryEdit]:
    """Return the changes of a memory, earliest first; raise `NotFoundError` if it never existed.

    For a deleted memory they contain no words.
    """
    with tenant.begin_read() as session:
        memory = session.get(Memory, (session.scope.project_id, user_id, memory_id))
        if memory is None:
            raise NotFoundError("unknown memory")
        statement = select(MemoryChange).where(MemoryChange.user_id == user_id, MemoryChange.memory_id == memory_id)
        rows = session.scalars(statement.order_by(MemoryChange.number)).all()
        learned = MemoryEdit(memory.learned_at, "learned", memory.extractor, None, None)
        return [learned, *(MemoryEdit(row.at, row.action, row.by, row.text or None, row.value or None) for row in rows)]


def _lock_reconciler(session: ScopedSession, user_id: str) -> MemoryReconciler:
    user = lock_user(session, user_id)
    if user is None:
        raise NotFoundError("unknown user")
    return MemoryReconciler(session, user, utc_now(), _ACTOR)


def _get_visible_memory(session: ScopedSession, user_id: str, memory_id: str) -> Memory:
    memory = session.get(Memory, (session.scope.project_id, user_id, memory_id))
    if memory is None or memory.state in (MemoryState.WITHDRAWN, MemoryState.DELETED):
        raise NotFoundError("unknown memory")
    return memory
