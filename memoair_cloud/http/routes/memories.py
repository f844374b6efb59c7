"""Routes for memories: list, correct and delete them."""

from typing import Annotated

from fastapi import APIRouter, Query

from memoair_cloud.audit.log import AuditAction
from memoair_cloud.errors import BatchTooLargeError, ConflictError
from memoair_cloud.http.body_parsing import JsonRoute
from memoair_cloud.http.dependencies import Cursor, Limit, ProjectTenant, ServicesDep
from memoair_cloud.http.errors import PROJECT_ERRORS, error_responses
from memoair_cloud.http.exact_path import PathId
from memoair_cloud.http.schemas.memories import (
    ChangeOut,
    CorrectionIn,
    DeletedOut,
    HistoryOut,
    MemoriesOut,
    MemoryOut,
)
from memoair_cloud.memories import editing

router = APIRouter(prefix="/v1/voice-sdk/users/{user_id}", tags=["memories"], route_class=JsonRoute)

History = Annotated[bool, Query(description="include memories that no longer hold")]


@router.get("/memories", operation_id="listMemories", responses=error_responses(PROJECT_ERRORS))
def list_memories(
    tenant: ProjectTenant,
    services: ServicesDep,
    user_id: PathId,
    cursor: Cursor = None,
    limit: Limit = 100,
    history: History = False,
) -> MemoriesOut:
    """List a user's memories, latest statement first."""
    page = editing.list_memories(tenant, user_id, cursor, limit, history=history)
    services.reads.record(tenant, AuditAction.READ_MEMORIES, user_id)
    return MemoriesOut(memories=[MemoryOut.model_validate(row) for row in page.rows], next=page.next_cursor)


@router.get("/memories/{memory_id}", operation_id="getMemory", responses=error_responses(PROJECT_ERRORS))
def get_memory(tenant: ProjectTenant, services: ServicesDep, user_id: PathId, memory_id: PathId) -> MemoryOut:
    """Return a memory."""
    memory = editing.get_memory(tenant, user_id, memory_id)
    services.reads.record(tenant, AuditAction.READ_MEMORIES, user_id)
    return MemoryOut.model_validate(memory)


@router.patch(
    "/memories/{memory_id}",
    operation_id="correctMemory",
    responses=error_responses(PROJECT_ERRORS, ConflictError, BatchTooLargeError),
)
def correct_memory(tenant: ProjectTenant, user_id: PathId, memory_id: PathId, body: CorrectionIn) -> MemoryOut:
    """Correct a memory. The old text stays in the history, and no earlier statement overrides the correction."""
    given_days = ("holds_from", body.holds_from), ("holds_until", body.holds_until)
    days = {name: day for name, day in given_days if name in body.model_fields_set}
    correction = editing.MemoryCorrection(body.text, body.value, days)
    return MemoryOut.model_validate(editing.correct_memory(tenant, user_id, memory_id, correction))


@router.post(
    "/memories/{memory_id}/undo",
    operation_id="undoCorrection",
    responses=error_responses(PROJECT_ERRORS, ConflictError),
)
def undo_correction(tenant: ProjectTenant, user_id: PathId, memory_id: PathId) -> MemoryOut:
    """Give a memory the text and value from before its last correction."""
    return MemoryOut.model_validate(editing.undo_correction(tenant, user_id, memory_id))


@router.delete("/memories/{memory_id}", operation_id="deleteMemory", responses=error_responses(PROJECT_ERRORS))
def delete_memory(tenant: ProjectTenant, user_id: PathId, memory_id: PathId) -> DeletedOut:
    """Delete a memory and its history. The turn it was learned from stays, but is not learned from again."""
    deleted_at = editing.delete_memory(tenant, user_id, memory_id)
    return DeletedOut(memory_id=memory_id, deleted_at=deleted_at)


@router.get("/memories/{memory_id}/history", operation_id="memoryHistory", responses=error_responses(PROJECT_ERRORS))
def memory_history(tenant: ProjectTenant, services: ServicesDep, user_id: PathId, memory_id: PathId) -> HistoryOut:
    """List the changes of a memory, each with the text before it."""
    changes = editing.get_history(tenant, user_id, memory_id)
    services.reads.record(tenant, AuditAction.READ_MEMORIES, user_id)
    return HistoryOut(changes=[ChangeOut.model_validate(change) for change in changes])
