"""After a restore from a backup: give all projects a new epoch, so that machines compare and send again."""

import uuid

from sqlalchemy import Engine, update
from sqlalchemy.orm import Session

from memoair_cloud.database.engine import WRITE_OPTION
from memoair_cloud.database.models import OrgBuild, Project


def begin_new_epoch(engine: Engine) -> int:
    """Give all projects a new epoch, and have their index files built again: the blob store may lack them.

    Args:
        engine: The database of the server.

    Returns:
        The number of projects.
    """
    unsynchronized = {"synchronize_session": False}
    with Session(engine.execution_options(**{WRITE_OPTION: True})) as session, session.begin():
        session.execute(update(OrgBuild).values(version=0, failures=0), execution_options=unsynchronized)
        updated = session.execute(update(Project).values(epoch=new_epoch()), execution_options=unsynchronized)
        return int(updated.rowcount)  # type: ignore[attr-defined]


def new_epoch() -> str:
    """Return an epoch that was never used before."""
    return uuid.uuid4().hex
