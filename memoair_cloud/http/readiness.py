"""Whether a server can do its work: its database and its blob store respond, have the right tables, and take writes."""

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path

from sqlalchemy import Engine, text
from sqlalchemy.exc import SQLAlchemyError

from memoair_cloud.database.deferred import begin_short_write, is_outage
from memoair_cloud.database.free_space import is_full
from memoair_cloud.database.migrate import is_current
from memoair_cloud.errors import ServiceUnavailableError
from memoair_cloud.indexes.blobs import BlobStore
from memoair_protocol.threads import ThreadUnavailableError, start_thread

TIMEOUT_S = 5.0
_LOCK_TIMEOUT_S = 2.0


class ReadinessCheck:
    """Checks a server in a thread of its own, so that a check that hangs delays nothing else. Thread-safe.

    Requests that arrive during a check share its result: the number of checks, each of which writes, does not grow with
    that of requests, which need no key.

    Args:
        engine: The database of the server.
        blobs: Its blob store.
        timeout_s: How long a request waits for the result, in seconds.
    """

    def __init__(self, engine: Engine, blobs: BlobStore, timeout_s: float = TIMEOUT_S) -> None:
        self._checks: dict[str, Callable[[], None]] = {
            "database": lambda: check_database(engine),
            "blobs": lambda: check_blob_store(blobs),
        }
        self._timeout_s = timeout_s
        self._lock = threading.Lock()
        self._running: Future[None] | None = None
        self._store = ""

    async def check(self) -> None:
        """Return if the server is ready.

        Raises:
            ServiceUnavailableError: If it is not; ``store`` in the details says why.
        """
        try:
            future = self._start()
        except ThreadUnavailableError:
            raise ServiceUnavailableError("the server has no thread for the check", store="server") from None
        # Another request may wait for the same check, so it is not canceled.
        waiting = asyncio.shield(asyncio.wrap_future(future))
        try:
            await asyncio.wait_for(waiting, self._timeout_s)
        except asyncio.TimeoutError:
            message = f"the check did not end within {self._timeout_s:g} s"
            raise ServiceUnavailableError(message, store=self._store) from None

    def _start(self) -> Future[None]:
        with self._lock:
            if self._running is None:
                future: Future[None] = Future()
                start_thread(self._run, args=(future,), name="memoair-readiness")
                self._running = future
            return self._running

    def _run(self, future: Future[None]) -> None:
        error: Exception | None = None
        try:
            for store, check in self._checks.items():
                self._store = store
                check()
        except Exception as failure:  # noqa: BLE001 - it is reported to the requests that wait
            error = failure
        with self._lock:
            self._running = None
        if error is None:
            future.set_result(None)
        else:
            future.set_exception(error)


def check_database(engine: Engine) -> None:
    """Check that the database responds, has the tables of this version, and takes writes.

    Raises:
        ServiceUnavailableError: If it does not.
    """
    try:
        with engine.connect() as connection:
            current = is_current(connection)
    except SQLAlchemyError:
        raise ServiceUnavailableError("the database does not respond", store="database") from None
    if not current:
        raise ServiceUnavailableError("the database has tables of another version", store="database")
    if engine.dialect.name == "sqlite" and engine.url.database and is_full(Path(engine.url.database).parent):
        raise ServiceUnavailableError("the disk of the database is full", store="database")
    try:
        with begin_short_write(engine, _LOCK_TIMEOUT_S) as session:
            # It changes nothing, but is committed to the disk like any other write.
            session.execute(text("UPDATE alembic_version SET version_num = version_num"))
    except SQLAlchemyError as error:
        if not is_outage(error):
            raise
        raise ServiceUnavailableError("the database takes no writes: is it full?", store="database") from None


def check_blob_store(blobs: BlobStore) -> None:
    """Check that the blob store takes files; raise `ServiceUnavailableError` if it does not."""
    if blobs.folder is not None and is_full(blobs.folder):
        raise ServiceUnavailableError("the disk of the blob store is full", store="blobs")
    blobs.check_writable()
