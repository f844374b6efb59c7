"""How long a project keeps data, legal holds, and receipts of erasures."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the columns, the table and the indexes. Nothing is dropped until a project sets a period."""
    for name in ("keep_turns_days", "keep_callers_days"):
        op.add_column("projects", sa.Column(name, sa.BigInteger(), nullable=True))
    op.add_column("projects", sa.Column("keep_traces_days", sa.BigInteger(), nullable=True, server_default="30"))
    op.add_column("projects", sa.Column("drops_facts", sa.Boolean(), nullable=False, server_default=sa.false()))
    op.add_column("projects", sa.Column("retention_version", sa.BigInteger(), nullable=False, server_default="0"))
    for name in ("turns_dropped_until", "facts_dropped_until"):
        op.add_column("end_users", sa.Column(name, sa.DateTime(timezone=True), nullable=True))
    op.add_column("forgotten_users", sa.Column("receipt", sa.Text(), nullable=True))
    op.create_table(
        "legal_holds",
        sa.Column("project_id", sa.Text(), nullable=False),
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("user_id", sa.Text(), nullable=True),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("placed_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("placed_by", sa.Text(), nullable=False),
        sa.Column("lifted_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("lifted_by", sa.Text(), nullable=True),
        sa.Column("lift_reason", sa.Text(), nullable=True),
        sa.ForeignKeyConstraint(["project_id"], ["projects.id"], name="fk_legal_holds_project_id", ondelete="CASCADE"),
        sa.ForeignKeyConstraint(
            ["project_id", "user_id"],
            ["end_users.project_id", "end_users.id"],
            name="fk_legal_holds_project_id_user_id",
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("project_id", "id", name="pk_legal_holds"),
    )
    op.create_index("ix_legal_holds_project_id_user_id", "legal_holds", ["project_id", "user_id"])
    op.create_index("ix_end_users_project_id_last_seen_at_id", "end_users", ["project_id", "last_seen_at", "id"])
    columns = ["project_id", "started_at", "user_id", "id", "agent_id"]
    op.create_index("ix_call_sessions_started_at", "call_sessions", columns)
