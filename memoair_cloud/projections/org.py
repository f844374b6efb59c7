"""The org projection: a project's documents, all of them or the changes since a version."""

from typing import Any

from sqlalchemy import select

from memoair_cloud.database.models import OrgBuild, OrgDocument, OrgFile, Project
from memoair_cloud.errors import NotFoundError
from memoair_cloud.projections.paging import MAX_PAGE_ROWS, fetch_changes
from memoair_cloud.tenancy.access import Tenant
from memoair_cloud.tenancy.scoped import ScopedSession
from memoair_protocol.hashes import hash_content


def build_org_projection(
    tenant: Tenant, since: int | None, held_version: int | None = None, max_rows: int = MAX_PAGE_ROWS
) -> dict[str, Any] | None:
    """Return the documents that changed since a version, or all documents; large results in pages.

    Args:
        tenant: The project.
        since: The version that the machine has; None for a snapshot. A version that this server never reached comes
            from before a database restore, and gets a snapshot, too.
        held_version: The version from the machine's ETag, if any.
        max_rows: The maximum number of rows on a page.

    Returns:
        The JSON body; None if nothing changed since ``since`` or ``held_version``.
    """
    with tenant.begin_read() as session:
        statement = select(Project.org_version).where(Project.id == tenant.scope.project_id)
        latest: int = session.scalars(statement).one()
        if latest in (since, held_version):
            return None
        documents = select(OrgDocument).order_by(OrgDocument.version, OrgDocument.index_name, OrgDocument.id)
        is_delta = since is not None and since < latest
        if not is_delta:
            documents = documents.where(OrgDocument.deleted_at.is_(None))
        start = since if since is not None and is_delta else 0
        rows, up_to = fetch_changes(session, documents, OrgDocument.version, OrgDocument.text, start, latest, max_rows)
        live = [row for row in rows if row.deleted_at is None]
        removed = [row for row in rows if row.deleted_at is not None]
        hashed = [
            [[row.index_name, row.id, row.text, row.details] for row in live],
            [[row.index_name, row.id] for row in removed],
        ]
        return {
            "mode": "delta" if is_delta else "snapshot",
            "version": up_to,
            "more": up_to < latest,
            "contentHash": hash_content(hashed),
            "documents": [
                {"indexName": row.index_name, "id": row.id, "text": row.text, "metadata": row.details} for row in live
            ],
            "removed": [{"indexName": row.index_name, "id": row.id} for row in removed],
            "file": get_org_file(session),
        }


def get_org_file(session: ScopedSession) -> dict[str, Any] | None:
    """Return the latest index file of the project as JSON; None if nothing was built yet."""
    build = session.scalar(select(OrgBuild))
    if build is None or build.sha256 is None:
        return None
    return {"version": build.version, "sha256": build.sha256, "size": build.size}


def check_org_file_exists(tenant: Tenant, sha256: str) -> None:
    """Raise `NotFoundError` unless the project has, or recently had, an index file with this hash."""
    with tenant.begin_read() as session:
        if session.scalar(select(OrgFile.sha256).where(OrgFile.sha256 == sha256)) is None:
            raise NotFoundError("unknown file")
