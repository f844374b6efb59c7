"""The outbox: what stands in a caller's logs and is not in the cloud yet.

Nothing is written twice: a log is the outbox of its session, and a cursor beside the logs tells how far it was sent.
"""

import os
import threading
import time
from collections.abc import Iterator, Sequence
from collections.abc import Set as AbstractSet
from pathlib import Path

import attrs

from memoair_runtime.storage.cursors import FINGERPRINT_BYTES, START_OF_LOG, Cursor, Cursors, log_fingerprint
from memoair_runtime.storage.events import Event, decode_line
from memoair_runtime.storage.user_folder import UserFolder

# What the cloud takes at once; in bytes a quarter of it, so that a slow line is not kept busy for a minute by one call.
MAX_BATCH_EVENTS = 500
MAX_BATCH_BYTES = 4 << 20
_READ_CHUNK_BYTES = 1 << 20
_NS_PER_S = 1e9


@attrs.frozen
class OutboxLine:
    """A line of a log: where it ends, and the event in it; None where it is damaged and there is nothing to send."""

    session_id: str
    end_offset: int
    event_id: str | None
    content: bytes = attrs.field(repr=False)


@attrs.frozen
class OutboxBatch:
    """Lines to be sent at once, of one session after the other."""

    lines: tuple[OutboxLine, ...]
    fingerprints: dict[str, int]

    @property
    def event_lines(self) -> list[OutboxLine]:
        """Those that there is something to send of."""
        return [line for line in self.lines if line.event_id is not None]


@attrs.frozen
class _UnsentEvents:
    """A session in whose log something has not been sent. ``since`` is in seconds since the epoch."""

    count: int
    oldest_at: float


