"""Work behind the requests: a queue in the same database, and the worker that takes from it."""

import logging
import threading
import time
from datetime import timedelta

from huey import Huey, PostgresHuey, SqliteHuey
from huey.api import Task
from sqlalchemy import Engine

from memoair_cloud.database.migrate import prepared_by_one
from memoair_cloud.indexes.blobs import BlobStore
from memoair_cloud.indexes.builder import build_org_index, projects_to_build

log = logging.getLogger(__name__)

_QUEUE = "memoair"
_RETRIES = 5
_RETRY_DELAY_S = 2.0
_POLL_S = 0.2
# How often a worker looks for work that nobody queued: a server may die between its commit and its call for a build.
_SWEEP_EVERY = timedelta(seconds=30)


class WorkQueue:
    """What is to be done, by whichever worker comes first. Safe to use from any thread."""

    def __init__(self, engine: Engine, blobs: BlobStore, retry_delay_s: float = _RETRY_DELAY_S) -> None:
        self._engine = engine
        self._huey = _make_huey(engine)

        # Two tasks for one project do no harm: the second one finds the file built.
        @self._huey.task(retries=_RETRIES, retry_delay=retry_delay_s, retry_backoff=2, name="build_org")  # type: ignore[untyped-decorator]
        def build_org(project_id: str) -> None:
            began_at = time.monotonic()
            version = build_org_index(engine, blobs, project_id)
            took_ms = (time.monotonic() - began_at) * 1e3
            log.info("built", extra={"action": "org_built", "fields": {"version": version, "ms": round(took_ms)}})

        self._build_org = build_org

    def prepare(self) -> None:
        """Make the queue's tables; many servers may do this at once."""
        with prepared_by_one(self._engine):
            self._huey.storage.initialize_schema()

    def ask_for_build(self, project_id: str) -> None:
        """Let a worker build a project's index file. A failure is logged: the sweep will find the project."""
        try:
            self._build_org(project_id)
        except Exception as error:  # noqa: BLE001 - what was asked for is committed, and must not fail for this
            log.warning("not queued", extra={"action": "queue_failed", "fields": {"error": type(error).__name__}})

    def sweep(self) -> None:
        """Queue what nobody has queued."""
        for project_id in projects_to_build(self._engine):
            self._build_org(project_id)

    def take(self) -> bool:
        """Do one thing that is to be done; tell whether there was one."""
        for due in self._huey.read_schedule():
            self._huey.enqueue(due)
        task: Task | None = self._huey.dequeue()
        if task is None:
            return False
        self._huey.execute(task)
        return True

    def close(self) -> None:
        """Let go of the database."""
        self._huey.storage.close()


class Worker:
    """A thread that does what is in the queue."""

    def __init__(self, queue: WorkQueue) -> None:
        self._queue = queue
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="memoair-worker", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self, timeout_s: float | None = None) -> None:
        """Finish what is under way, and end."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join(timeout_s)

    def _run(self) -> None:
        sweep_at = 0.0
        while not self._stopping.is_set():
            try:
                if time.monotonic() >= sweep_at:
                    sweep_at = time.monotonic() + _SWEEP_EVERY.total_seconds()
                    self._queue.sweep()
                if not self._queue.take():
                    self._stopping.wait(_POLL_S)
            except Exception as error:  # noqa: BLE001 - a database that is gone for a while must not end the worker
                log.warning(
                    "worker stumbled", extra={"action": "worker_failed", "fields": {"error": type(error).__name__}}
                )
                self._stopping.wait(1.0)


def _make_huey(engine: Engine) -> Huey:
    url = engine.url
    if engine.dialect.name == "sqlite":
        return SqliteHuey(_QUEUE, filename=url.database, timeout=30, fsync=True, results=False, create_tables=False)
    # Blocking would make a worker deaf to its end for a while, and take one more connection.
    dsn = url.set(drivername="postgresql").render_as_string(hide_password=False)
    return PostgresHuey(_QUEUE, dsn=dsn, blocking=False, results=False, create_tables=False)
