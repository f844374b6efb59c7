"""A client's part of the spool: the turns that it has promised, and those of clients that have ended.

See `memoair_protocol.turn_spool` for the files.
"""

import json
import os
import threading
import time
import uuid
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import attrs

from memoair_protocol.turn_spool import (
    LOCK_SUFFIX,
    OpenSpoolFolder,
    SegmentContent,
    SegmentName,
    SpoolFolder,
    append_line,
    cloud_part,
    count_turns,
    erase_user,
    hash_project,
    hash_user,
)
from memoair_voice_sync._diagnostics import log
from memoair_voice_sync._turns.unsaved_turn import SpoolEntry, UnsavedTurn, name_sessions

if TYPE_CHECKING:
    from filelock import BaseFileLock

# A segment that has this size is followed by another one, so that what is saved is removed during a long outage.
_MAX_SEGMENT_BYTES = 256 << 10
# A lock without segments belongs to a client that has ended at the wrong moment, or to one that has just begun.
_MIN_STALE_LOCK_S = 60.0
_APPEND_TRIES = 2


@attrs.define(eq=False)
class _SpoolSegment:
    """A file of the spool, and which of its turns are done."""

    name: SegmentName
    mutex: threading.Lock = attrs.field(factory=threading.Lock)  # held while it is written
    count: int = 0  # turns in it
    last_number: int = 0
    size: int = 0
    done: set[int] = attrs.field(factory=set)
    writers: int = 0  # threads that are about to append a turn
    is_closed: bool = False  # takes no more turns


@attrs.define(eq=False)
class _Owner:
    """The segments of one client, and the lock that says that they are looked after."""

    id: str
    lock: "BaseFileLock"
    segments: set[_SpoolSegment] = attrs.field(factory=set)


