"""An index of the calls of a period that also counts their callers."""

from alembic import op

revision = "0012"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Replace the index by a longer one."""
    op.drop_index("ix_call_sessions_project_id_started_at", "call_sessions")
    columns = ["project_id", "started_at", "user_id", "id", "agent_id"]
    op.create_index("ix_call_sessions_started_at", "call_sessions", columns)
