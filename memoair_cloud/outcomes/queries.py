"""Lists of outcomes, and the outcomes of calls that are shown."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime

import attrs
from sqlalchemy import ColumnElement, select, tuple_

from memoair_cloud.cursors import PageOrder, ResultPage
from memoair_cloud.database.models import CallSession
from memoair_cloud.database.outcome_models import CallOutcome
from memoair_cloud.tenancy.access import Tenant

_LATEST_FIRST = PageOrder[CallOutcome](
    (CallOutcome.reported_at, CallOutcome.session_id, CallOutcome.id),
    (datetime, str, str),
    lambda row: (row.reported_at, row.session_id, row.id),
    descending=True,
)
_MAX_RECENT = 1_000


@attrs.frozen
class OutcomeFilter:
    """Which outcomes of a project to list.

    Attributes:
        since: The first moment of the period in which they happened; None for all.
        until: The first moment after it; None for all.
        outcome: Only those of this name.
        session_id: Only those of sessions with this id.
        user_id: Only those of this user's calls.
        is_known: Only those of calls that have arrived, or only those that wait for their call.
    """

    since: datetime | None = None
    until: datetime | None = None
    outcome: str | None = None
    session_id: str | None = None
    user_id: str | None = None
    is_known: bool | None = None

    def conditions(self) -> list[ColumnElement[bool]]:
        """Return the SQL conditions."""
        found: list[ColumnElement[bool]] = []
        if self.since is not None:
            found.append(CallOutcome.reported_at >= self.since)
        if self.until is not None:
            found.append(CallOutcome.reported_at < self.until)
        if self.outcome is not None:
            found.append(CallOutcome.outcome == self.outcome)
        if self.session_id is not None:
            found.append(CallOutcome.session_id == self.session_id)
        if self.user_id is not None:
            found.append(CallOutcome.user_id == self.user_id)
        if self.is_known is not None:
            found.append(CallOutcome.user_id.is_not(None) if self.is_known else CallOutcome.user_id.is_(None))
        return found


def list_outcomes(
    tenant: Tenant, outcome_filter: OutcomeFilter, cursor: str | None, limit: int
) -> ResultPage[CallOutcome]:
    """Return a page of the project's outcomes, latest first.

    Args:
        tenant: The project.
        outcome_filter: Which outcomes.
        cursor: The cursor of the previous page, or None.
        limit: The maximum number of outcomes.

    Raises:
        InvalidRequestError: If the cursor is invalid.
    """
    with tenant.begin_read() as session:
        statement = select(CallOutcome).where(*outcome_filter.conditions())
        return _LATEST_FIRST.fetch_page(session, statement, cursor, limit)


def load_outcomes_of_calls(
    tenant: Tenant, calls: Iterable[CallSession]
) -> Mapping[tuple[str, str], Sequence[CallOutcome]]:
    """Return the outcomes of some calls by user and session, in the order in which they happened."""
    keys = [(call.user_id, call.id) for call in calls]
    if not keys:
        return {}
    found: dict[tuple[str, str], list[CallOutcome]] = {}
    with tenant.begin_read() as session:
        statement = select(CallOutcome).where(tuple_(CallOutcome.user_id, CallOutcome.session_id).in_(keys))
        for row in session.scalars(statement.order_by(CallOutcome.reported_at, CallOutcome.id)):
            found.setdefault((str(row.user_id), row.session_id), []).append(row)
    return found


def list_recent_names(tenant: Tenant) -> Sequence[str]:
    """Return the names of the project's latest outcomes, sorted."""
    with tenant.begin_read() as session:
        latest = select(CallOutcome.outcome).order_by(CallOutcome.reported_at.desc()).limit(_MAX_RECENT)
        return sorted(set(session.scalars(latest)))
