"""Documents of a project: every change increments the version of its index and of the project."""

from collections.abc import Mapping, Sequence
from typing import Any

import attrs
from sqlalchemy import or_, select, update

from memoair_cloud.cursors import PageOrder, ResultPage
from memoair_cloud.database.models import OrgDocument, OrgIndex, Project
from memoair_cloud.errors import NotFoundError
from memoair_cloud.tenancy.access import Tenant
from memoair_cloud.tenancy.scoped import ScopedSession
from memoair_index import split_text
from memoair_protocol.timestamps import utc_now

_BY_ID: PageOrder[OrgDocument] = PageOrder((OrgDocument.id,), (str,), lambda row: (row.id,))


@attrs.frozen
class NewDocument:
    """A document as it was sent."""

    id: str
    text: str
    metadata: Mapping[str, Any]


@attrs.frozen
class IndexChange:
    """The state of an index after a change.

    Attributes:
        index_name: The name of the index.
        chunk_count: The number of chunks in the whole index.
        version: The version of the index.
        org_version: The version of all documents of the project.
    """

    index_name: str
    chunk_count: int
    version: int
    org_version: int


def put_documents(
    tenant: Tenant, index_name: str, documents: Sequence[NewDocument], metadata: Mapping[str, Any] | None
) -> IndexChange:
    """Create an index or add documents to it; a document replaces an earlier one with the same id.

    Args:
        tenant: The project.
        index_name: The name of the index.
        documents: The documents. Of two with the same id, the later one counts.
        metadata: The new metadata of the index; None keeps the old.

    Returns:
        The index after the change.
    """
    chunk_counts = count_chunks(documents)
    with tenant.begin_write() as session:
        return write_documents(session, index_name, documents, chunk_counts, metadata)


def count_chunks(documents: Sequence[NewDocument]) -> dict[str, int]:
    """Return the number of chunks of each document by id; do it before a transaction begins, since it takes time."""
    return {document.id: len(split_text(document.text, document.metadata)) for document in documents}


def write_documents(
    session: ScopedSession,
    index_name: str,
    documents: Sequence[NewDocument],
    chunk_counts: Mapping[str, int],
    metadata: Mapping[str, Any] | None = None,
) -> IndexChange:
    """Do what `put_documents` does in a transaction that has not taken a lock yet.

    Args:
        session: The session of the transaction.
        index_name: The name of the index.
        documents: The documents.
        chunk_counts: The result of `count_chunks` for them.
        metadata: The new metadata of the index; None keeps the old.
    """
    project = _lock_project(session)
    index = _get_or_create_index(session, index_name)
    if metadata is not None:
        index.details = dict(metadata)
    by_id = {document.id: document for document in documents}
    rows = _load_documents(session, index_name, by_id)
    for document in by_id.values():
        chunk_count = chunk_counts[document.id]
        row = rows.get(document.id)
        if row is None:
            row = OrgDocument(project_id=session.scope.project_id, index_name=index_name, id=document.id)
            row.deleted_at, row.chunk_count = utc_now(), 0  # counted below like a deleted document that comes back
            session.add(row)
        index.document_count += row.deleted_at is not None
        index.chunk_count += chunk_count - row.chunk_count
        row.text, row.details, row.chunk_count = document.text, dict(document.metadata), chunk_count
        row.deleted_at, row.version = None, project.org_version
    return _describe_change(index, project)


def delete_document(tenant: Tenant, index_name: str, document_id: str) -> IndexChange:
    """Delete a document; raise `NotFoundError` if it does not exist."""
    with tenant.begin_write() as session:
        change, count = remove_documents(session, index_name, [document_id])
        if not count:
            raise NotFoundError("unknown document in this index")
        return change


def remove_documents(session: ScopedSession, index_name: str, document_ids: list[str]) -> tuple[IndexChange, int]:
    """Delete documents in a transaction that has not taken a lock yet, and return how many of them there were.

    Raises:
        NotFoundError: If the index does not exist.
    """
    project = _lock_project(session)
    index = _get_live_index(session, index_name)
    rows = [row for row in _load_documents(session, index_name, document_ids).values() if row.deleted_at is None]
    index.version += 1
    index.updated_at = now = utc_now()
    for row in rows:
        index.document_count -= 1
        index.chunk_count -= row.chunk_count
        row.text, row.details, row.chunk_count, row.version = "", {}, 0, project.org_version
        row.deleted_at = now
    return _describe_change(index, project), len(rows)


