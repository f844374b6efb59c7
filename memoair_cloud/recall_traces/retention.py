"""Delete recall traces that are older than their project keeps them."""

from datetime import datetime, timedelta

from sqlalchemy import Engine, delete, select
from sqlalchemy.orm import Session

from memoair_cloud.database.engine import WRITE_OPTION
from memoair_cloud.database.models import Project
from memoair_cloud.database.recall_trace_models import RecallTrace

# At most this many traces of each project are deleted in one transaction, so that it does not hold up the ingest.
BATCH_SIZE = 2_000


def remove_expired_traces(engine: Engine, now: datetime, batch_size: int = BATCH_SIZE) -> int:
    """Delete traces that are older than their project keeps them, of each project at most a batch.

    Call it again later for the rest.

    Args:
        engine: The database of the server.
        now: The current time.
        batch_size: The maximum number of traces of a project.

    Returns:
        The number of deleted traces.
    """
    count = 0
    for project_id, days in _find_projects_with_traces(engine):
        count += _remove_expired_batch(engine, project_id, now - timedelta(days=days), batch_size)
    return count


def _find_projects_with_traces(engine: Engine) -> list[tuple[str, int]]:
    has_traces = select(RecallTrace.id).where(RecallTrace.project_id == Project.id).exists()
    statement = select(Project.id, Project.recall_trace_days).where(has_traces).order_by(Project.id)
    with Session(engine) as session:
        return [(row.id, row.recall_trace_days) for row in session.execute(statement)]


def _remove_expired_batch(engine: Engine, project_id: str, before: datetime, batch_size: int) -> int:
    expired = select(RecallTrace.id).where(RecallTrace.project_id == project_id, RecallTrace.occurred_at < before)
    # Read first: mostly there is nothing, and the write lock of SQLite is not needed for that.
    with Session(engine) as session:
        trace_ids = session.scalars(expired.order_by(RecallTrace.occurred_at).limit(batch_size)).all()
    if trace_ids:
        statement = delete(RecallTrace).where(RecallTrace.project_id == project_id, RecallTrace.id.in_(trace_ids))
        with Session(engine.execution_options(**{WRITE_OPTION: True})) as session, session.begin():
            session.execute(statement, execution_options={"synchronize_session": False})
    return len(trace_ids)
