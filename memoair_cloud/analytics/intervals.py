"""Shares, means and their differences, each with the interval of 95 % that the data supports.

SciPy is imported with the first interval and not with the server: it takes most of a second.
"""

import math
from collections.abc import Iterable

import attrs

LEVEL = 0.95
# Of fewer scores, the interval is wider than all scores that there could be.
MIN_SCORES = 5


@attrs.frozen
class Estimate:
    """A value that was measured, and the interval in which the true one lies with a confidence of 95 %.

    Attributes:
        value: The value.
        low: The lower end of the interval.
        high: The upper end.
    """

    value: float
    low: float
    high: float


@attrs.frozen
class ShareSample:
    """How many of some calls have something.

    Attributes:
        count: The number of those that have it.
        total: The number of all.
    """

    count: int
    total: int


@attrs.frozen
class ScoreSample:
    """What is needed of some scores. They are summed around their mean: of large scores, squares lose all digits.

    Attributes:
        count: The number of scores.
        mean: Their mean; 0 without scores.
        squares: The sum of the squares of their distances from the mean.
    """

    count: int = 0
    mean: float = 0.0
    squares: float = 0.0

    @property
    def variance(self) -> float:
        """The variance, as far as the sample tells it; 0 for fewer than two scores."""
        return self.squares / (self.count - 1) if self.count > 1 else 0.0

    def __add__(self, other: "ScoreSample") -> "ScoreSample":
        """Return the scores of both (Chan's formula)."""
        count = self.count + other.count
        if not self.count or not other.count:
            return self if self.count else other
        distance = other.mean - self.mean
        mean = self.mean + distance * other.count / count
        between = distance * distance * self.count * other.count / count
        return ScoreSample(count, mean, self.squares + other.squares + between)


def collect_scores(scores: Iterable[tuple[float, int]]) -> ScoreSample:
    """Return the sample of some scores, each given with how often it occurs."""
    rows = list(scores)
    count = sum(number for _, number in rows)
    if not count:
        return ScoreSample()
    mean = math.fsum(score / count * number for score, number in rows)  # a sum of large scores could overflow
    return ScoreSample(count, mean, math.fsum((score - mean) ** 2 * number for score, number in rows))


def estimate_share(sample: ShareSample) -> Estimate | None:
    """Return a share with Wilson's interval, which holds for few calls and for shares near 0 and 1, too.

    Returns:
        The share; None of nothing.
    """
    if not sample.total:
        return None
    from scipy.stats import binomtest  # type: ignore[import-untyped]

    interval = binomtest(sample.count, sample.total).proportion_ci(LEVEL, method="wilson")
    return Estimate(sample.count / sample.total, float(interval.low), float(interval.high))


def estimate_mean(sample: ScoreSample) -> Estimate | None:
    """Return a mean with the interval of Student's t.

    Not by bootstrap: that needs all scores again for each look, and draws by chance. With as many calls as a comparison
    asks for, the two agree.

    Returns:
        The mean; None for fewer than `MIN_SCORES` scores, and if all are equal: that tells nothing of how they scatter.
    """
    if sample.count < MIN_SCORES or not sample.variance:
        return None
    return _around(sample.mean, math.sqrt(sample.variance / sample.count), sample.count - 1)


def estimate_share_difference(before: ShareSample, after: ShareSample) -> Estimate | None:
    """Return by how much a share has changed, with Newcombe's interval: that of two Wilson intervals.

    Returns:
        The difference, positive if the later share is higher; None if there is nothing on one side.
    """
    first, second = estimate_share(before), estimate_share(after)
    if first is None or second is None:
        return None
    difference = second.value - first.value
    below = math.hypot(second.value - second.low, first.high - first.value)
    above = math.hypot(second.high - second.value, first.value - first.low)
    return Estimate(difference, difference - below, difference + above)


def estimate_mean_difference(before: ScoreSample, after: ScoreSample) -> Estimate | None:
    """Return by how much a mean has changed, with Welch's interval: the two need not scatter alike.

    Returns:
        The difference, positive if the later mean is higher; None for fewer than two scores on one side, and if all
        scores are equal.
    """
    if min(before.count, after.count) < 2:
        return None
    first, second = before.variance / before.count, after.variance / after.count
    if not first + second:
        return None
    degrees = (first + second) ** 2 / (first**2 / (before.count - 1) + second**2 / (after.count - 1))
    return _around(after.mean - before.mean, math.sqrt(first + second), degrees)


def _around(value: float, error: float, degrees: float) -> Estimate:
    from scipy.stats import t

    low, high = t.interval(LEVEL, degrees, loc=value, scale=error)
    return Estimate(value, float(low), float(high))
