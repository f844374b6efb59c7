"""The tables of agents' prompts: immutable versions, and labels that move between them."""

from datetime import datetime

from sqlalchemy import ForeignKeyConstraint, Index, String
from sqlalchemy.orm import Mapped, mapped_column

from memoair_cloud.database.base import Base, ProjectOwned

_AGENT = ["agents.project_id", "agents.id"]


class PromptVersion(ProjectOwned, Base):
    """A version of an agent's prompt. It is never changed."""

    __tablename__ = "prompt_versions"

    agent_id: Mapped[str] = mapped_column(primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)  # from 1, without gaps
    text: Mapped[str]  # with its placeholders
    sha256: Mapped[str] = mapped_column(String(64))  # of the text
    placeholders: Mapped[list[str]]  # of the text, in the order of their first appearance
    notes: Mapped[str]
    created_at: Mapped[datetime]
    created_by: Mapped[str]  # the name of the key or of the person

    __table_args__ = (ForeignKeyConstraint(["project_id", "agent_id"], _AGENT, ondelete="CASCADE"),)


class PromptLabel(ProjectOwned, Base):
    """A label of an agent's prompt, such as ``production``, and the version that it points to."""

    __tablename__ = "prompt_labels"

    agent_id: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(primary_key=True)
    number: Mapped[int]
    moved_at: Mapped[datetime]
    moved_by: Mapped[str]

    __table_args__ = (
        ForeignKeyConstraint(
            ["project_id", "agent_id", "number"],
            ["prompt_versions.project_id", "prompt_versions.agent_id", "prompt_versions.number"],
            ondelete="CASCADE",
        ),
    )


class PromptLabelMove(ProjectOwned, Base):
    """A move of a label: which version callers heard, and from when on."""

    __tablename__ = "prompt_label_moves"

    agent_id: Mapped[str] = mapped_column(primary_key=True)
    id: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str]
    number: Mapped[int | None]  # None: the label was removed
    replaced: Mapped[int | None]  # the version that it pointed to before; None: it was new, or had been removed
    is_rollback: Mapped[bool]
    back_to: Mapped[str | None]  # the id of the move that a rollback restores; None: there is nothing before it
    moved_at: Mapped[datetime]  # later than that of the move before, also if a clock was set back
    moved_by: Mapped[str]

    __table_args__ = (
        ForeignKeyConstraint(["project_id", "agent_id"], _AGENT, ondelete="CASCADE"),
        Index(None, "project_id", "agent_id", "name", "moved_at", "id"),
    )
