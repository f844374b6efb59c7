"""From a project's documents to an index file in the blob store."""

import tempfile
from pathlib import Path

from sqlalchemy import Engine, select, update
from sqlalchemy.orm import Session

from memoair_cloud.database.engine import WRITES
from memoair_cloud.database.models import OrgBuild, OrgDocument, Project
from memoair_cloud.indexes.blobs import BlobStore
from memoair_cloud.moments import utc_now
from memoair_cloud.tenancy.scoped import Scope, ScopedSession
from memoair_index import Index, documents_of


def build_org_index(engine: Engine, blobs: BlobStore, project_id: str) -> int | None:
    """Build the file of a project's latest documents, unless it is there; return the version that it now has.

    None where the project is gone. Two workers may build one project: the file of the later version stays.
    """
    scope = _scope(engine, project_id)
    if scope is None:
        return None
    with ScopedSession(engine, scope) as session, session.begin():
        version = session.scalars(select(Project.org_version).where(Project.id == project_id)).one()
        built: int | None = session.scalar(select(OrgBuild.version))
        if built is not None and built >= version:
            return built
        live = select(OrgDocument).where(OrgDocument.deleted_at.is_(None))
        rows = session.scalars(live.order_by(OrgDocument.index_name, OrgDocument.version, OrgDocument.id)).all()
        # Writers change documents and version in one transaction, but each statement of ours may see another one; so
        # the file may be newer than its version tells, never older.
    index = Index()
    index.add(chunk for row in rows for chunk in documents_of(row.id, row.text, row.details, row.index_name))
    with tempfile.TemporaryDirectory(prefix="memoair-build-") as folder:
        file = Path(folder) / "org.index"
        index.merge(file, lambda: {"projectId": project_id, "orgVersion": version})
        size = file.stat().st_size
        sha256 = blobs.put(file)
    writer = engine.execution_options(**{WRITES: True})
    with ScopedSession(writer, scope) as session, session.begin():
        _note(session, version, sha256, size)
    return version


def projects_to_build(engine: Engine) -> list[str]:
    """The projects whose documents have changed since their file was built, whoever forgot to ask for it."""
    with Session(engine) as session:
        built = select(OrgBuild.version).where(OrgBuild.project_id == Project.id).scalar_subquery()
        behind = select(Project.id).where(Project.org_version > 0, (built.is_(None)) | (built < Project.org_version))
        return list(session.scalars(behind.order_by(Project.id)))


def _scope(engine: Engine, project_id: str) -> Scope | None:
    with Session(engine) as session:
        account_id = session.scalar(select(Project.account_id).where(Project.id == project_id))
    return None if account_id is None else Scope(account_id, project_id)


def _note(session: ScopedSession, version: int, sha256: str, size: int) -> None:
    built = {"version": version, "sha256": sha256, "size": size, "built_at": utc_now(), "failure": None}
    session.insert_new(OrgBuild, [built])
    session.execute(update(OrgBuild).where(OrgBuild.version < version).values(built))
