"""What is learned about users: memories, profiles, versions for devices, and records of erased users."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

_NOUGHT = sa.text("0")
_EPOCH = sa.text("'1970-01-01 00:00:00'")
_PROJECT = ["projects.id"]
_MEMORY_INDEXES = (
    ["version", "id"],
    ["session_id"],
    ["subject", "attribute"],
    ["barred"],
    ["state", "said_at", "id"],
)
_USER = ["end_users.project_id", "end_users.id"]


def upgrade() -> None:
    """Create the tables. Existing events get version 1 and are consolidated as soon as a worker runs."""
    # Columns are only added, tables never recreated: SQLite would delete the rows that refer to the old table.
    _add("projects", sa.Column("forgotten_version", sa.BigInteger(), nullable=False, server_default=_NOUGHT))
    _add(
        "end_users",
        sa.Column("memory_version", sa.BigInteger(), nullable=False, server_default=_NOUGHT),
        sa.Column("memory_floor", sa.BigInteger(), nullable=False, server_default=_NOUGHT),
        sa.Column("profile_version", sa.BigInteger(), nullable=False, server_default=_NOUGHT),
    )
    _add(
        "call_sessions",
        sa.Column("event_count", sa.BigInteger(), nullable=False, server_default=_NOUGHT),
        sa.Column("received_at", sa.DateTime(timezone=True), nullable=False, server_default=_EPOCH),
        sa.Column("learned_count", sa.BigInteger(), nullable=False, server_default=_NOUGHT),
        sa.Column("claimed_until", sa.DateTime(timezone=True), nullable=True),
        sa.Column("failures", sa.BigInteger(), nullable=False, server_default=_NOUGHT),
        sa.Column("retry_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("failure", sa.Text(), nullable=True),
    )
    _add("call_events", sa.Column("version", sa.BigInteger(), nullable=False, server_default=sa.text("1")))
    _add(
        "org_builds",
        sa.Column("failures", sa.BigInteger(), nullable=False, server_default=_NOUGHT),
        sa.Column("failed_version", sa.BigInteger(), nullable=False, server_default=_NOUGHT),
    )
    _make_tables()
    _carry_over()
    op.create_index(
        "ix_call_events_project_id_user_id_version_id", "call_events", ["project_id", "user_id", "version", "id"]
    )
    unlearned = sa.text("learned_count < event_count")
    op.create_index(
        "ix_call_sessions_unlearned",
        "call_sessions",
        ["project_id", "received_at"],
        postgresql_where=unlearned,
        sqlite_where=unlearned,
    )


def _carry_over() -> None:
    op.execute("UPDATE end_users SET memory_version = 1, profile_version = 1")
    op.execute(
        "UPDATE call_sessions SET received_at = last_event_at, event_count = ("
        "SELECT count(*) FROM call_events WHERE call_events.project_id = call_sessions.project_id"
        " AND call_events.user_id = call_sessions.user_id AND call_events.session_id = call_sessions.id)"
    )
    op.execute(
        "INSERT INTO org_files (project_id, sha256) SELECT project_id, sha256 FROM org_builds WHERE sha256 IS NOT NULL"
    )


def _make_tables() -> None:
    op.create_table(
        "memories",
        sa.Column("project_id", sa.Text(), nullable=False),
        sa.Column("user_id", sa.Text(), nullable=False),
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.Column("subject", sa.Text(), nullable=False),
        sa.Column("attribute", sa.Text(), nullable=False),
        sa.Column("value", sa.Text(), nullable=False),
        sa.Column("event_id", sa.Text(), nullable=False),
        sa.Column("session_id", sa.Text(), nullable=False),
        sa.Column("number", sa.BigInteger(), nullable=False),
        sa.Column("said_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("holds_from", sa.Date(), nullable=True),
        sa.Column("holds_until", sa.Date(), nullable=True),
        sa.Column("is_one_of_many", sa.Boolean(), nullable=False),
        sa.Column("corrects", sa.Text(), nullable=True),
        sa.Column("closed_by", sa.Text(), nullable=True),
        sa.Column("repeats", sa.Text(), nullable=True),
        sa.Column("extractor", sa.Text(), nullable=False),
        sa.Column("learned_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("corrected_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("former_values", sa.Text(), nullable=True),
        sa.Column("deleted_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("barred", sa.String(length=64), nullable=True),
        sa.Column("version", sa.BigInteger(), nullable=False),
        *_owned("memories", ["user_id"], _USER, key=["project_id", "user_id", "id"]),
    )
    for columns in _MEMORY_INDEXES:
        name = f"ix_memories_{'_'.join(['project_id', 'user_id', *columns])}"
        op.create_index(name, "memories", ["project_id", "user_id", *columns])
    op.create_table(
        "memory_changes",
        sa.Column("project_id", sa.Text(), nullable=False),
        sa.Column("user_id", sa.Text(), nullable=False),
        sa.Column("memory_id", sa.Text(), nullable=False),
        sa.Column("number", sa.BigInteger(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("action", sa.Text(), nullable=False),
        sa.Column("by", sa.Text(), nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.Column("value", sa.Text(), nullable=False),
        *_owned(
            "memory_changes",
            ["user_id", "memory_id"],
            ["memories.project_id", "memories.user_id", "memories.id"],
            key=["project_id", "user_id", "memory_id", "number"],
        ),
    )
    op.create_table(
        "caller_profiles",
        sa.Column("project_id", sa.Text(), nullable=False),
        sa.Column("user_id", sa.Text(), nullable=False),
        sa.Column("summary", sa.Text(), nullable=False),
        sa.Column("attributes", sa.Text(), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        *_owned("caller_profiles", ["user_id"], _USER, key=["project_id", "user_id"]),
    )
    op.create_table(
        "forgotten_users",
        sa.Column("project_id", sa.Text(), nullable=False),
        sa.Column("digest", sa.String(length=64), nullable=False),
        sa.Column("forgotten_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.Column("memory_version", sa.BigInteger(), nullable=False),
        sa.Column("profile_version", sa.BigInteger(), nullable=False),
        *_owned("forgotten_users", key=["project_id", "digest"]),
    )
    op.create_index("ix_forgotten_users_project_id_version", "forgotten_users", ["project_id", "version"])
    op.create_table(
        "forgotten_sessions",
        sa.Column("project_id", sa.Text(), nullable=False),
        sa.Column("digest", sa.String(length=64), nullable=False),
        *_owned("forgotten_sessions", key=["project_id", "digest"]),
    )
    op.create_table(
        "org_files",
        sa.Column("project_id", sa.Text(), nullable=False),
        sa.Column("sha256", sa.String(length=64), nullable=False),
        sa.Column("replaced_at", sa.DateTime(timezone=True), nullable=True),
        *_owned("org_files", key=["project_id", "sha256"]),
    )
    op.create_index("ix_org_files_replaced_at", "org_files", ["replaced_at"])


def _add(table: str, *columns: sa.Column[object]) -> None:
    for column in columns:
        op.add_column(table, column)


def _owned(
    table: str, owner: list[str] | None = None, referred: list[str] | None = None, *, key: list[str]
) -> list[sa.schema.SchemaItem]:
    """Return the primary key and foreign keys of a table of a project."""
    constraints: list[sa.schema.SchemaItem] = [
        sa.ForeignKeyConstraint(["project_id"], _PROJECT, name=f"fk_{table}_project_id", ondelete="CASCADE"),
        sa.PrimaryKeyConstraint(*key, name=f"pk_{table}"),
    ]
    if owner and referred:
        columns = ["project_id", *owner]
        name = f"fk_{table}_{'_'.join(columns)}"
        constraints.append(sa.ForeignKeyConstraint(columns, referred, name=name, ondelete="CASCADE"))
    return constraints
