"""Background work: a queue in the server's database, and the worker that processes it."""

import logging
import threading
import time
from collections.abc import Callable, Mapping
from datetime import timedelta

import attrs
from huey import Huey, PostgresHuey, SqliteHuey
from huey.api import Task, TaskWrapper
from sqlalchemy import Engine

from memoair_cloud.database.engine import purge_wal
from memoair_cloud.database.migrate import schema_lock
from memoair_cloud.evaluation.run_worker import find_projects_with_evaluations, process_evaluations
from memoair_cloud.indexes.blobs import BlobStore
from memoair_cloud.indexes.builder import build_org_index, find_projects_to_build, remove_replaced_files
from memoair_cloud.indexes.upload_worker import find_projects_with_uploads, process_uploads
from memoair_cloud.memories.exclusion import find_projects_to_clean, remove_excluded_memories
from memoair_cloud.memories.extraction_worker import ExtractionWorker
from memoair_cloud.outcomes.resolving import find_projects_with_waiting_outcomes, link_waiting_outcomes
from memoair_cloud.retention.enforcement import DroppedCounts, enforce_retention, find_projects_to_enforce
from memoair_cloud.temporary_folders import ALL_PREFIXES
from memoair_cloud.tenancy.access import find_project_tenant
from memoair_evaluation.judge import Judge
from memoair_protocol.temporary import remove_abandoned_folders
from memoair_protocol.threads import ThreadUnavailableError, start_thread
from memoair_protocol.timestamps import utc_now

log = logging.getLogger(__name__)

_QUEUE_NAME = "memoair"
_EVALUATE = "evaluate"
_RETRIES = 5
_RETRY_DELAY_S = 2.0
_POLL_INTERVAL_S = 0.2
# How often a worker looks for work that was never queued. A server may die between its commit and the call that queues
# the build, and no event reports that a call has gone silent.
_SWEEP_INTERVAL = timedelta(seconds=30)
# How often a worker looks for parts of files. They are rare, and looking for them reads all names of the blob store.
_PARTS_INTERVAL_S = 900.0


