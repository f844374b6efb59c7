"""A process that can start no threads for a moment: documented errors for so long, then everything as before."""

import logging
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
from support.clients import PATIENT_MS, NewClient, is_alive, pid_of, recall, runtime_of, say, turn_ids
from support.waiting import eventually

from memoair_voice_sync import MemoAirVoiceMemoryError, MemoAirVoiceMemorySync, _closing


@contextmanager
def no_threads() -> Iterator[None]:
    """Let no Python thread start in this process, as at the pids limit of a container."""

    def refuse(*_: object, **__: object) -> None:
        raise RuntimeError("can't start new thread")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(threading, "_start_new_thread", refuse)
        yield


def save(client: object, user_id: str, turn_id: str) -> str | None:
    saved: str | None = client.save_response(  # type: ignore[attr-defined]
        user={"id": user_id}, user_text=f"The word is {turn_id}.", assistant_text="Noted.", turn_id=turn_id
    )
    return saved


def test_without_threads_callers_are_served_as_far_as_possible_and_afterwards_as_before(
    new_client: NewClient, storage_root: Path
) -> None:
    client = new_client(max_concurrent_users=2)
    say(client, "ada", "The word is t0.", "t0")
    with no_threads():
        assert save(client, "ada", "t1"), "a runtime that runs needs no further thread of this process"
        assert "t1" in recall(client, "ada", "which word?").contextText

        found = client.search_memory("which word?", user_id="bob", timeout_ms=PATIENT_MS)
        assert found.trace["degraded"]
        assert found.trace["error"]["code"] == "runtime.start_failed"
        assert save(client, "bob", "b0") is None, "it is saved later"

    eventually(lambda: turn_ids(storage_root, "bob") == ["b0"], within_s=60.0)
    assert "b0" in recall(client, "bob", "which word?").contextText
    assert client.stats()["lost_saves"] == 0
    client.close()
    assert not psutil.Process().children()


def test_a_runtime_that_is_evicted_without_threads_ends_as_soon_as_there_are_some(new_client: NewClient) -> None:
    client = new_client(max_concurrent_users=1)
    say(client, "ada", "hello", "t0")
    pid = pid_of(client, "ada")
    with no_threads():
        assert client.search_memory("hello", user_id="bob").trace["degraded"]
        assert client.stats()["retiring"] == 1
        assert is_alive(pid)
    eventually(lambda: not is_alive(pid), within_s=30.0)
    eventually(lambda: client.stats()["retiring"] == 0)


def test_close_without_threads_ends_every_runtime(new_client: NewClient, storage_root: Path) -> None:
    client = new_client()
    for user_id in ("ada", "bob"):
        say(client, user_id, "hello", "t0")
    with no_threads():
        assert len(client.stats()["runtimes"]) == 2
        client.close()
    assert not psutil.Process().children()
    assert turn_ids(storage_root, "ada") == turn_ids(storage_root, "bob") == ["t0"]


def test_runtimes_are_watched_as_soon_as_the_supervisor_can_be_started(
    new_client: NewClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = new_client(runtime_idle_ttl_s=1)
    start = threading._start_new_thread  # type: ignore[attr-defined]

    def refuse_the_supervisor(function: Callable[..., object], *arguments: object) -> object:
        if "memoair-supervisor" in repr(function):
            raise RuntimeError("can't start new thread")
        return start(function, *arguments)

    monkeypatch.setattr(threading, "_start_new_thread", refuse_the_supervisor)
    say(client, "ada", "hello", "t0")
    pid = pid_of(client, "ada")
    assert "memoair-supervisor" not in {thread.name for thread in threading.enumerate()}

    monkeypatch.undo()
    recall(client, "ada", "hello")
    eventually(lambda: not is_alive(pid), within_s=30.0)


def test_the_supervisor_survives_its_own_errors(
    new_client: NewClient, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    client = new_client()
    say(client, "ada", "hello", "t0")
    failed = threading.Event()
    handles = client._pool.handles

    def fail_once() -> object:
        if threading.current_thread().name == "memoair-supervisor" and not failed.is_set():
            failed.set()
            raise OSError(24, "Too many open files")
        return handles()

    monkeypatch.setattr(client._pool, "handles", fail_once)
    client._pool._supervisor.wake()
    assert failed.wait(30)
    pid = pid_of(client, "ada")
    os.kill(pid, signal.SIGKILL)
    eventually(lambda: runtime_of(client, "ada")["pid"] is None)
    assert "action=supervision_failed error=OSError" in caplog.text


def test_a_memory_without_a_client_gets_the_error_of_a_start_without_threads_and_then_its_runtime(
    new_memory: Callable[..., MemoAirVoiceMemorySync],
) -> None:
    memory = new_memory()
    with no_threads():
        with pytest.raises(MemoAirVoiceMemoryError) as caught:
            memory.start_session()
        assert caught.value.code == "runtime.start_failed"
        assert "no more threads" in caught.value.message
    assert eventually(lambda: _saves(memory), within_s=30.0)


def _saves(memory: MemoAirVoiceMemorySync) -> str | None:
    try:
        return memory.after_turn("hello", "", "t1")
    except MemoAirVoiceMemoryError:  # of the failed start, for half a second
        return None


def test_a_close_that_hangs_says_where_each_thread_stands(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(_closing, "_STUCK_AFTER_S", 0.05)
    is_reported = threading.Event()

    class Reported(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if "action=close_stuck" in record.getMessage():
                is_reported.set()

    handler = Reported()
    logging.getLogger("memoair_voice").addHandler(handler)
    done: list[str] = []

    def hang() -> None:
        secret = "what a caller said"
        assert is_reported.wait(30), secret

    try:
        _closing.close_all(hang, lambda: 1 / 0, lambda: done.append("the last step"))
    finally:
        logging.getLogger("memoair_voice").removeHandler(handler)
    assert done == ["the last step"]
    assert "in hang" in caplog.text
    assert "action=close_failed error=ZeroDivisionError" in caplog.text


def test_a_process_without_descriptors_does_not_replace_a_runtime_that_it_cannot_call(new_client: NewClient) -> None:
    client = new_client()
    say(client, "ada", "The word is t0.", "t0")
    before = runtime_of(client, "ada")
    client._pool.handles()[0].runtime.transport.close()  # so that the next call needs a connection

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("socket.socket.connect", _fail_for_want_of_descriptors)
        found = client.search_memory("which word?", user_id="ada", timeout_ms=PATIENT_MS)
    assert found.trace["degraded"]
    assert found.trace["error"]["code"] == "runtime.start_failed"
    after = runtime_of(client, "ada")
    assert (after["pid"], after["restarts"]) == (before["pid"], 0)
    assert "t0" in recall(client, "ada", "which word?").contextText


def _fail_for_want_of_descriptors(*_: object) -> None:
    raise OSError(24, "Too many open files")
