"""Scores of a case, and of a whole run. All but the times are the same for the same state, to the last digit."""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import attrs

_MS_DIGITS = 3
_SHARE_DIGITS = 6
_COST_DIGITS = 8
_TOKENS = ("promptTokens", "completionTokens")


@attrs.frozen
class CaseScores:
    """What a case scores. Positions count from 0, in ``must`` and ``mustNot`` of the case.

    Attributes:
        recalled: The share of ``must`` in the context, 0 to 1; None for a case that requires nothing.
        recalled_half: The same with half the budgets.
        rank: The best rank of a required item among the hits of its lane, from 1; None if none was found.
        unwanted: How many of ``mustNot`` are in the context.
        chars: The characters of the context.
        ms: How long the search took, in milliseconds. Not the same in each run.
        late_lanes: The lanes that took longer than a search may take. Not the same in each run.
        passed: Whether the context has everything that it must have, and nothing that it must not have.
        missing: What of ``must`` is not in the context.
        found: What of ``must`` is.
        unwanted_items: What of ``mustNot`` is.
        found_half: What of ``must`` is in the context with half the budgets.
        answer: What the judge says: ``verdict`` and ``grade``, and what it is; None without one.
    """

    recalled: float | None
    recalled_half: float | None
    rank: int | None
    unwanted: int
    chars: int
    ms: float
    late_lanes: tuple[str, ...]
    passed: bool
    missing: tuple[int, ...]
    found: tuple[int, ...]
    unwanted_items: tuple[int, ...] = ()
    found_half: tuple[int, ...] = ()
    answer: Mapping[str, Any] | None = None

    def to_wire(self) -> dict[str, Any]:
        """Return the scores in JSON."""
        wire: dict[str, Any] = {
            "recalled": self.recalled,
            "recalledHalf": self.recalled_half,
            "rank": self.rank,
            "unwanted": self.unwanted,
            "chars": self.chars,
            "ms": self.ms,
            "lateLanes": list(self.late_lanes),
            "passed": self.passed,
            "missing": list(self.missing),
            "found": list(self.found),
            "unwantedItems": list(self.unwanted_items),
            "foundHalf": list(self.found_half),
        }
        return wire if self.answer is None else {**wire, "answer": dict(self.answer)}

    @classmethod
    def from_wire(cls, wire: Mapping[str, Any]) -> "CaseScores":
        """Return the scores that `to_wire` has written; raises KeyError or TypeError for anything else."""
        return cls(
            recalled=wire["recalled"],
            recalled_half=wire["recalledHalf"],
            rank=wire["rank"],
            unwanted=wire["unwanted"],
            chars=wire["chars"],
            ms=wire["ms"],
            late_lanes=tuple(wire["lateLanes"]),
            passed=wire["passed"],
            missing=tuple(wire["missing"]),
            found=tuple(wire["found"]),
            unwanted_items=tuple(wire.get("unwantedItems", ())),
            found_half=tuple(wire.get("foundHalf", ())),
            answer=wire.get("answer"),
        )

    def without_times(self) -> "CaseScores":
        """Return the scores without what was measured with a clock: equal for the same state."""
        return attrs.evolve(self, ms=0.0, late_lanes=())


@attrs.frozen
class CaseResult:
    """The result of a case.

    Attributes:
        case_id: The case.
        case_sha256: Its hash, which tells whether two runs had the same case.
        scores: What it scores.
        trace: The record of the search, as a recall trace has it, and the text of each hit, shortened.
        context: The context that an agent would get.
        half_context: The context with half the budgets; None if it was not built.
    """

    case_id: str
    case_sha256: str
    scores: CaseScores
    trace: Mapping[str, Any]
    context: str = attrs.field(repr=False)
    half_context: str | None = attrs.field(default=None, repr=False)


