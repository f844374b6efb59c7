"""The outbox: the events in a user's logs that the cloud has not acknowledged.

Nothing is stored twice. A log is the outbox of its session, and a cursor beside the logs records how much was sent.
Each event says for which cloud it was logged, and is sent to no other. What was said before an erasure of the user is
sent nowhere, also if a crash has left it in a log.
"""

import os
import threading
import time
from collections.abc import Iterator, Sequence
from collections.abc import Set as AbstractSet
from contextlib import suppress
from enum import Enum
from pathlib import Path

import attrs
import msgspec

from memoair_protocol.durable import sync_file
from memoair_protocol.enums import EventType
from memoair_protocol.private_files import open_private_reader
from memoair_protocol.starvation import is_starved, raise_if_starved
from memoair_runtime.storage.cursors import FINGERPRINT_BYTES, START_OF_LOG, Cursor, Cursors, log_fingerprint
from memoair_runtime.storage.erasure_record import LastErasure, read_last_erasure
from memoair_runtime.storage.events import Event, decode_line
from memoair_runtime.storage.user_folder import UserFolder

# The cloud's limit for the number of events, and a quarter of its limit for bytes, so that one request does not occupy
# a slow connection for a minute.
MAX_BATCH_EVENTS = 500
MAX_BATCH_BYTES = 4 << 20
_READ_CHUNK_BYTES = 1 << 20
_NS_PER_S = 1e9


class Selection(Enum):
    """Which events an outbox holds."""

    FOR_CLOUD = "for_cloud"  # those that were logged for its cloud
    LOCAL = "local"  # those that were logged without a cloud, to be sent all the same
    FOR_ANY_CLOUD = "for_any_cloud"  # to be counted only


@attrs.frozen
class OutboxLine:
    """A line of a session log.

    Attributes:
        session_id: The session.
        end_offset: Where the line ends, in bytes from the beginning of the log.
        event_id: The event's id; None if there is nothing to send: the line is damaged, or the event is not meant for
            this cloud.
        content: The line without its line feed.
        is_turn: Whether the event is a turn.
        agent_id: The agent that logged the event; None if unknown.
    """

    session_id: str
    end_offset: int
    event_id: str | None
    content: bytes = attrs.field(repr=False)
    is_turn: bool = False
    agent_id: str | None = None


@attrs.frozen
class OutboxBatch:
    """Lines to acknowledge together, session by session. All events are of one agent.

    Attributes:
        lines: The lines in the order of their logs.
        fingerprints: The fingerprint of each session's log.
    """

    lines: tuple[OutboxLine, ...]
    fingerprints: dict[str, int]

    @property
    def agent_id(self) -> str | None:
        """The agent that logged the events; None if unknown."""
        return next((line.agent_id for line in self.lines if line.event_id is not None), None)

    @property
    def event_lines(self) -> list[OutboxLine]:
        """The lines that hold an event to send."""
        return [line for line in self.lines if line.event_id is not None]


@attrs.frozen
class _UnsentEvents:
    """The unsent events of one session, and how many are turns. ``oldest_at`` is in seconds since the epoch."""

    count: int
    turn_count: int
    oldest_at: float


