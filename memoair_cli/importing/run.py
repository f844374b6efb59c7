"""Run an import: send the events of all files to the target, and record the progress in the state file."""

import os
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime, timezone
from functools import reduce
from pathlib import Path
from typing import BinaryIO, Protocol

import attrs

from memoair_cli.importing.batches import Batcher, EventBatch
from memoair_cli.importing.events import CallEvents, ImportEvent
from memoair_cli.importing.ledger import FileProgress, ImportCounts
from memoair_cli.importing.state import ImportState, file_identity
from memoair_cli.importing.targets import ImportInterruptedError, ImportTarget, TargetError
from memoair_cli.importing.workers import WorkerPool
from memoair_transcripts import Rejection, TranscriptOptions, read_transcript

STDIN = Path("-")
_TICK_INTERVAL_S = 0.2
_MIN_SAVE_INTERVAL_S = 0.2
_SAVE_INTERVAL_FACTOR = 20  # keeps the time to save the state of very many files below that of importing them


class ImportReport(Protocol):
    """Receives the progress of an import. Several threads call its methods."""

    def add_rejection(self, rejection: Rejection) -> None:
        """Handle a rejected line or turn."""

    def update(self, read_bytes: int, counts: ImportCounts) -> None:
        """Handle progress: the bytes read so far, and the counts."""

    def warn(self, message: str) -> None:
        """Handle a problem that does not end the import."""


@attrs.frozen
class ImportPlan:
    """What to import, and how.

    Attributes:
        files: The files, in order.
        project_id: The project to import into.
        options: What the files do not say themselves.
        format: The format of the files, None to detect it.
        threads: The number of batches sent in parallel.
        state: The recorded progress.
    """

    files: Sequence[Path]
    project_id: str
    options: TranscriptOptions
    format: str | None
    threads: int
    state: ImportState


@attrs.frozen
class ImportOutcome:
    """The result of an import.

    Attributes:
        files: The number of files.
        counts: The counts of all files.
        seconds: The duration.
        failure: Why the target could not be used, None if it could.
        is_interrupted: Whether the import was interrupted.
    """

    files: int
    counts: ImportCounts
    seconds: float
    failure: str | None
    is_interrupted: bool


@attrs.define
class _Job:
    """A file that is being imported."""

    path: Path
    identity: str | None
    progress: FileProgress


