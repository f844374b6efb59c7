"""Delete a project with all that it has: callers, documents, agents, and the files in the blob store."""

import attrs
from sqlalchemy import delete, func, select

from memoair_cloud.database.engine import purge_wal
from memoair_cloud.database.models import (
    Agent,
    CallEvent,
    CallSession,
    EndUser,
    LegalHold,
    OrgDocument,
    OrgFile,
    Project,
)
from memoair_cloud.errors import LegalHoldError, NotFoundError
from memoair_cloud.evaluation.document_sets import remove_all_files
from memoair_cloud.indexes.blobs import BlobStore
from memoair_cloud.indexes.upload_worker import remove_upload_files
from memoair_cloud.tenancy.access import Tenant
from memoair_cloud.tenancy.scoped import ScopedSession

# So that no transaction holds up those of other projects for long.
_USERS_PER_TRANSACTION = 50


@attrs.frozen
class ProjectRemoval:
    """What was deleted with a project.

    Attributes:
        project_id: The project.
        removed: The number of deleted rows by kind.
    """

    project_id: str
    removed: dict[str, int]


def remove_project(tenant: Tenant, blobs: BlobStore) -> ProjectRemoval:
    """Delete a project and all its data. If it fails on the way, another attempt deletes the rest.

    Machines are not notified: their requests are rejected from now on, and they keep their copies.

    Args:
        tenant: The project.
        blobs: The store of its index files.

    Returns:
        What was deleted.

    Raises:
        NotFoundError: If there is no such project.
        LegalHoldError: If a legal hold covers the project or one of its callers.
        OSError: If the blob store does not respond.
    """
    project_id = tenant.scope.project_id
    counted = {"users": EndUser, "sessions": CallSession, "events": CallEvent, "documents": OrgDocument}
    with tenant.begin_read() as session:
        _check_not_held(session)
        rows = {**counted, "agents": Agent}.items()
        removed = {name: session.scalars(select(func.count()).select_from(model)).one() for name, model in rows}
    _remove_files(tenant, blobs)
    while _remove_some_users(tenant):
        pass
    _remove_files(tenant, blobs)  # what was written since: to delete many callers takes a while
    with tenant.begin_write() as session:
        project = session.get(Project, project_id)
        if project is None:
            raise NotFoundError("unknown project")
        # As a statement, so that the database and not the session deletes the rows that refer to it.
        session.execute(delete(Project).where(Project.id == project_id))
    purge_wal(tenant.engine)
    return ProjectRemoval(project_id, removed)


def _remove_files(tenant: Tenant, blobs: BlobStore) -> None:
    """Remove all files of a project, before their rows: those are the only record that they exist. Raises OSError."""
    with tenant.begin_read() as session:
        hashes = session.scalars(select(OrgFile.sha256)).all()
    remove_upload_files(tenant, blobs)
    remove_all_files(tenant, blobs)
    for sha256 in hashes:
        blobs.remove(sha256)


def _check_not_held(session: ScopedSession) -> None:
    if session.scalar(select(LegalHold.id).where(LegalHold.lifted_at.is_(None)).limit(1)) is not None:
        raise LegalHoldError("a legal hold covers this project or some of its callers: nothing is deleted")


def _remove_some_users(tenant: Tenant) -> bool:
    """Delete some users with all their data; return whether there were any."""
    with tenant.begin_write() as session:
        _check_not_held(session)
        user_ids = session.scalars(select(EndUser.id).limit(_USERS_PER_TRANSACTION)).all()
        session.execute(delete(EndUser).where(EndUser.id.in_(user_ids)))
        return bool(user_ids)
