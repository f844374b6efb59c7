"""Recall traces, and how a project keeps them."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0005"
branch_labels = None
depends_on = None

_IS_UNLINKED = sa.text("turn_id IS NOT NULL AND turn_event_id IS NULL")
_INDEXES = {
    "ix_recall_traces_project_id_session_id_occurred_at_id": ["session_id", "occurred_at", "id"],
    "ix_recall_traces_project_id_user_id_occurred_at_id": ["user_id", "occurred_at", "id"],
    "ix_recall_traces_figures": ["occurred_at", "agent_id", "total_us", "found_count", "lane_statuses", "id"],
}


def upgrade() -> None:
    """Create the tables, and the setting of projects: no mode of their own."""
    op.add_column("projects", sa.Column("recall_traces", sa.Text(), nullable=True))
    op.create_table(
        "recall_traces",
        sa.Column("project_id", sa.Text(), nullable=False),
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("user_id", sa.Text(), nullable=True),
        sa.Column("session_id", sa.Text(), nullable=False),
        sa.Column("turn_id", sa.Text(), nullable=True),
        sa.Column("turn_event_id", sa.Text(), nullable=True),
        sa.Column("agent_id", sa.Text(), nullable=True),
        sa.Column("occurred_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("received_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("mode", sa.Text(), nullable=False),
        sa.Column("origin", sa.Text(), nullable=False),
        sa.Column("intent", sa.Text(), nullable=False),
        sa.Column("total_us", sa.BigInteger(), nullable=False),
        sa.Column("deadline_ms", sa.Double(), nullable=True),
        sa.Column("is_degraded", sa.Boolean(), nullable=False),
        sa.Column("is_prefetched", sa.Boolean(), nullable=False),
        sa.Column("found_count", sa.BigInteger(), nullable=False),
        sa.Column("context_chars", sa.BigInteger(), nullable=False),
        sa.Column("confidence", sa.Double(), nullable=True),
        sa.Column("org_version", sa.BigInteger(), nullable=True),
        sa.Column("memory_version", sa.BigInteger(), nullable=True),
        sa.Column("lane_statuses", sa.Text(), nullable=False),
        sa.Column("lanes", sa.Text(), nullable=False),
        sa.Column("details", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(
            ["project_id"], ["projects.id"], name=op.f("fk_recall_traces_project_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("project_id", "id", name=op.f("pk_recall_traces")),
    )
    for name, columns in _INDEXES.items():
        op.create_index(op.f(name), "recall_traces", ["project_id", *columns])
    op.create_index(
        op.f("ix_recall_traces_unlinked"),
        "recall_traces",
        ["project_id", "user_id", "session_id"],
        postgresql_where=_IS_UNLINKED,
        sqlite_where=_IS_UNLINKED,
    )
    op.create_table(
        "recalled_documents",
        sa.Column("project_id", sa.Text(), nullable=False),
        sa.Column("trace_id", sa.Text(), nullable=False),
        sa.Column("rank", sa.BigInteger(), nullable=False),
        sa.Column("index_name", sa.Text(), nullable=False),
        sa.Column("document_id", sa.Text(), nullable=False),
        sa.Column("occurred_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("score", sa.Double(), nullable=False),
        sa.ForeignKeyConstraint(
            ["project_id"], ["projects.id"], name=op.f("fk_recalled_documents_project_id"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["project_id", "trace_id"],
            ["recall_traces.project_id", "recall_traces.id"],
            name=op.f("fk_recalled_documents_project_id_trace_id"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("project_id", "trace_id", "rank", name=op.f("pk_recalled_documents")),
    )
    op.create_index(
        op.f("ix_recalled_documents_document"),
        "recalled_documents",
        ["project_id", "index_name", "document_id", "occurred_at", "trace_id"],
    )
