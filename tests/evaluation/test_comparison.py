"""Comparison of two runs: what counts as better and as worse, by case and in total."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from memoair_evaluation.comparison import CaseOutcome, ScoredCase, compare
from memoair_evaluation.scoring import CaseScores

GOOD = CaseScores(
    recalled=1.0,
    recalled_half=1.0,
    rank=1,
    unwanted=0,
    chars=100,
    ms=1.0,
    late_lanes=(),
    passed=True,
    missing=(),
    found=(0,),
)


def scored(case_id: str, sha256: str = "same", **figures: Any) -> ScoredCase:
    known = {name: getattr(GOOD, name) for name in CaseScores.__slots__ if name != "__weakref__"}
    return ScoredCase(case_id, sha256, CaseScores(**known | figures))


def outcomes(before: list[ScoredCase], after: list[ScoredCase]) -> dict[str, tuple[str, str | None]]:
    return {case.case_id: (case.outcome.value, case.decided_by) for case in compare(before, after).cases}


@pytest.mark.parametrize(
    ("figure", "worse"),
    [
        ("passed", {"passed": False}),
        ("recalled", {"recalled": 0.5}),
        ("unwanted", {"unwanted": 1}),
        ("recalledHalf", {"recalled_half": 0.5}),
        ("rank", {"rank": 2}),
        ("rank", {"rank": None}),
    ],
)
def test_each_figure_decides_in_both_directions(figure: str, worse: dict[str, Any]) -> None:
    assert outcomes([scored("a")], [scored("a", **worse)]) == {"a": ("worse", figure)}
    assert outcomes([scored("a", **worse)], [scored("a")]) == {"a": ("better", figure)}


def test_the_first_figure_that_differs_decides() -> None:
    before, after = scored("a", recalled=0.5, rank=1), scored("a", recalled=1.0, rank=3)
    assert outcomes([before], [after]) == {"a": ("better", "recalled")}


def test_neither_times_nor_lengths_make_a_difference() -> None:
    assert outcomes([scored("a")], [scored("a", ms=900.0, chars=1, late_lanes=("org",))]) == {"a": ("same", None)}


def test_a_grade_decides_only_if_both_runs_have_a_judge() -> None:
    right, wrong = {"verdict": "right", "grade": 1.0}, {"verdict": "wrong", "grade": 0.0}
    assert outcomes([scored("a", answer=right)], [scored("a", answer=wrong)]) == {"a": ("worse", "grade")}
    assert outcomes([scored("a", answer=right)], [scored("a")]) == {"a": ("same", None)}


def test_an_answer_that_could_not_be_graded_decides_nothing() -> None:
    right, unclear = {"verdict": "right", "grade": 1.0}, {"verdict": "unclear", "grade": None}
    assert outcomes([scored("a", answer=right)], [scored("a", answer=unclear)]) == {"a": ("same", None)}
    assert outcomes([scored("a", answer=unclear)], [scored("a", answer=right)]) == {"a": ("same", None)}
    assert outcomes([scored("a", answer=right)], [scored("a", answer=unclear, rank=2)]) == {"a": ("worse", "rank")}


@pytest.mark.parametrize("other", [{"model": "large", "judgeVersion": 1}, {"model": "small", "judgeVersion": 2}])
def test_grades_of_different_judges_are_not_compared(other: dict[str, Any]) -> None:
    right = {"verdict": "right", "grade": 1.0, "model": "small", "judgeVersion": 1}
    wrong = {**right, "verdict": "wrong", "grade": 0.0}
    assert outcomes([scored("a", answer=right)], [scored("a", answer=wrong)]) == {"a": ("worse", "grade")}
    assert outcomes([scored("a", answer=right)], [scored("a", answer={**wrong, **other})]) == {"a": ("same", None)}


def test_cases_that_were_changed_added_or_removed_are_not_compared() -> None:
    before = [scored("gone"), scored("other", passed=True), scored("both")]
    after = [scored("both"), scored("other", "changed", passed=False, recalled=0.0), scored("new", passed=False)]
    comparison = compare(before, after)
    assert comparison.counts == {"worse": 0, "better": 0, "changed": 1, "added": 1, "removed": 1, "same": 1}
    assert not comparison.is_worse
    assert comparison.before.cases == comparison.after.cases == 1


def test_the_worst_comes_first() -> None:
    before = [scored("a"), scored("b", rank=2), scored("c")]
    after = [scored("a"), scored("b"), scored("c", passed=False, recalled=0.0)]
    assert [case.case_id for case in compare(before, after).cases] == ["c", "b", "a"]


@pytest.mark.parametrize(
    ("worse", "is_worse"),
    [
        ({"passed": False}, True),
        ({"recalled": 0.5}, True),
        ({"unwanted": 1}, True),
        ({"rank": 4}, False),
        ({"recalled_half": 0.0}, False),
    ],
)
def test_a_run_is_worse_if_less_of_what_counts_is_recalled(worse: dict[str, Any], is_worse: bool) -> None:
    assert compare([scored("a")], [scored("a", **worse)]).is_worse is is_worse


def test_a_case_that_fails_now_is_not_made_up_for_by_another() -> None:
    failed = {"passed": False, "recalled": 0.0}
    comparison = compare([scored("a"), scored("b", **failed)], [scored("a", **failed), scored("b")])
    assert comparison.before.to_wire() | {"ms50": 0} == comparison.after.to_wire() | {"ms50": 0}
    assert comparison.is_worse


shares = st.sampled_from([None, 0.0, 0.5, 1.0])
runs = st.dictionaries(
    st.sampled_from("abcdef"),
    st.builds(
        lambda sha256, recalled, half, rank, unwanted, passed: (
            sha256,
            {"recalled": recalled, "recalled_half": half, "rank": rank, "unwanted": unwanted, "passed": passed},
        ),
        st.sampled_from("12"),
        shares,
        shares,
        st.sampled_from([None, 1, 2, 9]),
        st.integers(0, 2),
        st.booleans(),
    ),
).map(lambda cases: [scored(case_id, sha256, **figures) for case_id, (sha256, figures) in cases.items()])


@given(runs, runs)
@settings(max_examples=100)
def test_what_is_better_one_way_is_worse_the_other_way(before: list[ScoredCase], after: list[ScoredCase]) -> None:
    opposite = {
        CaseOutcome.BETTER: CaseOutcome.WORSE,
        CaseOutcome.WORSE: CaseOutcome.BETTER,
        CaseOutcome.ADDED: CaseOutcome.REMOVED,
        CaseOutcome.REMOVED: CaseOutcome.ADDED,
    }
    there, back = compare(before, after), compare(after, before)
    assert {case.case_id for case in there.cases} == {case.case_id for case in [*before, *after]}
    assert {case.case_id: opposite.get(case.outcome, case.outcome) for case in there.cases} == {
        case.case_id: case.outcome for case in back.cases
    }
    assert sum(there.counts.values()) == len(there.cases)
    assert json.loads(json.dumps(there.to_wire())) == there.to_wire()


@given(runs)
@settings(max_examples=40)
def test_a_run_is_the_same_as_itself(run: list[ScoredCase]) -> None:
    comparison = compare(run, run)
    assert comparison.counts["same"] == len(run)
    assert not comparison.is_worse
    assert comparison.to_wire(with_same=False)["cases"] == []