class WorkQueue:
    """A queue of background tasks. Any number of workers may process it. Thread-safe.

    A queued task names only a project, so that erasing a user leaves nothing behind in the queue. Which calls of the
    project are due is read from the tables.
    """

    def __init__(
        self,
        engine: Engine,
        blobs: BlobStore,
        extraction_worker: ExtractionWorker,
        retry_delay_s: float = _RETRY_DELAY_S,
        on_dropped: Callable[[Mapping[str, int]], None] = lambda _: None,
        judge: Judge | None = None,
        on_scored: Callable[[int], None] = lambda _: None,
    ) -> None:
        """Create the queue.

        ``on_dropped`` is called with what retention has dropped, by kind. ``judge`` grades the answers of evaluations,
        and ``on_scored`` is called with how many of their cases were scored.
        """
        self._engine = engine
        self._blobs = blobs
        self._extraction_worker = extraction_worker
        self._huey = _make_huey(engine)
        retry_options = {"retries": _RETRIES, "retry_delay": retry_delay_s, "retry_backoff": 2}
        # Two tasks for the same project are harmless: the second one finds nothing to do.
        self._build_task: TaskWrapper = self._huey.task(**retry_options, name="build_org")(self._run_build)
        self._extraction_task: TaskWrapper = self._huey.task(**retry_options, name="learn")(self._run_extraction)
        self._on_dropped = on_dropped
        self._retention_task: TaskWrapper = self._huey.task(**retry_options, name="retain")(self._run_retention)
        self._upload_task: TaskWrapper = self._huey.task(**retry_options, name="upload")(self._run_uploads)
        self._outcome_task: TaskWrapper = self._huey.task(**retry_options, name="outcomes")(self._run_outcomes)
        self._judge, self._on_scored = judge, on_scored
        self._evaluation_task: TaskWrapper = self._huey.task(**retry_options, name=_EVALUATE)(self._run_evaluations)
        self._next_parts_at = 0.0
        self._exclusion_task: TaskWrapper = self._huey.task(**retry_options, name="exclude")(self._run_exclusion)

    def create_tables(self) -> None:
        """Create the queue's tables. Several servers may call this at the same time."""
        with schema_lock(self._engine):
            self._huey.storage.initialize_schema()

    def enqueue_build(self, project_id: str) -> None:
        """Queue the build of a project's index file. A failure is only logged: the sweep finds the project later."""
        self._enqueue(self._build_task, project_id)

    def enqueue_extraction(self, project_id: str) -> None:
        """Queue the consolidation of a project's due calls. A failure is only logged: the sweep finds them later."""
        self._enqueue(self._extraction_task, project_id)

    def enqueue_exclusion(self, project_id: str) -> None:
        """Queue the removal of what a project excludes. A failure is only logged: the sweep finds it later."""
        self._enqueue(self._exclusion_task, project_id)

    def enqueue_retention(self, project_id: str) -> None:
        """Queue the dropping of a project's old data. A failure is only logged: the sweep finds it later."""
        self._enqueue(self._retention_task, project_id)

    def enqueue_uploads(self, project_id: str) -> None:
        """Queue the processing of a project's uploads. A failure is only logged: the sweep finds them later."""
        self._enqueue(self._upload_task, project_id)

    def enqueue_evaluations(self, project_id: str) -> None:
        """Queue the processing of a project's runs and document sets. A failure is only logged, as for uploads."""
        self._enqueue(self._continue_evaluations, project_id)

    def sweep(self) -> None:
        """Queue due work that was never queued, and remove replaced index files and what killed writers left."""
        for project_id in find_projects_to_build(self._engine):
            self._build_task(project_id)
        for project_id in self._extraction_worker.find_due_projects():
            self._extraction_task(project_id)
        for project_id in find_projects_to_clean(self._engine):
            self._exclusion_task(project_id)
        for project_id in find_projects_to_enforce(self._engine, utc_now()):
            self._retention_task(project_id)
        for project_id in find_projects_with_waiting_outcomes(self._engine, utc_now()):
            self._outcome_task(project_id)
        for project_id in find_projects_with_uploads(self._engine, utc_now()):
            self._upload_task(project_id)
        for project_id in find_projects_with_evaluations(self._engine, utc_now()):
            self._continue_evaluations(project_id)
        remove_replaced_files(self._engine, self._blobs)
        if time.monotonic() >= self._next_parts_at:
            self._next_parts_at = time.monotonic() + _PARTS_INTERVAL_S
            self._blobs.remove_abandoned()
            remove_abandoned_folders(*ALL_PREFIXES)
        purge_wal(self._engine)

    def run_next_task(self) -> bool:
        """Run the next task that is due; return whether there was one."""
        for due_task in self._huey.read_schedule():
            self._huey.enqueue(due_task)
        task: Task | None = self._huey.dequeue()
        if task is None:
            return False
        self._huey.execute(task)
        return True

    def close(self) -> None:
        """Close the queue's database connection."""
        self._huey.storage.close()

    def _enqueue(self, task: Callable[[str], object], project_id: str) -> None:
        try:
            task(project_id)
        except Exception as error:  # noqa: BLE001 - the request is already committed and must not fail because of this
            log.warning(
                "a task could not be queued",
                extra={"action": "queue_failed", "fields": {"error": type(error).__name__}},
            )

    def _run_build(self, project_id: str) -> None:
        started_at = time.monotonic()
        version = build_org_index(self._engine, self._blobs, project_id)
        duration_ms = (time.monotonic() - started_at) * 1e3
        log.info(
            "built an index file",
            extra={"action": "org_built", "fields": {"version": version, "ms": round(duration_ms)}},
        )

    def _run_uploads(self, project_id: str) -> None:
        has_changed = process_uploads(self._engine, self._blobs, project_id)
        log.info("processed uploads", extra={"action": "uploads_processed", "fields": {"changed": has_changed}})
        if has_changed:
            self._build_task(project_id)

    def _run_outcomes(self, project_id: str) -> None:
        tenant = find_project_tenant(self._engine, project_id)
        if tenant is not None:
            link_waiting_outcomes(tenant, utc_now())

    def _run_evaluations(self, project_id: str) -> None:
        has_more = process_evaluations(self._engine, self._blobs, project_id, self._judge, self._on_scored)
        log.info("processed evaluations", extra={"action": "evaluations_processed", "fields": {"more": has_more}})
        if has_more:  # behind the tasks of others
            self._continue_evaluations(project_id)

    def _continue_evaluations(self, project_id: str) -> None:
        """Queue the processing of a project's runs, unless it is queued.

        A task queues the next one while a run goes on. If each sweep added one more, they would fill the queue.
        """
        is_queued = any(
            isinstance(task, self._evaluation_task.task_class) and task.args == (project_id,)
            for task in self._huey.pending()
        )
        if not is_queued:
            self._evaluation_task(project_id)

    def _run_exclusion(self, project_id: str) -> None:
        count = remove_excluded_memories(self._engine, project_id)
        log.info("removed excluded memories", extra={"action": "memories_excluded", "fields": {"memories": count}})

    def _run_retention(self, project_id: str) -> None:
        tenant = find_project_tenant(self._engine, project_id)
        if tenant is None:
            return
        counts, has_more = DroppedCounts(), False
        try:
            has_more = enforce_retention(tenant, utc_now(), counts)
        finally:
            if counts.batches:
                purge_wal(self._engine)
                fields = attrs.asdict(counts)
                self._on_dropped({kind: count for kind, count in fields.items() if kind != "batches"})
                log.info("dropped old data", extra={"action": "retained", "fields": fields})
        if has_more:  # behind the tasks of others
            self._retention_task(project_id)

    def _run_extraction(self, project_id: str) -> None:
        # One call per task, so that a project with many calls does not hold up the others.
        if self._extraction_worker.process_next_call(project_id) is not None:
            self._extraction_task(project_id)


