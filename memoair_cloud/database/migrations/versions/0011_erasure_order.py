"""Erasures by number: what was said after one is known by what a machine knew, and not by its clock."""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the number and the time of the last erasure that was asked for. One for inactivity goes by time alone."""
    op.add_column("forgotten_users", sa.Column("asked_version", sa.BigInteger(), nullable=False, server_default="0"))
    op.add_column("forgotten_users", sa.Column("asked_at", sa.DateTime(timezone=True), nullable=True))
    users = sa.table(
        "forgotten_users",
        *(sa.column(name) for name in ("version", "forgotten_at", "receipt", "asked_version", "asked_at")),
    )
    receipt = sa.cast(users.c.receipt, sa.Text())
    was_asked = sa.or_(receipt.is_(None), receipt.not_like('%"retention"%'))
    op.execute(users.update().where(was_asked).values(asked_version=users.c.version, asked_at=users.c.forgotten_at))
