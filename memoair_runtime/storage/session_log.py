"""One session's log: events appended to a file, each durable before anybody is told that it was kept.

The file is the truth about the session and the outbox to the cloud: one JSON object a line (`events`), nothing is ever
changed, and only a torn last line, which nobody was told of, is ever cut away. Several processes may write to one log
(a runtime that is being replaced, and its successor): they take turns by a lock beside it, and whoever holds the lock
first reads what the others wrote.
"""

import errno
import logging
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from functools import partial

import filelock

from memoair_runtime.errors import StorageUnavailableError
from memoair_runtime.storage.durable import sync_data, sync_folder
from memoair_runtime.storage.events import Event, decode_line, encode_line
from memoair_runtime.storage.user_folder import SessionFolder

log = logging.getLogger(__name__)

# How long a writer waits for another process that is about to write the same log: one write and one sync, with room
# for a slow disk. Longer, and the other has been stopped.
LOCK_TIMEOUT_S = 2.0
READ_LOCK_TIMEOUT_S = 0.2

# Where O_BINARY is missing there is nothing to switch off.
_OPEN_FLAGS = os.O_RDWR | os.O_CREAT | os.O_APPEND | getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0)


class SessionLog:
    """The log of one session, as one process sees it.

    Every event, read or written, passes through ``on_event`` once, in the order of the file. Not thread-safe: the
    session that owns it locks.
    """

    def __init__(self, folder: SessionFolder, on_event: Callable[[Event], None]) -> None:
        self._folder = folder
        self._on_event = on_event
        self._lock = filelock.FileLock(folder.lock, mode=0o600, poll_interval=0.005)
        self._are_folders_synced = False
        self._read_offset = 0  # every complete line before this offset has been passed on

    def read(self) -> None:
        """Pass on what has been written since the last look. A line that is still being written waits for the next.

        Raises `StorageUnavailableError` where there is a log and it can't be read.
        """
        try:
            fd = os.open(self._folder.log, os.O_RDONLY | getattr(os, "O_BINARY", 0))
        except FileNotFoundError:
            return
        except OSError as error:
            raise storage_error("the session's log can't be opened", error) from error
        try:
            with ExitStack() as stack:
                # What is being written may yet be taken back, and a turn that was taken back must not be known here.
                # Who holds the lock for longer has been stopped, or the disk takes no locks: recall goes on without.
                with suppress(StorageUnavailableError):
                    stack.enter_context(self._locked(READ_LOCK_TIMEOUT_S))
                self._read_new_lines(fd)
        except OSError as error:
            raise storage_error("the session's log can't be read", error) from error
        finally:
            os.close(fd)

    @contextmanager
    def open_for_append(self) -> Iterator[Callable[[Sequence[Event]], None]]:
        """Hold the log alone; on entry everything that others wrote has been passed on, and a torn line is cut away.

        Yields the function that appends events with one write and waits for the disk: all of them are kept, or none.
        Raises `StorageUnavailableError` where the log can't be locked, opened or written. The folder must exist.
        """
        with self._locked(LOCK_TIMEOUT_S), self._open_file() as descriptor:
            known_offset = self._read_offset
            try:
                if self._read_new_lines(descriptor) > self._read_offset:
                    self._truncate_torn_line(descriptor)
                if self._read_offset != known_offset:
                    # Who wrote these lines may have died before they were on the disk, and a turn id among them will be
                    # acknowledged as known.
                    sync_data(descriptor)
            except OSError as error:
                raise storage_error("the session's log can't be read or repaired", error) from error
            yield partial(self._append, descriptor)

    @contextmanager
    def _locked(self, timeout_s: float) -> Iterator[None]:
        try:
            self._lock.acquire(timeout=timeout_s)
        except filelock.Timeout:
            raise StorageUnavailableError("the session's log is held by another process") from None
        except OSError as error:
            raise storage_error("the session's log can't be locked", error) from error
        try:
            yield
        finally:
            self._lock.release()

    @contextmanager
    def _open_file(self) -> Iterator[int]:
        try:
            fd = os.open(self._folder.log, _OPEN_FLAGS, 0o600)
        except OSError as error:
            raise storage_error("the session's log can't be opened", error) from error
        try:
            self._sync_folders()
            yield fd
        finally:
            os.close(fd)

    def _sync_folders(self) -> None:
        """Make sure, once, that the log will be found after a power cut: that it exists does not say so."""
        if self._are_folders_synced:
            return
        try:
            for folder in (self._folder.path, *self._folder.path.parents[:3]):  # session, user, project, storage root
                sync_folder(folder)
        except OSError as error:
            raise storage_error("the folders of the log can't be synced", error) from error
        self._are_folders_synced = True

    def _read_new_lines(self, fd: int) -> int:
        """Pass on the complete lines behind ``_read_until`` and return the size of the file."""
        size = os.fstat(fd).st_size
        if size < self._read_offset:
            log.warning("a session log is shorter than it was: action=log_shrunk was=%d is=%d", self._read_offset, size)
            self._read_offset = size
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
            log.warning("lines of a session log can't be read: action=lines_skipped lines=%d", damaged)
        self._read_offset += complete_bytes
        return self._read_offset + len(unread) - complete_bytes

    def _truncate_torn_line(self, fd: int) -> None:
        """Cut away what stands behind the last line feed: the lock is ours, so nobody is writing it any more."""
        torn_bytes = os.fstat(fd).st_size - self._read_offset
        os.ftruncate(fd, self._read_offset)
        sync_data(fd)
        log.warning("a torn last line was cut from a session log: action=log_repaired bytes=%d", torn_bytes)

    def _append(self, fd: int, events: Sequence[Event]) -> None:
        lines = b"".join(map(encode_line, events))
        try:
            if os.write(fd, lines) != len(lines):  # a file takes less than it is given when there is no room
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            sync_data(fd)
        except OSError as error:
            self._undo_append(fd)
            raise storage_error("the disk did not take it", error) from error
        self._read_offset += len(lines)
        for event in events:
            self._on_event(event)

    def _undo_append(self, fd: int) -> None:
        """Cut a failed write away. Where even that fails, the next writer finds it, and cuts it if it is torn."""
        try:
            os.ftruncate(fd, self._read_offset)
        except OSError as error:
            log.warning("a failed write could not be taken back: action=log_dirty errno=%s", error.errno)


def storage_error(problem: str, error: OSError) -> StorageUnavailableError:
    """Say what the disk refused, by the system's words for it; the whole path would name the caller."""
    is_path_blocked = isinstance(error, FileExistsError | NotADirectoryError)
    reason = "a file stands where a folder should" if is_path_blocked else error.strerror or type(error).__name__
    return StorageUnavailableError(f"{problem}: {reason}", errno=error.errno)