@attrs.frozen
class RunScores:
    """What all cases of a run score together.

    Attributes:
        cases: How many there are.
        passed: How many passed.
        recalled: The mean share of what must be recalled, of the cases that require anything; None if none does.
        recalled_half: The same with half the budgets.
        mean_reciprocal_rank: The mean of 1 / rank of those cases, 0 for one in which nothing was found.
        unwanted: How many items are in contexts that must not be there.
        chars: The mean number of characters of a context; None without cases.
        ms50: The median of the milliseconds; None without cases.
        ms95: Their 95th percentile.
        late_lanes: How often each lane was late.
        answers: How often the judge said what; ``grade``, the mean of the grades; the tokens, and what they cost if
            the judge has prices; None without a judge.
    """

    cases: int
    passed: int
    recalled: float | None
    recalled_half: float | None
    mean_reciprocal_rank: float | None
    unwanted: int
    chars: float | None
    ms50: float | None
    ms95: float | None
    late_lanes: Mapping[str, int]
    answers: Mapping[str, Any] | None = None

    @property
    def pass_rate(self) -> float | None:
        """The share of the cases that passed, 0 to 1; None without cases. ``--fail-under`` is compared with it."""
        return self.passed / self.cases if self.cases else None

    def to_wire(self) -> dict[str, Any]:
        """Return the scores in JSON."""
        wire: dict[str, Any] = {
            "cases": self.cases,
            "passed": self.passed,
            "passRate": _round_share(self.pass_rate),
            "recalled": self.recalled,
            "recalledHalf": self.recalled_half,
            "meanReciprocalRank": self.mean_reciprocal_rank,
            "unwanted": self.unwanted,
            "chars": self.chars,
            "ms50": self.ms50,
            "ms95": self.ms95,
            "lateLanes": dict(self.late_lanes),
        }
        return wire if self.answers is None else {**wire, "answers": dict(self.answers)}


def aggregate(results: Iterable[CaseScores]) -> RunScores:
    """Return what all cases score together; the order of the cases does not matter."""
    scores = list(results)
    requiring = [case for case in scores if case.recalled is not None]
    times = sorted(case.ms for case in scores)
    return RunScores(
        cases=len(scores),
        passed=sum(case.passed for case in scores),
        recalled=_mean([case.recalled for case in requiring if case.recalled is not None]),
        recalled_half=_mean([case.recalled_half for case in requiring if case.recalled_half is not None]),
        mean_reciprocal_rank=_mean([1 / case.rank if case.rank else 0.0 for case in requiring]),
        unwanted=sum(case.unwanted for case in scores),
        chars=_mean([case.chars for case in scores]),
        ms50=_percentile(times, 0.50),
        ms95=_percentile(times, 0.95),
        late_lanes=dict(sorted(Counter(lane for case in scores for lane in case.late_lanes).items())),
        answers=_count_answers([case.answer for case in scores if case.answer is not None]),
    )


def _count_answers(answers: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    if not answers:
        return None
    counts = Counter(str(answer.get("verdict")) for answer in answers)
    grades = [float(answer["grade"]) for answer in answers if answer.get("grade") is not None]
    used = {name: sum(answer.get(name, 0) for answer in answers) for name in _TOKENS}
    used = {name: count for name, count in used.items() if count}
    costs = [float(answer["cost"]) for answer in answers if answer.get("cost") is not None]
    cost = {"cost": round(math.fsum(costs), _COST_DIGITS)} if costs else {}
    return {**dict(sorted(counts.items())), "grade": _mean(grades), **used, **cost}


def _mean(values: Sequence[float]) -> float | None:
    """Return the mean, which does not depend on the order of the values."""
    return round(math.fsum(values) / len(values), _SHARE_DIGITS) if values else None


def _round_share(value: float | None) -> float | None:
    return None if value is None else round(value, _SHARE_DIGITS)


def _percentile(ordered: Sequence[float], share: float) -> float | None:
    """Return the nearest-rank percentile of values in order."""
    if not ordered:
        return None
    return round(ordered[max(0, math.ceil(share * len(ordered)) - 1)], _MS_DIGITS)
