"""What a device has to know of an organisation's documents: all of it, or what has changed since it last asked."""

from typing import Any

from sqlalchemy import select

from memoair_cloud.database.models import OrgBuild, OrgDocument, OrgFile, Project
from memoair_cloud.errors import NotFoundError
from memoair_cloud.projections.hashing import content_hash
from memoair_cloud.projections.paging import PAGE_ROWS, changed
from memoair_cloud.tenancy.access import Tenant
from memoair_cloud.tenancy.scoped import ScopedSession


def project_org(
    tenant: Tenant, since: int | None, held: int | None = None, most: int = PAGE_ROWS
) -> dict[str, Any] | None:
    """What has changed since a version, or everything where none is given; the first page of it where that is much.

    None where nothing has changed since then, or since ``held``, the version of a copy that the asker still has.
    A version that was never reached here is of another life of this server (a restored database): it gets everything.
    """
    with tenant.reading() as session:
        mine = select(Project.org_version).where(Project.id == tenant.scope.project_id)
        latest: int = session.scalars(mine).one()
        if latest in (since, held):
            return None
        wanted = select(OrgDocument).order_by(OrgDocument.version, OrgDocument.index_name, OrgDocument.id)
        is_delta = since is not None and since < latest
        if not is_delta:
            wanted = wanted.where(OrgDocument.deleted_at.is_(None))
        start = since if since is not None and is_delta else 0
        rows, upto = changed(session, wanted, OrgDocument.version, OrgDocument.text, start, latest, most)
        live = [row for row in rows if row.deleted_at is None]
        gone = [row for row in rows if row.deleted_at is not None]
        hashed = [
            [[row.index_name, row.id, row.text, row.details] for row in live],
            [[row.index_name, row.id] for row in gone],
        ]
        return {
            "mode": "delta" if is_delta else "snapshot",
            "version": upto,
            "more": upto < latest,
            "contentHash": content_hash(hashed),
            "documents": [
                {"indexName": row.index_name, "id": row.id, "text": row.text, "metadata": row.details} for row in live
            ],
            "removed": [{"indexName": row.index_name, "id": row.id} for row in gone],
            "file": org_file(session),
        }


def org_file(session: ScopedSession) -> dict[str, Any] | None:
    """The index file that was last built; None where there is none."""
    build = session.scalar(select(OrgBuild))
    if build is None or build.sha256 is None:
        return None
    return {"version": build.version, "sha256": build.sha256, "size": build.size}


def check_org_file(tenant: Tenant, sha256: str) -> None:
    """Raise `NotFoundError` unless the project has, or had a moment ago, an index file of this hash."""
    with tenant.reading() as session:
        if session.scalar(select(OrgFile.sha256).where(OrgFile.sha256 == sha256)) is None:
            raise NotFoundError("there is no such file")
