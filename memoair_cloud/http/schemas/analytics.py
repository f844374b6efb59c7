"""Bodies of the routes for figures."""

from datetime import datetime

from pydantic import Field

from memoair_cloud.analytics.comparison import ComparisonVerdict, OutcomeComparison, PromptComparison, VersionDifference
from memoair_cloud.analytics.intervals import Estimate
from memoair_cloud.analytics.prompts import PromptFigures, ShareBase
from memoair_cloud.http.schemas.base import ResponseBody


class EstimateOut(ResponseBody):
    """A value with the interval of 95 % around it."""

    value: float
    low: float
    high: float

    @classmethod
    def of(cls, estimate: Estimate | None) -> "EstimateOut | None":
        """Return the body for an estimate."""
        return None if estimate is None else cls.model_validate(estimate)


class OutcomeFiguresOut(ResponseBody):
    """An outcome in one version: calls with it, their share, and the mean of their scores.

    `meanScore` is null for fewer than five scores, and if all are equal.
    """

    outcome: str
    count: int
    share: EstimateOut | None
    score_count: int
    mean_score: EstimateOut | None


class PromptFiguresOut(ResponseBody):
    """Figures of a version. `version` is null for calls whose application named none."""

    agent_id: str | None
    version: int | None
    calls: int
    callers: int
    turns: int
    open_calls: int
    late_calls: int
    searches: int
    found_share: float | None = Field(description="the share of the searches that found something")
    degraded_share: float | None = Field(description="the share of the searches with a missed lane")
    median_ms: float | None
    p95_ms: float | None
    p99_ms: float | None
    reported_calls: int = Field(description="calls with an outcome")
    outcomes: list[OutcomeFiguresOut]

    @classmethod
    def of(cls, figures: PromptFigures, base: ShareBase) -> "PromptFiguresOut":
        """Return the body for the figures of a version."""
        recall = figures.recall
        return cls(
            agent_id=figures.key.agent_id,
            version=figures.key.version,
            calls=figures.calls.calls,
            callers=figures.callers,
            turns=figures.calls.turns,
            open_calls=figures.calls.open,
            late_calls=figures.calls.late,
            searches=recall.count,
            found_share=1 - recall.nothing_found_share if recall.count else None,
            degraded_share=recall.degraded_share if recall.count else None,
            median_ms=recall.median_ms,
            p95_ms=recall.p95_ms,
            p99_ms=recall.p99_ms,
            reported_calls=figures.reported,
            outcomes=[
                OutcomeFiguresOut(
                    outcome=name,
                    count=outcome.count,
                    share=EstimateOut.of(figures.estimate_share(name, base)),
                    score_count=outcome.scores.count,
                    mean_score=EstimateOut.of(outcome.mean),
                )
                for name, outcome in figures.outcomes.items()
            ],
        )


class PromptAnalyticsOut(ResponseBody):
    """The figures of each version of a period, by agent, latest version first."""

    since: datetime = Field(serialization_alias="from")
    until: datetime = Field(serialization_alias="to")
    base: ShareBase
    versions: list[PromptFiguresOut]


class DifferenceOut(ResponseBody):
    """How much the second version is higher, with the interval of 95 %; null if there are not enough calls."""

    verdict: ComparisonVerdict
    difference: EstimateOut | None
    before_count: int
    after_count: int

    @classmethod
    def of(cls, found: VersionDifference) -> "DifferenceOut":
        """Return the body for a difference."""
        return cls.model_validate(found)


class OutcomeComparisonOut(ResponseBody):
    """An outcome in both versions. `score` is null if it has no score in either."""

    outcome: str
    share: DifferenceOut
    score: DifferenceOut | None

    @classmethod
    def of(cls, found: OutcomeComparison) -> "OutcomeComparisonOut":
        """Return the body for a comparison."""
        return cls.model_validate(found)


class PromptComparisonOut(ResponseBody):
    """Two versions side by side.

    `unevenReports`: outcomes are reported of a much smaller part of the calls of one of them, so that the calls that
    are missing may decide the comparison.
    """

    since: datetime = Field(serialization_alias="from")
    until: datetime = Field(serialization_alias="to")
    base: ShareBase
    before: PromptFiguresOut
    after: PromptFiguresOut
    outcomes: list[OutcomeComparisonOut]
    uneven_reports: bool

    @classmethod
    def of(cls, found: PromptComparison, since: datetime, until: datetime, base: ShareBase) -> "PromptComparisonOut":
        """Return the body for a comparison of a period."""
        return cls(
            since=since,
            until=until,
            base=base,
            before=PromptFiguresOut.of(found.before, base),
            after=PromptFiguresOut.of(found.after, base),
            outcomes=[OutcomeComparisonOut.of(row) for row in found.outcomes],
            uneven_reports=found.has_uneven_reports,
        )
