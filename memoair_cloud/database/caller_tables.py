"""The tables whose rows belong to a caller. Erasure counts, exports and retention all read this one list.

A test compares it with the columns ``user_id`` of all tables, so that a new table cannot be missed.
"""

from enum import Enum

import attrs
from sqlalchemy import ColumnElement, func, select
from sqlalchemy.orm import Session

from memoair_cloud.database.base import ProjectOwned
from memoair_cloud.database.evaluation_models import EvaluationResult, PendingCase, SuiteCase
from memoair_cloud.database.models import (
    CallerProfile,
    CallEvent,
    CallSession,
    LegalHold,
    Memory,
    MemoryChange,
)
from memoair_cloud.database.outcome_models import CallOutcome
from memoair_cloud.database.recall_trace_models import RecallTrace


class Lifetime(str, Enum):
    """Which of a project's periods limits how long the rows of a table are kept."""

    TURNS = "turns"  # the events of calls, and the calls that consist of them
    FACTS = "facts"  # as the turns, if the project says so
    TRACES = "traces"  # each row by itself
    CALLER = "caller"  # until the caller is erased


@attrs.frozen
class CallerTable:
    """A table whose rows belong to a caller.

    Attributes:
        name: The name in receipts and exports.
        model: The model. It has a column ``user_id``, and its foreign keys delete its rows with those of the user.
        lifetime: What limits how long its rows are kept.
        time_column: The name of the column with the time of a row, for tables of `Lifetime.TRACES`.
    """

    name: str
    model: type[ProjectOwned]
    lifetime: Lifetime
    time_column: str | None = None

    def belongs_to(self, user_id: str) -> ColumnElement[bool]:
        """Return the condition that selects the rows of a user."""
        condition: ColumnElement[bool] = getattr(self.model, "user_id") == user_id  # noqa: B009 - not on the base
        return condition

    def count(self, session: Session, user_id: str) -> int:
        """Return the number of rows of a user."""
        return session.scalars(select(func.count()).select_from(self.model).where(self.belongs_to(user_id))).one()


CALLER_TABLES = (
    CallerTable("sessions", CallSession, Lifetime.TURNS),
    CallerTable("events", CallEvent, Lifetime.TURNS),
    CallerTable("memories", Memory, Lifetime.FACTS),
    CallerTable("memoryChanges", MemoryChange, Lifetime.FACTS),
    CallerTable("profiles", CallerProfile, Lifetime.CALLER),
    CallerTable("recallTraces", RecallTrace, Lifetime.TRACES, "occurred_at"),
    CallerTable("outcomes", CallOutcome, Lifetime.TURNS),
    CallerTable("evaluationCases", SuiteCase, Lifetime.CALLER),
    CallerTable("pendingEvaluationCases", PendingCase, Lifetime.CALLER),
    CallerTable("evaluationResults", EvaluationResult, Lifetime.CALLER),
    CallerTable("holds", LegalHold, Lifetime.CALLER),
)
