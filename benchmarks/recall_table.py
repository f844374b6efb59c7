"""The table of recall quality."""

import sys
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

TABLE_WIDTH = 160  # when the output is not a terminal
SYSTEMS = {
    "memoair": "memoair",
    "bm25": "BM25",
    "stem": "BM25 + stem",
    "talk": "BM25 + talk",
    "minilm": "MiniLM",
    "sum": "BM25 + MiniLM",
}


def print_table(results: Mapping[str, Mapping[str, Any]]) -> None:
    """Print the share that each system found, and what counts as found."""
    systems = [name for name in SYSTEMS if any(name in result for result in results.values())]
    table = Table("share found", "what counts", "questions", "bar", "goal", *(SYSTEMS[name] for name in systems))
    table.add_column("search ms, median / p99")
    for result in results.values():
        times = f"{result['searchMs']['median']} / {result['searchMs']['p99']}"
        limits = [_format_share(result["bar"], 2), _format_share(result["goal"], 2)]
        cells = [_format_share(result.get(name)) for name in systems]
        table.add_row(result["label"], result["counts"], str(result["questions"]), *limits, *cells, times)
        for counts, shares in result["further"].items():
            cells = [_format_share(shares.get(name)) for name in systems]
            table.add_row("", counts, "", "", "", *cells, "")
    console = Console(width=None if sys.stdout.isatty() else TABLE_WIDTH)
    console.print(table)
    for result in results.values():
        if result["degraded"]:
            console.print(f"{result['label']}: a lane was late in {result['degraded']} results; the share is too low")
    _print_kinds(results, systems, console)


def _print_kinds(results: Mapping[str, Mapping[str, Any]], systems: Sequence[str], console: Console) -> None:
    for set_name in dict.fromkeys(result["set"] for result in results.values()):
        rows = [result for result in results.values() if result["set"] == set_name]
        kinds = sorted({kind for result in rows for kind in result["kinds"]})
        if not kinds:
            continue
        table = Table("by kind of question", "", *kinds)
        for result in rows:
            for name in systems:
                cells = [_format_share(result["kinds"][kind].get(name)) for kind in kinds]
                table.add_row(result["label"], SYSTEMS[name], *cells)
        console.print(table)


def _format_share(share: float | None, digits: int = 3) -> str:
    return "" if share is None else f"{share:.{digits}f}"
