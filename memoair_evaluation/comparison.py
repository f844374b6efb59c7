"""Compare two runs: which cases are better, which are worse, and what both score together."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from enum import Enum
from typing import Any

import attrs

from memoair_evaluation.scoring import CaseScores, RunScores, aggregate


class CaseOutcome(str, Enum):
    """What has become of a case, in the order in which cases are listed."""

    WORSE = "worse"
    BETTER = "better"
    CHANGED = "changed"  # the case itself was changed, so its scores cannot be compared
    ADDED = "added"  # the earlier run did not have it
    REMOVED = "removed"  # the later run does not have it
    SAME = "same"


# What decides whether a case is better: the first of these that differs. More is better. What a clock has measured, and
# the length of the context, decide nothing.
_FIGURES: Mapping[str, Callable[[CaseScores], float]] = {
    "passed": lambda scores: scores.passed,
    "recalled": lambda scores: scores.recalled or 0.0,
    "unwanted": lambda scores: -scores.unwanted,
    "grade": lambda scores: (scores.answer or {}).get("grade") or 0.0,
    "recalledHalf": lambda scores: scores.recalled_half or 0.0,
    "rank": lambda scores: 1 / scores.rank if scores.rank else 0.0,
}


@attrs.frozen
class ScoredCase:
    """The scores of a case in a run.

    Attributes:
        case_id: The case.
        case_sha256: Its hash, which differs once the case was changed.
        scores: Its scores.
    """

    case_id: str
    case_sha256: str
    scores: CaseScores


@attrs.frozen
class CaseComparison:
    """A case in two runs.

    Attributes:
        case_id: The case.
        outcome: What has become of it.
        decided_by: The figure that decides, such as ``recalled``; None unless it is better or worse.
        before: Its scores in the earlier run; None if it was added.
        after: Its scores in the later run; None if it was removed.
    """

    case_id: str
    outcome: CaseOutcome
    decided_by: str | None
    before: CaseScores | None
    after: CaseScores | None

    def to_wire(self) -> dict[str, Any]:
        """Return the comparison in JSON."""
        return {
            "caseId": self.case_id,
            "outcome": self.outcome.value,
            "decidedBy": self.decided_by,
            "before": None if self.before is None else self.before.to_wire(),
            "after": None if self.after is None else self.after.to_wire(),
        }


@attrs.frozen
class Comparison:
    """Two runs side by side.

    Attributes:
        cases: All cases: the worse ones first, then in the order of `CaseOutcome`, those of one outcome in the order of
            the later run.
        before: What the cases that both runs have unchanged score together in the earlier run.
        after: The same in the later run.
    """

    cases: tuple[CaseComparison, ...]
    before: RunScores
    after: RunScores

    @property
    def counts(self) -> dict[str, int]:
        """How many cases there are of each outcome, zeros included."""
        counts = Counter(case.outcome for case in self.cases)
        return {outcome.value: counts[outcome] for outcome in CaseOutcome}

    @property
    def is_worse(self) -> bool:
        """Whether the later run is worse: a case that passed fails, less is recalled, or more that is unwanted.

        A case that others make up for still counts if it passed before. The judge's grades do not count, because the
        same question may be graded differently.
        """
        fails = any(case.outcome is CaseOutcome.WORSE and case.decided_by == "passed" for case in self.cases)
        is_less = (self.after.recalled or 0.0) < (self.before.recalled or 0.0)
        return fails or is_less or self.after.unwanted > self.before.unwanted

    def to_wire(self, *, with_same: bool = True) -> dict[str, Any]:
        """Return the comparison in JSON.

        Args:
            with_same: Whether to list the cases that score the same.
        """
        cases = [case.to_wire() for case in self.cases if with_same or case.outcome is not CaseOutcome.SAME]
        return {
            "isWorse": self.is_worse,
            "counts": self.counts,
            "before": self.before.to_wire(),
            "after": self.after.to_wire(),
            "cases": cases,
        }


def compare(before: Sequence[ScoredCase], after: Sequence[ScoredCase]) -> Comparison:
    """Compare two runs of a suite.

    Args:
        before: The cases of the earlier run, each once.
        after: Those of the later run.
    """
    earlier = {case.case_id: case for case in before}
    later = {case.case_id: case for case in after}
    cases = [_compare_case(earlier.get(case.case_id), case) for case in after]
    cases += [
        CaseComparison(case.case_id, CaseOutcome.REMOVED, None, case.scores, None)
        for case in before
        if case.case_id not in later
    ]
    order = list(CaseOutcome)
    both = [case for case in cases if case.outcome in (CaseOutcome.WORSE, CaseOutcome.BETTER, CaseOutcome.SAME)]
    return Comparison(
        cases=tuple(sorted(cases, key=lambda case: order.index(case.outcome))),
        before=aggregate(case.before for case in both if case.before is not None),
        after=aggregate(case.after for case in both if case.after is not None),
    )


def _compare_case(before: ScoredCase | None, after: ScoredCase) -> CaseComparison:
    if before is None:
        return CaseComparison(after.case_id, CaseOutcome.ADDED, None, None, after.scores)
    if before.case_sha256 != after.case_sha256:
        return CaseComparison(after.case_id, CaseOutcome.CHANGED, None, before.scores, after.scores)
    for name, figure in _FIGURES.items():
        change = figure(after.scores) - figure(before.scores)
        if change and (name != "grade" or _has_comparable_grades(before.scores, after.scores)):
            outcome = CaseOutcome.BETTER if change > 0 else CaseOutcome.WORSE
            return CaseComparison(after.case_id, outcome, name, before.scores, after.scores)
    return CaseComparison(after.case_id, CaseOutcome.SAME, None, before.scores, after.scores)


def _has_comparable_grades(before: CaseScores, after: CaseScores) -> bool:
    """Return whether both have a grade, of the same model with the same instructions. An unclear answer has none."""
    if before.answer is None or after.answer is None:
        return False
    graded = (before.answer.get("grade") is not None, after.answer.get("grade") is not None)
    return all(graded) and all(before.answer.get(name) == after.answer.get(name) for name in ("model", "judgeVersion"))
