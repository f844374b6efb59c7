"""What is used of a language model, by call and by day."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

_COUNTS = ("calls", "failures", "requests", "unknown", "prompt_tokens", "cached_tokens", "completion_tokens", "ms")


def upgrade() -> None:
    """Add the column and the table. Calls from before have no usage."""
    op.add_column("call_sessions", sa.Column("model_usage", sa.Text(), nullable=True))
    op.create_table(
        "model_days",
        sa.Column("project_id", sa.Text(), nullable=False),
        sa.Column("day", sa.Date(), nullable=False),
        *(sa.Column(name, sa.BigInteger(), nullable=False) for name in (*_COUNTS, "cost_micros", "kept")),
        sa.Column("dropped", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["project_id"], ["projects.id"], name="fk_model_days_project_id", ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("project_id", "day", name="pk_model_days"),
    )
