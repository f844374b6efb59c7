"""What a device has to know of an organisation's documents: all of it, or what has changed since it last asked."""

import hashlib
import json
from collections.abc import Sequence
from typing import Any

import attrs
from sqlalchemy import select

from memoair_cloud.database.models import OrgBuild, OrgDocument, Project
from memoair_cloud.tenancy.access import Tenant


@attrs.frozen
class OrgProjection:
    """The documents of a project at one version. In a delta, ``removed`` names those to be dropped."""

    is_delta: bool
    version: int
    documents: Sequence[OrgDocument]
    removed: Sequence[OrgDocument]
    build: OrgBuild | None

    def content_hash(self) -> str:
        """SHA-256 of what is told: a device compares it with what it has received."""
        told: list[Any] = [[row.index_name, row.id, row.text, row.details] for row in self.documents]
        gone = [[row.index_name, row.id] for row in self.removed]
        return hashlib.sha256(json.dumps([told, gone], sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def project_org(tenant: Tenant, since: int | None, held: int | None = None) -> OrgProjection | None:
    """What has changed since a version, or everything where none is given.

    None where nothing has changed since then, or since ``held``, the version of a copy that the asker still has.
    A version that was never reached here is of another life of this server (a restored database): it gets everything.
    """
    with tenant.reading() as session:
        mine = select(Project.org_version).where(Project.id == tenant.scope.project_id)
        version: int = session.scalars(mine).one()
        if version in (since, held):
            return None
        wanted = select(OrgDocument).order_by(OrgDocument.index_name, OrgDocument.id)
        is_delta = False
        if since is not None and since < version:
            is_delta, wanted = True, wanted.where(OrgDocument.version > since)
        else:
            wanted = wanted.where(OrgDocument.deleted_at.is_(None))
        rows = session.scalars(wanted).all()
        live = [row for row in rows if row.deleted_at is None]
        gone = [row for row in rows if row.deleted_at is not None]
        return OrgProjection(is_delta, version, live, gone, session.scalar(select(OrgBuild)))
