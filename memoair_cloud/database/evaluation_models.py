"""The tables of evaluations: suites of cases, and runs with their results."""

from datetime import datetime
from typing import Any

from sqlalchemy import ForeignKeyConstraint, Index, String, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from memoair_cloud.database.base import Base, ProjectOwned

_AGENT = ["agents.project_id", "agents.id"]
_SUITE = ["evaluation_suites.project_id", "evaluation_suites.id"]
_RUN = ["evaluation_runs.project_id", "evaluation_runs.id"]
_USER = ["end_users.project_id", "end_users.id"]


class EvaluationSuite(ProjectOwned, Base):
    """A suite of an agent: cases that say what must be recalled."""

    __tablename__ = "evaluation_suites"

    id: Mapped[str] = mapped_column(primary_key=True)
    agent_id: Mapped[str]
    name: Mapped[str]
    description: Mapped[str]
    version: Mapped[int] = mapped_column(default=0)  # incremented by every change of its cases
    created_at: Mapped[datetime]
    created_by: Mapped[str]
    updated_at: Mapped[datetime]

    __table_args__ = (
        ForeignKeyConstraint(["project_id", "agent_id"], _AGENT, ondelete="CASCADE"),
        UniqueConstraint("project_id", "agent_id", "name"),
    )


class SuiteCase(ProjectOwned, Base):
    """A case of a suite. One that was copied from a caller goes when they are erased."""

    __tablename__ = "evaluation_cases"

    suite_id: Mapped[str] = mapped_column(primary_key=True)
    id: Mapped[str] = mapped_column(primary_key=True)
    position: Mapped[int]
    content: Mapped[dict[str, Any]]  # as `memoair_evaluation.case` writes it
    sha256: Mapped[str] = mapped_column(String(64))  # of what may change its scores: tells whether two runs had it
    size: Mapped[int]  # of the content in bytes
    user_id: Mapped[str | None]  # the caller that it was copied from; None for text that was given
    source: Mapped[dict[str, Any] | None]  # the session and the event that it was copied from
    created_at: Mapped[datetime]
    created_by: Mapped[str]
    updated_at: Mapped[datetime]

    __table_args__ = (
        ForeignKeyConstraint(["project_id", "suite_id"], _SUITE, ondelete="CASCADE"),
        ForeignKeyConstraint(["project_id", "user_id"], _USER, ondelete="CASCADE"),
        Index(None, "project_id", "user_id"),
        Index(None, "project_id", "suite_id", "position", "id"),
    )


class EvaluationDocumentSet(ProjectOwned, Base):
    """Documents that a run searches instead of the project's: an index file in the blob store."""

    __tablename__ = "evaluation_document_sets"

    id: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str]
    state: Mapped[str]  # `memoair_cloud.evaluation.document_set_states` defines them
    is_pinned: Mapped[bool]  # a copy of the present documents that the server made for its runs: no list has it
    sha256: Mapped[str | None] = mapped_column(String(64))  # of the index file; None until it is complete
    size: Mapped[int]  # of the index file, and before that of the documents as they were sent
    part_count: Mapped[int] = mapped_column(default=0)  # how many parts of it the blob store may have
    document_count: Mapped[int]
    org_version: Mapped[int | None]  # of the project's documents that it is a copy of; None for others
    created_at: Mapped[datetime]
    created_by: Mapped[str]
    updated_at: Mapped[datetime]
    # The worker that builds the index file, and until when no other one may.
    claim: Mapped[str | None]
    claimed_until: Mapped[datetime | None]
    failures: Mapped[int] = mapped_column(default=0)  # how often a worker stopped in the middle
    failure: Mapped[str | None]  # why it failed, in words

    __table_args__ = (Index(None, "project_id", "created_at", "id"),)


