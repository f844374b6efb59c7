"""The backlog and permanently failed work of all projects, for operators. Contains no words of callers."""

from datetime import datetime

import attrs
from sqlalchemy import Engine, and_, func, or_, select, update
from sqlalchemy.orm import Session

from memoair_cloud.calls.search import IS_BACKLOG, IS_DEAD
from memoair_cloud.database.engine import WRITE_OPTION
from memoair_cloud.database.evaluation_models import EvaluationRun
from memoair_cloud.database.models import CallSession, OrgBuild, Project
from memoair_cloud.indexes import builder
from memoair_cloud.tenancy.access import Tenant


@attrs.frozen
class DeadLetter:
    """Work that failed too often to be retried automatically.

    Attributes:
        work: ``"learn"`` for calls, ``"build"`` for the index file of a project's documents.
        project_id: The project that it belongs to.
        failure: The type of the last error.
        count: The number of calls; 1 for an index file.
        since: When the oldest of the calls received its last event, or when the index file was last built.
    """

    work: str
    project_id: str
    failure: str
    count: int
    since: datetime | None


@attrs.frozen
class Backlog:
    """Work that is waiting, without dead letters.

    Attributes:
        calls: The number of ended calls that are not consolidated yet.
        oldest_call_at: When the call that has waited longest received its last event; None if no call waits.
        builds: The number of projects whose documents changed since their index file was built.
        runs: The number of runs of evaluations that are not over.
    """

    calls: int
    oldest_call_at: datetime | None
    builds: int
    runs: int


_IS_DEAD_BUILD = and_(
    OrgBuild.failures >= builder.MAX_FAILURES,
    OrgBuild.failed_version == Project.org_version,
    OrgBuild.version < Project.org_version,
)


def list_dead_letters(engine: Engine) -> list[DeadLetter]:
    """Return the work that failed permanently, by project and type of error.

    Args:
        engine: The database of the server.
    """
    failure = func.coalesce(CallSession.failure, "")
    calls = (
        select(CallSession.project_id, failure, func.count(), func.min(CallSession.received_at))
        .where(IS_DEAD)
        .group_by(CallSession.project_id, failure)
        .order_by(CallSession.project_id, failure)
    )
    builds = (
        select(OrgBuild.project_id, OrgBuild.failure, OrgBuild.built_at)
        .join(Project, Project.id == OrgBuild.project_id)
        .where(_IS_DEAD_BUILD)
        .order_by(OrgBuild.project_id)
    )
    with Session(engine) as session:
        call_letters = [DeadLetter("learn", *row) for row in session.execute(calls)]
        return [
            *call_letters,
            *(DeadLetter("build", row[0], row[1] or "", 1, row[2]) for row in session.execute(builds)),
        ]


def retry_dead_letters(engine: Engine) -> int:
    """Reset the failure counts of all dead letters, so that workers retry them.

    Args:
        engine: The database of the server.

    Returns:
        The number of calls and index files that will be retried.
    """
    with Session(engine.execution_options(**{WRITE_OPTION: True})) as session, session.begin():
        return _retry(session)


def get_backlog(engine: Engine) -> Backlog:
    """Return the work that is waiting.

    Args:
        engine: The database of the server.
    """
    calls = select(func.count(), func.min(CallSession.received_at)).where(IS_BACKLOG)
    never_built = OrgBuild.version.is_(None)
    outdated = (
        select(func.count())
        .select_from(Project)
        .outerjoin(OrgBuild, OrgBuild.project_id == Project.id)
        .where(Project.org_version > 0, or_(never_built, and_(OrgBuild.version < Project.org_version, ~_IS_DEAD_BUILD)))
    )
    with Session(engine) as session:
        count, oldest = session.execute(calls).one()
        runs = select(func.count()).select_from(EvaluationRun).where(EvaluationRun.is_open)
        return Backlog(count, oldest, session.scalars(outdated).one(), session.scalars(runs).one())


def retry_project_dead_letters(tenant: Tenant) -> int:
    """Reset the failure counts of a project's dead letters, so that workers retry them.

    Args:
        tenant: The project.

    Returns:
        The number of calls and index files that will be retried.
    """
    with tenant.begin_write() as session:
        return _retry(session)


def _retry(session: Session) -> int:
    """Reset the failure counts of all dead letters that a session reaches; return their number."""
    dead_builds = select(OrgBuild.project_id).join(Project, Project.id == OrgBuild.project_id).where(_IS_DEAD_BUILD)
    builds = update(OrgBuild).where(OrgBuild.project_id.in_(dead_builds.scalar_subquery())).values(failures=0)
    calls = update(CallSession).where(IS_DEAD).values(failures=0, retry_at=None)
    return sum(
        session.execute(statement, execution_options={"synchronize_session": False}).rowcount  # type: ignore[attr-defined]
        for statement in (builds, calls)
    )


def find_project_dead_build(tenant: Tenant) -> DeadLetter | None:
    """Return the index file of a project's documents if it failed permanently; None otherwise."""
    with tenant.begin_read() as session:
        dead = select(OrgBuild).join(Project, Project.id == OrgBuild.project_id).where(_IS_DEAD_BUILD)
        build = session.scalar(dead)
        if build is None:
            return None
        return DeadLetter("build", build.project_id, build.failure or "", 1, build.built_at)
