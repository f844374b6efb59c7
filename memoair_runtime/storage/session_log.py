"""The session log: events appended to a file, each durable before it is acknowledged.

The file is the source of truth for the session, and the outbox to the cloud: one JSON object per line (see `events`).
Nothing in it is ever changed, and only a torn last line, which was never acknowledged, is ever cut off. Several
processes may write to one log (a runtime that is being replaced, and its successor). They take turns with a lock file
beside the log, and the holder of the lock first reads what the others have written.
"""

import errno
import logging
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from functools import partial

import filelock

from memoair_protocol.durable import sync_data, sync_folder
from memoair_protocol.private_files import check_private_file, open_private_file, read_private_file
from memoair_runtime.errors import StorageUnavailableError
from memoair_runtime.storage.events import Event, decode_line, encode_line
from memoair_runtime.storage.user_folder import SessionFolder

log = logging.getLogger(__name__)

# How long a writer waits for another process that is writing the same log: one write and one sync, with a margin for
# slow disks. A process that takes longer has been stopped.
LOCK_TIMEOUT_S = 2.0
READ_LOCK_TIMEOUT_S = 0.2

_OPEN_FLAGS = os.O_RDWR | os.O_CREAT | os.O_APPEND


class SessionLog:
    """The log of one session, as one process sees it. Not thread-safe: the session that owns it locks.

    Each event, whether read or written, is passed to ``on_event`` once, in the order of the file.
    """

    def __init__(self, folder: SessionFolder, on_event: Callable[[Event], None]) -> None:
        self._folder = folder
        self._on_event = on_event
        self._lock = filelock.FileLock(folder.lock, mode=0o600, poll_interval=0.005)
        self._are_folders_synced = False
        self._read_offset = 0  # all lines before this offset have been passed on
        self._synced_offset = 0  # all lines before this offset are known to be on the disk

    def read(self) -> None:
        """Pass on the events that were written since the last call.

        A line that is still being written waits for the next call.

        Raises:
            StorageUnavailableError: There is a log, and it cannot be read.
        """
        try:
            fd = open_private_file(self._folder.log, os.O_RDONLY)
        except FileNotFoundError:
            return
        except OSError as error:
            raise storage_error("cannot open the session log", error) from error
        try:
            with ExitStack() as stack:
                # A write in progress may still be undone, and an undone turn must not be known here. If the lock cannot
                # be had in time, its holder has been stopped, or the disk supports no locks: recall goes on without it.
                with suppress(StorageUnavailableError):
                    stack.enter_context(self._locked(READ_LOCK_TIMEOUT_S))
                self._read_new_lines(fd)
        except OSError as error:
            raise storage_error("cannot read the session log", error) from error
        finally:
            os.close(fd)

    @contextmanager
    def open_for_append(self) -> Iterator[Callable[[Sequence[Event]], None]]:
        """Lock the log and open it for writing. The session's folder must exist.

        On entry, events that other processes wrote are passed on, and a torn last line is cut off.

        Yields:
            A function that appends events with one write and waits for the disk: all of them are stored, or none.

        Raises:
            StorageUnavailableError: The log cannot be locked, opened or written.
        """
        with self._locked(LOCK_TIMEOUT_S), self._open_file() as fd:
            try:
                if self._read_new_lines(fd) > self._read_offset:
                    self._truncate_torn_line(fd)
                if self._read_offset > self._synced_offset:
                    # The process that wrote these lines, now or before `read`, may have died before they were on the
                    # disk, and a turn id among them is acknowledged as known from now on.
                    sync_data(fd)
                    self._synced_offset = self._read_offset
            except OSError as error:
                raise storage_error("cannot read or repair the session log", error) from error
            yield partial(self._append, fd)

    def find_event(self, event_id: str) -> Event | None:
        """Return an event by its id; None if it is not in the log. This reads the whole log.

        Raises:
            StorageUnavailableError: The log cannot be read.
        """
        try:
            lines = read_private_file(self._folder.log).split(b"\n")[:-1]
        except OSError as error:
            raise storage_error("cannot read the session log", error) from error
        candidates = (decode_line(line) for line in lines if event_id.encode() in line)
        return next((event for event in candidates if event is not None and event.event_id == event_id), None)

    @contextmanager
    def _locked(self, timeout_s: float) -> Iterator[None]:
        try:
            check_private_file(self._folder.lock)
            self._lock.acquire(timeout=timeout_s)
        except filelock.Timeout:
            raise StorageUnavailableError("the session log is locked by another process") from None
        except OSError as error:
            raise storage_error("cannot lock the session log", error) from error
        try:
            yield
        finally:
            self._lock.release()

    @contextmanager
    def _open_file(self) -> Iterator[int]:
        try:
            fd = open_private_file(self._folder.log, _OPEN_FLAGS)
        except OSError as error:
            raise storage_error("cannot open the session log", error) from error
        try:
            self._sync_folders()
            yield fd
        finally:
            os.close(fd)

    def _sync_folders(self) -> None:
        """Make the log's path durable, once: that the log exists does not mean that it survives a power failure."""
        if self._are_folders_synced:
            return
        try:
            for folder in (self._folder.path, *self._folder.path.parents[:3]):  # session, user, project, storage root
                sync_folder(folder)
        except OSError as error:
            raise storage_error("cannot sync the folders of the session log", error) from error
        self._are_folders_synced = True

    def _read_new_lines(self, fd: int) -> int:
        """Pass on the complete lines after ``_read_offset`` and return the size of the file."""
        size = os.fstat(fd).st_size
        if size < self._read_offset:
            log.warning("session log is shorter than before: action=log_shrunk was=%d is=%d", self._read_offset, size)
            self._read_offset, self._synced_offset = size, min(self._synced_offset, size)
        if size == self._read_offset:
            return size
        os.lseek(fd, self._read_offset, os.SEEK_SET)
        unread = bytearray()
        while chunk := os.read(fd, 1 << 20):
            unread += chunk
        complete_bytes = unread.rfind(b"\n") + 1
        damaged = 0
        for line in bytes(unread[:complete_bytes]).split(b"\n")[:-1]:
            event = decode_line(line)
            if event is None:
                damaged += 1
            else:
                self._on_event(event)
        if damaged:
            log.warning("skipped damaged lines of a session log: action=lines_skipped lines=%d", damaged)
        self._read_offset += complete_bytes
        return self._read_offset + len(unread) - complete_bytes

    def _truncate_torn_line(self, fd: int) -> None:
        """Cut off what follows the last line feed: this process holds the lock, so nothing is still being written."""
        torn_bytes = os.fstat(fd).st_size - self._read_offset
        os.ftruncate(fd, self._read_offset)
        sync_data(fd)
        log.warning("cut a torn last line off a session log: action=log_repaired bytes=%d", torn_bytes)

    def _append(self, fd: int, events: Sequence[Event]) -> None:
        lines = b"".join(map(encode_line, events))
        try:
            if os.write(fd, lines) != len(lines):  # on a full disk, only a part is written
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            sync_data(fd)
        except OSError as error:
            self._undo_append(fd)
            raise storage_error("cannot write to the session log", error) from error
        with suppress(OSError):  # the user's folder shows that something in it has changed, see `sync.backlog`
            os.utime(self._folder.path.parent)
        self._read_offset += len(lines)
        self._synced_offset = self._read_offset
        for event in events:
            self._on_event(event)

    def _undo_append(self, fd: int) -> None:
        """Cut off a failed write. If that fails too, the next writer finds it, and cuts it off if it is torn."""
        try:
            os.ftruncate(fd, self._read_offset)
        except OSError as error:
            log.warning("cannot undo a failed write: action=log_dirty errno=%s", error.errno)


def storage_error(problem: str, error: OSError) -> StorageUnavailableError:
    """Create the error for a failed disk operation.

    The message has the system's reason but not the path, which contains the user's id. Only where another user of the
    machine may be at work must the operator know which folder or file it is.

    Args:
        problem: What could not be done.
        error: The reason.
    """
    is_path_blocked = isinstance(error, FileExistsError | NotADirectoryError)
    reason = "a file is in the place of a folder" if is_path_blocked else error.strerror or type(error).__name__
    return StorageUnavailableError(f"{problem}: {reason}", errno=error.errno)
