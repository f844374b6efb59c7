"""Remove what was learned before a project excluded its kind."""

from sqlalchemy import Engine, select
from sqlalchemy.orm import Session

from memoair_cloud.calls.users import lock_user
from memoair_cloud.database.engine import purge_wal
from memoair_cloud.database.models import Memory, Project
from memoair_cloud.evaluation.replay_changes import delete_replay_results
from memoair_cloud.memories.reconcile import MemoryReconciler
from memoair_cloud.memories.states import RETAINED_STATES
from memoair_cloud.tenancy.access import find_project_tenant
from memoair_protocol.timestamps import utc_now

_ACTOR = "exclusion"


def find_projects_to_clean(engine: Engine) -> list[str]:
    """Return the projects whose excluded kinds have changed since their memories were looked through."""
    with Session(engine) as session:
        return list(session.scalars(select(Project.id).where(Project.has_new_exclusions).order_by(Project.id)))


def remove_excluded_memories(engine: Engine, project_id: str) -> int:
    """Withdraw the memories of a project that are of excluded kinds, with their content; return how many.

    Each user is a transaction of its own. If the server dies, the next sweep begins again.
    """
    tenant = find_project_tenant(engine, project_id)
    if tenant is None:
        return 0
    with tenant.begin_read() as session:
        project = session.get(Project, project_id)
        excluded = () if project is None else tuple(project.excluded_kinds)
        states = [state.value for state in RETAINED_STATES]
        users = list(session.scalars(select(Memory.user_id).where(Memory.state.in_(states)).distinct()))
    count = 0
    for user_id in users:
        with tenant.begin_write() as session:
            user = lock_user(session, user_id)
            if user is not None:
                withdrawn = MemoryReconciler(session, user, utc_now(), _ACTOR).withdraw_excluded(excluded)
                count += withdrawn
                if withdrawn:
                    delete_replay_results(session, user_id)
    with tenant.begin_write() as session:
        project = session.get(Project, project_id)
        if project is not None and tuple(project.excluded_kinds) == excluded:
            project.has_new_exclusions = False
    purge_wal(engine)
    return count
