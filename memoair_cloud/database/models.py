"""The tables. All but the first three have the project first in their key.

So they can be partitioned or sharded by project. Request handlers read and write them through
`memoair_cloud.tenancy.scoped`, which confines every statement to one account and one project. It recognizes the
owner of a row by `AccountOwned` and `ProjectOwned`.
"""

from datetime import date, datetime
from typing import Any

from sqlalchemy import ForeignKeyConstraint, Index, String, UniqueConstraint, text
from sqlalchemy.orm import Mapped, mapped_column

from memoair_cloud.database.base import AccountOwned, Base, ProjectOwned


class Account(Base):
    """A company that owns API keys and projects."""

    __tablename__ = "accounts"

    id: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str]
    created_at: Mapped[datetime]


class ApiKey(AccountOwned, Base):
    """An API key. Only its SHA-256 and its first characters are stored, never the key itself."""

    __tablename__ = "api_keys"

    id: Mapped[str] = mapped_column(primary_key=True)
    sha256: Mapped[str] = mapped_column(String(64), unique=True)
    hint: Mapped[str]
    name: Mapped[str]
    created_at: Mapped[datetime]
    last_used_at: Mapped[datetime | None]
    revoked_at: Mapped[datetime | None]
    # What it may do, and in which project only: see `memoair_cloud.tenancy.grants`.
    scope: Mapped[str] = mapped_column(default="everything")
    project_id: Mapped[str | None]

    __table_args__ = (Index(None, "account_id"),)


class Project(AccountOwned, Base):
    """A customer's workspace.

    Its id is unique across accounts, because it is used on its own; its slug is unique within the account.
    """

    __tablename__ = "projects"

    id: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str]
    slug: Mapped[str]
    description: Mapped[str]
    created_at: Mapped[datetime]
    # Incremented by every change to any index of the project; changes also queue for this row as their lock.
    org_version: Mapped[int] = mapped_column(default=0)
    forgotten_version: Mapped[int] = mapped_column(default=0)  # incremented with every erased user
    # Identifies the data that all versions count: new for a new project, and after a restore from a backup. None for
    # projects from before there were epochs.
    epoch: Mapped[str | None]
    # What is never learned. By default, what no fact about a caller needs and is a danger to keep.
    excluded_kinds: Mapped[list[str]] = mapped_column(default=lambda: ["iban", "card", "security_code"])
    has_new_exclusions: Mapped[bool] = mapped_column(default=False)  # until what was learned before is removed
    recall_traces: Mapped[str | None]  # the `TraceMode` of machines that set none
    # For how many days data is kept; None for ever. See `memoair_cloud.retention.policy`.
    keep_turns_days: Mapped[int | None]
    keep_callers_days: Mapped[int | None]
    keep_traces_days: Mapped[int | None] = mapped_column(default=30)
    drops_facts: Mapped[bool] = mapped_column(default=False)  # with the turns that they were learned from
    retention_version: Mapped[int] = mapped_column(default=0)  # incremented by every change of the above, and of holds

    __table_args__ = (UniqueConstraint("account_id", "slug"),)


class Agent(ProjectOwned, Base):
    """A bot of a project."""

    __tablename__ = "agents"

    id: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str]
    agent_type: Mapped[str]
    created_at: Mapped[datetime]


class EndUser(ProjectOwned, Base):
    """A caller, as described by their sessions. Writers of a user's data queue for this row as their lock."""

    __tablename__ = "end_users"

    id: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str | None]
    details: Mapped[dict[str, Any]] = mapped_column("metadata")
    described_at: Mapped[datetime | None]  # when the session began that set name and metadata
    session_count: Mapped[int]
    first_seen_at: Mapped[datetime]
    last_seen_at: Mapped[datetime]
    # Incremented by every batch of events that is saved, and by every change to what was learned from them.
    memory_version: Mapped[int] = mapped_column(default=0)
    # The first value of memory_version: above 0 for users who were erased before, so that machines notice that their
    # copy is older than the erasure.
    memory_floor: Mapped[int] = mapped_column(default=0)
    profile_version: Mapped[int] = mapped_column(default=0)  # incremented when name, metadata or facts change
    # Turns from before this time were dropped because of their age, and do not come back; None if none were.
    turns_dropped_until: Mapped[datetime | None]
    facts_dropped_until: Mapped[datetime | None]  # likewise the facts, if they go with their turns

    __table_args__ = (Index(None, "project_id", "last_seen_at", "id"),)


