"""Show the progress of an import: a progress bar on a terminal, and a summary at the end."""

import json
import sys
import threading
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import IO, TYPE_CHECKING, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeRemainingColumn

from memoair_cli.importing.run import STDIN, ImportOutcome
from memoair_cli.importing.tally import ImportCounts
from memoair_cli.options import pluralize
from memoair_transcripts import Rejection

if TYPE_CHECKING:
    from typing_extensions import Self

# Rejections in the summary. The file of ``--refused`` has all of them.
MAX_SHOWN_REJECTIONS = 20


class ProgressReporter:
    """Shows the progress of an import. Safe to use from any thread, in a ``with`` block.

    Args:
        files: The files to import, which give the length of the bar.
        target: The name of the target.
        rejections_file: Receives all rejections as JSON lines, None to write none.
        quiet: Whether to show no progress bar.
    """

    def __init__(self, files: Sequence[Path], target: str, rejections_file: IO[str] | None, *, quiet: bool) -> None:
        self.shown_rejections: list[Rejection] = []
        self.rejection_count = 0
        self._rejections_file = rejections_file
        self._lock = threading.Lock()
        self._warned: set[str] = set()
        self._exit_stack = ExitStack()
        self._files, self._target = files, target
        self._progress: Progress | None = None
        self._task: TaskID | None = None
        if sys.stderr.isatty() and not quiet:
            self._progress = Progress(
                SpinnerColumn(),
                TextColumn("{task.description}"),
                BarColumn(),
                TextColumn("{task.fields[counts]}"),
                TimeRemainingColumn(),
                console=Console(stderr=True, highlight=False),
                transient=True,
            )

    def __enter__(self) -> "Self":
        if self._progress is not None:
            self._exit_stack.enter_context(self._progress)
            self._task = self._progress.add_task(
                f"into {escape(self._target)}", total=_total_bytes(self._files), counts=""
            )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._exit_stack.close()

    def add_rejection(self, rejection: Rejection) -> None:
        """Record a rejection."""
        with self._lock:
            self.rejection_count += 1
            if len(self.shown_rejections) < MAX_SHOWN_REJECTIONS:
                self.shown_rejections.append(rejection)
            if self._rejections_file is not None:
                self._write_rejection(self._rejections_file, rejection)

    def update(self, read_bytes: int, counts: ImportCounts) -> None:
        """Update the progress bar."""
        if self._progress is not None and self._task is not None:
            seconds = self._progress.tasks[0].elapsed or 1.0
            counts_text = f"{counts.kept:,} turns · {counts.kept / seconds:,.0f}/s"
            if counts.already_kept:
                counts_text += f" · {counts.already_kept:,} already there"
            if counts.rejected:
                counts_text += f" · [red]{counts.rejected:,} rejected[/]"
            self._progress.update(self._task, completed=read_bytes, counts=counts_text)

    def warn(self, message: str) -> None:
        """Print a message to standard error, unless it was printed before."""
        if message not in self._warned:
            self._warned.add(message)
            self.print_message(message)

    def _write_rejection(self, file: IO[str], rejection: Rejection) -> None:
        try:
            file.write(json.dumps(_rejection_to_json(rejection), ensure_ascii=False) + "\n")
        except OSError as error:
            self.warn(f"rejections cannot be written to the file: {error.strerror}")

    def print_message(self, message: str) -> None:
        """Print a message to standard error, above the progress bar."""
        if self._progress is not None and self._progress.live.is_started:
            self._progress.console.print(escape(message), soft_wrap=True)
        else:
            typer.echo(message, err=True)


def summary_json(outcome: ImportOutcome, reporter: ProgressReporter, target: str) -> dict[str, Any]:
    """Return the result of an import, for programs."""
    counts = outcome.counts
    return {
        "target": target,
        "files": outcome.files,
        "sessions": counts.calls,
        "turns": {"kept": counts.kept, "alreadyThere": counts.already_kept, "refused": counts.rejected},
        "skipped": {"count": counts.skipped.total(), "reasons": dict(counts.skipped)},
        "refused": [_rejection_to_json(rejection) for rejection in reporter.shown_rejections],
        "seconds": round(outcome.seconds, 3),
        "turnsPerS": round(counts.kept / outcome.seconds, 1) if outcome.seconds else None,
        "interrupted": outcome.is_interrupted,
        "error": outcome.failure,
    }


def summary_text(outcome: ImportOutcome, reporter: ProgressReporter) -> str:
    """Return the result of an import, for people."""
    counts = outcome.counts
    lines = [
        f"{pluralize(outcome.files, 'file')}, {pluralize(counts.calls, 'call')}:"
        f" {pluralize(counts.kept, 'turn')} saved, {counts.already_kept:,} already there, {counts.rejected:,} rejected"
        f" ({outcome.seconds:.1f} s, {counts.kept / max(outcome.seconds, 1e-3):,.0f} turns/s)"
    ]
    lines += [f"passed over: {times:,} x {reason}" for reason, times in counts.skipped.most_common()]
    if reporter.shown_rejections:
        lines += ["", *map(str, reporter.shown_rejections)]
        if reporter.rejection_count > len(reporter.shown_rejections):
            lines.append(
                f"... and {reporter.rejection_count - len(reporter.shown_rejections):,} more;"
                " use --refused FILE to write all of them to a file"
            )
    return "\n".join(lines)


def _rejection_to_json(rejection: Rejection) -> dict[str, Any]:
    return {"file": rejection.file, "line": rejection.line, "reason": rejection.reason}


def _total_bytes(files: Sequence[Path]) -> int | None:
    """Return the size of all files, or None if one of them is unknown."""
    if STDIN in files:
        return None
    try:
        return sum(file.stat().st_size for file in files)
    except OSError:
        return None
