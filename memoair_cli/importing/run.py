"""An import from its first file to its last: what is read goes to the target, what has become of it to the state."""

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
from memoair_cli.importing.state import ImportState, identity_of
from memoair_cli.importing.targets import ImportInterruptedError, ImportTarget, TargetError
from memoair_cli.importing.workers import WorkerPool
from memoair_voice_sync.transcripts import Rejection, TranscriptOptions, read_transcript

STDIN = Path("-")
_TICK_S = 0.2
_SAVE_S = 0.2
_LONGER_THAN_A_SAVE = 20  # so that the state of very many files does not take more time than their turns


class ImportReport(Protocol):
    """Who is told how it goes. Its methods are called by several threads."""

    def refuse(self, refusal: Rejection) -> None:
        """A line or a turn can't be kept."""

    def tick(self, read_bytes: int, counts: ImportCounts) -> None:
        """Some more was read and done."""

    def warn(self, message: str) -> None:
        """Something is not as it should be, and the import goes on."""


@attrs.frozen
class ImportPlan:
    """What is to be imported, and how it is read."""

    files: Sequence[Path]
    project_id: str
    options: TranscriptOptions
    format: str | None
    threads: int
    state: ImportState


@attrs.frozen
class ImportOutcome:
    """What has become of an import. ``failure`` says why the target could not be used."""

    files: int
    counts: ImportCounts
    seconds: float
    failure: str | None
    is_interrupted: bool


@attrs.define
class _Job:
    """A file on its way."""

    path: Path
    identity: str | None
    ledger: FileProgress


class Import:
    """One run. ``stopping`` ends it before its time: what is on its way arrives, and the state says how far it came."""

    def __init__(self, plan: ImportPlan, target: ImportTarget, report: ImportReport, stopping: threading.Event) -> None:
        self._plan = plan
        self._target = target
        self._report = report
        self._stopping = stopping
        self._batcher = Batcher()
        self._lanes = WorkerPool(plan.threads, 2 * plan.threads, self._deliver)
        self._jobs: list[_Job] = []
        self._read_bytes = 0  # of files that were read to their end
        self._ticked_at = self._saves_at = time.monotonic()

    def run(self) -> ImportOutcome:
        """Import everything, or as much as can be."""
        began_at = time.monotonic()
        try:
            self._import(self._plan.files, resumes=True)
            stale = [job for job in self._jobs if job.ledger.is_stale]
            if stale and not self._is_over():
                self._report.warn("the target has lost what the state says it has; these files are sent from the start")
                self._jobs = [job for job in self._jobs if job not in stale]
                self._import([job.path for job in stale], resumes=False)
        finally:
            self._lanes.stop()
            self._save()
        failure = self._lanes.failure
        if failure is not None and not isinstance(failure, TargetError | ImportInterruptedError):
            raise failure
        return ImportOutcome(
            files=len(self._jobs),
            counts=self._counts(),
            seconds=time.monotonic() - began_at,
            failure=str(failure) if isinstance(failure, TargetError) else None,
            is_interrupted=self._stopping.is_set(),
        )

    def _import(self, files: Iterable[Path], *, resumes: bool) -> None:
        for path in files:
            if self._is_over():
                return
            try:
                with _opened(path) as file:
                    self._read(path, file, resumes=resumes)
            except OSError as error:
                self._job(path, None).ledger.refuse_line(_unreadable(path, error))
        self._put(self._batcher.rest())
        while not self._is_over() and not self._lanes.wait(_TICK_S):
            self._tick()

    def _read(self, path: Path, file: BinaryIO, *, resumes: bool) -> None:
        plan = self._plan
        identity = identity_of(file, self._target.name, plan.options, plan.format)
        job = self._job(path, identity, resumes=resumes)
        events = CallEvents(plan.project_id, plan.options.started_at or _written_at(file))
        for read in read_transcript(file, shown(path), plan.options, format=plan.format):
            if isinstance(read, Rejection):
                job.ledger.refuse_line(read)
            else:
                self._send(job.ledger, events.of(read))
                job.ledger.counts.calls = events.calls
            if self._is_over():
                return
            self._tick(file)
        self._send(job.ledger, events.finish())
        self._read_bytes += _position(file)

    def _job(self, path: Path, identity: str | None, *, resumes: bool = False) -> _Job:
        told = self._plan.state.resume(identity) if resumes else (0, ())
        self._jobs.append(_Job(path, identity, FileProgress(shown(path), self._report.refuse, *told)))
        return self._jobs[-1]

    def _send(self, ledger: FileProgress, events: Iterable[ImportEvent]) -> None:
        for event in events:
            entry = ledger.enter(event)
            if entry is not None:
                self._put(self._batcher.add(entry))

    def _put(self, batches: Iterable[EventBatch]) -> None:
        for batch in batches:
            while not self._is_over() and not self._lanes.put(batch, _TICK_S):
                self._tick()
            self._tick()

    def _deliver(self, batch: EventBatch) -> None:
        receipt = self._target.send(batch.user_id, [entry.event for entry in batch.entries])
        seen: set[str] = set()  # an event that stands twice in a batch is new once
        for entry in batch.entries:
            id_ = entry.event.id
            if id_ in receipt.refused:
                entry.file.refuse(entry, receipt.refused[id_])
            else:
                entry.file.settle(entry, is_new=id_ in receipt.accepted and id_ not in seen)
            seen.add(id_)

    def _is_over(self) -> bool:
        return self._stopping.is_set() or self._lanes.failure is not None

    def _tick(self, file: BinaryIO | None = None) -> None:
        now = time.monotonic()
        if now - self._ticked_at < _TICK_S:
            return
        self._ticked_at = now
        self._report.tick(self._read_bytes + (_position(file) if file else 0), self._counts())
        if now >= self._saves_at:
            self._save()
            saved_at = time.monotonic()
            self._saves_at = saved_at + max(_SAVE_S, _LONGER_THAN_A_SAVE * (saved_at - now))

    def _save(self) -> None:
        state = self._plan.state
        state.note({job.identity: job.ledger for job in self._jobs if job.identity is not None})
        try:
            state.save()
        except OSError as error:
            self._report.warn(f"the state can't be written to {state.path}: {error.strerror}; a next run begins anew")

    def _counts(self) -> ImportCounts:
        return reduce(ImportCounts.plus, (job.ledger.counts for job in self._jobs), ImportCounts())


@contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    if path == STDIN:
        yield sys.stdin.buffer
        return
    with path.open("rb") as file:
        yield file


def shown(path: Path) -> str:
    """A file's name as it can be written anywhere, also one that is not valid Unicode."""
    return os.fsencode(path).decode(errors="replace")


def _unreadable(path: Path, error: OSError) -> Rejection:
    return Rejection(shown(path), 0, f"the file can't be read: {error.strerror or type(error).__name__}")


def _written_at(file: BinaryIO) -> datetime:
    with suppress(OSError):
        if file.seekable():
            return datetime.fromtimestamp(os.fstat(file.fileno()).st_mtime, timezone.utc)
    return datetime.now(timezone.utc)


def _position(file: BinaryIO) -> int:
    try:
        return file.tell()
    except OSError:  # a pipe
        return 0
