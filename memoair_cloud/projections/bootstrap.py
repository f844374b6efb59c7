"""The first thing that a device asks: how far everything has come, in one answer, so that it pulls only what is new."""

import hashlib
import json
from typing import Any

from sqlalchemy import select

from memoair_cloud.database.models import Project
from memoair_cloud.projections.org import org_file
from memoair_cloud.projections.users import versions_of
from memoair_cloud.tenancy.access import Tenant
from memoair_cloud.timeutil import iso

# What a recall gives where nobody says otherwise.
BUDGETS = {
    "contextCharCap": 8_000,
    "perLaneCharCap": 2_400,
    "topKPermanent": 6,
    "topKOrg": 4,
    "topKWorking": 4,
}


def bootstrap(tenant: Tenant) -> dict[str, Any]:
    """The versions of a project's documents and of the caller that the tenant names; ``syncToken`` changes with any."""
    with tenant.reading() as session:
        project = session.scalars(select(Project).where(Project.id == tenant.scope.project_id)).one()
        user_id = tenant.scope.user_id
        caller = None if user_id is None else versions_of(session, user_id)
        told = {
            "profileVersion": caller.profile if caller else None,
            "permanentManifestVersion": caller.memory if caller else None,
            "orgManifestVersion": project.org_version,
            "forgottenVersion": project.forgotten_version,
            "forgottenAt": iso(caller.forgotten_at) if caller and caller.forgotten_at else None,
            "orgFile": org_file(session),
            "budgets": BUDGETS,
        }
    token = hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:32]
    return {**told, "syncToken": token}
