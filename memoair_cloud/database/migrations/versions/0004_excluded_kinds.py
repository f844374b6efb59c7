"""What a project excludes from learning."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the columns. Memories of the kinds that are excluded by default are removed as soon as a worker runs."""
    default = sa.text("""'["iban", "card", "security_code"]'""")
    op.add_column("projects", sa.Column("excluded_kinds", sa.Text(), nullable=False, server_default=default))
    op.add_column("projects", sa.Column("has_new_exclusions", sa.Boolean(), nullable=False, server_default=sa.true()))
