"""The epoch of a project's data, by which machines notice that it was restored from a backup."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the column. Existing projects have no epoch until they are restored: nothing is sent again on an upgrade."""
    op.add_column("projects", sa.Column("epoch", sa.Text(), nullable=True))
