"""Uploads: files that are read into documents of an index."""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the tables."""
    op.create_table(
        "uploads",
        _text("project_id"),
        _text("id"),
        _text("index_name"),
        _text("state"),
        sa.Column("is_open", sa.Boolean(), nullable=False),
        sa.Column("is_dry_run", sa.Boolean(), nullable=False),
        sa.Column("replaces_all", sa.Boolean(), nullable=False),
        _text("text_columns"),
        _text("id_column"),
        _text("encoding", nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        _text("claim", nullable=True),
        sa.Column("claimed_until", sa.DateTime(timezone=True), nullable=True),
        _count("failures"),
        _text("failure", nullable=True),
        *(_count(name) for name in ("added", "replaced", "kept", "deleted", "applied")),
        sa.Column("keeps_missing", sa.Boolean(), nullable=False),
        sa.Column("has_files", sa.Boolean(), nullable=False),
        sa.ForeignKeyConstraint(["project_id"], ["projects.id"], name="fk_uploads_project_id", ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("project_id", "id", name="pk_uploads"),
    )
    op.create_index(
        "uq_uploads_open",
        "uploads",
        ["project_id", "index_name"],
        unique=True,
        postgresql_where=sa.text("is_open"),
        sqlite_where=sa.text("is_open"),
    )
    op.create_index(None, "uploads", ["project_id", "index_name", "created_at", "id"])
    op.create_table(
        "upload_files",
        _text("project_id"),
        _text("upload_id"),
        _text("name"),
        sa.Column("sha256", sa.String(64), nullable=False),
        _count("size"),
        _text("state"),
        _text("reason", nullable=True),
        _count("document_count"),
        *_of_upload("upload_files", "name", "sha256"),
    )
    op.create_table(
        "upload_documents",
        _text("project_id"),
        _text("upload_id"),
        _text("document_id"),
        _text("action"),
        _text("file_name", nullable=True),
        _text("text"),
        _text("metadata"),
        *_of_upload("upload_documents", "document_id"),
    )
    for column in (["action", "document_id"], ["file_name"]):
        op.create_index(None, "upload_documents", ["project_id", "upload_id", *column])


def _text(name: str, *, nullable: bool = False) -> "sa.Column[str]":
    return sa.Column(name, sa.Text(), nullable=nullable)


def _count(name: str) -> "sa.Column[int]":
    return sa.Column(name, sa.BigInteger(), nullable=False)


def _of_upload(table: str, *key: str) -> list[sa.schema.SchemaItem]:
    return [
        sa.ForeignKeyConstraint(["project_id"], ["projects.id"], name=f"fk_{table}_project_id", ondelete="CASCADE"),
        sa.ForeignKeyConstraint(
            ["project_id", "upload_id"],
            ["uploads.project_id", "uploads.id"],
            name=f"fk_{table}_project_id_upload_id",
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("project_id", "upload_id", *key, name=f"pk_{table}"),
    ]
