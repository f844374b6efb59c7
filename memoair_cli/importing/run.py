"""Run an import: send the events of all files to the target, and record the progress in the state file."""

import os
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime, timezone
from operator import itemgetter
from pathlib import Path
from typing import BinaryIO, Protocol

import attrs

from memoair_cli.importing.batches import Batcher, EventBatch
from memoair_cli.importing.events import CallEvents, ImportEvent
from memoair_cli.importing.state import ImportState
from memoair_cli.importing.tally import ImportCounts, ImportTally
from memoair_cli.importing.targets import ImportInterruptedError, ImportTarget, TargetError
from memoair_protocol.input_files import open_regular_file
from memoair_protocol.keyed_queue import KeyedQueue
from memoair_transcripts import Rejection, TranscriptOptions, TranscriptTexts, read_transcript

STDIN = Path("-")
_TICK_INTERVAL_S = 0.2
# Being sent or waiting: enough for each thread to find a next batch, of a user that no other thread serves.
_BATCHES_PER_THREAD = 3
_LINGER_S = 1.0  # the next batch comes as soon as it is read


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
        redact: Removes personal data from the texts of a turn, None to leave them as they are.
    """

    files: Sequence[Path]
    project_id: str
    options: TranscriptOptions
    format: str | None
    threads: int
    state: ImportState
    redact: Callable[[TranscriptTexts], TranscriptTexts] | None = None


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
        self._queue = KeyedQueue(
            self._deliver, name="memoair-import", max_threads=plan.threads, linger_s=_LINGER_S
        )  # by user id
        self._tally = ImportTally(report.add_rejection)
        self._failure: BaseException | None = None
        # Only files that can be read a second time: if the target has lost events, everything is sent.
        self._should_skip = all(path != STDIN and path.is_file() for path in plan.files)
        self._newest_skipped: tuple[int, EventBatch] | None = None  # with its position in the state file
        self._files = 0
        self._read_bytes = 0  # of files that are read completely
        self._updated_at = time.monotonic()

    def run(self) -> ImportOutcome:
        """Import the files until the end, an interruption or a failure."""
        started_at = time.monotonic()
        try:
            self._import_files()
            if self._newest_skipped is not None and not self._should_stop() and self._has_lost(self._newest_skipped[1]):
                self._report.warn("the target has lost events that it acknowledged before; sending these files again")
                self._plan.state.forget()
                self._tally.counts, self._files = ImportCounts(), 0
                self._import_files()
        finally:
            self._queue.close()
        failure = self._failure
        if failure is not None and not isinstance(failure, TargetError | ImportInterruptedError):
            raise failure
        return ImportOutcome(
            files=self._files,
            counts=self._tally.counts,
            seconds=time.monotonic() - started_at,
            failure=str(failure) if isinstance(failure, TargetError) else None,
            is_interrupted=self._stop_event.is_set(),
        )

    def _import_files(self) -> None:
        batcher = Batcher()
        for path in self._plan.files:
            if self._should_stop():
                return
            self._files += 1
            try:
                with _open_input(path) as file:
                    self._import_file(path, file, batcher)
            except OSError as error:
                self._tally.reject_line(_unreadable_file(path, error))
        self._submit_batches(batcher.flush())
        while not self._should_stop() and not self._queue.wait_until_below(1, _TICK_INTERVAL_S):
            self._tick()

    def _import_file(self, path: Path, file: BinaryIO, batcher: Batcher) -> None:
        plan = self._plan
        events = CallEvents(plan.project_id, display_name(path), plan.options.started_at or _modified_at(file))
        try:
            for item in read_transcript(
                file,
                display_name(path),
                plan.options,
                format=plan.format,
                on_skip=self._tally.skip,
                redact=plan.redact,
            ):
                if isinstance(item, Rejection):
                    self._tally.reject_line(item)
                else:
                    self._submit_events(events.for_turn(item), batcher)
                if self._should_stop():
                    return
                self._tick(file)
            self._submit_events(events.finish(), batcher)
        finally:
            self._tally.counts.calls += events.calls
        self._read_bytes += _read_position(file)

    def _submit_events(self, events: Iterable[ImportEvent], batcher: Batcher) -> None:
        for event in events:
            self._submit_batches(batcher.add(event))

    def _submit_batches(self, batches: Iterable[EventBatch]) -> None:
        for batch in batches:
            position = self._plan.state.position(batch) if self._should_skip else None
            if position is not None:
                self._tally.record_known(batch)
                self._newest_skipped = max(self._newest_skipped or (-1, batch), (position, batch), key=itemgetter(0))
                continue
            while not self._should_stop() and not self._queue.wait_until_below(
                _BATCHES_PER_THREAD * self._plan.threads, _TICK_INTERVAL_S
            ):
                self._tick()
            if not self._should_stop():
                self._queue.put(batch.user_id, batch)
            self._tick()

    def _deliver(self, batch: EventBatch) -> None:
        """Send a batch. The first failure ends the import, and the batches that wait are not sent."""
        if self._should_stop():
            return
        try:
            result = self._target.send(batch.user_id, batch.events)
        except BaseException as error:  # noqa: BLE001 - `run` reports it
            self._failure = self._failure or error
            return
        self._tally.record_result(batch, result)
        if result.rejected:  # sent again in the next run, so that they are reported again
            return
        try:
            self._plan.state.record(batch)
        except OSError as error:
            self._report.warn(
                f"the progress cannot be saved to {self._plan.state.path}: {error.strerror};"
                " a next run starts from the beginning"
            )

    def _has_lost(self, batch: EventBatch) -> bool:
        """Return whether the target accepts events as new that it has acknowledged before."""
        try:
            return bool(self._target.send(batch.user_id, batch.events).accepted)
        except (TargetError, ImportInterruptedError) as error:
            self._failure = error
            return False

    def _should_stop(self) -> bool:
        return self._stop_event.is_set() or self._failure is not None

    def _tick(self, file: BinaryIO | None = None) -> None:
        now = time.monotonic()
        if now - self._updated_at >= _TICK_INTERVAL_S:
            self._updated_at = now
            self._report.update(self._read_bytes + (_read_position(file) if file else 0), self._tally.counts)


@contextmanager
def _open_input(path: Path) -> Iterator[BinaryIO]:
    if path == STDIN:
        yield sys.stdin.buffer
        return
    with open_regular_file(path) as file:
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