class TurnSpool:
    """The turns that this client answers for on the disk. Safe to use from any thread.

    Nothing is on the disk, and no lock is held, while no turn waits.
    """

    def __init__(self, root: Path, project_id: str, cloud_base_url: str | None) -> None:
        """Create the client's part of the spool. Nothing is read or written yet.

        Args:
            root: The storage root.
            project_id: The project.
            cloud_base_url: The cloud that the turns are meant for, None for none.
        """
        self._folder = SpoolFolder(root)
        self._project_id, self._cloud_base_url = project_id, cloud_base_url
        self._project, self._cloud = hash_project(project_id), cloud_part(cloud_base_url)
        self.reset_after_fork()

    def reset_after_fork(self) -> None:
        """Drop everything in the child of a fork: the parent looks after its turns."""
        self._lock = threading.Lock()
        self._own: _Owner | None = None  # only while turns of this client wait
        self._adopted: dict[str, _Owner] = {}
        self._current: dict[str, _SpoolSegment] = {}  # the segment that takes the next turn, by the hash of the user
        self._next_number = 1

    def append(self, turn: UnsavedTurn) -> SpoolEntry:
        """Write a turn, which is on the disk when this returns.

        Raises:
            OSError: It cannot be written.
            TypeError: JSON cannot hold it.
            ValueError: JSON cannot hold it.
        """
        content = turn.encode()
        turn.size_bytes = len(content)
        user = hash_user(self._project_id, turn.user.id)
        for attempt in range(_APPEND_TRIES):
            segment = self._open_segment(user)
            try:
                with segment.mutex:
                    return self._write_turn(segment, content)
            except OSError as error:
                # Another client has erased the user, and the segment with them; this turn was said since.
                if not (isinstance(error, FileNotFoundError) and attempt + 1 < _APPEND_TRIES):
                    raise
            finally:
                with self._lock:
                    segment.writers -= 1
                    self._drop_if_done(segment)
        raise AssertionError  # the last attempt returns or raises

    def mark_done(self, entries: Iterable[SpoolEntry]) -> None:
        """Note that turns are saved, or can never be. A mark that is lost does no harm: a turn counts once."""
        by_segment: dict[_SpoolSegment, list[int]] = {}
        for entry in entries:
            assert isinstance(entry.segment, _SpoolSegment)  # noqa: S101 - made here
            by_segment.setdefault(entry.segment, []).append(entry.number)
        for segment, numbers in by_segment.items():
            with segment.mutex:
                segment.done.update(numbers)
                if len(segment.done) < segment.count:
                    with suppress(OSError), self._folder.opened() as folder:
                        self._append(folder, segment, os.O_WRONLY, {"done": numbers}, durable=False)
            with self._lock:
                self._drop_if_done(segment)

    def adopt(self, max_turns: int) -> list[UnsavedTurn]:
        """Take over the turns of clients that have ended, at most about so many.

        Returns:
            The turns, those of each user in the order in which they were said.
        """
        adopted: list[UnsavedTurn] = []
        try:
            with self._folder.opened() as folder:
                names = folder.list_names()
                segments = [name for name in map(SegmentName.parse, names) if name is not None]
                mine = [name for name in segments if (name.project, name.cloud) == (self._project, self._cloud)]
                for owner_id in self._order_owners(folder, mine):
                    if len(adopted) < max_turns:
                        adopted += self._adopt_owner(folder, owner_id, max_turns - len(adopted), is_first=not adopted)
                self._remove_stale_locks(folder, names, {name.owner for name in segments})
        except FileNotFoundError:
            return []
        except OSError as error:
            log.warning("the spool cannot be read: action=spool_unreadable errno=%s", error.errno)
        self._folder.remove_if_empty()
        return adopted

    def erase(self, user_id: str) -> bool:
        """Remove the turns of a user, of all clients and clouds; return whether there were any. Raises OSError."""
        user = hash_user(self._project_id, user_id)
        with self._lock:
            self._current.pop(user, None)
            had_any = erase_user(self._folder.root, self._project_id, user_id)
            for owner in [self._own, *self._adopted.values()]:
                if owner is not None:
                    for segment in [each for each in owner.segments if each.name.user == user]:
                        segment.is_closed = True
                        segment.done = set(range(1, segment.last_number + 1))
                        segment.count = len(segment.done)
                        self._drop_if_done(segment)
        return had_any

    def exists(self) -> bool:
        """Return whether turns of any client wait under the storage root, as far as is known."""
        return self._folder.path.is_dir()

    def count(self) -> int:
        """Return how many turns wait on the disk, of all clients of this project and cloud."""
        return count_turns(self._folder.root, self._project_id, self._cloud_base_url).turns

    def close(self) -> None:
        """Leave the turns that are not done to other clients."""
        with self._lock:
            owners = [self._own, *self._adopted.values()]
            self._own, self._adopted, self._current = None, {}, {}
            for owner in owners:
                if owner is not None:
                    owner.lock.release()

    def _open_segment(self, user: str) -> _SpoolSegment:
        """Return the segment for the next turn of a user, which is not removed until `writers` goes down again."""
        with self._lock:
            if self._own is None:
                self._own = self._begin()
            segment = self._current.get(user)
            if segment is None or segment.is_closed or segment.size >= _MAX_SEGMENT_BYTES:
                name = SegmentName(self._project, self._cloud, user, self._own.id, self._next_number)
                self._next_number += 1
                segment = self._current[user] = _SpoolSegment(name)
                self._own.segments.add(segment)
            segment.writers += 1
            return segment

    def _begin(self) -> _Owner:
        """Create the lock of this client, before any of its segments."""
        owner_id = uuid.uuid4().hex
        with self._folder.opened(creates=True):
            lock = self._try_lock(owner_id)
        if lock is None:
            raise OSError(None, "the lock of the spool cannot be acquired")
        return _Owner(owner_id, lock)

    def _write_turn(self, segment: _SpoolSegment, content: bytes) -> SpoolEntry:
        is_new = not segment.last_number
        number = segment.last_number + 1
        try:
            with self._folder.opened(creates=is_new) as folder:
                flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL if is_new else os.O_WRONLY
                self._append(folder, segment, flags, content=b'{"n": %d, ' % number + content[1:], durable=True)
                if is_new:
                    folder.sync()
        except OSError:
            segment.is_closed = True
            raise
        segment.last_number, segment.count = number, segment.count + 1
        return SpoolEntry(segment, number)

    @staticmethod
    def _append(
        folder: OpenSpoolFolder,
        segment: _SpoolSegment,
        flags: int,
        record: object = None,
        *,
        content: bytes = b"",
        durable: bool,
    ) -> None:
        line = (content or json.dumps(record).encode()) + b"\n"
        fd = folder.open(segment.name, flags | os.O_APPEND)
        try:
            append_line(fd, line, durable=durable)
        finally:
            os.close(fd)
        segment.size += len(line)

    def _drop_if_done(self, segment: _SpoolSegment) -> None:
        """Remove a segment whose turns are all done, and its owner with the last one. The lock must be held."""
        if segment.writers or len(segment.done) < segment.count:
            return
        owner = self._own
        if owner is None or segment not in owner.segments:
            owner = self._adopted.get(segment.name.owner)
        if owner is None or segment not in owner.segments:
            return  # the client was closed, and another one looks after what is left
        owner.segments.discard(segment)
        if self._current.get(segment.name.user) is segment:
            del self._current[segment.name.user]
        with suppress(FileNotFoundError):
            self._remove(segment.name)
        if not owner.segments:
            if owner is self._own:
                self._own = None
            self._adopted.pop(owner.id, None)
            self._remove_lock(owner.id, owner.lock)
            self._folder.remove_if_empty()

    def _remove(self, name: object) -> None:
        try:
            with self._folder.opened() as folder:
                folder.remove(name)
        except FileNotFoundError:
            pass
        except OSError as error:  # its turns are saved again by the next client, and count once
            log.warning("a file of the spool cannot be removed: action=spool_not_removed errno=%s", error.errno)

    def _remove_lock(self, owner_id: str, lock: "BaseFileLock") -> None:
        if os.name == "nt":  # where an open file cannot be removed
            lock.release()
        self._remove(f"{owner_id}{LOCK_SUFFIX}")
        lock.release()

    def _try_lock(self, owner_id: str) -> "BaseFileLock | None":
        """Return the lock of a client, acquired; None if it lives, or another client looks after its turns."""
        import filelock  # only if a turn waits: it takes 30 ms

        path = self._folder.path / f"{owner_id}{LOCK_SUFFIX}"
        lock = filelock.FileLock(path, timeout=0, mode=0o600, thread_local=False)
        try:
            lock.acquire()
        except (filelock.Timeout, RuntimeError):
            return None
        return lock

    def _order_owners(self, folder: OpenSpoolFolder, names: Iterable[SegmentName]) -> list[str]:
        """Return the other owners of segments, those whose turns have waited longest first."""
        with self._lock:
            known = {*self._adopted, self._own.id if self._own else ""}
        since: dict[str, float] = {}
        for name in names:
            if name.owner not in known:
                with suppress(FileNotFoundError):
                    modified_at = folder.modified_at(name)
                    since[name.owner] = min(since.get(name.owner, modified_at), modified_at)
        return sorted(since, key=since.__getitem__)

    def _adopt_owner(
        self, folder: OpenSpoolFolder, owner_id: str, max_turns: int, *, is_first: bool
    ) -> list[UnsavedTurn]:
        """Take over the turns of a client if it has ended; none if there are too many, unless it is the first one."""
        lock = self._try_lock(owner_id)
        if lock is None:
            return []
        owner = _Owner(owner_id, lock)
        try:
            turns, damaged = self._read_owner(folder, owner)
        except BaseException:
            lock.release()
            raise
        if len(turns) > max_turns and not is_first:
            lock.release()
            return []
        if damaged:
            log.error("damaged lines of the spool are lost: action=spool_damaged lines=%d", damaged)
        name_sessions(turns, owner_id)
        with self._lock:
            self._adopted[owner_id] = owner
            for segment in list(owner.segments):
                self._drop_if_done(segment)
            if not owner.segments and self._adopted.pop(owner_id, None) is not None:
                self._remove_lock(owner_id, lock)
        return turns

    def _read_owner(self, folder: OpenSpoolFolder, owner: _Owner) -> tuple[list[UnsavedTurn], int]:
        """Read the segments of a client whose lock is held; return its turns, and how many lines are damaged."""
        turns: list[UnsavedTurn] = []
        damaged = 0
        # Listed only now: another client may have looked after them until a moment ago.
        for name in sorted(filter(None, map(SegmentName.parse, folder.list_names())), key=lambda each: each.number):
            if name.owner == owner.id:
                segment = _SpoolSegment(name, is_closed=True)
                damaged += self._read_segment(folder, segment, turns)
                owner.segments.add(segment)
        return turns, damaged

    def _read_segment(self, folder: OpenSpoolFolder, segment: _SpoolSegment, turns: list[UnsavedTurn]) -> int:
        """Read a segment and add its turns; return how many lines are damaged. A torn last line is cut off."""
        try:
            raw = folder.read(segment.name)
            content = SegmentContent.parse(raw)
            if content.end < len(raw):
                fd = folder.open(segment.name, os.O_RDWR)
                try:
                    os.ftruncate(fd, content.end)
                finally:
                    os.close(fd)
        except FileNotFoundError:
            return 0
        damaged = content.damaged
        for number, record in sorted(content.turns.items()):
            segment.count += 1
            segment.last_number = number
            try:
                turn = UnsavedTurn.decode(record)
                if hash_user(self._project_id, turn.user.id) != segment.name.user:
                    raise ValueError("the record of another user")
            except (ValueError, TypeError, KeyError):
                damaged += 1
                segment.done.add(number)
            else:
                turn.size_bytes, turn.entry = len(raw) // len(content.turns), SpoolEntry(segment, number)
                turns.append(turn)
        return damaged

    def _remove_stale_locks(self, folder: OpenSpoolFolder, names: Iterable[str], owners: set[str]) -> None:
        """Remove the locks of clients that ended before their first or after their last segment."""
        now = time.time()
        with self._lock:
            own_id = self._own.id if self._own else None
        for name in names:
            owner_id = name.removesuffix(LOCK_SUFFIX)
            if name.endswith(LOCK_SUFFIX) and owner_id != own_id and owner_id not in owners:
                with suppress(FileNotFoundError):
                    if (
                        now - folder.modified_at(name) > _MIN_STALE_LOCK_S
                        and (lock := self._try_lock(owner_id)) is not None
                    ):
                        self._remove_lock(owner_id, lock)
