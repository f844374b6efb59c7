"""Two runs side by side, as pages show them: totals with their differences, and the lines of a context that differ."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import attrs

from memoair_cloud.dashboard.rendering import NOTHING, format_ms, format_share

_Format = Callable[[Any], str]


@attrs.frozen
class ShownFigure:
    """A figure of two runs.

    Attributes:
        name: What it is.
        before: Its value in the earlier run.
        after: Its value in the later run.
        difference: The difference, with its sign; empty if the values are equal.
        tone: ``good`` or ``bad``; empty if it is neither.
    """

    name: str
    before: str
    after: str
    difference: str
    tone: str


def _format_number(value: Any) -> str:
    return NOTHING if value is None else f"{value:,}"


def _format_rank(value: Any) -> str:
    return NOTHING if value is None else f"{value:.2f}"


def _format_chars(value: Any) -> str:
    return NOTHING if value is None else f"{value:,.0f}"


# Of the scores on the wire: the name, how it is shown, and whether more of it is better (1), worse (-1) or neither (0).
_FIGURES: Mapping[str, tuple[str, _Format, int]] = {
    "cases": ("Cases", _format_number, 0),
    "passed": ("Passed", _format_number, 1),
    "recalled": ("Recalled", format_share, 1),
    "recalledHalf": ("Recalled at half budget", format_share, 1),
    "unwanted": ("Unwanted", _format_number, -1),
    "meanReciprocalRank": ("Mean reciprocal rank", _format_rank, 1),
    "chars": ("Characters of a context", _format_chars, 0),
    "ms50": ("Median", format_ms, 0),
    "ms95": ("95 % within", format_ms, 0),
}


def show_totals(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[ShownFigure]:
    """Return the figures of two runs.

    Args:
        before: The scores of the earlier run on the wire.
        after: Those of the later run.
    """
    rows = [
        _show_figure(name, form, direction, before.get(key), after.get(key))
        for key, (name, form, direction) in _FIGURES.items()
    ]
    grades = [(scores.get("answers") or {}).get("grade") for scores in (before, after)]
    if grades != [None, None]:
        rows.append(_show_figure("Answers", format_share, 1, *grades))
    return rows


def diff_lines(before: str, after: str) -> list[tuple[str, str]]:
    """Return the lines that only one of two contexts has, ``-`` for the earlier one and ``+`` for the later one."""
    old, new = before.splitlines(), after.splitlines()
    gone, added = set(old) - set(new), set(new) - set(old)
    lines: Sequence[tuple[str, str]] = [("-", line) for line in old if line in gone]
    return [*lines, *(("+", line) for line in new if line in added)]


def _show_figure(name: str, form: _Format, direction: int, before: Any, after: Any) -> ShownFigure:
    if before is None or after is None or before == after:
        return ShownFigure(name, form(before), form(after), "", "")
    change = after - before
    sign = "+" if change > 0 else "\N{MINUS SIGN}"
    tone = "" if direction == 0 else "good" if change * direction > 0 else "bad"
    return ShownFigure(name, form(before), form(after), f"{sign}{form(abs(change))}", tone)
