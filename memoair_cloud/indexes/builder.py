"""Build index files from a project's documents and publish them in the blob store."""

import logging
from datetime import timedelta

from sqlalchemy import Engine, or_, select, update
from sqlalchemy.exc import InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.orm import Session

from memoair_cloud.database.models import OrgBuild, OrgDocument, OrgFile, Project
from memoair_cloud.indexes.blobs import BlobStore
from memoair_cloud.temporary_folders import BUILD_PREFIX
from memoair_cloud.tenancy.access import Tenant, find_project_tenant
from memoair_cloud.tenancy.scoped import ScopedSession
from memoair_index import Index, split_document
from memoair_protocol.hashes import hash_file
from memoair_protocol.starvation import is_starved
from memoair_protocol.temporary import temporary_folder
from memoair_protocol.timestamps import utc_now

log = logging.getLogger(__name__)

# How long a replaced file is kept: a machine that has just learned of it may still be downloading it.
REPLACED_FILE_TTL = timedelta(minutes=10)
# After this many consecutive failures, a version is not retried until the documents change or an operator intervenes.
MAX_FAILURES = 5


def build_org_index(engine: Engine, blobs: BlobStore, project_id: str) -> int | None:
    """Build the index file of a project's latest documents, unless it exists already.

    Two workers may build for the same project concurrently: the file of the later version stays.

    Args:
        engine: The database of the server.
        blobs: The store for the file.
        project_id: The project.

    Returns:
        The version of the project's index file; None if the project does not exist.

    Raises:
        OSError: If there is no space or no blob store. It does not count as a failure of the documents.
    """
    tenant = find_project_tenant(engine, project_id)
    if tenant is None:
        return None
    with tenant.begin_read() as session:
        version = session.scalars(select(Project.org_version).where(Project.id == project_id)).one()
        built_version: int | None = session.scalar(select(OrgBuild.version))
        if built_version is not None and built_version >= version:
            return built_version
        live = select(OrgDocument).where(OrgDocument.deleted_at.is_(None))
        rows = session.scalars(live.order_by(OrgDocument.index_name, OrgDocument.version, OrgDocument.id)).all()
    try:
        index = Index()
        index.add(chunk for row in rows for chunk in split_document(row.id, row.text, row.details, row.index_name))
        with temporary_folder(BUILD_PREFIX) as folder:
            file = folder / "org.index"
            index.merge(file, lambda: {"projectId": project_id, "orgVersion": version})
            size, sha256 = file.stat().st_size, hash_file(file)
            _register_pending_file(tenant, sha256)
            blobs.put(file, sha256)
    except OSError:
        raise  # no disk space or no blob store: once that is fixed, a retry succeeds
    except (OperationalError, InterfaceError, PoolTimeout):
        raise  # no database
    except Exception as error:
        if not is_starved(error):
            _record_failure(tenant, version, error)
        raise
    with tenant.begin_write() as session:
        _record_build(session, version, sha256, size)
    return version


def find_projects_to_build(engine: Engine) -> list[str]:
    """Return the projects whose documents changed since their index file was built, queued or not."""
    with Session(engine) as session:
        outdated = (
            select(Project.id)
            .outerjoin(OrgBuild, OrgBuild.project_id == Project.id)
            .where(Project.org_version > 0)
            .where(or_(OrgBuild.version.is_(None), OrgBuild.version < Project.org_version))
            .where(
                or_(
                    OrgBuild.failures.is_(None),
                    OrgBuild.failures < MAX_FAILURES,
                    OrgBuild.failed_version != Project.org_version,
                )
            )
        )
        return list(session.scalars(outdated.order_by(Project.id)))


def remove_replaced_files(engine: Engine, blobs: BlobStore) -> int:
    """Remove files that were replaced a while ago, so that deleted text is gone; return their number."""
    with Session(engine) as session:
        statement = select(OrgFile.project_id, OrgFile.sha256).where(
            OrgFile.replaced_at < utc_now() - REPLACED_FILE_TTL
        )
        old_files = session.execute(statement).all()
    for project_id, sha256 in old_files:
        blobs.remove(sha256)  # first the file, then its row: the row is the only record that the file exists
        tenant = find_project_tenant(engine, project_id)
        if tenant is not None:
            with tenant.begin_write() as session:
                row = session.get(OrgFile, (project_id, sha256))
                if row is not None and row.replaced_at is not None:
                    session.delete(row)
    return len(old_files)


def _register_pending_file(tenant: Tenant, sha256: str) -> None:
    """Record a file before it is written, marked as replaced.

    So a file whose worker dies before publishing it is removed later.
    """
    with tenant.begin_write() as session:
        session.insert_missing(OrgFile, [{"sha256": sha256, "replaced_at": utc_now()}])


def _record_build(session: ScopedSession, version: int, sha256: str, size: int) -> None:
    now = utc_now()
    values = {"version": version, "sha256": sha256, "size": size, "built_at": now, "failure": None, "failures": 0}
    session.insert_missing(OrgBuild, [{**values, "failed_version": 0}])
    session.execute(update(OrgBuild).where(OrgBuild.version < version).values(values))
    current = select(OrgBuild.sha256).scalar_subquery()
    session.execute(
        update(OrgFile).where(OrgFile.sha256 == current).values(replaced_at=None),
        execution_options={"synchronize_session": False},
    )
    session.execute(
        update(OrgFile).where(OrgFile.sha256 != current, OrgFile.replaced_at.is_(None)).values(replaced_at=now),
        execution_options={"synchronize_session": False},
    )


def _record_failure(tenant: Tenant, version: int, error: Exception) -> None:
    # Only the type: a message may quote a document.
    failure = type(error).__name__
    log.error("an index file could not be built", extra={"action": "build_failed", "fields": {"error": failure}})
    with tenant.begin_write() as session:
        empty = {"version": 0, "sha256": None, "size": 0, "built_at": None}
        session.insert_missing(OrgBuild, [{**empty, "failure": None, "failures": 0, "failed_version": version}])
        row = session.scalars(select(OrgBuild)).one()
        row.failures = row.failures + 1 if row.failed_version == version else 1
        row.failure, row.failed_version = failure, version
