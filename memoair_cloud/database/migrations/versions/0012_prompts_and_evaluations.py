"""Prompts of agents, their evaluations, and the outcomes of calls."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None

_PROJECT = ("projects", ["project_id"], ["id"])
_AGENT = ("agents", ["project_id", "agent_id"], ["project_id", "id"])
_USER = ("end_users", ["project_id", "user_id"], ["project_id", "id"])
_CALL = (
    "call_sessions",
    ["project_id", "user_id", "session_id"],
    ["project_id", "user_id", "id"],
)
_RUN = ("evaluation_runs", ["project_id", "run_id"], ["project_id", "id"])
_SUITE = ("evaluation_suites", ["project_id", "suite_id"], ["project_id", "id"])


def upgrade() -> None:
    """Create the tables, and the columns for the version of the prompt."""
    op.add_column("call_sessions", sa.Column("prompt_version", sa.BigInteger(), nullable=True))
    op.add_column("recall_traces", sa.Column("prompt_version", sa.BigInteger(), nullable=True))
    for column in ("agent_id", "details"):
        op.add_column("audit_entries", _text(column, nullable=True))
    op.create_index("ix_audit_entries_agent_id", "audit_entries", ["project_id", "agent_id", "at", "id"])
    _create_prompts()
    _create_outcomes()
    _create_evaluations()


def _create_prompts() -> None:
    _create(
        "prompt_versions",
        ["agent_id", "number"],
        [_text("text"), sa.Column("sha256", sa.String(64), nullable=False), _text("placeholders"), _text("notes")],
        [_time("created_at"), _text("created_by")],
        references=[_AGENT],
    )
    _create(
        "prompt_labels",
        ["agent_id", "name"],
        [_number("number"), _time("moved_at"), _text("moved_by")],
        references=[
            ("prompt_versions", ["project_id", "agent_id", "number"], ["project_id", "agent_id", "number"]),
        ],
    )
    _create(
        "prompt_label_moves",
        ["agent_id", "id"],
        [_text("name"), _number("number", nullable=True), _number("replaced", nullable=True)],
        [sa.Column("is_rollback", sa.Boolean(), nullable=False), _text("back_to", nullable=True)],
        [_time("moved_at"), _text("moved_by")],
        references=[_AGENT],
        indexes=[["agent_id", "name", "moved_at", "id"]],
    )


def _create_outcomes() -> None:
    _create(
        "call_outcomes",
        ["session_id", "id"],
        [_text("user_id", nullable=True), sa.Column("user_digest", sa.String(64), nullable=True)],
        [_text("agent_id", nullable=True), _text("outcome"), _text("outcome_id", nullable=True)],
        [sa.Column("score", sa.Double(), nullable=True), _time("reported_at"), _time("received_at")],
        references=[_CALL],
        indexes=[["reported_at", "session_id", "id"]],
    )
    op.create_index(
        "ix_call_outcomes_figures", "call_outcomes", ["project_id", "user_id", "session_id", "outcome", "score"]
    )
    op.create_index(
        "ix_call_outcomes_outcome", "call_outcomes", ["project_id", "outcome", "reported_at", "session_id", "id"]
    )
    is_unknown = sa.text("user_id IS NULL")
    op.create_index(
        "ix_call_outcomes_unknown",
        "call_outcomes",
        ["project_id", "received_at"],
        postgresql_where=is_unknown,
        sqlite_where=is_unknown,
    )
    _add_prompt_version_to_indexes()


def _add_prompt_version_to_indexes() -> None:
    """Let the indexes that figures are read from hold the version of the prompt, too."""
    for name, table, columns in (
        ("ix_call_sessions_started_at", "call_sessions", ["started_at", "user_id", "id", "agent_id", "prompt_version"]),
        (
            "ix_recall_traces_figures",
            "recall_traces",
            ["occurred_at", "agent_id", "prompt_version", "total_us", "found_count", "lane_statuses", "id"],
        ),
    ):
        op.drop_index(name, table)
        op.create_index(name, table, ["project_id", *columns])


def _create_evaluations() -> None:
    _create(
        "evaluation_suites",
        ["id"],
        [_text("agent_id"), _text("name"), _text("description"), _number("version")],
        [_time("created_at"), _text("created_by"), _time("updated_at")],
        [sa.UniqueConstraint("project_id", "agent_id", "name", name="uq_evaluation_suites_project_id_agent_id_name")],
        references=[_AGENT],
    )
    _create(
        "evaluation_cases",
        ["suite_id", "id"],
        [_number("position"), _text("content"), sa.Column("sha256", sa.String(64), nullable=False), _number("size")],
        [_text("user_id", nullable=True), _text("source", nullable=True)],
        [_time("created_at"), _text("created_by"), _time("updated_at")],
        references=[_SUITE, _USER],
        indexes=[["user_id"], ["suite_id", "position", "id"]],
    )
    _create(
        "evaluation_document_sets",
        ["id"],
        [_text("name"), _text("state"), sa.Column("is_pinned", sa.Boolean(), nullable=False)],
        [sa.Column("sha256", sa.String(64), nullable=True), _number("size"), _number("part_count")],
        [_number("document_count"), _number("org_version", nullable=True)],
        [_time("created_at"), _text("created_by"), _time("updated_at")],
        [_text("claim", nullable=True), _time("claimed_until", nullable=True)],
        [_number("failures"), _text("failure", nullable=True)],
        indexes=[["created_at", "id"]],
    )
    _create(
        "evaluation_runs",
        ["id"],
        [_text("agent_id"), _text("kind"), _text("state")],
        [_text(name, nullable=True) for name in ("suite_id", "document_set_id", "present_set_id")],
        [sa.Column("is_open", sa.Boolean(), nullable=False), _text("candidate"), _text("settings")],
        [_time("created_at"), _text("created_by"), _time("updated_at")],
        [_time(name, nullable=True) for name in ("started_at", "finished_at", "claimed_until")],
        [_text("claim", nullable=True), _number("failures"), _text("failure", nullable=True)],
        [_number("total"), _number("done")],
        [_number(name, nullable=True) for name in ("suite_version", "prompt_version", "org_version")],
        [_text("engine_version", nullable=True), _text("scores", nullable=True)],
        references=[_AGENT, _SUITE],
        indexes=[["suite_id", "created_at", "id"], ["agent_id", "created_at", "id"]],
    )
    _create(
        "evaluation_pending_cases",
        ["run_id", "case_id"],
        [_number("position"), _text("content"), sa.Column("sha256", sa.String(64), nullable=False)],
        [_text("user_id", nullable=True)],
        references=[_RUN, _USER],
        indexes=[["user_id"], ["run_id", "position", "case_id"]],
    )
    _create(
        "evaluation_results",
        ["run_id", "case_id"],
        [_number("position"), sa.Column("case_sha256", sa.String(64), nullable=False), _text("user_id", nullable=True)],
        [sa.Column("change", sa.Double(), nullable=False), _text("scores"), _text("details")],
        references=[_RUN, _USER],
        indexes=[["user_id"], ["run_id", "position", "case_id"], ["run_id", "change", "case_id"]],
    )


def _create(
    table: str,
    key: Sequence[str],
    *parts: Sequence[sa.schema.SchemaItem],
    references: Sequence[tuple[str, list[str], list[str]]] = (),
    indexes: Sequence[list[str]] = (),
) -> None:
    """Create a table of projects. Its key is of texts, but for numbers of versions."""
    key_columns = [_number(name) if name == "number" else _text(name) for name in ("project_id", *key)]
    op.create_table(
        table,
        *key_columns,
        *(item for part in parts for item in part),
        *(
            sa.ForeignKeyConstraint(
                columns,
                [f"{target}.{column}" for column in target_columns],
                name=f"fk_{table}_{'_'.join(columns)}",
                ondelete="CASCADE",
            )
            for target, columns, target_columns in (_PROJECT, *references)
        ),
        sa.PrimaryKeyConstraint("project_id", *key, name=f"pk_{table}"),
    )
    for columns in indexes:
        op.create_index(f"ix_{table}_{'_'.join(['project_id', *columns])}", table, ["project_id", *columns])


def _text(name: str, *, nullable: bool = False) -> "sa.Column[str]":
    return sa.Column(name, sa.Text(), nullable=nullable)


def _number(name: str, *, nullable: bool = False) -> "sa.Column[int]":
    return sa.Column(name, sa.BigInteger(), nullable=nullable)


def _time(name: str, *, nullable: bool = False) -> "sa.Column[object]":
    return sa.Column(name, sa.DateTime(timezone=True), nullable=nullable)
