"""The tables of recall traces."""

from datetime import datetime
from typing import Any

from sqlalchemy import ForeignKeyConstraint, Index, text
from sqlalchemy.orm import Mapped, mapped_column

from memoair_cloud.database.base import Base, ProjectOwned

_IS_UNLINKED = "turn_id IS NOT NULL AND turn_event_id IS NULL"


class RecallTrace(ProjectOwned, Base):
    """The record of one search. It refers to its user, session and turn by id only: it may arrive before them.

    Erasing a user deletes their traces explicitly, see `memoair_cloud.recall_traces.erasure`.
    """

    __tablename__ = "recall_traces"

    id: Mapped[str] = mapped_column(primary_key=True)
    user_id: Mapped[str | None]  # None for a search of the organization's documents without a caller
    session_id: Mapped[str]
    turn_id: Mapped[str | None]  # the turn that followed the search, as the application calls it
    turn_event_id: Mapped[str | None]  # its event
    agent_id: Mapped[str | None]
    prompt_version: Mapped[int | None]  # of the agent's prompt in this call, if the machine knew it
    occurred_at: Mapped[datetime]
    received_at: Mapped[datetime]
    mode: Mapped[str]  # "ids" or "text"
    origin: Mapped[str]  # `RecallOrigin`
    intent: Mapped[str]
    total_us: Mapped[int]  # the whole search, in microseconds
    deadline_ms: Mapped[float | None]
    is_degraded: Mapped[bool]
    is_prefetched: Mapped[bool]
    found_count: Mapped[int]  # hits of all lanes but the profile
    context_chars: Mapped[int]
    confidence: Mapped[float | None]  # the highest of its lanes
    org_version: Mapped[int | None]  # of the documents that were searched
    memory_version: Mapped[int | None]  # of the user's memory that was searched
    # The status of each lane in one word, for example "org:late permanent:ok": figures group by it without reading
    # the details.
    lane_statuses: Mapped[str]
    lanes: Mapped[dict[str, Any]]  # by lane: status, ms, hits, chars, confidence
    details: Mapped[dict[str, Any]]  # by lane: the hits; notes; in the mode "text" the words

    @property
    def total_ms(self) -> float:
        """The whole search, in milliseconds."""
        return self.total_us / 1e3

    __table_args__ = (
        Index(None, "project_id", "session_id", "occurred_at", "id"),
        Index(None, "project_id", "user_id", "occurred_at", "id"),
        # Holds all that figures need: a period of 100,000 searches is read from the index alone.
        Index(
            "ix_recall_traces_figures",
            "project_id",
            "occurred_at",
            "agent_id",
            "prompt_version",
            "total_us",
            "found_count",
            "lane_statuses",
            "id",
        ),
        Index(
            "ix_recall_traces_unlinked",
            "project_id",
            "user_id",
            "session_id",
            postgresql_where=text(_IS_UNLINKED),
            sqlite_where=text(_IS_UNLINKED),
        ),
    )


class RecalledDocument(ProjectOwned, Base):
    """A document that a search found: tells which searches found a document."""

    __tablename__ = "recalled_documents"

    trace_id: Mapped[str] = mapped_column(primary_key=True)
    rank: Mapped[int] = mapped_column(primary_key=True)  # its place among the hits of the documents, from 1
    index_name: Mapped[str]
    document_id: Mapped[str]
    occurred_at: Mapped[datetime]
    score: Mapped[float]

    __table_args__ = (
        ForeignKeyConstraint(
            ["project_id", "trace_id"], ["recall_traces.project_id", "recall_traces.id"], ondelete="CASCADE"
        ),
        Index("ix_recalled_documents_document", "project_id", "index_name", "document_id", "occurred_at", "trace_id"),
    )
