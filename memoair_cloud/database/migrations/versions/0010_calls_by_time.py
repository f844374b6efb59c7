"""The calls of a project in the order of time."""

from alembic import op

revision = "0010"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the index with which the calls of all callers are listed."""
    op.create_index(None, "call_sessions", ["project_id", "started_at", "user_id", "id"])