class Outbox:
    """What of one caller has not been sent. `note`, `forget` and the counts are for any thread, the rest for one."""

    def __init__(self, folder: UserFolder, cloud: str) -> None:
        self._folder = folder
        self._cursors = Cursors(folder.outbox, cloud)
        self._lock = threading.Lock()
        self._uncounted: dict[str, list[float]] = {}  # by session, when something was logged that was not looked at yet
        self._unsent: dict[str, _UnsentEvents] = {}

    def record_logged(self, events: Sequence[Event]) -> bool:
        """Events have been logged; tell whether they are the first since somebody looked. Does not ask the disk."""
        now = time.time()
        with self._lock:
            is_first = not self._uncounted
            for event in events:
                self._uncounted.setdefault(event.session_id, []).append(now)
            return is_first

    @property
    def has_uncounted(self) -> bool:
        """Whether something was logged that has not been looked at."""
        return bool(self._uncounted)

    @property
    def count(self) -> int:
        """How many events wait."""
        with self._lock:
            return sum(each.count for each in self._unsent.values()) + sum(map(len, self._uncounted.values()))

    @property
    def oldest_at(self) -> float | None:
        """When the oldest of them was logged, in seconds since the epoch."""
        with self._lock:
            times = [each.oldest_at for each in self._unsent.values() if each.count]
            return min([*times, *(moments[0] for moments in self._uncounted.values())], default=None)

    def scan(self, *, all_sessions: bool) -> None:
        """Count what waits: in the sessions that were noted, or ``everywhere``, whoever logged it."""
        have_cursors_changed = self._cursors.refresh()  # another process has sent some
        with self._lock:
            uncounted, self._uncounted = self._uncounted, {}
            unsent = dict(self._unsent)
        logs = dict(self._folder.list_session_logs()) if all_sessions else {}
        session_ids = set(uncounted) | {
            each for each, stamp in logs.items() if stamp != self._cursors.get(each).version_key
        }
        if all_sessions or have_cursors_changed:
            session_ids |= set(unsent)
        for session_id in session_ids:
            modified_at = [logs[session_id][0] / _NS_PER_S] if session_id in logs else []
            self._recount(session_id, [*uncounted.get(session_id, ()), *modified_at])

    def next_batch(self, max_events: int = MAX_BATCH_EVENTS) -> OutboxBatch | None:
        """What is to be sent next, of the session that has waited longest first; None where nothing is."""
        with self._lock:
            session_ids = sorted(self._unsent, key=lambda each: self._unsent[each].oldest_at)
        lines: list[OutboxLine] = []
        fingerprints: dict[str, int] = {}
        bytes_left, events_left = MAX_BATCH_BYTES, max_events
        for session_id in session_ids:
            start, fingerprints[session_id] = self._find_start(session_id)
            for line in _read_lines(self._log_path(session_id), session_id, start):
                if lines and line.event_id is not None and (len(line.content) > bytes_left or not events_left):
                    return OutboxBatch(tuple(lines), fingerprints)
                lines.append(line)
                bytes_left -= len(line.content)
                events_left -= line.event_id is not None
        return OutboxBatch(tuple(lines), fingerprints) if lines else None

    def acknowledge(self, batch: OutboxBatch, done_event_ids: AbstractSet[str]) -> int:
        """Move the cursors over the events that are done with, as far as none is left out; return over how many.

        Raises OSError where the disk refuses: then the next process sends them again.
        """
        cursors: dict[str, Cursor] = {}
        blocked_session_ids: set[str] = set()
        done_count = 0
        for line in batch.lines:
            if line.event_id is not None and line.event_id not in done_event_ids:
                blocked_session_ids.add(line.session_id)
            if line.session_id not in blocked_session_ids:
                cursors[line.session_id] = Cursor(line.end_offset, batch.fingerprints[line.session_id])
                done_count += line.event_id is not None
        try:
            if cursors:
                cursors_with_mtime = {
                    each: _with_mtime(cursor, self._log_path(each)) for each, cursor in cursors.items()
                }
                self._cursors.update(cursors_with_mtime, lambda session_id: self._log_path(session_id).exists())
        finally:
            for session_id in cursors:
                self._recount(session_id, [])
        return done_count

    def clear(self) -> None:
        """Let go of what was counted; the logs have been deleted, or will be looked at again."""
        with self._lock:
            self._uncounted.clear()
            self._unsent.clear()

    def rewind(self) -> None:
        """Send everything again: the cloud has lost what it had. Raises OSError."""
        self._cursors.rewind()

    def _log_path(self, session_id: str) -> Path:
        return self._folder.session(session_id).log

    def _recount(self, session_id: str, times: list[float]) -> None:
        start, _ = self._find_start(session_id)
        count = _count_lines(self._log_path(session_id), start)
        with self._lock:
            known = self._unsent.pop(session_id, None)
            if count:
                oldest_at = min([*times, *([known.oldest_at] if known else [])], default=time.time())
                self._unsent[session_id] = _UnsentEvents(count, oldest_at)

    def _find_start(self, session_id: str) -> tuple[int, int]:
        """Where to go on in a log, and its mark; at its beginning where the cursor was in another one."""
        cursor = self._cursors.get(session_id)
        try:
            with self._log_path(session_id).open("rb") as file:
                fingerprint, size = log_fingerprint(file.read(FINGERPRINT_BYTES)), os.fstat(file.fileno()).st_size
        except OSError:
            return 0, START_OF_LOG.fingerprint
        return (cursor.offset if cursor.fingerprint == fingerprint and 0 <= cursor.offset <= size else 0), fingerprint


def _with_mtime(cursor: Cursor, log: Path) -> Cursor:
    """The cursor with the time of the log, where it stands at its end."""
    try:
        stat = log.stat()
    except OSError:
        return cursor
    return Cursor(cursor.offset, cursor.fingerprint, stat.st_mtime_ns) if stat.st_size == cursor.offset else cursor


def _read_lines(path: Path, session_id: str, offset: int) -> Iterator[OutboxLine]:
    """The whole lines of a log from an offset on; the last one may still be written, or is torn."""
    try:
        with path.open("rb") as file:
            file.seek(offset)
            unread = b""
            while chunk := file.read(_READ_CHUNK_BYTES):
                *complete, unread = (unread + chunk).split(b"\n")
                for content in complete:
                    offset += len(content) + 1
                    event = decode_line(content)
                    is_valid = event is not None and event.session_id == session_id
                    yield OutboxLine(session_id, offset, event.event_id if event and is_valid else None, content)
    except OSError:
        return


def _count_lines(path: Path, offset: int) -> int:
    count = 0
    try:
        with path.open("rb") as file:
            file.seek(offset)
            while chunk := file.read(_READ_CHUNK_BYTES):
                count += chunk.count(b"\n")
    except OSError:
        return 0
    return count
