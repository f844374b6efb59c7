"""Roles: what only one of several processes of a user may do at a time."""

import threading
from pathlib import Path

import filelock


class ProcessLock:
    """The right to do one thing for a user, held until the process ends and then free for the next. Thread-safe."""

    def __init__(self, path: Path) -> None:
        self._file_lock = filelock.FileLock(path, timeout=0, mode=0o600, thread_local=False)
        self._mutex = threading.Lock()

    def try_acquire(self) -> bool:
        """Take the role if nobody else holds it; tell whether it is ours."""
        with self._mutex:
            if self._file_lock.is_locked:
                return True
            try:
                self._file_lock.acquire()
            except (filelock.Timeout, OSError):  # held by another, or the disk can't be written
                return False
            return True

    def release(self) -> None:
        """Let the next one have it."""
        with self._mutex:
            self._file_lock.release()
