"""The table of outcomes: what applications report about calls that are over."""

from datetime import datetime

from sqlalchemy import ForeignKeyConstraint, Index
from sqlalchemy.orm import Mapped, mapped_column

from memoair_cloud.database.base import Base, ProjectOwned


class CallOutcome(ProjectOwned, Base):
    """An outcome of a call, such as ``resolved``. It may arrive before the call does."""

    __tablename__ = "call_outcomes"

    session_id: Mapped[str] = mapped_column(primary_key=True)
    id: Mapped[str] = mapped_column(primary_key=True)
    user_id: Mapped[str | None]  # None until it is known whose call it is
    agent_id: Mapped[str | None]  # the agent that reports it
    outcome: Mapped[str]
    score: Mapped[float | None]
    reported_at: Mapped[datetime]
    received_at: Mapped[datetime]

    __table_args__ = (
        ForeignKeyConstraint(["project_id", "user_id"], ["end_users.project_id", "end_users.id"], ondelete="CASCADE"),
        Index(None, "project_id", "user_id"),
        Index(None, "project_id", "reported_at", "session_id", "id"),
    )
