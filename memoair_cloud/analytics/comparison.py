"""Compare the outcomes of two versions of a prompt, and say so if there are too few calls to compare."""

from collections.abc import Callable, Sequence
from enum import Enum

import attrs

from memoair_cloud.analytics.intervals import (
    Estimate,
    ShareSample,
    estimate_mean_difference,
    estimate_share_difference,
)
from memoair_cloud.analytics.prompts import PromptFigures, ShareBase

# With fewer calls on one side, an interval spans so much that only its middle would be remembered.
MIN_CALLS = 30


class ComparisonVerdict(str, Enum):
    """What a comparison can say."""

    NOT_ENOUGH = "not_enough_calls"  # no difference is computed
    UNDECIDED = "undecided"  # the interval of the difference has zero in it
    HIGHER = "higher"  # the later version's value is higher, by all of the interval
    LOWER = "lower"


@attrs.frozen
class VersionDifference:
    """A difference between two versions.

    Attributes:
        verdict: What it says.
        difference: How much the second is higher; None if there are not enough calls.
        before_count: The number of calls, or of scores, of the first version.
        after_count: The same of the second.
    """

    verdict: ComparisonVerdict
    difference: Estimate | None
    before_count: int
    after_count: int

    @property
    def missing(self) -> int:
        """How many more are needed, at least, on the side that has fewer."""
        return max(0, MIN_CALLS - min(self.before_count, self.after_count))


@attrs.frozen
class OutcomeComparison:
    """An outcome in two versions.

    Attributes:
        outcome: Its name.
        share: The difference of its shares.
        score: The difference of its mean scores; None if it has none in either version.
    """

    outcome: str
    share: VersionDifference
    score: VersionDifference | None


@attrs.frozen
class PromptComparison:
    """Two versions of an agent's prompt, side by side.

    Attributes:
        before: The figures of the one.
        after: The figures of the other.
        outcomes: The outcomes of either, the most frequent first.
        has_uneven_reports: Whether outcomes are reported of a smaller part of the calls of one version than of the
            other. Then the calls that are missing may decide the comparison.
    """

    before: PromptFigures
    after: PromptFigures
    outcomes: Sequence[OutcomeComparison]
    has_uneven_reports: bool


# Reports of two versions differ by that share of their calls: more than live calls without an outcome explain.
_UNEVEN = 0.1


def compare_prompts(before: PromptFigures, after: PromptFigures, base: ShareBase) -> PromptComparison:
    """Compare two versions.

    Args:
        before: The figures of the one.
        after: The figures of the other: differences are positive where it is higher.
        base: What shares are of.
    """
    counts = {name: before.count_of(name) + after.count_of(name) for name in (*before.outcomes, *after.outcomes)}
    names = sorted(counts, key=lambda name: (-counts[name], name))
    totals = before.share_total(base), after.share_total(base)
    compared = [_compare_outcome(name, before, after, totals) for name in names]
    gap = abs(before.reported_share - after.reported_share)
    return PromptComparison(before, after, compared, has_uneven_reports=bool(names) and gap > _UNEVEN)


def _compare_outcome(
    name: str, before: PromptFigures, after: PromptFigures, totals: tuple[int, int]
) -> OutcomeComparison:
    first, second = ShareSample(before.count_of(name), totals[0]), ShareSample(after.count_of(name), totals[1])
    share = _judge(totals, lambda: estimate_share_difference(first, second))
    first_scores, second_scores = before.scores_of(name), after.scores_of(name)
    counts = first_scores.count, second_scores.count
    score = _judge(counts, lambda: estimate_mean_difference(first_scores, second_scores)) if any(counts) else None
    return OutcomeComparison(name, share, score)


def _judge(counts: tuple[int, int], compute: Callable[[], Estimate | None]) -> VersionDifference:
    difference = compute() if min(counts) >= MIN_CALLS else None
    if difference is None:
        return VersionDifference(ComparisonVerdict.NOT_ENOUGH, None, *counts)
    if difference.low > 0:
        return VersionDifference(ComparisonVerdict.HIGHER, difference, *counts)
    return VersionDifference(
        ComparisonVerdict.LOWER if difference.high < 0 else ComparisonVerdict.UNDECIDED, difference, *counts
    )
