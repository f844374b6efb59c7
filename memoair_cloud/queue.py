"""Work behind the requests: a queue in the same database, and the worker that takes from it."""

import logging
import threading
import time
from datetime import timedelta

from huey import Huey, PostgresHuey, SqliteHuey
from huey.api import Task, TaskWrapper
from sqlalchemy import Engine

from memoair_cloud.database.engine import purge_wal
from memoair_cloud.database.migrate import schema_lock
from memoair_cloud.indexes.blobs import BlobStore
from memoair_cloud.indexes.builder import build_org_index, find_projects_to_build, remove_replaced_files
from memoair_cloud.memories.extraction_worker import ExtractionWorker

log = logging.getLogger(__name__)

_QUEUE_NAME = "memoair"
_RETRIES = 5
_RETRY_DELAY_S = 2.0
_POLL_INTERVAL_S = 0.2
# How often a worker looks for work that nobody queued: a server may die between its commit and its call for a build,
# and nobody tells that a call has fallen silent.
_SWEEP_INTERVAL = timedelta(seconds=30)


class WorkQueue:
    """What is to be done, by whichever worker comes first. Safe to use from any thread.

    What stands in the queue names a project and nothing else, so that a caller who is forgotten is forgotten here, too:
    which of his calls are to be learned from, the tables tell.
    """

    def __init__(
        self,
        engine: Engine,
        blobs: BlobStore,
        extraction_worker: ExtractionWorker,
        retry_delay_s: float = _RETRY_DELAY_S,
    ) -> None:
        self._engine = engine
        self._blobs = blobs
        self._extraction_worker = extraction_worker
        self._huey = _make_huey(engine)
        retry_options = {"retries": _RETRIES, "retry_delay": retry_delay_s, "retry_backoff": 2}
        # Two tasks for one project do no harm: the second one finds the work done.
        self._build_task: TaskWrapper = self._huey.task(**retry_options, name="build_org")(self._run_build)
        self._extraction_task: TaskWrapper = self._huey.task(**retry_options, name="learn")(self._run_extraction)

    def create_tables(self) -> None:
        """Make the queue's tables; many servers may do this at once."""
        with schema_lock(self._engine):
            self._huey.storage.initialize_schema()

    def enqueue_build(self, project_id: str) -> None:
        """Let a worker build a project's index file. A failure is logged: the sweep will find the project."""
        self._enqueue(self._build_task, project_id)

    def enqueue_extraction(self, project_id: str) -> None:
        """Let a worker learn from a project's calls that are due. A failure is logged: the sweep will find them."""
        self._enqueue(self._extraction_task, project_id)

    def sweep(self) -> None:
        """Queue what nobody has queued, and remove what nobody needs any more."""
        for project_id in find_projects_to_build(self._engine):
            self._build_task(project_id)
        for project_id in self._extraction_worker.find_due_projects():
            self._extraction_task(project_id)
        remove_replaced_files(self._engine, self._blobs)
        purge_wal(self._engine)

    def run_next_task(self) -> bool:
        """Do one thing that is to be done; tell whether there was one."""
        for task_due in self._huey.read_schedule():
            self._huey.enqueue(task_due)
        task: Task | None = self._huey.dequeue()
        if task is None:
            return False
        self._huey.execute(task)
        return True

    def close(self) -> None:
        """Let go of the database."""
        self._huey.storage.close()

    def _enqueue(self, task: TaskWrapper, project_id: str) -> None:
        try:
            task(project_id)
        except Exception as error:  # noqa: BLE001 - what was asked for is committed, and must not fail for this
            log.warning("not queued", extra={"action": "queue_failed", "fields": {"error": type(error).__name__}})

    def _run_build(self, project_id: str) -> None:
        started_at = time.monotonic()
        version = build_org_index(self._engine, self._blobs, project_id)
        duration_ms = (time.monotonic() - started_at) * 1e3
        log.info("built", extra={"action": "org_built", "fields": {"version": version, "ms": round(duration_ms)}})

    def _run_extraction(self, project_id: str) -> None:
        # One at a time, so that a project with many calls does not keep the others waiting.
        if self._extraction_worker.process_next_call(project_id) is not None:
            self._extraction_task(project_id)


class Worker:
    """Threads that do what is in the queue. Several, since a language model may take a minute for one call."""

    def __init__(self, queue: WorkQueue, threads: int = 1) -> None:
        self._queue = queue
        self._stopping = threading.Event()
        self._threads = [
            threading.Thread(target=self._run, args=(number == 0,), name="memoair-worker", daemon=True)
            for number in range(threads)
        ]

    def start(self) -> None:
        """Begin."""
        for thread in self._threads:
            thread.start()

    def stop(self, timeout_s: float | None = None) -> None:
        """Finish what is under way, and end, within about so long."""
        self._stopping.set()
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        for thread in self._threads:
            if thread.is_alive():
                thread.join(None if deadline is None else max(0.0, deadline - time.monotonic()))

    def _run(self, does_sweep: bool) -> None:
        next_sweep_at = 0.0
        while not self._stopping.is_set():
            try:
                if does_sweep and time.monotonic() >= next_sweep_at:
                    next_sweep_at = time.monotonic() + _SWEEP_INTERVAL.total_seconds()
                    self._queue.sweep()
                if not self._queue.run_next_task():
                    self._stopping.wait(_POLL_INTERVAL_S)
            except Exception as error:  # noqa: BLE001 - a database that is gone for a while must not end the worker
                log.warning(
                    "worker stumbled", extra={"action": "worker_failed", "fields": {"error": type(error).__name__}}
                )
                self._stopping.wait(1.0)


def _make_huey(engine: Engine) -> Huey:
    url = engine.url
    if engine.dialect.name == "sqlite":
        return SqliteHuey(
            _QUEUE_NAME, filename=url.database, timeout=30, fsync=True, results=False, create_tables=False
        )
    # Blocking would make a worker deaf to its end for a while, and take one more connection.
    dsn = url.set(drivername="postgresql").render_as_string(hide_password=False)
    return PostgresHuey(_QUEUE_NAME, dsn=dsn, blocking=False, results=False, create_tables=False)
