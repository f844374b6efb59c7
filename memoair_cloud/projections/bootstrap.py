"""The bootstrap projection: all current versions in one response, so that a machine pulls only what changed."""

import hashlib
import json
from typing import Any

from sqlalchemy import select

from memoair_cloud.database.models import Project
from memoair_cloud.projections.org import get_org_file
from memoair_cloud.projections.users import get_versions
from memoair_cloud.tenancy.access import Tenant
from memoair_protocol.erasure_marks import ErasureMark
from memoair_protocol.timestamps import format_utc

# The default limits of a recall.
BUDGETS = {
    "contextCharCap": 8_000,
    "perLaneCharCap": 2_400,
    "topKPermanent": 6,
    "topKOrg": 4,
    "topKWorking": 4,
}


def build_bootstrap(tenant: Tenant) -> dict[str, Any]:
    """Return the versions of a project's documents and of the tenant's user.

    ``syncToken`` changes with any of them.
    """
    with tenant.begin_read() as session:
        project = session.scalars(select(Project).where(Project.id == tenant.scope.project_id)).one()
        user_id = tenant.scope.user_id
        versions = None if user_id is None else get_versions(session, user_id)
        body = {
            "profileVersion": versions.profile if versions else None,
            "permanentManifestVersion": versions.memory if versions else None,
            "orgManifestVersion": project.org_version,
            "epoch": project.epoch,
            "retentionVersion": project.retention_version,
            "forgottenVersion": project.forgotten_version,
            "forgottenAt": format_utc(versions.forgotten_at) if versions and versions.forgotten_at else None,
            "erasure": str(ErasureMark(project.epoch or "", versions.asked_version)) if versions else None,
            "orgFile": get_org_file(session),
            "budgets": BUDGETS,
            "recallTraces": project.recall_traces,
        }
    token = hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()[:32]
    return {**body, "syncToken": token}
