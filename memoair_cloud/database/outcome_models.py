"""The table of outcomes: what applications report about calls that are over."""

from datetime import datetime

from sqlalchemy import ForeignKeyConstraint, Index, String, text
from sqlalchemy.orm import Mapped, mapped_column

from memoair_cloud.database.base import Base, ProjectOwned

_IS_UNKNOWN = "user_id IS NULL"


class CallOutcome(ProjectOwned, Base):
    """An outcome of a call, such as ``resolved``. It may arrive before the call does.

    The user is there if and only if the call is: an outcome without its call names its user by a hash only, so that
    nothing of a caller is kept who was erased before it arrives.
    """

    __tablename__ = "call_outcomes"

    session_id: Mapped[str] = mapped_column(primary_key=True)
    id: Mapped[str] = mapped_column(primary_key=True)  # `memoair_cloud.outcomes.reporting.hash_outcome`
    user_id: Mapped[str | None]  # None until the call arrives
    user_digest: Mapped[str | None] = mapped_column(String(64))  # the hash of the user, if it is known whose call it is
    agent_id: Mapped[str | None]  # the agent that reports it
    outcome: Mapped[str]
    outcome_id: Mapped[str | None]  # of the application, which may report an outcome of a call several times
    score: Mapped[float | None]
    reported_at: Mapped[datetime]  # when it happened, as the application says
    received_at: Mapped[datetime]

    __table_args__ = (
        ForeignKeyConstraint(
            ["project_id", "user_id", "session_id"],
            ["call_sessions.project_id", "call_sessions.user_id", "call_sessions.id"],
            ondelete="CASCADE",
        ),
        # Holds all that figures need of the outcomes of a call.
        Index("ix_call_outcomes_figures", "project_id", "user_id", "session_id", "outcome", "score"),
        Index(None, "project_id", "reported_at", "session_id", "id"),
        # For a name that is rare: without it, all calls are read for one page of those with it.
        Index("ix_call_outcomes_outcome", "project_id", "outcome", "reported_at", "session_id", "id"),
        Index(
            "ix_call_outcomes_unknown",
            "project_id",
            "received_at",
            postgresql_where=text(_IS_UNKNOWN),
            sqlite_where=text(_IS_UNKNOWN),
        ),
    )
