"""The tables. All but the first three are keyed by project first, so that they can be partitioned or sharded by it.

Whoever reads or writes them over HTTP does so through `memoair_cloud.tenancy.scoped`, which keeps every statement
within one account and one project; `AccountOwned` and `ProjectOwned` are what it knows them by.
"""

from datetime import date, datetime
from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    Date,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    MetaData,
    String,
    Text,
    UniqueConstraint,
    text,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from memoair_cloud.database.columns import Json, UtcDateTime


class Base(DeclarativeBase):
    """All tables; constraints get names by convention, so that migrations can speak of them."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map = {
        datetime: UtcDateTime(),
        date: Date(),
        bool: Boolean(),
        dict[str, Any]: Json(),
        list[str]: Json(),
        int: BigInteger(),
        str: Text(),
    }


class AccountOwned:
    """A row that belongs to an account."""

    account_id: Mapped[str] = mapped_column(ForeignKey("accounts.id", ondelete="CASCADE"), sort_order=-1)


class ProjectOwned:
    """A row that belongs to a project."""

    project_id: Mapped[str] = mapped_column(
        ForeignKey("projects.id", ondelete="CASCADE"), primary_key=True, sort_order=-1
    )


class Account(Base):
    """Who pays: one organisation."""

    __tablename__ = "accounts"

    id: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str]
    created_at: Mapped[datetime]


class ApiKey(AccountOwned, Base):
    """What an account shows. The key itself is nowhere: only its SHA-256, and its first signs to tell it by."""

    __tablename__ = "api_keys"

    id: Mapped[str] = mapped_column(primary_key=True)
    sha256: Mapped[str] = mapped_column(String(64), unique=True)
    hint: Mapped[str]
    name: Mapped[str]
    created_at: Mapped[datetime]
    last_used_at: Mapped[datetime | None]
    revoked_at: Mapped[datetime | None]

    __table_args__ = (Index(None, "account_id"),)


class Project(AccountOwned, Base):
    """A customer's workspace. Its id is told by itself, so it is unique over all accounts; its slug within one."""

    __tablename__ = "projects"

    id: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str]
    slug: Mapped[str]
    description: Mapped[str]
    created_at: Mapped[datetime]
    # Goes up with every change to any of its organisation's indexes; also the lock that those changes queue for.
    org_version: Mapped[int] = mapped_column(default=0)
    forgotten_version: Mapped[int] = mapped_column(default=0)  # goes up with every caller who is forgotten

    __table_args__ = (UniqueConstraint("account_id", "slug"),)


class Agent(ProjectOwned, Base):
    """A bot of a project."""

    __tablename__ = "agents"

    id: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str]
    agent_type: Mapped[str]
    created_at: Mapped[datetime]


class EndUser(ProjectOwned, Base):
    """Who calls, as the sessions have told. Also the lock that the writers of one caller's events queue for."""

    __tablename__ = "end_users"

    id: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str | None]
    details: Mapped[dict[str, Any]] = mapped_column("metadata")
    described_at: Mapped[datetime | None]  # when the session began that told name and metadata
    session_count: Mapped[int]
    first_seen_at: Mapped[datetime]
    last_seen_at: Mapped[datetime]
    # Goes up with every batch of events that is kept, and every change of what was learned from them.
    memory_version: Mapped[int] = mapped_column(default=0)
    # Where it began: above 0 for one who was forgotten before, so that devices see that what they hold is of then.
    memory_floor: Mapped[int] = mapped_column(default=0)
    profile_version: Mapped[int] = mapped_column(default=0)  # goes up with name, metadata and what is known of him


