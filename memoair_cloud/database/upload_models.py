"""The tables of uploads: files that are read into documents of an index."""

from datetime import datetime
from typing import Any

from sqlalchemy import ForeignKeyConstraint, Index, String, text
from sqlalchemy.orm import Mapped, mapped_column

from memoair_cloud.database.base import Base, ProjectOwned

_UPLOAD = ["uploads.project_id", "uploads.id"]


class Upload(ProjectOwned, Base):
    """Files for an index. `memoair_cloud.indexes.upload_states` defines its states."""

    __tablename__ = "uploads"

    id: Mapped[str] = mapped_column(primary_key=True)
    index_name: Mapped[str]
    state: Mapped[str]
    is_open: Mapped[bool]  # whether the state can still change: an index has one open upload at a time
    is_dry_run: Mapped[bool]
    replaces_all: Mapped[bool]
    text_columns: Mapped[list[str]]
    id_column: Mapped[str]
    encoding: Mapped[str | None]
    created_at: Mapped[datetime]
    updated_at: Mapped[datetime]
    finished_at: Mapped[datetime | None]
    # The worker that processes it, and until when no other one may.
    claim: Mapped[str | None]
    claimed_until: Mapped[datetime | None]
    failures: Mapped[int] = mapped_column(default=0)  # how often a worker stopped in the middle
    failure: Mapped[str | None]  # why it failed, in words
    added: Mapped[int] = mapped_column(default=0)
    replaced: Mapped[int] = mapped_column(default=0)
    kept: Mapped[int] = mapped_column(default=0)
    deleted: Mapped[int] = mapped_column(default=0)
    applied: Mapped[int] = mapped_column(default=0)  # of those that are added, replaced and deleted
    keeps_missing: Mapped[bool] = mapped_column(default=False)  # nothing is deleted, because a table was refused
    has_files: Mapped[bool]  # whether the blob store may have files of it

    __table_args__ = (
        Index(
            "uq_uploads_open",
            "project_id",
            "index_name",
            unique=True,
            postgresql_where=text("is_open"),
            sqlite_where=text("is_open"),
        ),
        Index(None, "project_id", "index_name", "created_at", "id"),
    )


class UploadedFile(ProjectOwned, Base):
    """A file of an upload, by its name and its content."""

    __tablename__ = "upload_files"

    upload_id: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(primary_key=True)
    sha256: Mapped[str] = mapped_column(String(64), primary_key=True)
    size: Mapped[int]
    state: Mapped[str]
    reason: Mapped[str | None]  # why it was refused
    document_count: Mapped[int]

    __table_args__ = (ForeignKeyConstraint(["project_id", "upload_id"], _UPLOAD, ondelete="CASCADE"),)


class UploadedDocument(ProjectOwned, Base):
    """A document that an upload adds, replaces, keeps or deletes. The row is deleted when that is done."""

    __tablename__ = "upload_documents"

    upload_id: Mapped[str] = mapped_column(primary_key=True)
    document_id: Mapped[str] = mapped_column(primary_key=True)
    action: Mapped[str]
    file_name: Mapped[str | None]  # None for one that is deleted
    text: Mapped[str]
    details: Mapped[dict[str, Any]] = mapped_column("metadata")

    __table_args__ = (
        ForeignKeyConstraint(["project_id", "upload_id"], _UPLOAD, ondelete="CASCADE"),
        Index(None, "project_id", "upload_id", "action", "document_id"),
        Index(None, "project_id", "upload_id", "file_name"),
    )
