"""How an import is shown: a bar on a terminal, nothing elsewhere, and at the end what has become of it."""

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

from memoair_cli.importing.ledger import ImportCounts
from memoair_cli.importing.run import STDIN, ImportOutcome
from memoair_voice_sync.transcripts import Rejection

if TYPE_CHECKING:
    from typing_extensions import Self

# Refusals that are shown; all of them go to the file that ``--refused`` names.
SHOWN_REFUSALS = 20


class ProgressReporter:
    """Tells a person, or a program, how an import goes. Use it in a ``with`` block."""

    def __init__(self, files: Sequence[Path], target: str, refused: IO[str] | None, *, quiet: bool) -> None:
        self.shown: list[Rejection] = []
        self.refusals = 0
        self._refused = refused
        self._lock = threading.Lock()
        self._warned: set[str] = set()
        self._until_end = ExitStack()
        self._files, self._target = files, target
        self._progress: Progress | None = None
        self._task: TaskID | None = None
        if sys.stderr.isatty() and not quiet:
            self._progress = Progress(
                SpinnerColumn(),
                TextColumn("{task.description}"),
                BarColumn(),
                TextColumn("{task.fields[told]}"),
                TimeRemainingColumn(),
                console=Console(stderr=True, highlight=False),
                transient=True,
            )

    def __enter__(self) -> "Self":
        if self._progress is not None:
            self._until_end.enter_context(self._progress)
            self._task = self._progress.add_task(f"into {escape(self._target)}", total=_size(self._files), told="")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._until_end.close()

    def refuse(self, refusal: Rejection) -> None:
        """Note a refusal."""
        with self._lock:
            self.refusals += 1
            if len(self.shown) < SHOWN_REFUSALS:
                self.shown.append(refusal)
            if self._refused is not None:
                self._write(self._refused, refusal)

    def tick(self, read_bytes: int, counts: ImportCounts) -> None:
        """Move the bar."""
        if self._progress is not None and self._task is not None:
            seconds = self._progress.tasks[0].elapsed or 1.0
            told = f"{counts.kept:,} turns · {counts.kept / seconds:,.0f}/s"
            if counts.known:
                told += f" · {counts.known:,} already there"
            if counts.refused:
                told += f" · [red]{counts.refused:,} refused[/]"
            self._progress.update(self._task, completed=read_bytes, told=told)

    def warn(self, message: str) -> None:
        """Say something once, now."""
        if message not in self._warned:
            self._warned.add(message)
            self.say(message)

    def _write(self, lines: IO[str], refusal: Rejection) -> None:
        try:
            lines.write(json.dumps(_told(refusal), ensure_ascii=False) + "\n")
        except OSError as error:
            self.warn(f"a refusal can't be written to its file: {error.strerror}")

    def say(self, message: str) -> None:
        """Say something on standard error."""
        if self._progress is not None and self._progress.live.is_started:
            self._progress.console.print(escape(message), soft_wrap=True)
        else:
            typer.echo(message, err=True)


def summary_json(outcome: ImportOutcome, showing: ProgressReporter, target: str) -> dict[str, Any]:
    """What has become of an import, for a program."""
    counts = outcome.counts
    return {
        "target": target,
        "files": outcome.files,
        "sessions": counts.calls,
        "turns": {"kept": counts.kept, "alreadyThere": counts.known, "refused": counts.refused},
        "refused": [_told(refusal) for refusal in showing.shown],
        "seconds": round(outcome.seconds, 3),
        "turnsPerS": round(counts.kept / outcome.seconds, 1) if outcome.seconds else None,
        "interrupted": outcome.is_interrupted,
        "error": outcome.failure,
    }


def summary_text(outcome: ImportOutcome, showing: ProgressReporter) -> str:
    """What has become of an import, for a person."""
    counts = outcome.counts
    lines = [
        f"{_some(outcome.files, 'file')}, {_some(counts.calls, 'call')}: {_some(counts.kept, 'turn')} kept,"
        f" {counts.known:,} already there, {counts.refused:,} refused"
        f" ({outcome.seconds:.1f} s, {counts.kept / max(outcome.seconds, 1e-3):,.0f} turns/s)"
    ]
    if showing.shown:
        lines += ["", *map(str, showing.shown)]
        if showing.refusals > len(showing.shown):
            lines.append(f"... and {showing.refusals - len(showing.shown):,} more; --refused FILE writes them all")
    return "\n".join(lines)


def _some(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def _told(refusal: Rejection) -> dict[str, Any]:
    return {"file": refusal.file, "line": refusal.line, "reason": refusal.reason}


def _size(files: Sequence[Path]) -> int | None:
    """The bytes of all files; None where one of them does not tell."""
    if STDIN in files:
        return None
    try:
        return sum(file.stat().st_size for file in files)
    except OSError:
        return None