class CallSession(ProjectOwned, Base):
    """One call, derived from its events in whatever order they arrive."""

    __tablename__ = "call_sessions"

    user_id: Mapped[str] = mapped_column(primary_key=True)
    id: Mapped[str] = mapped_column(primary_key=True)
    agent_id: Mapped[str | None]
    details: Mapped[dict[str, Any]] = mapped_column("metadata")
    start_seq: Mapped[int | None]  # of the latest session start; earlier ones no longer count
    boundary_seq: Mapped[int | None]  # of the latest start or end: a session may be started again
    started_at: Mapped[datetime]
    ended_at: Mapped[datetime | None]
    last_event_at: Mapped[datetime]
    turn_count: Mapped[int]
    # The number of events, when the last one arrived, and how many of them have been consolidated.
    event_count: Mapped[int]
    received_at: Mapped[datetime]
    learned_count: Mapped[int] = mapped_column(default=0)
    claimed_until: Mapped[datetime | None]  # until then a worker is consolidating the call
    failures: Mapped[int] = mapped_column(default=0)  # consecutive failures of consolidation
    retry_at: Mapped[datetime | None]
    failure: Mapped[str | None]
    prompt_version: Mapped[int | None]  # of the agent's prompt, as the application said when the call began
    # What the last consolidation took of a language model, and the facts that were dropped, by reason; no words.
    model_usage: Mapped[dict[str, Any] | None]

    __table_args__ = (
        ForeignKeyConstraint(["project_id", "user_id"], ["end_users.project_id", "end_users.id"], ondelete="CASCADE"),
        Index(None, "project_id", "user_id", "started_at", "id"),
        # Also holds what the figures of a period need to count its callers.
        Index("ix_call_sessions_started_at", "project_id", "started_at", "user_id", "id", "agent_id", "prompt_version"),
        Index(None, "project_id", "id"),
        Index(
            "ix_call_sessions_unlearned",
            "project_id",
            "received_at",
            postgresql_where=text("learned_count < event_count"),
            sqlite_where=text("learned_count < event_count"),
        ),
    )


class CallEvent(ProjectOwned, Base):
    """Something that happened in a call, as the runtime logged it. Event ids are unique per user."""

    __tablename__ = "call_events"

    user_id: Mapped[str] = mapped_column(primary_key=True)
    id: Mapped[str] = mapped_column(primary_key=True)
    session_id: Mapped[str]
    type: Mapped[str]
    seq: Mapped[int]
    occurred_at: Mapped[datetime]
    received_at: Mapped[datetime]
    payload: Mapped[dict[str, Any]]
    version: Mapped[int]  # the user's memory version when this event was saved

    __table_args__ = (
        ForeignKeyConstraint(
            ["project_id", "user_id", "session_id"],
            ["call_sessions.project_id", "call_sessions.user_id", "call_sessions.id"],
            ondelete="CASCADE",
        ),
        Index(None, "project_id", "user_id", "session_id", "seq", "id"),
        Index(None, "project_id", "user_id", "version", "id"),
    )


