"""A file that cannot be opened in a moment without descriptors is neither missing, nor damaged, nor empty.

And what cannot be done in a thread for the moment is done later or at once.
"""

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from support.calls import LONG_AGO, find_texts, open_store, user_folder, write_call
from support.runtimes import PROJECT
from support.starvation import without_descriptors, without_threads
from support.waiting import eventually

from memoair_index import static_model
from memoair_runtime import coalescing_job
from memoair_runtime.coalescing_job import CoalescingJob
from memoair_runtime.org.manifest import OrgManifest, read_manifest, write_manifest
from memoair_runtime.readiness import Readiness
from memoair_runtime.recall.watchdog import Watchdog
from memoair_runtime.settings import cloud_id_of
from memoair_runtime.storage.background_writer import BackgroundWriter
from memoair_runtime.storage.erasure_record import CloudErasure, find_cloud_erasures, record_erasure
from memoair_runtime.storage.project_folder import ProjectFolder
from memoair_runtime.sync.outbox import Outbox

CLOUD_URL = "http://127.0.0.1:9"
TURN_COUNT = 230  # more than an index file is written for
TOO_MANY = "Too many open files"


@pytest.fixture(autouse=True)
def opened_model() -> None:
    """Open the model once for the process, so that no single test seems to leave it open."""
    static_model.default_model()


def test_an_index_file_survives_and_is_used_later(tmp_path: Path) -> None:
    write_call(tmp_path, "old-1", [(f"Parcel {number} of plums.", "Noted.") for number in range(TURN_COUNT)])
    with open_store(tmp_path):
        pass
    (path,) = user_folder(tmp_path).list_indexes()
    with open_store(tmp_path, is_loaded=False) as store:
        with without_descriptors():
            assert store.load() is False, "it is to be loaded again"
            assert store.gate.readiness is Readiness.ERROR
        assert user_folder(tmp_path).list_indexes() == [path]
        assert store.load() is True
        assert store.gate.readiness is Readiness.READY
        assert find_texts(store, "plums")
        assert user_folder(tmp_path).list_indexes() == [path]


def test_unsent_turns_are_counted_and_sent_later(tmp_path: Path) -> None:
    write_call(tmp_path, "old-1", [("One.", ""), ("Two.", "")], cloud_url=CLOUD_URL)
    outbox = Outbox(user_folder(tmp_path), cloud_id_of(CLOUD_URL))
    with without_descriptors(), pytest.raises(OSError, match=TOO_MANY):
        outbox.scan(all_sessions=True)
    assert outbox.has_uncounted
    outbox.scan(all_sessions=False)
    assert outbox.turn_count == 2
    assert not outbox.has_uncounted
    with without_descriptors(), pytest.raises(OSError, match=TOO_MANY):
        outbox.next_batch()
    batch = outbox.next_batch()
    assert batch is not None
    with without_descriptors(), suppress(OSError):  # the cursors cannot be written
        outbox.acknowledge(batch, {line.event_id for line in batch.event_lines if line.event_id})
    assert outbox.has_uncounted
    outbox.scan(all_sessions=False)
    assert not outbox.has_uncounted


def test_users_erasures_and_documents_are_not_overlooked(tmp_path: Path) -> None:
    write_call(tmp_path, "old-1", [("One.", "")])
    project, folder = ProjectFolder(tmp_path, PROJECT), user_folder(tmp_path)
    record_erasure(folder, LONG_AGO, (), in_cloud=CloudErasure("cloud", LONG_AGO))
    write_manifest(project, OrgManifest("cloud", 3))
    reads: list[Callable[[], object]] = [
        project.list_users,
        lambda: find_cloud_erasures(project.path, "cloud"),
        lambda: read_manifest(project),
    ]
    for read in reads:
        with without_descriptors(), pytest.raises(OSError, match=TOO_MANY):
            read()
        assert read()


def test_the_embedding_is_opened_later(opened_model: None) -> None:
    static_model.default_model.cache_clear()
    try:
        with without_descriptors(), pytest.raises(OSError, match=TOO_MANY):
            static_model.default_model()
    finally:
        assert isinstance(static_model.default_model(), static_model.StaticModel)


def test_a_job_without_a_thread_runs_once_there_is_one(nothing_left_behind: None) -> None:
    ran = threading.Event()
    job = CoalescingJob("job", lambda: ran.set())
    with without_threads():
        job.start()
        job.retry_if_due()
    assert not ran.is_set()
    job.retry_if_due()
    assert ran.wait(10.0)


def test_a_job_that_failed_for_want_of_something_runs_again(
    monkeypatch: pytest.MonkeyPatch, nothing_left_behind: None
) -> None:
    monkeypatch.setattr(coalescing_job, "BACKOFF", coalescing_job.BACKOFF._replace(first_s=0.01))
    outcomes = iter([OSError(24, TOO_MANY), False, None])
    runs: list[object] = []

    def run() -> bool | None:
        runs.append(outcome := next(outcomes))
        if isinstance(outcome, OSError):
            raise outcome
        return outcome

    job = CoalescingJob("job", run)
    job.start()

    def retried() -> bool:
        job.retry_if_due()
        return len(runs) == 3

    eventually(retried)


def test_the_writer_of_derived_files_starts_later_and_a_flush_needs_no_thread(nothing_left_behind: None) -> None:
    writer, written = BackgroundWriter(), []
    with without_threads():
        writer.schedule("a", lambda: written.append("a"))
        assert writer.flush(time.monotonic() + 10.0) == 0
        assert written == ["a"]
        writer.schedule("b", lambda: written.append("b"))
    writer.retry_if_due()
    eventually(lambda: written == ["a", "b"])
    writer.close(time.monotonic() + 10.0)


def test_the_watchdog_starts_later_and_outlives_an_error(nothing_left_behind: None) -> None:
    class Work:
        due_at = 0.0

        def __init__(self) -> None:
            self.attempts = 0

        def take_over(self) -> None:
            self.attempts += 1
            if self.attempts == 1:
                raise MemoryError

    watchdog, work = Watchdog(), Work()
    with without_threads():
        watchdog.watch(work)
        watchdog.unwatch(work)
    assert work.attempts == 0
    watchdog.watch(work)
    eventually(lambda: work.attempts >= 2)
    watchdog.close()
