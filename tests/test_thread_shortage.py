"""A moment without threads in the cloud, the command line, the pull of a runtime and the async client."""

import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import anyio
import psutil
import pytest
from support.clients import frozen
from support.starvation import without_threads
from support.waiting import eventually

from memoair_cli.mcp.server import start_at_signal
from memoair_cloud import queue as cloud_queue
from memoair_cloud.consolidation import chat
from memoair_cloud.queue import Worker
from memoair_documents import reader_process
from memoair_documents.reader_process import ReaderProcess
from memoair_documents.reading import ReadOptions
from memoair_protocol.errors import MemoAirVoiceMemoryError
from memoair_protocol.starvation import is_starved
from memoair_protocol.threads import ThreadUnavailableError
from memoair_runtime_store.background import BackgroundPull
from memoair_runtime_store.reference import parse_reference
from memoair_voice import _threads
from memoair_voice._threads import run_in_thread

pytestmark = pytest.mark.usefixtures("nothing_left_behind")


class OneThread:
    """Lets one thread start, and refuses all others while it is asked to."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.is_refusing = True
        self._has_started = False
        start = cloud_queue.start_thread

        def start_or_refuse(*arguments: Any, **options: Any) -> threading.Thread:
            if self._has_started and self.is_refusing:
                raise ThreadUnavailableError
            self._has_started = True
            return start(*arguments, **options)

        monkeypatch.setattr(cloud_queue, "start_thread", start_or_refuse)


def test_a_worker_with_too_few_threads_starts_the_others_later(monkeypatch: pytest.MonkeyPatch) -> None:
    threads = OneThread(monkeypatch)
    monkeypatch.setattr(cloud_queue, "_SWEEP_INTERVAL", cloud_queue.timedelta(seconds=0.01))
    worker = Worker(SimpleNamespace(sweep=lambda: None, run_next_task=lambda: False), threads=3)  # type: ignore[arg-type]
    worker.start()
    try:
        assert len(worker._threads) == 1
        threads.is_refusing = False
        eventually(lambda: len(worker._threads) == 3)
    finally:
        worker.stop(10.0)
    with without_threads(), pytest.raises(ThreadUnavailableError):
        Worker(SimpleNamespace(), threads=1).start()  # type: ignore[arg-type]


def test_a_pull_without_a_thread_is_a_documented_error_and_begins_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pulled = threading.Event()
    monkeypatch.setattr(BackgroundPull, "_run", lambda *_: pulled.set())
    pull = BackgroundPull(parse_reference("ghcr.io/example/runtime", "1.0", "0.4.0"), tmp_path)
    with without_threads(), pytest.raises(MemoAirVoiceMemoryError) as raised:
        pull.program_or_start()
    assert raised.value.code == "runtime.start_failed"
    assert not pull.is_running
    assert pull.program_or_start() is None
    assert pulled.wait(10.0)


def test_a_reader_without_a_thread_to_watch_it_ends_and_reads_later(tmp_path: Path) -> None:
    path = tmp_path / "stamps.md"
    path.write_text("# Stamps\n\nWe sell stamps.\n")
    reader = ReaderProcess()
    try:
        with without_threads(), pytest.raises(OSError, match="no thread"):
            list(reader.read(path, path.name, ReadOptions()))
        assert list(reader.read(path, path.name, ReadOptions()))
    finally:
        reader.close()


def test_a_reader_that_takes_too_long_is_ended(tmp_path: Path) -> None:
    path = tmp_path / "stamps.md"
    path.write_text("# Stamps\n\nWe sell stamps.\n")
    reader = ReaderProcess(timeout_s=0.0)
    try:
        with pytest.raises(reader_process.UnreadableFileError, match="longer than"):
            list(reader.read(path, path.name, ReadOptions()))
    finally:
        reader.close()


@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGSTOP on Windows")
def test_a_reader_that_is_ended_while_it_is_asked_leaves_nothing_behind(tmp_path: Path) -> None:
    path = tmp_path / "stamps.md"
    path.write_text("# Stamps\n\nWe sell stamps.\n")
    reader = ReaderProcess(timeout_s=20.0)
    try:
        assert list(reader.read(path, path.name, ReadOptions()))
        [process] = psutil.Process().children()
        reader._timeout_s = 0.2
        a_pipe_and_a_bit = "x" * 67_000 + ".md"  # so that the end of the request waits in our buffer
        with frozen(process.pid), pytest.raises(reader_process.UnreadableFileError, match="longer than"):
            list(reader.read(path, a_pipe_and_a_bit, ReadOptions()))
    finally:
        reader.close()


@pytest.mark.skipif(sys.platform == "win32", reason="there is no waitid on Windows")
def test_a_file_is_read_although_the_reader_was_killed_before_it(tmp_path: Path) -> None:
    path = tmp_path / "stamps.md"
    path.write_text("# Stamps\n\nWe sell stamps.\n")
    reader = ReaderProcess()
    try:
        assert list(reader.read(path, path.name, ReadOptions()))
        [process] = psutil.Process().children()
        process.kill()
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # a zombie may have threads that still run
        assert list(reader.read(path, path.name, ReadOptions()))
    finally:
        reader.close()


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no timer signal")
def test_a_signal_handler_gets_its_thread_later() -> None:
    done = threading.Event()
    previous = signal.getsignal(signal.SIGALRM)
    try:
        with without_threads():
            start_at_signal(done.set, name="end")
        assert not done.is_set()
        deadline = time.monotonic() + 10.0
        while not done.is_set() and time.monotonic() < deadline:
            time.sleep(0.01)  # signal handlers run between two instructions of the main thread
        assert done.is_set()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)


@pytest.mark.parametrize("abandons", [False, True])
def test_an_awaited_call_waits_for_a_thread_or_raises_a_documented_error(
    monkeypatch: pytest.MonkeyPatch, abandons: bool
) -> None:
    async def call(timeout_s: float, during: Callable[[], object]) -> str:
        monkeypatch.setattr(_threads, "_THREAD_TIMEOUT_S", timeout_s)
        async with anyio.create_task_group() as group:
            with without_threads():
                results: list[str] = []

                async def run() -> None:
                    try:
                        results.append(await run_in_thread(lambda: "saved", abandon_on_cancel=abandons))
                    except MemoAirVoiceMemoryError as error:
                        results.append(error.code)

                group.start_soon(run)
                while during() and not results:
                    await anyio.sleep(0.01)
        return results[0]

    assert anyio.run(call, 0.1, lambda: True) == "runtime.start_failed"
    attempts = iter(range(5))
    assert anyio.run(call, 10.0, lambda: next(attempts, None) is not None) == "saved"


def test_a_call_that_raises_a_runtime_error_itself_is_not_repeated() -> None:
    calls: list[int] = []

    def fail() -> None:
        calls.append(1)
        raise RuntimeError("can't start new thread")

    with pytest.raises(RuntimeError):
        anyio.run(lambda: run_in_thread(fail, abandon_on_cancel=False))
    assert calls == [1]


def test_a_shortage_is_found_behind_other_errors() -> None:
    error = ValueError("the model was not reached")
    error.__cause__ = ConnectionError("no socket")
    assert not is_starved(error)
    error.__cause__.__cause__ = OSError(24, "Too many open files")
    assert is_starved(error)
    assert is_starved(MemoryError())
    assert not is_starved(FileNotFoundError(2, "No such file"))


def test_a_model_that_cannot_be_asked_for_want_of_descriptors_is_asked_later(monkeypatch: pytest.MonkeyPatch) -> None:
    def starved(*_: object) -> Any:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(chat.ChatExtractor, "_read_call", starved)
    extractor = chat.ChatExtractor(chat.ChatEndpoint("http://127.0.0.1:9", "model", "key"))
    with pytest.raises(OSError, match="Too many"):
        extractor.extract([object()])  # type: ignore[list-item]