class EvaluationRun(ProjectOwned, Base):
    """A run of a suite, or of the questions of past calls. `memoair_cloud.evaluation.run_states` has its states."""

    __tablename__ = "evaluation_runs"

    id: Mapped[str] = mapped_column(primary_key=True)
    agent_id: Mapped[str]
    suite_id: Mapped[str | None]  # None for a replay of past calls
    document_set_id: Mapped[str | None]  # what it searches: the candidate's, or a copy of the present documents
    present_set_id: Mapped[str | None]  # of a replay: the copy of the present documents that it compares with
    kind: Mapped[str]  # "suite" or "replay"
    state: Mapped[str]
    is_open: Mapped[bool]  # whether the state can still change
    candidate: Mapped[dict[str, Any]]  # what differs from the present state
    settings: Mapped[dict[str, Any]]  # what else was asked for: the period of a replay, the judge
    created_at: Mapped[datetime]
    created_by: Mapped[str]
    updated_at: Mapped[datetime]
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]
    # The worker that processes it, and until when no other one may.
    claim: Mapped[str | None]
    claimed_until: Mapped[datetime | None]
    failures: Mapped[int] = mapped_column(default=0)  # how often a worker stopped in the middle
    failure: Mapped[str | None]  # why it failed, in words
    total: Mapped[int] = mapped_column(default=0)  # cases
    done: Mapped[int] = mapped_column(default=0)
    # What it ran with, once it has begun: marks in the history of a suite.
    suite_version: Mapped[int | None]
    prompt_version: Mapped[int | None]
    org_version: Mapped[int | None]
    engine_version: Mapped[str | None]
    scores: Mapped[dict[str, Any] | None]  # of all cases, once it is done

    __table_args__ = (
        ForeignKeyConstraint(["project_id", "agent_id"], _AGENT, ondelete="CASCADE"),
        ForeignKeyConstraint(["project_id", "suite_id"], _SUITE, ondelete="CASCADE"),
        Index(None, "project_id", "suite_id", "created_at", "id"),
        Index(None, "project_id", "agent_id", "created_at", "id"),
    )


class PendingCase(ProjectOwned, Base):
    """A case that a run has not scored yet, as it was when the run began. Its result takes its place."""

    __tablename__ = "evaluation_pending_cases"

    run_id: Mapped[str] = mapped_column(primary_key=True)
    case_id: Mapped[str] = mapped_column(primary_key=True)
    position: Mapped[int]
    content: Mapped[dict[str, Any]]
    sha256: Mapped[str] = mapped_column(String(64))
    user_id: Mapped[str | None]

    __table_args__ = (
        ForeignKeyConstraint(["project_id", "run_id"], _RUN, ondelete="CASCADE"),
        ForeignKeyConstraint(["project_id", "user_id"], _USER, ondelete="CASCADE"),
        Index(None, "project_id", "user_id"),
        Index(None, "project_id", "run_id", "position", "case_id"),
    )


class EvaluationResult(ProjectOwned, Base):
    """What a run found for a case, with its trace. One about a caller goes when they are erased."""

    __tablename__ = "evaluation_results"

    run_id: Mapped[str] = mapped_column(primary_key=True)
    case_id: Mapped[str] = mapped_column(primary_key=True)
    position: Mapped[int]
    case_sha256: Mapped[str] = mapped_column(String(64))
    user_id: Mapped[str | None]
    change: Mapped[float] = mapped_column(default=0.0)  # of a replay: how much the context changes, 0 to 1
    scores: Mapped[dict[str, Any]]
    details: Mapped[dict[str, Any]]  # the case without what was given, the trace, the contexts, the judge's answer

    __table_args__ = (
        ForeignKeyConstraint(["project_id", "run_id"], _RUN, ondelete="CASCADE"),
        ForeignKeyConstraint(["project_id", "user_id"], _USER, ondelete="CASCADE"),
        Index(None, "project_id", "user_id"),
        Index(None, "project_id", "run_id", "position", "case_id"),
        Index(None, "project_id", "run_id", "change", "case_id"),
    )