class Import:
    """One run of an import.

    Args:
        plan: What to import, and how.
        target: Where to import it to.
        report: Receives the progress.
        stop_event: Ends the import early when it is set. Batches in flight are finished, and the progress is recorded.
    """

    def __init__(
        self, plan: ImportPlan, target: ImportTarget, report: ImportReport, stop_event: threading.Event
    ) -> None:
        self._plan = plan
        self._target = target
        self._report = report
        self._stop_event = stop_event
        self._batcher = Batcher()
        self._workers = WorkerPool(plan.threads, 2 * plan.threads, self._deliver)
        self._jobs: list[_Job] = []
        self._read_bytes = 0  # of files that are read completely
        self._updated_at = self._next_save_at = time.monotonic()

    def run(self) -> ImportOutcome:
        """Import the files until the end, an interruption or a failure."""
        started_at = time.monotonic()
        try:
            self._import_files(self._plan.files, should_resume=True)
            stale_jobs = [job for job in self._jobs if job.progress.is_stale]
            if stale_jobs and not self._should_stop():
                self._report.warn("the target has lost events that it acknowledged before; sending these files again")
                self._jobs = [job for job in self._jobs if job not in stale_jobs]
                self._import_files([job.path for job in stale_jobs], should_resume=False)
        finally:
            self._workers.stop()
            self._save_state()
        failure = self._workers.failure
        if failure is not None and not isinstance(failure, TargetError | ImportInterruptedError):
            raise failure
        return ImportOutcome(
            files=len(self._jobs),
            counts=self._total_counts(),
            seconds=time.monotonic() - started_at,
            failure=str(failure) if isinstance(failure, TargetError) else None,
            is_interrupted=self._stop_event.is_set(),
        )

    def _import_files(self, files: Iterable[Path], *, should_resume: bool) -> None:
        for path in files:
            if self._should_stop():
                return
            try:
                with _open_input(path) as file:
                    self._import_file(path, file, should_resume=should_resume)
            except OSError as error:
                self._add_job(path, None).progress.reject_line(_unreadable_file(path, error))
        self._submit_batches(self._batcher.flush())
        while not self._should_stop() and not self._workers.wait_until_idle(_TICK_INTERVAL_S):
            self._tick()

    def _import_file(self, path: Path, file: BinaryIO, *, should_resume: bool) -> None:
        plan = self._plan
        identity = file_identity(file, self._target.name, plan.options, plan.format)
        job = self._add_job(path, identity, should_resume=should_resume)
        events = CallEvents(plan.project_id, plan.options.started_at or _modified_at(file))
        for item in read_transcript(file, display_name(path), plan.options, format=plan.format):
            if isinstance(item, Rejection):
                job.progress.reject_line(item)
            else:
                self._send_events(job.progress, events.for_turn(item))
                job.progress.counts.calls = events.calls
            if self._should_stop():
                return
            self._tick(file)
        self._send_events(job.progress, events.finish())
        self._read_bytes += _read_position(file)

    def _add_job(self, path: Path, identity: str | None, *, should_resume: bool = False) -> _Job:
        resume_point = self._plan.state.resume(identity) if should_resume else (0, ())
        self._jobs.append(
            _Job(path, identity, FileProgress(display_name(path), self._report.add_rejection, *resume_point))
        )
        return self._jobs[-1]

    def _send_events(self, progress: FileProgress, events: Iterable[ImportEvent]) -> None:
        for event in events:
            entry = progress.add_event(event)
            if entry is not None:
                self._submit_batches(self._batcher.add(entry))

    def _submit_batches(self, batches: Iterable[EventBatch]) -> None:
        for batch in batches:
            while not self._should_stop() and not self._workers.submit(batch, _TICK_INTERVAL_S):
                self._tick()
            self._tick()

    def _deliver(self, batch: EventBatch) -> None:
        result = self._target.send(batch.user_id, [entry.event for entry in batch.entries])
        seen: set[str] = set()  # an event that is in a batch twice is new only once
        for entry in batch.entries:
            id_ = entry.event.id
            if id_ in result.rejected:
                entry.progress.reject(entry, result.rejected[id_])
            else:
                entry.progress.acknowledge(entry, is_new=id_ in result.accepted and id_ not in seen)
            seen.add(id_)

    def _should_stop(self) -> bool:
        return self._stop_event.is_set() or self._workers.failure is not None

    def _tick(self, file: BinaryIO | None = None) -> None:
        now = time.monotonic()
        if now - self._updated_at < _TICK_INTERVAL_S:
            return
        self._updated_at = now
        self._report.update(self._read_bytes + (_read_position(file) if file else 0), self._total_counts())
        if now >= self._next_save_at:
            self._save_state()
            saved_at = time.monotonic()
            self._next_save_at = saved_at + max(_MIN_SAVE_INTERVAL_S, _SAVE_INTERVAL_FACTOR * (saved_at - now))

    def _save_state(self) -> None:
        state = self._plan.state
        state.record({job.identity: job.progress for job in self._jobs if job.identity is not None})
        try:
            state.save()
        except OSError as error:
            self._report.warn(
                f"the progress cannot be saved to {state.path}: {error.strerror}; a next run starts from the beginning"
            )

    def _total_counts(self) -> ImportCounts:
        return reduce(ImportCounts.plus, (job.progress.counts for job in self._jobs), ImportCounts())


@contextmanager
def _open_input(path: Path) -> Iterator[BinaryIO]:
    if path == STDIN:
        yield sys.stdin.buffer
        return
    with path.open("rb") as file:
        yield file


def display_name(path: Path) -> str:
    """Return the name of a file for messages, valid Unicode in any case."""
    return os.fsencode(path).decode(errors="replace")


def _unreadable_file(path: Path, error: OSError) -> Rejection:
    return Rejection(display_name(path), 0, f"the file is not readable: {error.strerror or type(error).__name__}")


def _modified_at(file: BinaryIO) -> datetime:
    with suppress(OSError):
        if file.seekable():
            return datetime.fromtimestamp(os.fstat(file.fileno()).st_mtime, timezone.utc)
    return datetime.now(timezone.utc)


def _read_position(file: BinaryIO) -> int:
    try:
        return file.tell()
    except OSError:  # a pipe
        return 0
