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

from memoair_runtime.storage.cursors import MARK_BYTES, START, Cursor, Cursors, mark_of
from memoair_runtime.storage.events import Event, from_line
from memoair_runtime.storage.user_folder import UserFolder

# What the cloud takes at once; in bytes a quarter of it, so that a slow line is not kept busy for a minute by one call.
MOST_EVENTS = 500
MOST_BYTES = 4 << 20
_READ_BYTES = 1 << 20
_NS_A_S = 1e9


@attrs.frozen
class OutboxLine:
    """A line of a log: where it ends, and the event in it; None where it is damaged and there is nothing to send."""

    session_id: str
    end: int
    event_id: str | None
    content: bytes = attrs.field(repr=False)


@attrs.frozen
class OutboxBatch:
    """Lines to be sent at once, of one session after the other."""

    lines: tuple[OutboxLine, ...]
    marks: dict[str, int]

    @property
    def events(self) -> list[OutboxLine]:
        """Those that there is something to send of."""
        return [line for line in self.lines if line.event_id is not None]


@attrs.frozen
class _UnsentEvents:
    """A session in whose log something has not been sent. ``since`` is in seconds since the epoch."""

    events: int
    since: float


class Outbox:
    """What of one caller has not been sent. `note`, `forget` and the counts are for any thread, the rest for one."""

    def __init__(self, folder: UserFolder, cloud: str) -> None:
        self._folder = folder
        self._cursors = Cursors(folder.outbox, cloud)
        self._lock = threading.Lock()
        self._noted: dict[str, list[float]] = {}  # by session, when something was logged that was not looked at yet
        self._unsent: dict[str, _UnsentEvents] = {}

    def note(self, events: Sequence[Event]) -> bool:
        """Events have been logged; tell whether they are the first since somebody looked. Does not ask the disk."""
        now = time.time()
        with self._lock:
            is_first = not self._noted
            for event in events:
                self._noted.setdefault(event.session_id, []).append(now)
            return is_first

    @property
    def has_news(self) -> bool:
        """Whether something was logged that has not been looked at."""
        return bool(self._noted)

    @property
    def count(self) -> int:
        """How many events wait."""
        with self._lock:
            return sum(each.events for each in self._unsent.values()) + sum(map(len, self._noted.values()))

    @property
    def since(self) -> float | None:
        """When the oldest of them was logged, in seconds since the epoch."""
        with self._lock:
            known = [each.since for each in self._unsent.values() if each.events]
            return min([*known, *(moments[0] for moments in self._noted.values())], default=None)

    def look(self, *, everywhere: bool) -> None:
        """Count what waits: in the sessions that were noted, or ``everywhere``, whoever logged it."""
        is_elsewhere = self._cursors.catch_up()  # another process has sent some
        with self._lock:
            noted, self._noted = self._noted, {}
            waiting = dict(self._unsent)
        logs = dict(self._folder.session_logs()) if everywhere else {}
        wanted = set(noted) | {each for each, stamp in logs.items() if stamp != self._cursors.get(each).stamp}
        if everywhere or is_elsewhere:
            wanted |= set(waiting)
        for session_id in wanted:
            written = [logs[session_id][0] / _NS_A_S] if session_id in logs else []
            self._count(session_id, [*noted.get(session_id, ()), *written])

    def next_batch(self, most_events: int = MOST_EVENTS) -> OutboxBatch | None:
        """What is to be sent next, of the session that has waited longest first; None where nothing is."""
        with self._lock:
            waiting = sorted(self._unsent, key=lambda each: self._unsent[each].since)
        lines: list[OutboxLine] = []
        marks: dict[str, int] = {}
        room, events = MOST_BYTES, most_events
        for session_id in waiting:
            begin, marks[session_id] = self._begin(session_id)
            for line in _lines(self._log(session_id), session_id, begin):
                if lines and line.event_id is not None and (len(line.content) > room or not events):
                    return OutboxBatch(tuple(lines), marks)
                lines.append(line)
                room -= len(line.content)
                events -= line.event_id is not None
        return OutboxBatch(tuple(lines), marks) if lines else None

    def settle(self, batch: OutboxBatch, settled: AbstractSet[str]) -> int:
        """Move the cursors over the events that are done with, as far as none is left out; return over how many.

        Raises OSError where the disk refuses: then the next process sends them again.
        """
        moved: dict[str, Cursor] = {}
        stuck: set[str] = set()
        passed = 0
        for line in batch.lines:
            if line.event_id is not None and line.event_id not in settled:
                stuck.add(line.session_id)
            if line.session_id not in stuck:
                moved[line.session_id] = Cursor(line.end, batch.marks[line.session_id])
                passed += line.event_id is not None
        try:
            if moved:
                dated = {each: _dated(cursor, self._log(each)) for each, cursor in moved.items()}
                self._cursors.set(dated, lambda session_id: self._log(session_id).exists())
        finally:
            for session_id in moved:
                self._count(session_id, [])
        return passed

    def forget(self) -> None:
        """Let go of what was counted; the logs have been deleted, or will be looked at again."""
        with self._lock:
            self._noted.clear()
            self._unsent.clear()

    def rewind(self) -> None:
        """Send everything again: the cloud has lost what it had. Raises OSError."""
        self._cursors.rewind()

    def _log(self, session_id: str) -> Path:
        return self._folder.session(session_id).log

    def _count(self, session_id: str, moments: list[float]) -> None:
        begin, _ = self._begin(session_id)
        events = _count_lines(self._log(session_id), begin)
        with self._lock:
            known = self._unsent.pop(session_id, None)
            if events:
                since = min([*moments, *([known.since] if known else [])], default=time.time())
                self._unsent[session_id] = _UnsentEvents(events, since)

    def _begin(self, session_id: str) -> tuple[int, int]:
        """Where to go on in a log, and its mark; at its beginning where the cursor was in another one."""
        cursor = self._cursors.get(session_id)
        try:
            with self._log(session_id).open("rb") as file:
                mark, size = mark_of(file.read(MARK_BYTES)), os.fstat(file.fileno()).st_size
        except OSError:
            return 0, START.mark
        return (cursor.offset if cursor.mark == mark and 0 <= cursor.offset <= size else 0), mark


def _dated(cursor: Cursor, log: Path) -> Cursor:
    """The cursor with the time of the log, where it stands at its end."""
    try:
        state = log.stat()
    except OSError:
        return cursor
    return Cursor(cursor.offset, cursor.mark, state.st_mtime_ns) if state.st_size == cursor.offset else cursor


def _lines(path: Path, session_id: str, begin: int) -> Iterator[OutboxLine]:
    """The whole lines of a log from an offset on; the last one may still be written, or is torn."""
    try:
        with path.open("rb") as file:
            file.seek(begin)
            unread = b""
            while chunk := file.read(_READ_BYTES):
                *whole, unread = (unread + chunk).split(b"\n")
                for content in whole:
                    begin += len(content) + 1
                    event = from_line(content)
                    is_sound = event is not None and event.session_id == session_id
                    yield OutboxLine(session_id, begin, event.event_id if event and is_sound else None, content)
    except OSError:
        return


def _count_lines(path: Path, begin: int) -> int:
    count = 0
    try:
        with path.open("rb") as file:
            file.seek(begin)
            while chunk := file.read(_READ_BYTES):
                count += chunk.count(b"\n")
    except OSError:
        return 0
    return count
