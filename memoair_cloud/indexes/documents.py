"""An organisation's documents: every change gives the index, and all that the project knows, the next version."""

from collections.abc import Mapping, Sequence
from typing import Any

import attrs
from sqlalchemy import select, update

from memoair_cloud.database.models import OrgDocument, OrgIndex, Project
from memoair_cloud.errors import NotFoundError
from memoair_cloud.tenancy.access import Tenant
from memoair_cloud.tenancy.scoped import ScopedSession
from memoair_cloud.timeutil import utc_now
from memoair_index import split_chunks


@attrs.frozen
class NewDocument:
    """A document as it was sent."""

    id: str
    text: str
    metadata: Mapping[str, Any]


@attrs.frozen
class IndexChange:
    """What an index has come to by a change; ``org_version`` is that of everything the project knows."""

    index_name: str
    chunk_count: int
    version: int
    org_version: int


def put_documents(
    tenant: Tenant, index_name: str, documents: Sequence[NewDocument], metadata: Mapping[str, Any] | None
) -> IndexChange:
    """Make an index, or add to it; a document whose id it has replaces the old one.

    Of two with one id the later one counts. ``metadata`` replaces the index's, unless it is None. ``chunk_count`` of
    the answer is that of the whole index.
    """
    counted = {document.id: (document, len(split_chunks(document.text))) for document in documents}
    with tenant.writing() as session:
        project = _lock_project(session)
        index = _index_to_fill(session, index_name)
        if metadata is not None:
            index.details = dict(metadata)
        rows = _known_documents(session, index_name, counted)
        for document, chunk_count in counted.values():
            row = rows.get(document.id)
            if row is None:
                row = OrgDocument(project_id=session.scope.project_id, index_name=index_name, id=document.id)
                row.deleted_at, row.chunk_count = utc_now(), 0  # so that it is counted below like one that comes back
                session.add(row)
            index.document_count += row.deleted_at is not None
            index.chunk_count += chunk_count - row.chunk_count
            row.text, row.details, row.chunk_count = document.text, dict(document.metadata), chunk_count
            row.deleted_at, row.version = None, project.org_version
        return _change(index, project)


def delete_document(tenant: Tenant, index_name: str, document_id: str) -> IndexChange:
    """Take a document out of an index; raises `NotFoundError`."""
    with tenant.writing() as session:
        project = _lock_project(session)
        index = _live_index(session, index_name)
        row = _known_documents(session, index_name, [document_id]).get(document_id)
        if row is None or row.deleted_at is not None:
            raise NotFoundError("there is no such document in this index")
        index.document_count -= 1
        index.chunk_count -= row.chunk_count
        index.version += 1
        index.updated_at = row.deleted_at = utc_now()
        row.text, row.details, row.chunk_count, row.version = "", {}, 0, project.org_version
        return _change(index, project)


def delete_index(tenant: Tenant, index_name: str) -> IndexChange:
    """Take an index away with all its documents; raises `NotFoundError`. Its version goes on if it is ever made again."""
    with tenant.writing() as session:
        project = _lock_project(session)
        index = _live_index(session, index_name)
        gone = {"text": "", "details": {}, "chunk_count": 0, "version": project.org_version, "deleted_at": utc_now()}
        session.execute(
            update(OrgDocument)
            .where(OrgDocument.index_name == index_name, OrgDocument.deleted_at.is_(None))
            .values(gone),
            execution_options={"synchronize_session": False},
        )
        index.document_count = index.chunk_count = 0
        index.details = {}
        index.version += 1
        index.updated_at = index.deleted_at = utc_now()
        return _change(index, project)


def list_indexes(tenant: Tenant) -> list[OrgIndex]:
    """The project's indexes, by name."""
    with tenant.reading() as session:
        return list(session.scalars(select(OrgIndex).where(OrgIndex.deleted_at.is_(None)).order_by(OrgIndex.name)))


def get_index(tenant: Tenant, index_name: str) -> OrgIndex:
    """One index; raises `NotFoundError`."""
    with tenant.reading() as session:
        return _live_index(session, index_name)


def _lock_project(session: ScopedSession) -> Project:
    # All that change a project's documents queue for its row: so versions grow by one, in the order of the commits, and
    # who has seen a version will never see an earlier one appear.
    mine = select(Project).where(Project.id == session.scope.project_id)
    # Rows that refer to the project (key share) may be written meanwhile: callers go on being heard.
    locking = mine.with_for_update(key_share=True).execution_options(populate_existing=True)
    project = session.scalars(locking).one()
    project.org_version += 1
    return project


def _index_to_fill(session: ScopedSession, name: str) -> OrgIndex:
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
    session.flush()  # its documents refer to it
    return index


def _live_index(session: ScopedSession, name: str) -> OrgIndex:
    index = session.scalar(select(OrgIndex).where(OrgIndex.name == name, OrgIndex.deleted_at.is_(None)))
    if index is None:
        raise NotFoundError("there is no such index")
    return index


def _known_documents(
    session: ScopedSession, index_name: str, ids: Mapping[str, Any] | list[str]
) -> dict[str, OrgDocument]:
    wanted = select(OrgDocument).where(OrgDocument.index_name == index_name, OrgDocument.id.in_(list(ids)))
    return {row.id: row for row in session.scalars(wanted)}


def _change(index: OrgIndex, project: Project) -> IndexChange:
    return IndexChange(index.name, index.chunk_count, index.version, project.org_version)
