"""Document sets: documents that a run searches instead of the project's, and copies of the project's documents.

The row of a set is the only record of what the blob store has of it: the number of its parts is incremented before a
part is written, and the row goes after the files. `memoair_cloud.evaluation.document_set_builder` makes one index file
of the parts.
"""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Any

import msgspec
from sqlalchemy import func, or_, select

from memoair_cloud.cursors import PageOrder, ResultPage
from memoair_cloud.database.evaluation_models import EvaluationDocumentSet, EvaluationRun
from memoair_cloud.database.models import Project
from memoair_cloud.errors import BatchTooLargeError, ConflictError, NotFoundError, ServiceUnavailableError
from memoair_cloud.evaluation.document_set_states import TRANSITIONS, DocumentSetState
from memoair_cloud.identifiers import new_id
from memoair_cloud.indexes.blobs import BlobStore
from memoair_cloud.prompts.agents import describe_actor
from memoair_cloud.temporary_folders import PREVIEW_PREFIX
from memoair_cloud.tenancy.access import Tenant
from memoair_cloud.tenancy.scoped import ScopedSession
from memoair_evaluation.engine import EngineDocuments
from memoair_protocol.temporary import temporary_folder
from memoair_protocol.timestamps import utc_now

MAX_SETS = 50
MAX_SET_DOCUMENTS = 50_000
MAX_SET_BYTES = 128 << 20
MAX_SET_PARTS = 1_000  # each is a file until the index file is built
EXPIRES_AFTER = timedelta(days=1)  # a set of which no more documents come
_LATEST_FIRST = PageOrder[EvaluationDocumentSet](
    (EvaluationDocumentSet.created_at, EvaluationDocumentSet.id),
    (datetime, str),
    lambda row: (row.created_at, row.id),
    descending=True,
)


def create_document_set(tenant: Tenant, name: str, *, copies_present: bool = False) -> EvaluationDocumentSet:
    """Start a document set, or copy the present documents of the project.

    Args:
        tenant: The project.
        name: Its name, for people.
        copies_present: Whether it is a copy. A worker makes it; it is of the documents as they are then.

    Raises:
        BatchTooLargeError: If the project has too many sets.
    """
    with tenant.begin_write() as session:
        is_listed = _is_listed()
        count = session.scalar(select(func.count()).select_from(EvaluationDocumentSet).where(*is_listed)) or 0
        if count >= MAX_SETS:
            message = f"a project can have at most {MAX_SETS} document sets: delete one first"
            raise BatchTooLargeError(message, limit=MAX_SETS)
        return add_set_row(session, name, copies_present=copies_present)


def add_set_row(
    session: ScopedSession, name: str, *, copies_present: bool, is_pinned: bool = False
) -> EvaluationDocumentSet:
    """Add the row of a set in a transaction, and return it."""
    now = utc_now()
    org_version = select(Project.org_version).where(Project.id == session.scope.project_id)
    row = EvaluationDocumentSet(
        project_id=session.scope.project_id,
        id=new_id("docset"),
        name=name,
        state=(DocumentSetState.BUILDING if copies_present else DocumentSetState.RECEIVING).value,
        is_pinned=is_pinned,
        size=0,
        part_count=0,
        document_count=0,
        org_version=session.scalar(org_version) if copies_present else None,
        created_at=now,
        created_by=describe_actor(session.scope.actor),
        updated_at=now,
        failures=0,
    )
    session.add(row)
    return row


def add_documents(
    tenant: Tenant, blobs: BlobStore, set_id: str, documents: Sequence[Mapping[str, Any]]
) -> EvaluationDocumentSet:
    """Add documents to a set, as one part; none adds nothing. Of two with the same index and id, the later one counts.

    Args:
        tenant: The project.
        blobs: The store of the documents until the index file is built.
        set_id: The set.
        documents: The documents: ``indexName``, ``id``, ``text`` and ``metadata``.

    Raises:
        NotFoundError: If there is no such set.
        ConflictError: If the set receives no documents any more.
        BatchTooLargeError: If the set would be too large.
        ServiceUnavailableError: If the blob store does not take them.
    """
    content = msgspec.json.encode(documents)
    with tenant.begin_write() as session:
        row = _load_receiving(session, set_id)
        if not documents:
            return row
        if row.part_count >= MAX_SET_PARTS:
            message = f"a document set can be sent in at most {MAX_SET_PARTS:,} parts: send more documents with each"
            raise BatchTooLargeError(message, limit=MAX_SET_PARTS)
        if row.document_count + len(documents) > MAX_SET_DOCUMENTS:
            message = f"a document set can have at most {MAX_SET_DOCUMENTS:,} documents"
            raise BatchTooLargeError(message, limit=MAX_SET_DOCUMENTS)
        if row.size + len(content) > MAX_SET_BYTES:
            raise BatchTooLargeError(f"a document set can have at most {MAX_SET_BYTES:,} bytes", limit=MAX_SET_BYTES)
        number = row.part_count
        row.part_count += 1  # before the part is written
        row.size += len(content)
        row.document_count += len(documents)
        row.updated_at = utc_now()
    try:
        blobs.write(part_key(tenant, set_id, number), [content])
    except OSError:
        raise ServiceUnavailableError("the blob store takes no files: is it full?", store="blobs") from None
    with tenant.begin_read() as session:
        return _load_receiving(session, set_id, lock=False)


