"""A limit on threads that wait to write to a SQLite file, while another process holds its lock for long."""

import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy.exc import OperationalError

# Each of them holds a connection and a thread of the server for up to 30 s, which reads then lack.
MAX_WAITING = 12
_STALL_S = 2.0


class WriterGate:
    """Lets writers wait for the lock of a SQLite file, but few of them once it is stuck. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting = 0
        self._progress_at = time.monotonic()

    @contextmanager
    def wait(self) -> Iterator[None]:
        """Wait for the lock in the block.

        Raises:
            OperationalError: If many writers wait, and none of them got the lock for some time.
        """
        with self._lock:
            now = time.monotonic()
            if self._waiting == 0:
                self._progress_at = now
            if self._waiting >= MAX_WAITING and now - self._progress_at > _STALL_S:
                raise OperationalError("BEGIN IMMEDIATE", {}, sqlite3.OperationalError("database is locked"))
            self._waiting += 1
        try:
            yield
            self._progress_at = time.monotonic()
        finally:
            with self._lock:
                self._waiting -= 1
