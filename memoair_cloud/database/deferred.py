"""Small writes of requests that read: made in the background, so that they never delay or fail the answer.

When a key was last used is worth a row, but not the answer to a call that is waiting. So such writes are kept in memory
until the database takes them, whether that is in a millisecond or when a full disk has space again. What must not be
lost until then is logged by the code that defers it.
"""

import logging
import threading
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager

from sqlalchemy import Engine
from sqlalchemy.exc import DataError, DBAPIError, IntegrityError, ProgrammingError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.orm import Session

from memoair_cloud.database.engine import LOCK_TIMEOUT_OPTION, WRITE_OPTION
from memoair_protocol.threads import ThreadUnavailableError, run_loop, start_thread

log = logging.getLogger(__name__)

DeferredWrite = Callable[[Session], None]

_MAX_WAITING = 10_000
_LOCK_TIMEOUT_S = 1.0
_CLOSE_TIMEOUT_S = 5.0


def is_outage(error: Exception) -> bool:
    """Return whether an error says that the database takes no writes now: full, locked, read-only, or unreachable."""
    if isinstance(error, PoolTimeoutError):
        return True
    return isinstance(error, DBAPIError) and not isinstance(error, (IntegrityError, ProgrammingError, DataError))


@contextmanager
def begin_short_write(engine: Engine, lock_timeout_s: float = _LOCK_TIMEOUT_S) -> Iterator[Session]:
    """Begin a transaction that writes, and that fails rather than wait long for a lock."""
    options = {WRITE_OPTION: True, LOCK_TIMEOUT_OPTION: lock_timeout_s}
    with Session(engine.execution_options(**options)) as session, session.begin():
        session.connection()  # begins the transaction on the database: it would not before the first statement
        yield session


class DeferredWrites:
    """Writes that wait until the database takes them, in the order in which they were deferred. Thread-safe.

    One thread makes them. It runs only while there are some.

    Args:
        engine: The database of the server.
        max_waiting: How many writes may wait.
    """

    def __init__(self, engine: Engine, max_waiting: int = _MAX_WAITING) -> None:
        self._engine = engine
        self._max_waiting = max_waiting
        self._lock = threading.Lock()
        self._waiting: dict[Hashable, DeferredWrite] = {}
        self._closing = threading.Event()
        self._thread: threading.Thread | None = None
        self._is_failing = False

    @property
    def is_failing(self) -> bool:
        """Whether the last attempt to write failed."""
        return self._is_failing

    def put(self, key: Hashable, write: DeferredWrite) -> bool:
        """Defer a write. It returns at once.

        Args:
            key: What the write is about. It replaces one about the same that is still waiting.
            write: Makes the write in a session. It may be called several times, until the transaction is committed.

        Returns:
            False if too many writes are waiting; then this one is lost.
        """
        with self._lock:
            if key not in self._waiting and len(self._waiting) >= self._max_waiting:
                return False
            self._waiting[key] = write
            if self._thread is None and not self._closing.is_set():
                try:
                    self._thread = start_thread(self._run, name="memoair-deferred-writes")
                except ThreadUnavailableError:
                    log.warning("no thread for deferred writes", extra={"action": "deferred_writes_wait"})
            return True

    def find(self, key: Hashable) -> DeferredWrite | None:
        """Return the write about something that is waiting, if there is one."""
        with self._lock:
            return self._waiting.get(key)

    def close(self) -> None:
        """Try once more to make the writes that wait, and end the thread. Closing again has no effect."""
        with self._lock:
            self._closing.set()
            thread = self._thread
        if thread is None:
            self._run()  # none could be started, or none was needed
        else:
            thread.join(_CLOSE_TIMEOUT_S)

    def _run(self) -> None:
        run_loop(self._step, report=self._report, wait=self._closing.wait)

    def _step(self) -> bool:
        """Make the writes that wait; return whether there may be more."""
        with self._lock:
            is_last = self._closing.is_set()
            writes = dict(self._waiting)
            if not writes:  # in the same step as the check: a write that is put now starts another thread
                self._thread = None
                return False
        try:
            self._make(writes)
        except Exception as error:
            self._is_failing = True
            if is_last:
                self._report(error)
                return False
            raise
        self._is_failing = False
        with self._lock:
            for key, write in writes.items():
                if self._waiting.get(key) is write:
                    del self._waiting[key]
        return True

    def _make(self, writes: dict[Hashable, DeferredWrite]) -> None:
        try:
            with begin_short_write(self._engine) as session:
                for write in writes.values():
                    write(session)
        except Exception as error:
            if is_outage(error):
                raise
            if len(writes) == 1:  # such as one about a project that was deleted since: it would fail for ever
                _log_failure("deferred_write_dropped", "a deferred write is impossible", error=type(error).__name__)
                return
            for key, write in writes.items():
                self._make({key: write})

    def _report(self, error: Exception) -> None:
        with self._lock:
            waiting = len(self._waiting)
        _log_failure("deferred_writes_failed", "deferred writes failed", error=type(error).__name__, waiting=waiting)


def _log_failure(action: str, message: str, **fields: object) -> None:
    log.warning(message, extra={"action": action, "fields": fields})