def complete_document_set(tenant: Tenant, set_id: str) -> EvaluationDocumentSet:
    """Let a worker build the index file of a set. It takes no documents from now on.

    Raises:
        NotFoundError: If there is no such set.
        ConflictError: If it is complete already.
    """
    with tenant.begin_write() as session:
        row = load_set(session, set_id, lock=True)
        move_set(row, DocumentSetState.BUILDING)
        return row


def get_document_set(tenant: Tenant, set_id: str) -> EvaluationDocumentSet:
    """Return a document set; raise `NotFoundError` if it does not exist."""
    with tenant.begin_read() as session:
        return load_set(session, set_id)


def list_document_sets(tenant: Tenant, cursor: str | None, limit: int) -> ResultPage[EvaluationDocumentSet]:
    """Return a page of the document sets of a project, latest first, without the copies that runs have made."""
    with tenant.begin_read() as session:
        return _LATEST_FIRST.fetch_page(session, select(EvaluationDocumentSet).where(*_is_listed()), cursor, limit)


def remove_document_set(tenant: Tenant, blobs: BlobStore, set_id: str) -> EvaluationDocumentSet:
    """Remove a document set with its files, and return what it was. Results of runs that searched it stay.

    Raises:
        NotFoundError: If there is no such set.
        ConflictError: If a run that is not over searches it.
        ServiceUnavailableError: If the blob store does not respond. A worker removes the files later.
    """
    with tenant.begin_write() as session:
        row = load_set(session, set_id, lock=True)
        if find_open_run(session, set_id) is not None:
            raise ConflictError("a run that is not over searches these documents: cancel it first", resource="run")
        move_set(row, DocumentSetState.REMOVED)
    try:
        remove_files(tenant, blobs, row)
    except OSError:
        raise ServiceUnavailableError("the blob store does not respond", store="blobs") from None
    return row


@contextmanager
def open_set_documents(tenant: Tenant, blobs: BlobStore, set_id: str | None) -> Iterator[EngineDocuments]:
    """Yield the documents of a set that is ready, as an engine takes them; None for no documents.

    Raises:
        OSError: If the index file cannot be read.
    """
    row = None if set_id is None else get_document_set(tenant, set_id)
    if row is None or row.sha256 is None:
        yield EngineDocuments()
        return
    with temporary_folder(PREVIEW_PREFIX) as folder:
        path = folder / "documents.index"
        with path.open("wb") as target:
            target.writelines(blobs.stream(file_key(tenant, row.id))[1])
        yield EngineDocuments(index_file=path)


def load_set(session: ScopedSession, set_id: str, *, lock: bool = False) -> EvaluationDocumentSet:
    """Return a set; raise `NotFoundError` if it does not exist or was removed."""
    is_there = EvaluationDocumentSet.state != DocumentSetState.REMOVED.value
    statement = select(EvaluationDocumentSet).where(EvaluationDocumentSet.id == set_id, is_there)
    row = session.scalar(statement.with_for_update(key_share=True) if lock else statement)
    if row is None:
        raise NotFoundError("unknown document set", resource="documentSet")
    return row


def find_open_run(session: ScopedSession, set_id: str) -> str | None:
    """Return a run that is not over and searches a set; None without one."""
    searches = or_(EvaluationRun.document_set_id == set_id, EvaluationRun.present_set_id == set_id)
    statement = select(EvaluationRun.id).where(searches, EvaluationRun.is_open)
    return session.scalar(statement.limit(1))


def move_set(row: EvaluationDocumentSet, state: DocumentSetState) -> None:
    """Set the state of a set; raise `ConflictError` if it cannot follow the present one."""
    if state not in TRANSITIONS[DocumentSetState(row.state)]:
        raise ConflictError("the document set is in a state in which this is impossible", state=row.state)
    row.state, row.updated_at = state.value, utc_now()
    row.claim = row.claimed_until = None


def remove_files(tenant: Tenant, blobs: BlobStore, row: EvaluationDocumentSet) -> None:
    """Remove what the blob store has of a set. Raises OSError."""
    blobs.remove(file_key(tenant, row.id))
    for number in range(row.part_count):
        blobs.remove(part_key(tenant, row.id, number))


def remove_all_files(tenant: Tenant, blobs: BlobStore) -> None:
    """Remove the files of all sets of a project from the blob store, before the project is deleted. Raises OSError."""
    with tenant.begin_read() as session:
        rows = session.scalars(select(EvaluationDocumentSet)).all()
    for row in rows:
        remove_files(tenant, blobs, row)


def part_key(tenant: Tenant, set_id: str, number: int) -> str:
    """Return the key of a part of a set in the blob store. No other file has it."""
    return _make_key(tenant, set_id, f"part {number}")


def file_key(tenant: Tenant, set_id: str) -> str:
    """Return the key of the index file of a set in the blob store. No other file has it."""
    return _make_key(tenant, set_id, "index")


def _make_key(tenant: Tenant, set_id: str, name: str) -> str:
    return hashlib.sha256("\0".join((tenant.scope.project_id, set_id, name)).encode()).hexdigest()


def _load_receiving(session: ScopedSession, set_id: str, *, lock: bool = True) -> EvaluationDocumentSet:
    row = load_set(session, set_id, lock=lock)
    if row.state != DocumentSetState.RECEIVING.value:
        raise ConflictError("this document set takes no documents any more", state=row.state)
    return row


def _is_listed() -> tuple[Any, ...]:
    return ~EvaluationDocumentSet.is_pinned, EvaluationDocumentSet.state != DocumentSetState.REMOVED.value
