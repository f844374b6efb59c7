"""Process locks: work that one process at a time may do for a user or project."""

import threading
from pathlib import Path

import filelock

from memoair_protocol.private_files import check_private_file


class ProcessLock:
    """A file lock that its process holds until it releases it or ends. Thread-safe.

    Threads of one process share the lock: it is held by the process, not by a thread.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file_lock = filelock.FileLock(path, timeout=0, mode=0o600, thread_local=False)
        self._mutex = threading.Lock()

    def try_acquire(self) -> bool:
        """Acquire the lock if no other process holds it. Does not wait.

        Returns:
            Whether this process holds the lock. False also if the lock file cannot be written.
        """
        with self._mutex:
            if self._file_lock.is_locked:
                return True
            try:
                check_private_file(self._path)
                self._file_lock.acquire()
            except (filelock.Timeout, OSError):  # held by another process, or the disk cannot be written
                return False
            return True

    def release(self) -> None:
        """Release the lock, if this process holds it."""
        with self._mutex:
            self._file_lock.release()