class Memory(ProjectOwned, Base):
    """A fact about a user, as extracted by `memoair_cloud.consolidation`.

    `memoair_cloud.memories.states` defines its states. A withdrawn or deleted memory keeps its id, but none of its
    words.
    """

    __tablename__ = "memories"

    user_id: Mapped[str] = mapped_column(primary_key=True)
    id: Mapped[str] = mapped_column(primary_key=True)
    state: Mapped[str]
    kind: Mapped[str]
    text: Mapped[str]
    subject: Mapped[str]
    attribute: Mapped[str]
    value: Mapped[str]
    event_id: Mapped[str]
    session_id: Mapped[str]
    number: Mapped[int]
    said_at: Mapped[datetime]
    holds_from: Mapped[date | None]
    holds_until: Mapped[date | None]
    is_one_of_many: Mapped[bool]
    corrects: Mapped[str | None]
    closed_by: Mapped[str | None]  # the memory that replaced it
    repeats: Mapped[str | None]  # the earlier memory that says the same
    speaker: Mapped[str] = mapped_column(server_default="")  # who said it, if a name was given
    extractor: Mapped[str]
    learned_at: Mapped[datetime]
    corrected_at: Mapped[datetime | None]  # by hand: no extractor overrides it
    former_values: Mapped[list[str] | None]  # values before corrections: a fact with one of them repeats this memory
    deleted_at: Mapped[datetime | None]
    barred: Mapped[str | None] = mapped_column(String(64))  # recognizes deleted content by its hash
    version: Mapped[int]  # the user's memory version when this memory last changed

    __table_args__ = (
        ForeignKeyConstraint(["project_id", "user_id"], ["end_users.project_id", "end_users.id"], ondelete="CASCADE"),
        Index(None, "project_id", "user_id", "version", "id"),
        Index(None, "project_id", "user_id", "session_id"),
        Index(None, "project_id", "user_id", "subject", "attribute"),
        Index(None, "project_id", "user_id", "barred"),
        Index(None, "project_id", "user_id", "state", "said_at", "id"),
    )


class MemoryChange(ProjectOwned, Base):
    """A change of a memory after it was learned. The changes of a deleted memory contain no content either."""

    __tablename__ = "memory_changes"

    user_id: Mapped[str] = mapped_column(primary_key=True)
    memory_id: Mapped[str] = mapped_column(primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True)
    at: Mapped[datetime]
    action: Mapped[str]
    by: Mapped[str]  # the name of an extractor, or "api"
    text: Mapped[str]  # before the change
    value: Mapped[str]

    __table_args__ = (
        ForeignKeyConstraint(
            ["project_id", "user_id", "memory_id"],
            ["memories.project_id", "memories.user_id", "memories.id"],
            ondelete="CASCADE",
        ),
    )


class CallerProfile(ProjectOwned, Base):
    """A user's profile, built from their current memories."""

    __tablename__ = "caller_profiles"

    user_id: Mapped[str] = mapped_column(primary_key=True)
    summary: Mapped[str]
    attributes: Mapped[dict[str, Any]]
    updated_at: Mapped[datetime]

    __table_args__ = (
        ForeignKeyConstraint(["project_id", "user_id"], ["end_users.project_id", "end_users.id"], ondelete="CASCADE"),
    )


class LegalHold(ProjectOwned, Base):
    """An order to keep the data of a user, or of all users of a project. A lifted hold stays on record."""

    __tablename__ = "legal_holds"

    id: Mapped[str] = mapped_column(primary_key=True)
    user_id: Mapped[str | None]  # None: of all users
    reason: Mapped[str]
    placed_at: Mapped[datetime]
    placed_by: Mapped[str]
    lifted_at: Mapped[datetime | None]
    lifted_by: Mapped[str | None]
    lift_reason: Mapped[str | None]

    __table_args__ = (
        ForeignKeyConstraint(["project_id", "user_id"], ["end_users.project_id", "end_users.id"], ondelete="CASCADE"),
        Index(None, "project_id", "user_id"),
    )


