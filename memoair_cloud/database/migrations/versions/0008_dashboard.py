"""Scopes of keys, sessions of the dashboard, and the audit log."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the columns and tables. Existing keys may do everything, as before."""
    op.add_column("api_keys", sa.Column("scope", sa.Text(), nullable=False, server_default="everything"))
    op.add_column("api_keys", sa.Column("project_id", sa.Text(), nullable=True))
    op.create_table(
        "dashboard_sessions",
        sa.Column("account_id", sa.Text(), nullable=False),
        sa.Column("sha256", sa.String(64), nullable=False),
        sa.Column("key_id", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("seen_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("sha256", name="pk_dashboard_sessions"),
        sa.ForeignKeyConstraint(
            ["account_id"], ["accounts.id"], name="fk_dashboard_sessions_account_id", ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(["key_id"], ["api_keys.id"], name="fk_dashboard_sessions_key_id", ondelete="CASCADE"),
    )
    op.create_index("ix_dashboard_sessions_key_id", "dashboard_sessions", ["key_id"])
    op.create_table(
        "signing_secrets",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("value", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_signing_secrets"),
    )
    op.create_table(
        "audit_entries",
        sa.Column("project_id", sa.Text(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("actor_kind", sa.Text(), nullable=False),
        sa.Column("actor_id", sa.Text(), nullable=False),
        sa.Column("actor_name", sa.Text(), nullable=False),
        sa.Column("action", sa.Text(), nullable=False),
        sa.Column("target", sa.Text(), nullable=True),
        sa.Column("user_id", sa.Text(), nullable=True),
        sa.Column("user_digest", sa.String(64), nullable=False),
        sa.PrimaryKeyConstraint("project_id", "at", "id", name="pk_audit_entries"),
        sa.ForeignKeyConstraint(
            ["project_id"], ["projects.id"], name="fk_audit_entries_project_id", ondelete="CASCADE"
        ),
    )
    op.create_index(
        "ix_audit_entries_project_id_user_digest_at_id", "audit_entries", ["project_id", "user_digest", "at", "id"]
    )
    op.create_index("ix_audit_entries_user_id", "audit_entries", ["project_id", "user_id"])
