"""Who said what is remembered, where several people call from one number."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the column. Memories of before have no speaker: they are of the only caller that was known."""
    op.add_column("memories", sa.Column("speaker", sa.Text(), nullable=False, server_default=""))
