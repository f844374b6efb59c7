"""From a project's documents to an index file in the blob store."""

import logging
import tempfile
from datetime import timedelta
from pathlib import Path

from sqlalchemy import Engine, or_, select, update
from sqlalchemy.orm import Session

from memoair_cloud.database.models import OrgBuild, OrgDocument, OrgFile, Project
from memoair_cloud.indexes.blobs import BlobStore, hash_of
from memoair_cloud.tenancy.access import Tenant, tenant_of_project
from memoair_cloud.tenancy.scoped import ScopedSession
from memoair_cloud.timeutil import utc_now
from memoair_index import Index, split_document

log = logging.getLogger(__name__)

# A device that has been told of a file may still be fetching it when the next one is there.
KEPT_AFTER = timedelta(minutes=10)
# After so many failures one after another a version is let alone, until there is another one or an operator says so.
MOST_FAILURES = 5


def build_org_index(engine: Engine, blobs: BlobStore, project_id: str) -> int | None:
    """Build the file of a project's latest documents, unless it is there; return the version that it now has.

    None where the project is gone. Two workers may build one project: the file of the later version stays.
    """
    tenant = tenant_of_project(engine, project_id)
    if tenant is None:
        return None
    with tenant.reading() as session:
        version = session.scalars(select(Project.org_version).where(Project.id == project_id)).one()
        built: int | None = session.scalar(select(OrgBuild.version))
        if built is not None and built >= version:
            return built
        live = select(OrgDocument).where(OrgDocument.deleted_at.is_(None))
        rows = session.scalars(live.order_by(OrgDocument.index_name, OrgDocument.version, OrgDocument.id)).all()
    try:
        index = Index()
        index.add(chunk for row in rows for chunk in split_document(row.id, row.text, row.details, row.index_name))
        with tempfile.TemporaryDirectory(prefix="memoair-build-") as folder:
            file = Path(folder) / "org.index"
            index.merge(file, lambda: {"projectId": project_id, "orgVersion": version})
            size, sha256 = file.stat().st_size, hash_of(file)
            _announce(tenant, sha256)
            blobs.put(file, sha256)
    except OSError:
        raise  # no room, or no blob store: that will be mended, and then the next try succeeds
    except Exception as error:
        _note_failure(tenant, version, error)
        raise
    with tenant.writing() as session:
        _note(session, version, sha256, size)
    return version


def projects_to_build(engine: Engine) -> list[str]:
    """The projects whose documents have changed since their file was built, whoever forgot to ask for it."""
    with Session(engine) as session:
        behind = (
            select(Project.id)
            .outerjoin(OrgBuild, OrgBuild.project_id == Project.id)
            .where(Project.org_version > 0)
            .where(or_(OrgBuild.version.is_(None), OrgBuild.version < Project.org_version))
            .where(
                or_(
                    OrgBuild.failures.is_(None),
                    OrgBuild.failures < MOST_FAILURES,
                    OrgBuild.failed_version != Project.org_version,
                )
            )
        )
        return list(session.scalars(behind.order_by(Project.id)))


def remove_old_files(engine: Engine, blobs: BlobStore) -> int:
    """Remove files that others have replaced a while ago, so that what was deleted is gone; return how many."""
    with Session(engine) as session:
        old = select(OrgFile.project_id, OrgFile.sha256).where(OrgFile.replaced_at < utc_now() - KEPT_AFTER)
        found = session.execute(old).all()
    for project_id, sha256 in found:
        blobs.remove(sha256)  # first, or nobody would remember that it is there
        tenant = tenant_of_project(engine, project_id)
        if tenant is not None:
            with tenant.writing() as session:
                row = session.get(OrgFile, (project_id, sha256))
                if row is not None and row.replaced_at is not None:
                    session.delete(row)
    return len(found)


def _announce(tenant: Tenant, sha256: str) -> None:
    """Note that there will be a file, as one that is to go: whoever writes it may die before he says it is current."""
    with tenant.writing() as session:
        session.insert_new(OrgFile, [{"sha256": sha256, "replaced_at": utc_now()}])


def _note(session: ScopedSession, version: int, sha256: str, size: int) -> None:
    now = utc_now()
    built = {"version": version, "sha256": sha256, "size": size, "built_at": now, "failure": None, "failures": 0}
    session.insert_new(OrgBuild, [{**built, "failed_version": 0}])
    session.execute(update(OrgBuild).where(OrgBuild.version < version).values(built))
    current = select(OrgBuild.sha256).scalar_subquery()
    session.execute(
        update(OrgFile).where(OrgFile.sha256 == current).values(replaced_at=None),
        execution_options={"synchronize_session": False},
    )
    session.execute(
        update(OrgFile).where(OrgFile.sha256 != current, OrgFile.replaced_at.is_(None)).values(replaced_at=now),
        execution_options={"synchronize_session": False},
    )


def _note_failure(tenant: Tenant, version: int, error: Exception) -> None:
    # Its kind only: a message may quote a document.
    kind = type(error).__name__
    log.error("an index can't be built", extra={"action": "build_failed", "fields": {"error": kind}})
    with tenant.writing() as session:
        empty = {"version": 0, "sha256": None, "size": 0, "built_at": None}
        session.insert_new(OrgBuild, [{**empty, "failure": None, "failures": 0, "failed_version": version}])
        row = session.scalars(select(OrgBuild)).one()
        row.failures = row.failures + 1 if row.failed_version == version else 1
        row.failure, row.failed_version = kind, version