class Worker:
    """Threads that run queued tasks. Several, because a language model may need a minute for one call."""

    def __init__(self, queue: WorkQueue, threads: int = 1) -> None:
        self._queue = queue
        self._stopping = threading.Event()
        self._count = threads
        self._threads: list[threading.Thread] = []

    def start(self) -> None:
        """Start the threads. Those that cannot be started for the moment are started later, by the first one.

        Raises:
            ThreadUnavailableError: If there is not a single thread.
        """
        while len(self._threads) < self._count:
            try:
                thread = start_thread(self._run, name="memoair-worker", args=(not self._threads,))
            except ThreadUnavailableError:
                if not self._threads:
                    raise
                return
            self._threads.append(thread)

    def stop(self, timeout_s: float | None = None) -> None:
        """Finish the current tasks and stop, within about ``timeout_s`` seconds."""
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
                    self.start()
                    self._queue.sweep()
                if not self._queue.run_next_task():
                    self._stopping.wait(_POLL_INTERVAL_S)
            except Exception as error:  # noqa: BLE001 - an unavailable database must not end the worker
                log.warning(
                    "a task failed", extra={"action": "worker_failed", "fields": {"error": type(error).__name__}}
                )
                self._stopping.wait(1.0)


def _make_huey(engine: Engine) -> Huey:
    url = engine.url
    if engine.dialect.name == "sqlite":
        return SqliteHuey(
            _QUEUE_NAME, filename=url.database, timeout=30, fsync=True, results=False, create_tables=False
        )
    # A blocking dequeue would delay the worker's shutdown and occupy one more connection.
    dsn = url.set(drivername="postgresql").render_as_string(hide_password=False)
    return PostgresHuey(_QUEUE_NAME, dsn=dsn, blocking=False, results=False, create_tables=False)
