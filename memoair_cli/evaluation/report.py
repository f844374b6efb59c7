"""Print a run: its figures, the cases that failed with what is missing, and how it compares with another run."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from memoair_cli.listings import make_printable
from memoair_cli.options import pluralize
from memoair_evaluation.case import Expectation, RecallCase
from memoair_evaluation.comparison import CaseComparison, CaseOutcome, Comparison
from memoair_evaluation.scoring import CaseScores, RunScores

_MAX_SHOWN_CASES = 50
_MAX_PHRASE_CHARS = 60
_FIGURE_NAMES = {
    "passed": "passed",
    "recalled": "recalled",
    "unwanted": "unwanted items",
    "grade": "the judge's grade",
    "recalledHalf": "recalled at half the budgets",
    "rank": "rank",
}


def print_run(
    console: Console,
    suite: str,
    cases: Sequence[RecallCase],
    scores: Mapping[str, CaseScores],
    totals: RunScores,
    comparison: Comparison | None = None,
) -> None:
    """Print a run for people.

    Args:
        console: Where to print.
        suite: The name of the suite.
        cases: Its cases.
        scores: What each case scores, by its id.
        totals: What they score together.
        comparison: How it compares with another run; None to compare it with none.
    """
    rate = "" if totals.pass_rate is None else f" ({totals.pass_rate:.1%})"
    title = f"{make_printable(suite)}: {pluralize(totals.cases, 'case')}, {totals.passed:,} passed{rate}"
    console.print(f"[bold]{escape(title)}[/]", soft_wrap=True)
    console.print(_make_figures(totals, comparison), soft_wrap=not console.is_terminal)
    failed = [case for case in cases if not scores[case.id].passed]
    if failed:
        console.print("\n[bold]failed[/]")
        for case in failed[:_MAX_SHOWN_CASES]:
            _print_failed(console, case, scores[case.id])
        _print_rest(console, len(failed))
    if comparison is not None:
        _print_comparison(console, comparison)


def describe_expectation(item: Expectation) -> str:
    """Return an expectation for people: ``document returns-policy of the index returns``."""
    if item.document is not None:
        return f"document {item.document}" + (f" of the index {item.index}" if item.index else "")
    if item.turn is not None:
        return f"turn {item.turn}" + (f" of the call {item.session}" if item.session else "")
    kind, phrase = ("fact", item.fact) if item.fact is not None else ("text", item.text or "")
    short = phrase if len(phrase) <= _MAX_PHRASE_CHARS else f"{phrase[:_MAX_PHRASE_CHARS]}..."
    return f'{kind} "{short}"'


def _make_figures(totals: RunScores, comparison: Comparison | None) -> Table:
    table = Table(box=None, pad_edge=False, show_header=comparison is not None, header_style="dim")
    table.add_column("")
    table.add_column("", justify="right")
    columns = [totals]
    if comparison is not None:
        if comparison.after.cases != totals.cases:
            columns.append(comparison.after)
            table.add_column("in cases of both", justify="right")
        columns.append(comparison.before)
        table.add_column("before", justify="right")
    for name, show in _FIGURES:
        table.add_row(name, *(show(column) for column in columns))
    for verdict in totals.answers or {}:
        cells = [str((column.answers or {}).get(verdict, "-")) for column in columns]
        table.add_row(escape(f"answers: {verdict}"), *map(escape, cells))
    return table


def _print_failed(console: Console, case: RecallCase, scores: CaseScores) -> None:
    missing = [describe_expectation(case.must[position]) for position in scores.missing]
    unwanted = [describe_expectation(case.must_not[position]) for position in scores.unwanted_items]
    console.print(f"  {escape(make_printable(case.id))}", soft_wrap=True)
    for label, items in (("missing", missing), ("unwanted", unwanted)):
        for item in items:
            console.print(f"    [dim]{label:8}[/]  {escape(_to_line(item))}", soft_wrap=True)


def _print_comparison(console: Console, comparison: Comparison) -> None:
    counts = [f"{count:,} {outcome}" for outcome, count in comparison.counts.items() if count]
    verdict = "worse" if comparison.is_worse else "not worse"
    console.print(f"\n[bold]compared with the earlier run: {verdict}[/] ({', '.join(counts) or 'no cases'})")
    listed = [case for case in comparison.cases if case.outcome in (CaseOutcome.WORSE, CaseOutcome.BETTER)]
    for case in listed[:_MAX_SHOWN_CASES]:
        console.print(f"  {case.outcome.value:6}  {escape(_describe_change(case))}", soft_wrap=True)
    _print_rest(console, len(listed))


def _describe_change(case: CaseComparison) -> str:
    figure = case.decided_by or ""
    before, after = (
        "-" if scores is None else _show_value((scores.to_wire() | dict(scores.answer or {})).get(figure))
        for scores in (case.before, case.after)
    )
    return f"{_to_line(case.case_id)}: {_FIGURE_NAMES.get(figure, figure)} {before} -> {after}"


def _print_rest(console: Console, count: int) -> None:
    if count > _MAX_SHOWN_CASES:
        console.print(f"  ... and {count - _MAX_SHOWN_CASES:,} more; --json lists all")


def _to_line(text: str) -> str:
    return " ".join(make_printable(text).split())


def _show_value(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "none" if value is None else f"{value:g}"


def _show_share(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _show_ms(scores: RunScores) -> str:
    return "-" if scores.ms50 is None else f"{scores.ms50:.1f} / {scores.ms95:.1f}"


_FIGURES = (
    ("passed", lambda scores: _show_share(scores.pass_rate)),
    ("recalled of what must be", lambda scores: _show_share(scores.recalled)),
    ("the same at half the budgets", lambda scores: _show_share(scores.recalled_half)),
    ("mean reciprocal rank", lambda scores: _show_share(scores.mean_reciprocal_rank)),
    ("unwanted items", lambda scores: f"{scores.unwanted:,}"),
    ("characters of context, mean", lambda scores: "-" if scores.chars is None else f"{scores.chars:,.0f}"),
    ("milliseconds, median / 95 %", _show_ms),
    (
        "late lanes",
        lambda scores: ", ".join(f"{lane} {count:,}" for lane, count in scores.late_lanes.items()) or "none",
    ),
)
