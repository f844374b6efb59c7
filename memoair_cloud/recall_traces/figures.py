"""Figures of recall by agent and period: latency, missed lanes, searches with nothing found."""

from collections import Counter
from collections.abc import Mapping
from datetime import datetime
from functools import lru_cache

import attrs
from sqlalchemy import func, literal_column, select

from memoair_cloud.analytics.prompt_key import PromptKey
from memoair_cloud.database.recall_trace_models import RecallTrace
from memoair_cloud.tenancy.access import Tenant

# Latencies are counted in steps of a tenth of a millisecond. So the database returns a few hundred groups, whatever
# the number of searches, and a percentile is exact to that step.
_STEP_US = 100
_STEP_MS = _STEP_US / 1e3
_NOT_MISSED = frozenset({"ok", "skipped"})


@attrs.frozen
class LaneFigures:
    """Figures of one lane.

    Attributes:
        asked: The number of searches that asked the lane.
        late: How many of them it was late for.
        missed: How many of them it gave nothing for: late, its data not loaded yet, or failed.
    """

    asked: int
    late: int
    missed: int

    @property
    def late_share(self) -> float:
        """The share of the searches that the lane was late for, 0 to 1."""
        return self.late / self.asked if self.asked else 0.0

    @property
    def missed_share(self) -> float:
        """The share of the searches that the lane gave nothing for, 0 to 1."""
        return self.missed / self.asked if self.asked else 0.0


@attrs.frozen
class RecallFigures:
    """Figures of the searches of a period.

    Attributes:
        count: The number of searches.
        median_ms: The median of their durations in milliseconds; None without searches. So are the other two.
        p95_ms: The 95th percentile.
        p99_ms: The 99th percentile.
        nothing_found: The number of searches that found nothing.
        degraded: The number of searches with at least one missed lane.
        lanes: Figures by lane.
    """

    count: int
    median_ms: float | None
    p95_ms: float | None
    p99_ms: float | None
    nothing_found: int
    degraded: int
    lanes: Mapping[str, LaneFigures]

    @property
    def nothing_found_share(self) -> float:
        """The share of the searches that found nothing, 0 to 1."""
        return self.nothing_found / self.count if self.count else 0.0

    @property
    def degraded_share(self) -> float:
        """The share of the searches with a missed lane, 0 to 1."""
        return self.degraded / self.count if self.count else 0.0


@attrs.define
class RecallTally:
    """Counts of searches, from which figures are computed. The tallies of two periods can be added."""

    count: int = 0
    nothing_found: int = 0
    degraded: int = 0
    steps: Counter[int] = attrs.field(factory=Counter)
    asked: Counter[str] = attrs.field(factory=Counter)
    late: Counter[str] = attrs.field(factory=Counter)
    missed: Counter[str] = attrs.field(factory=Counter)

    def add(self, step: int, lane_statuses: str, is_empty: bool, count: int) -> None:
        """Add searches of the same latency, with the same statuses of lanes."""
        self.count += count
        self.steps[step] += count
        self.nothing_found += count * is_empty
        statuses = _parse_statuses(lane_statuses)
        self.degraded += count * any(status not in _NOT_MISSED for _, status in statuses)
        for lane, status in statuses:
            if status != "skipped":
                self.asked[lane] += count
                self.late[lane] += count * (status == "late")
                self.missed[lane] += count * (status not in _NOT_MISSED)

    def merge(self, other: "RecallTally") -> None:
        """Add the searches of another tally."""
        self.count += other.count
        self.nothing_found += other.nothing_found
        self.degraded += other.degraded
        for name in ("steps", "asked", "late", "missed"):
            getattr(self, name).update(getattr(other, name))

    def to_figures(self) -> RecallFigures:
        """Return the figures."""
        return RecallFigures(
            count=self.count,
            median_ms=self._percentile(0.50),
            p95_ms=self._percentile(0.95),
            p99_ms=self._percentile(0.99),
            nothing_found=self.nothing_found,
            degraded=self.degraded,
            lanes={
                lane: LaneFigures(self.asked[lane], self.late[lane], self.missed[lane]) for lane in sorted(self.asked)
            },
        )

    def _percentile(self, share: float) -> float | None:
        """Return the middle of the step in which this share of the searches has ended; None without searches."""
        ended = 0
        for step in sorted(self.steps):
            ended += self.steps[step]
            if ended >= share * self.count:
                return round((step + 0.5) * _STEP_MS, 3)
        return None


@lru_cache(maxsize=1_024)
def _parse_statuses(lane_statuses: str) -> tuple[tuple[str, str], ...]:
    """Return the status of each lane; cached, because a project has a dozen combinations."""
    pairs = (pair.partition(":") for pair in lane_statuses.split())
    return tuple((lane, status) for lane, _, status in pairs)


def tally_by_prompt(tenant: Tenant, since: datetime, until: datetime) -> dict[PromptKey, RecallTally]:
    """Return the tallies of a project's searches in a period, by agent and version of its prompt."""
    # Literals, not parameters: PostgreSQL does not see that two parameters have the same value.
    step = (RecallTrace.total_us // literal_column(str(_STEP_US))).label("step")
    is_empty = (RecallTrace.found_count == literal_column("0")).label("is_empty")
    groups = (RecallTrace.agent_id, RecallTrace.prompt_version, step, RecallTrace.lane_statuses, is_empty)
    statement = (
        select(*groups, func.count().label("count"))
        .select_from(RecallTrace)
        .where(RecallTrace.occurred_at >= since, RecallTrace.occurred_at < until)
        .group_by(*groups)
    )
    tallies: dict[PromptKey, RecallTally] = {}
    with tenant.begin_read() as session:
        for agent_id, version, found_step, lane_statuses, found_empty, count in session.execute(statement):
            tally = tallies.setdefault(PromptKey(agent_id, version), RecallTally())
            tally.add(found_step, lane_statuses, bool(found_empty), count)
    return tallies