class Outbox:
    """The unsent events of one user.

    `record_logged`, `clear` and the properties are safe to use from any thread; the other methods are for one thread.

    Args:
        folder: The user's folder.
        cloud: Identifies the cloud. Cursors of another cloud are ignored.
        selection: Which events it holds. The id of another cloud selects those that were logged for that one: for a
            cloud that has moved to another address.
    """

    def __init__(self, folder: UserFolder, cloud: str, selection: Selection | str = Selection.FOR_CLOUD) -> None:
        self._folder = folder
        self._selection = selection
        self._mark: str | None = cloud  # of the events that it holds
        if not isinstance(selection, Selection):
            self._mark = selection
        elif selection is Selection.LOCAL:
            self._mark = None
        self._cursors = Cursors(folder, cloud if self._mark == cloud else f"{cloud}/{self._mark or 'local'}")
        self._last_erasure: LastErasure | None = None
        self._lock = threading.Lock()
        self._uncounted: dict[str, list[float]] = {}  # by session: when events were logged since `scan`
        self._unsent: dict[str, _UnsentEvents] = {}
        self._has_unscanned = False  # whether a scan of all sessions has failed; the next scan looks at all of them

    def record_logged(self, events: Sequence[Event]) -> bool:
        """Take note of events that were appended to a log. Does not access the disk.

        Returns:
            Whether they are the first since the last `scan`.
        """
        now = time.time()
        with self._lock:
            is_first = not self._uncounted
            for event in events:
                self._uncounted.setdefault(event.session_id, []).append(now)
            return is_first

    @property
    def has_uncounted(self) -> bool:
        """Whether events were logged since the last `scan`, or it could not read all that it had to."""
        return bool(self._uncounted) or self._has_unscanned

    @property
    def count(self) -> int:
        """Number of unsent events."""
        with self._lock:
            return sum(unsent.count for unsent in self._unsent.values()) + sum(map(len, self._uncounted.values()))

    @property
    def turn_count(self) -> int:
        """Number of unsent turns, as of the last `scan`."""
        with self._lock:
            return sum(unsent.turn_count for unsent in self._unsent.values())

    @property
    def oldest_at(self) -> float | None:
        """When the oldest unsent event was logged, in seconds since the epoch; None if all have been sent."""
        with self._lock:
            times = [unsent.oldest_at for unsent in self._unsent.values() if unsent.count]
            return min([*times, *(logged_at[0] for logged_at in self._uncounted.values())], default=None)

    @property
    def oldest_ms(self) -> int | None:
        """Age of the oldest unsent event, in milliseconds; None if all have been sent."""
        oldest_at = self.oldest_at
        return None if oldest_at is None else max(0, int((time.time() - oldest_at) * 1e3))

    def scan(self, *, all_sessions: bool) -> None:
        """Count the unsent events on the disk.

        Args:
            all_sessions: Whether to look at every session; else only at those in which this process has logged events.

        Raises:
            OSError: The record of an erasure cannot be read, or a log cannot be opened for want of descriptors. The
                next scan counts what was not counted then: events must not wait for good.
        """
        all_sessions = all_sessions or self._has_unscanned
        uncounted: dict[str, list[float]] = {}
        try:
            self._scan(uncounted, all_sessions=all_sessions)
            self._has_unscanned = False
        except OSError as error:
            self._has_unscanned = all_sessions and is_starved(error)
            with self._lock:
                for session_id, times in uncounted.items():
                    self._uncounted[session_id] = [*times, *self._uncounted.get(session_id, ())]
            raise

    def _scan(self, uncounted: dict[str, list[float]], *, all_sessions: bool) -> None:
        """Count; ``uncounted`` receives what was logged since the last scan, as long as it is not counted."""
        self._last_erasure = read_last_erasure(self._folder)
        have_cursors_changed = self._cursors.refresh()  # another process has sent some
        with self._lock:
            uncounted |= self._uncounted
            self._uncounted = {}
            unsent = dict(self._unsent)
        logs = dict(self._folder.list_session_logs()) if all_sessions else {}
        session_ids = set(uncounted) | {
            session_id
            for session_id, version_key in logs.items()
            if version_key != self._cursors.get(session_id).version_key
        }
        if all_sessions or have_cursors_changed:
            session_ids |= set(unsent)
        for session_id in session_ids:
            modified_at = [logs[session_id][0] / _NS_PER_S] if session_id in logs else []
            self._recount(session_id, [*uncounted.get(session_id, ()), *modified_at])
            uncounted.pop(session_id, None)

    def next_batch(self, max_events: int = MAX_BATCH_EVENTS) -> OutboxBatch | None:
        """Return the next events to send, starting with the session that has waited longest.

        Args:
            max_events: Maximum number of events.

        Returns:
            The batch, or None if there is nothing to send.
        """
        with self._lock:
            session_ids = sorted(self._unsent, key=lambda session_id: self._unsent[session_id].oldest_at)
        lines: list[OutboxLine] = []
        fingerprints: dict[str, int] = {}
        bytes_left, events_left = MAX_BATCH_BYTES, max_events
        agent_id, has_events = None, False
        for session_id in session_ids:
            start, fingerprints[session_id] = self._find_start(session_id)
            for line in self._read_lines(session_id, start):
                if line.event_id is not None and has_events:
                    is_full = len(line.content) > bytes_left or not events_left
                    if is_full or line.agent_id != agent_id:
                        return OutboxBatch(tuple(lines), fingerprints)
                elif line.event_id is not None:
                    agent_id, has_events = line.agent_id, True
                lines.append(line)
                bytes_left -= len(line.content)
                events_left -= line.event_id is not None
        return OutboxBatch(tuple(lines), fingerprints) if lines else None

    def acknowledge(self, batch: OutboxBatch, done_event_ids: AbstractSet[str]) -> int:
        """Move the cursors past the events that are done, up to the first one of each session that is not.

        Args:
            batch: The batch that was sent.
            done_event_ids: Ids of the events that the cloud has accepted or rejected.

        Returns:
            The number of events that the cursors were moved past.

        Raises:
            OSError: The cursors cannot be written. The next process will send the events again.
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
                for session_id in cursors:
                    self._sync_log(session_id)
                cursors_with_mtime = {
                    session_id: _with_mtime(cursor, self._log_path(session_id))
                    for session_id, cursor in cursors.items()
                }
                self._cursors.update(cursors_with_mtime, lambda session_id: self._log_path(session_id).exists())
        finally:
            try:
                for session_id in cursors:
                    self._recount(session_id, [])
            except OSError:
                self._has_unscanned = True
        return done_count

    def clear(self) -> None:
        """Reset the counts: the logs have been deleted, or will be scanned again."""
        with self._lock:
            self._uncounted.clear()
            self._unsent.clear()
            self._has_unscanned = False

    def rewind(self) -> None:
        """Send every event again, because the cloud has lost data.

        Raises:
            OSError: The cursors cannot be written.
        """
        self._cursors.rewind()

    def set_epoch(self, epoch: str | None) -> None:
        """Set the cloud's epoch. What was sent before a new one counts as unsent, from the next `scan` of all sessions.

        Args:
            epoch: The epoch; None if the cloud names none.
        """
        self._cursors.set_epoch(epoch)

    def _log_path(self, session_id: str) -> Path:
        return self._folder.session(session_id).log

    def _sync_log(self, session_id: str) -> None:
        """Wait until the log is on the disk: its writer may have died before that.

        A power failure could otherwise leave a cursor that is ahead of its log, and what is logged next, up to there,
        would never be sent.
        """
        with suppress(FileNotFoundError):  # the user has been erased
            sync_file(self._log_path(session_id))

    def _recount(self, session_id: str, times: list[float]) -> None:
        start, _ = self._find_start(session_id)
        events = [line.is_turn for line in self._read_lines(session_id, start) if line.event_id is not None]
        with self._lock:
            known = self._unsent.pop(session_id, None)
            if events:
                oldest_at = min([*times, *([known.oldest_at] if known else [])], default=time.time())
                self._unsent[session_id] = _UnsentEvents(len(events), sum(events), oldest_at)

    def _find_start(self, session_id: str) -> tuple[int, int]:
        """Return the offset at which to continue in a log (0 if the cursor is of another log), and its fingerprint."""
        cursor = self._cursors.get(session_id)
        try:
            with open_private_reader(self._log_path(session_id)) as file:
                fingerprint, size = log_fingerprint(file.read(FINGERPRINT_BYTES)), os.fstat(file.fileno()).st_size
        except OSError as error:
            raise_if_starved(error)
            return 0, START_OF_LOG.fingerprint
        return (cursor.offset if cursor.fingerprint == fingerprint and 0 <= cursor.offset <= size else 0), fingerprint

    def _read_lines(self, session_id: str, offset: int) -> Iterator[OutboxLine]:
        """Yield the complete lines of a log from an offset on. The last one may be incomplete or torn."""
        for content in _read_complete_lines(self._log_path(session_id), offset):
            offset += len(content) + 1
            event = decode_line(content)
            if event is None or event.session_id != session_id or not self._is_to_be_sent(event):
                yield OutboxLine(session_id, offset, None, content)
            else:
                agent_id = event.agent_id if isinstance(event.agent_id, str) else None
                yield OutboxLine(session_id, offset, event.event_id, content, event.type is EventType.TURN, agent_id)

    def _is_to_be_sent(self, event: Event) -> bool:
        if self._last_erasure is not None and self._last_erasure.includes(event):
            return False
        mark = self._cursors.unmarked_cloud if event.cloud is msgspec.UNSET else event.cloud
        return mark is not None if self._selection is Selection.FOR_ANY_CLOUD else mark == self._mark


def _with_mtime(cursor: Cursor, log: Path) -> Cursor:
    """Return the cursor with the log's modification time, if it is at the end of the log."""
    try:
        stat = log.lstat()
    except OSError:
        return cursor
    return Cursor(cursor.offset, cursor.fingerprint, stat.st_mtime_ns) if stat.st_size == cursor.offset else cursor


def _read_complete_lines(path: Path, offset: int) -> Iterator[bytes]:
    try:
        with open_private_reader(path) as file:
            file.seek(offset)
            unread = b""
            while chunk := file.read(_READ_CHUNK_BYTES):
                *complete, unread = (unread + chunk).split(b"\n")
                yield from complete
    except OSError as error:
        raise_if_starved(error)