class ForgottenUser(ProjectOwned, Base):
    """The record of an erased user, by a hash of their id: late events are rejected, and machines drop their copies."""

    __tablename__ = "forgotten_users"

    digest: Mapped[str] = mapped_column(String(64), primary_key=True)
    forgotten_at: Mapped[datetime]
    version: Mapped[int]  # the project's forgotten_version after the last erasure
    # The same after the last erasure that was asked for, and when that was: see `memoair_cloud.calls.erased_events`.
    asked_version: Mapped[int] = mapped_column(server_default="0", default=0)
    asked_at: Mapped[datetime | None]
    memory_version: Mapped[int]  # where the user's versions continue if they call again
    profile_version: Mapped[int]
    receipt: Mapped[dict[str, Any] | None]  # what was removed, in numbers

    __table_args__ = (Index(None, "project_id", "version"),)


class ForgottenSession(ProjectOwned, Base):
    """A session of an erased user, by a hash of both ids. Its late events are rejected, whatever their timestamps."""

    __tablename__ = "forgotten_sessions"

    digest: Mapped[str] = mapped_column(String(64), primary_key=True)


class OrgIndex(ProjectOwned, Base):
    """A named set of documents. A deleted index stays as an empty row, so that its version never decreases."""

    __tablename__ = "org_indexes"

    name: Mapped[str] = mapped_column(primary_key=True)
    details: Mapped[dict[str, Any]] = mapped_column("metadata")
    version: Mapped[int]
    document_count: Mapped[int]
    chunk_count: Mapped[int]
    created_at: Mapped[datetime]
    updated_at: Mapped[datetime]
    deleted_at: Mapped[datetime | None]


class OrgDocument(ProjectOwned, Base):
    """A document of an index. A deleted document stays without its text, so that a delta can report its removal."""

    __tablename__ = "org_documents"

    index_name: Mapped[str] = mapped_column(primary_key=True)
    id: Mapped[str] = mapped_column(primary_key=True)
    text: Mapped[str]
    details: Mapped[dict[str, Any]] = mapped_column("metadata")
    chunk_count: Mapped[int]
    version: Mapped[int]  # the project's org_version when this document last changed
    deleted_at: Mapped[datetime | None]

    __table_args__ = (
        ForeignKeyConstraint(
            ["project_id", "index_name"], ["org_indexes.project_id", "org_indexes.name"], ondelete="CASCADE"
        ),
        Index(None, "project_id", "version"),
    )


class OrgBuild(ProjectOwned, Base):
    """The latest index file of a project's documents, and the failures of building a newer one."""

    __tablename__ = "org_builds"

    version: Mapped[int]  # the org_version that the file contains
    sha256: Mapped[str | None] = mapped_column(String(64))
    size: Mapped[int]
    built_at: Mapped[datetime | None]
    failure: Mapped[str | None]  # the type of the last error since the file was built
    failures: Mapped[int] = mapped_column(default=0)
    failed_version: Mapped[int] = mapped_column(default=0)  # the org_version that could not be built


class OrgFile(ProjectOwned, Base):
    """An index file in the blob store. A replaced file is kept for a while, because a machine may be downloading it."""

    __tablename__ = "org_files"

    sha256: Mapped[str] = mapped_column(String(64), primary_key=True)
    replaced_at: Mapped[datetime | None]

    __table_args__ = (Index(None, "replaced_at"),)


class ModelDay(ProjectOwned, Base):
    """What a project has used of a language model on a day in UTC. It names no caller and outlives their erasure."""

    __tablename__ = "model_days"

    day: Mapped[date] = mapped_column(primary_key=True)
    calls: Mapped[int]
    failures: Mapped[int]  # calls that the fallback read instead
    requests: Mapped[int]
    unknown: Mapped[int]  # answers that did not report their tokens
    prompt_tokens: Mapped[int]
    cached_tokens: Mapped[int]
    completion_tokens: Mapped[int]
    ms: Mapped[int]
    cost_micros: Mapped[int]  # millionths of the currency of the prices
    kept: Mapped[int]  # facts
    dropped: Mapped[dict[str, Any]]  # facts by reason
