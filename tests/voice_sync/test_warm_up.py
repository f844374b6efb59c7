"""Warming up a process before its first call, and searches while the runtime is still starting."""

import gc
import logging
import sys
import sysconfig
import time
from pathlib import Path

import psutil
import pytest
from support.clients import NewClient, frozen, is_alive, recall
from support.waiting import eventually

from memoair_voice_sync import MemoAirVoiceClientSync, MemoAirVoiceMemoryError
from memoair_voice_sync._processes.runtime_selection import python_executable


def fork_servers() -> list[psutil.Process]:
    alive = [child for child in psutil.Process().children() if is_alive(child.pid)]
    return [child for child in alive if "memoair_runtime.fork_server" in " ".join(child.cmdline())]


def test_after_a_warm_up_the_first_caller_does_not_wait_for_the_fork_server(new_client: NewClient) -> None:
    client = new_client()
    assert not fork_servers()
    client.warm_up(timeout_s=60)
    [fork_server] = fork_servers()

    # It can fork now: it has a child that waits for a user. There is no runtime, and no place is taken.
    assert len(fork_server.children()) == 1
    assert client.stats()["runtimes"] == []
    recall(client, "ada", "hello")
    assert fork_servers() == [fork_server]
    client.warm_up(timeout_s=60)
    assert fork_servers() == [fork_server]


def test_a_warm_up_replaces_a_fork_server_that_has_died(new_client: NewClient) -> None:
    client = new_client()
    client.warm_up(timeout_s=60)
    [first] = fork_servers()
    first.kill()
    eventually(lambda: not is_alive(first.pid))

    client.warm_up(timeout_s=60)
    assert [second.pid != first.pid for second in fork_servers()] == [True]


def test_a_warm_up_that_takes_too_long_says_so_and_the_next_one_continues(new_client: NewClient) -> None:
    client = new_client()
    with pytest.raises(MemoAirVoiceMemoryError, match="the fork server is still starting") as caught:
        client.warm_up(timeout_s=0.001)
    assert caught.value.code == "runtime.timeout"
    client.warm_up(timeout_s=60)
    assert len(fork_servers()) == 1


def test_a_warm_up_names_a_program_that_is_missing(new_client: NewClient) -> None:
    with pytest.raises(MemoAirVoiceMemoryError, match="no program") as caught:
        new_client(runtime_binary="/no/such/program").warm_up()
    assert caught.value.code == "runtime.not_found"


def test_a_fork_server_that_fails_at_its_start_is_an_error_with_its_output(
    new_client: NewClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "memoair_runtime").mkdir()
    (tmp_path / "memoair_runtime" / "__init__.py").write_text("raise SystemExit('broken')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pytest.raises(MemoAirVoiceMemoryError, match="broken") as caught:
        new_client().warm_up(timeout_s=60)
    assert caught.value.code == "runtime.start_failed"


def test_a_closed_client_does_not_warm_up(new_client: NewClient) -> None:
    client = new_client()
    client.close()
    with pytest.raises(MemoAirVoiceMemoryError, match="closed"):
        client.warm_up()


def test_an_unclosed_client_that_is_only_warm_is_reported(storage_root: Path, nothing_left_behind: None) -> None:
    client = MemoAirVoiceClientSync(
        api_key="k", project_id="p", agent_id="a", cloud_base_url=None, storage_root=str(storage_root)
    )
    client.warm_up(timeout_s=60)
    del client
    with pytest.warns(ResourceWarning, match="unclosed"):
        gc.collect()
    eventually(lambda: not fork_servers())


def test_a_search_while_the_runtime_starts_says_so_in_its_trace_and_once_in_the_log(
    new_client: NewClient, caplog: pytest.LogCaptureFixture
) -> None:
    client = new_client()
    client.warm_up(timeout_s=60)
    [fork_server] = fork_servers()
    with caplog.at_level(logging.WARNING, "memoair_voice"):
        with frozen(fork_server.pid), frozen(fork_server.children()[0].pid):
            found = [client.search_memory("hello", user_id="ada", timeout_ms=30) for _ in range(3)]
        recall(client, "ada", "hello")

    for each in found:
        assert {lane["status"] for lane in each.trace["lanes"].values()} == {"loading"}
        assert each.trace["error"] == {"code": "runtime.timeout", "message": "the runtime is still starting"}
    advice = [record.getMessage() for record in caplog.records if "still starting" in record.getMessage()]
    assert len(advice) == 1
    assert "warm_up()" in advice[0]
    assert client.stats()["degraded_searches"] == 3


def test_a_search_of_a_runtime_that_has_not_answered_yet_counts_as_one_during_the_start(
    new_client: NewClient, caplog: pytest.LogCaptureFixture
) -> None:
    client = new_client()
    client.warm_up(timeout_s=60)
    handle = client._pool.acquire("ada")
    handle.ensure_running(time.monotonic() + 60)
    assert handle.pid is not None
    with frozen(handle.pid):
        starting = client.search_memory("hello", user_id="ada", timeout_ms=30)
    recall(client, "ada", "hello")
    with frozen(handle.pid):
        stuck = client.search_memory("hello again", user_id="ada", timeout_ms=30)
    client._pool.release(handle)

    assert starting.trace["lanes"]["org"]["status"] == "loading"
    assert stuck.trace["lanes"]["org"]["status"] == "late"


def test_in_a_server_that_embeds_python_the_runtime_is_forked_by_the_python_of_the_environment(
    new_client: NewClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    # In uWSGI, sys.executable is uWSGI.
    monkeypatch.setattr(sys, "executable", "/usr/bin/uwsgi")
    python_executable.cache_clear()
    try:
        client = new_client()
        client.warm_up(timeout_s=60)
        [fork_server] = fork_servers()
        assert Path(fork_server.cmdline()[0]).parent == Path(sysconfig.get_path("scripts"))
        recall(client, "ada", "hello")
    finally:
        python_executable.cache_clear()