def delete_index(tenant: Tenant, index_name: str) -> IndexChange:
    """Delete an index and its documents; raise `NotFoundError` if it does not exist.

    If it is created again, its version continues.
    """
    with tenant.begin_write() as session:
        project = _lock_project(session)
        index = _get_live_index(session, index_name)
        deleted_values = {
            "text": "",
            "details": {},
            "chunk_count": 0,
            "version": project.org_version,
            "deleted_at": utc_now(),
        }
        session.execute(
            update(OrgDocument)
            .where(OrgDocument.index_name == index_name, OrgDocument.deleted_at.is_(None))
            .values(deleted_values),
            execution_options={"synchronize_session": False},
        )
        index.document_count = index.chunk_count = 0
        index.details = {}
        index.version += 1
        index.updated_at = index.deleted_at = utc_now()
        return _describe_change(index, project)


def list_indexes(tenant: Tenant) -> list[OrgIndex]:
    """Return the project's indexes, sorted by name."""
    with tenant.begin_read() as session:
        return list(session.scalars(select(OrgIndex).where(OrgIndex.deleted_at.is_(None)).order_by(OrgIndex.name)))


def get_index(tenant: Tenant, index_name: str) -> OrgIndex:
    """Return an index; raise `NotFoundError` if it does not exist."""
    with tenant.begin_read() as session:
        return _get_live_index(session, index_name)


def list_documents(tenant: Tenant, index_name: str, cursor: str | None, limit: int) -> ResultPage[OrgDocument]:
    """Return a page of the documents of an index, sorted by id; raise `NotFoundError` if it does not exist."""
    with tenant.begin_read() as session:
        _get_live_index(session, index_name)
        live = select(OrgDocument).where(OrgDocument.index_name == index_name, OrgDocument.deleted_at.is_(None))
        return _BY_ID.fetch_page(session, live, cursor, limit)


def search_documents(
    tenant: Tenant, index_name: str, text: str, cursor: str | None, limit: int
) -> ResultPage[OrgDocument]:
    """Return a page of the documents whose id or text contains a text, sorted by id; empty finds all.

    Letters beyond ASCII are found as they are written.
    """
    statement = select(OrgDocument).where(OrgDocument.index_name == index_name, OrgDocument.deleted_at.is_(None))
    if text:
        found = or_(*(column.icontains(text, autoescape=True) for column in (OrgDocument.id, OrgDocument.text)))
        statement = statement.where(found)
    with tenant.begin_read() as session:
        _get_live_index(session, index_name)
        return _BY_ID.fetch_page(session, statement, cursor, limit)


def get_document(tenant: Tenant, index_name: str, document_id: str) -> OrgDocument:
    """Return a document of an index; raise `NotFoundError` if it does not exist."""
    with tenant.begin_read() as session:
        _get_live_index(session, index_name)
        row = _load_documents(session, index_name, [document_id]).get(document_id)
        if row is None or row.deleted_at is not None:
            raise NotFoundError("unknown document in this index")
        return row


def _lock_project(session: ScopedSession) -> Project:
    # All changes of a project's documents queue for its row. So versions increase by one in the order of the commits,
    # and no earlier version can appear after a later one has been seen.
    statement = select(Project).where(Project.id == session.scope.project_id)
    # With key share, other transactions may still insert rows that refer to the project: calls are not held up.
    locked = statement.with_for_update(key_share=True).execution_options(populate_existing=True)
    project = session.scalars(locked).one()
    project.org_version += 1
    return project


def _get_or_create_index(session: ScopedSession, name: str) -> OrgIndex:
    index = session.scalar(select(OrgIndex).where(OrgIndex.name == name))
    now = utc_now()
    if index is None:
        index = OrgIndex(project_id=session.scope.project_id, name=name, version=0, details={}, created_at=now)
        index.document_count = index.chunk_count = 0
        session.add(index)
    elif index.deleted_at is not None:
        index.created_at, index.deleted_at = now, None
    index.version += 1
    index.updated_at = now
    session.flush()  # before its documents, which refer to it
    return index


def _get_live_index(session: ScopedSession, name: str) -> OrgIndex:
    index = session.scalar(select(OrgIndex).where(OrgIndex.name == name, OrgIndex.deleted_at.is_(None)))
    if index is None:
        raise NotFoundError("unknown index")
    return index


def _load_documents(
    session: ScopedSession, index_name: str, ids: Mapping[str, Any] | list[str]
) -> dict[str, OrgDocument]:
    statement = select(OrgDocument).where(OrgDocument.index_name == index_name, OrgDocument.id.in_(list(ids)))
    return {row.id: row for row in session.scalars(statement)}


def _describe_change(index: OrgIndex, project: Project) -> IndexChange:
    return IndexChange(index.name, index.chunk_count, index.version, project.org_version)