class CallSession(ProjectOwned, Base):
    """One call, derived from its events in whatever order they came."""

    __tablename__ = "call_sessions"

    user_id: Mapped[str] = mapped_column(primary_key=True)
    id: Mapped[str] = mapped_column(primary_key=True)
    agent_id: Mapped[str | None]
    details: Mapped[dict[str, Any]] = mapped_column("metadata")
    start_seq: Mapped[int | None]  # of the latest start; the earlier ones tell nothing about the session any more
    boundary_seq: Mapped[int | None]  # of the latest start or end: a session may be started again
    started_at: Mapped[datetime]
    ended_at: Mapped[datetime | None]
    last_event_at: Mapped[datetime]
    turn_count: Mapped[int]
    # How many events there are, when the last of them came, and of how many of them facts were learned.
    event_count: Mapped[int]
    received_at: Mapped[datetime]
    learned_count: Mapped[int] = mapped_column(default=0)
    claimed_until: Mapped[datetime | None]  # a worker is learning, and has this long to be done
    failures: Mapped[int] = mapped_column(default=0)  # of learning, one after another
    retry_at: Mapped[datetime | None]
    failure: Mapped[str | None]  # its kind

    __table_args__ = (
        ForeignKeyConstraint(["project_id", "user_id"], ["end_users.project_id", "end_users.id"], ondelete="CASCADE"),
        Index(None, "project_id", "user_id", "started_at", "id"),
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
    """What happened in a call, as the runtime logged it. An event id is known within its caller."""

    __tablename__ = "call_events"

    user_id: Mapped[str] = mapped_column(primary_key=True)
    id: Mapped[str] = mapped_column(primary_key=True)
    session_id: Mapped[str]
    type: Mapped[str]
    seq: Mapped[int]
    occurred_at: Mapped[datetime]
    received_at: Mapped[datetime]
    payload: Mapped[dict[str, Any]]
    version: Mapped[int]  # of the caller's memory, when this event was kept

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
    """A fact about a caller, as `memoair_cloud.consolidation` finds it; see `memoair_cloud.memories.states`.

    One that is gone keeps its id and nothing that was said.
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
    closed_by: Mapped[str | None]  # the memory that took its place
    repeats: Mapped[str | None]  # the memory that had said the same
    extractor: Mapped[str]
    learned_at: Mapped[datetime]
    corrected_at: Mapped[datetime | None]  # by a person, whose word stands
    former_values: Mapped[list[str] | None]  # that were corrected: whoever said them before said what is said now
    deleted_at: Mapped[datetime | None]
    barred: Mapped[str | None] = mapped_column(String(64))  # of a deleted one: a hash of what it said, to know it by
    version: Mapped[int]  # of the caller's memory, when this one last changed

    __table_args__ = (
        ForeignKeyConstraint(["project_id", "user_id"], ["end_users.project_id", "end_users.id"], ondelete="CASCADE"),
        Index(None, "project_id", "user_id", "version", "id"),
        Index(None, "project_id", "user_id", "session_id"),
        Index(None, "project_id", "user_id", "subject", "attribute"),
        Index(None, "project_id", "user_id", "barred"),
        Index(None, "project_id", "user_id", "state", "said_at", "id"),
    )


class MemoryChange(ProjectOwned, Base):
    """What has happened to a memory since it was learned. Of one that was deleted, no words are left here either."""

    __tablename__ = "memory_changes"

    user_id: Mapped[str] = mapped_column(primary_key=True)
    memory_id: Mapped[str] = mapped_column(primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True)
    at: Mapped[datetime]
    action: Mapped[str]
    by: Mapped[str]  # an extractor, or "api"
    text: Mapped[str]  # as it was until then
    value: Mapped[str]

    __table_args__ = (
        ForeignKeyConstraint(
            ["project_id", "user_id", "memory_id"],
            ["memories.project_id", "memories.user_id", "memories.id"],
            ondelete="CASCADE",
        ),
    )


class CallerProfile(ProjectOwned, Base):
    """Who a caller is, made of the memories that stand."""

    __tablename__ = "caller_profiles"

    user_id: Mapped[str] = mapped_column(primary_key=True)
    summary: Mapped[str]
    attributes: Mapped[dict[str, Any]]
    updated_at: Mapped[datetime]

    __table_args__ = (
        ForeignKeyConstraint(["project_id", "user_id"], ["end_users.project_id", "end_users.id"], ondelete="CASCADE"),
    )


class ForgottenUser(ProjectOwned, Base):
    """That a caller was forgotten, by a hash of his id: so that what comes late is refused, and devices drop it."""

    __tablename__ = "forgotten_users"

    digest: Mapped[str] = mapped_column(String(64), primary_key=True)
    forgotten_at: Mapped[datetime]
    version: Mapped[int]  # the project's, when he was last forgotten
    memory_version: Mapped[int]  # those that his memory and his profile had reached
    profile_version: Mapped[int]

    __table_args__ = (Index(None, "project_id", "version"),)


class ForgottenSession(ProjectOwned, Base):
    """A call of a caller who was forgotten, by a hash of both ids: whatever comes of it is refused, by any clock."""

    __tablename__ = "forgotten_sessions"

    digest: Mapped[str] = mapped_column(String(64), primary_key=True)


class OrgIndex(ProjectOwned, Base):
    """A named set of an organisation's documents. A deleted one is kept, empty: its version must never fall back."""

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
    """A document of an index. A deleted one is kept without its text, so that a delta can tell that it is gone."""

    __tablename__ = "org_documents"

    index_name: Mapped[str] = mapped_column(primary_key=True)
    id: Mapped[str] = mapped_column(primary_key=True)
    text: Mapped[str]
    details: Mapped[dict[str, Any]] = mapped_column("metadata")
    chunk_count: Mapped[int]
    version: Mapped[int]  # of the project's documents, when this one last changed
    deleted_at: Mapped[datetime | None]

    __table_args__ = (
        ForeignKeyConstraint(
            ["project_id", "index_name"], ["org_indexes.project_id", "org_indexes.name"], ondelete="CASCADE"
        ),
        Index(None, "project_id", "version"),
    )


class OrgBuild(ProjectOwned, Base):
    """The index file that was last built of a project's documents, and what went wrong with one that was not."""

    __tablename__ = "org_builds"

    version: Mapped[int]  # the project's version that is in the file
    sha256: Mapped[str | None] = mapped_column(String(64))
    size: Mapped[int]
    built_at: Mapped[datetime | None]
    failure: Mapped[str | None]  # the kind of the last one, since the file was built
    failures: Mapped[int] = mapped_column(default=0)
    failed_version: Mapped[int] = mapped_column(default=0)  # the project's version that could not be built


class OrgFile(ProjectOwned, Base):
    """A file in the blob store. One that another has replaced is kept a while: a device may be fetching it."""

    __tablename__ = "org_files"

    sha256: Mapped[str] = mapped_column(String(64), primary_key=True)
    replaced_at: Mapped[datetime | None]

    __table_args__ = (Index(None, "replaced_at"),)
