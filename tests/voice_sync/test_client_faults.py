"""Runtimes that die, hang, or cannot be started: searches return in time, and no turn is lost."""

import os
import signal
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest
from support.clients import (
    PATIENT_MS,
    NewClient,
    fork_server_of,
    frozen,
    is_alive,
    pid_of,
    recall,
    runtime_of,
    say,
    turn_ids,
)
from support.waiting import eventually

from memoair_voice_sync import MemoAirVoiceClientSync, MemoAirVoiceMemoryError
from memoair_voice_sync._pool import handle


def save(client: MemoAirVoiceClientSync, user_id: str, turn_id: str) -> str | None:
    return client.save_response(
        user={"id": user_id}, user_text=f"The word is {turn_id}.", assistant_text="Noted.", turn_id=turn_id
    )


# Runtimes that die


def test_a_killed_runtime_is_replaced_without_losing_saved_turns(new_client: NewClient, storage_root: Path) -> None:
    client = new_client()
    for number in range(20):
        say(client, "ada", f"The word is number{number}.", f"t{number}")
    before = runtime_of(client, "ada")
    os.kill(before["pid"], signal.SIGKILL)
    found = recall(client, "ada", "what is number7?")
    after = runtime_of(client, "ada")

    assert "number7" in found.contextText
    assert after["pid"] != before["pid"]
    assert after["session_id"] == before["session_id"]
    assert (after["restarts"], client.stats()["restarts"]) == (1, 1)
    assert turn_ids(storage_root, "ada") == [f"t{number}" for number in range(20)]
    assert say(client, "ada", "The word is t20.", "t20")


def test_no_turn_is_lost_when_a_runtime_is_killed_repeatedly(new_client: NewClient, storage_root: Path) -> None:
    client = new_client()
    say(client, "ada", "hello", "t0")
    for number in range(1, 6):
        os.kill(pid_of(client, "ada"), signal.SIGKILL)
        save(client, "ada", f"t{number}")
        eventually(lambda: client.stats()["pending_saves"] == 0, within_s=60.0)
        client.load_index(user_id="ada")
    assert turn_ids(storage_root, "ada") == [f"t{number}" for number in range(6)]
    assert client.stats()["lost_saves"] == 0


def test_threads_that_notice_the_same_death_share_one_new_runtime(new_client: NewClient) -> None:
    client, together = new_client(), threading.Barrier(8)
    say(client, "ada", "The boots are red.")

    def ask(number: int) -> bool:
        together.wait()
        return "red" in recall(client, "ada", "the boots").contextText

    with ThreadPoolExecutor(8) as threads:
        for death in range(1, 6):
            assert all(threads.map(ask, range(8)))
            os.kill(pid_of(client, "ada"), signal.SIGKILL)
            assert all(threads.map(ask, range(8)))
            assert client.stats()["restarts"] == death


def test_the_death_of_one_runtime_does_not_affect_others(new_client: NewClient) -> None:
    client = new_client()
    say(client, "ada", "The boots are red.")
    say(client, "bob", "The boots are blue.")
    bobs_pid = pid_of(client, "bob")
    os.kill(pid_of(client, "ada"), signal.SIGKILL)

    assert "blue" in recall(client, "bob", "the boots").contextText
    assert pid_of(client, "bob") == bobs_pid


def test_the_death_of_an_idle_runtime_is_noticed(new_client: NewClient) -> None:
    client = new_client()
    client.load_index(user_id="ada")
    pid = pid_of(client, "ada")
    os.kill(pid, signal.SIGKILL)

    def is_noticed() -> bool:
        runtime = runtime_of(client, "ada")
        return (runtime["pid"], runtime["state"], client.stats()["restarts"]) == (None, "idle", 1)

    eventually(is_noticed)
    eventually(lambda: not psutil.pid_exists(pid))


# Runtimes that hang


def test_a_hanging_runtime_delays_a_search_only_to_its_timeout_and_is_replaced(
    new_client: NewClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = new_client()
    say(client, "ada", "The boots are red.", "t1")
    replaced_after_s = handle.UNRESPONSIVE_AFTER_S
    monkeypatch.setattr(
        handle, "UNRESPONSIVE_AFTER_S", 60.0
    )  # otherwise it may be replaced during the five searches on a slow machine
    with frozen(pid_of(client, "ada")) as pid:
        overruns_ms = []
        for _ in range(5):
            began_at = time.monotonic()
            found = client.search_memory("the boots", user_id="ada", timeout_ms=200)
            overruns_ms.append((time.monotonic() - began_at) * 1e3 - 200)
            assert (found.trace["degraded"], found.trace["error"]["code"]) == (True, "runtime.timeout")
            assert found.contextText == ""
        assert min(overruns_ms) < 50
        assert max(overruns_ms) < 4_000, "a search waits until the runtime is replaced"
        assert pid_of(client, "ada") == pid

        assert replaced_after_s >= 5, "a second without an answer is not enough to replace it"
        monkeypatch.setattr(handle, "UNRESPONSIVE_AFTER_S", replaced_after_s)
        context = eventually(lambda: _complete_context(client, "ada", "the boots"), within_s=30.0)
        assert "The boots are red." in context
        assert pid_of(client, "ada") != pid
    eventually(lambda: not is_alive(pid))


def _complete_context(client: MemoAirVoiceClientSync, user_id: str, query: str) -> str:
    found = client.search_memory(query, user_id=user_id, timeout_ms=500)
    return "" if found.trace["degraded"] else found.contextText


def test_a_call_that_waited_for_a_replaced_runtime_does_not_drop_its_successor(new_client: NewClient) -> None:
    client = new_client()
    say(client, "ada", "The boots are red.")
    [handle] = client._pool.handles()
    with frozen(pid_of(client, "ada")) as pid, ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(recall, client, "ada", "the boots")
        eventually(lambda: runtime_of(client, "ada")["in_use"] == 1)
        assert handle.runtime is not None
        handle.replace(handle.runtime)
        client.load_index(user_id="ada")
        successor = pid_of(client, "ada")
        assert successor != pid
        os.kill(pid, signal.SIGKILL)
        assert "red" in waiting.result().contextText

    assert pid_of(client, "ada") == successor
    assert client.stats()["restarts"] == 1


# The fork server


def test_the_death_of_the_fork_server_does_not_affect_its_runtimes_and_another_is_started(
    new_client: NewClient,
) -> None:
    client = new_client()
    say(client, "ada", "The boots are red.")
    pid, fork_server = pid_of(client, "ada"), fork_server_of(client, "ada")
    fork_server.kill()
    fork_server.wait()

    assert "red" in recall(client, "ada", "the boots").contextText
    say(client, "bob", "The boots are blue.")
    assert pid_of(client, "ada") == pid
    assert fork_server_of(client, "bob").pid != fork_server.pid
    pids = [pid, pid_of(client, "bob"), fork_server_of(client, "bob").pid]
    client.close()
    # An orphaned runtime is reaped by the system, which takes a moment.
    eventually(lambda: not [each for each in pids if is_alive(each)])


def test_a_runtime_whose_fork_server_died_is_replaced_when_it_dies(new_client: NewClient) -> None:
    client = new_client()
    say(client, "ada", "The boots are red.")
    fork_server = fork_server_of(client, "ada")
    fork_server.kill()
    fork_server.wait()
    os.kill(pid_of(client, "ada"), signal.SIGKILL)

    assert "red" in recall(client, "ada", "the boots").contextText
    assert runtime_of(client, "ada")["restarts"] == 1
    assert fork_server_of(client, "ada").pid != fork_server.pid


# No runtime can be started


@pytest.mark.parametrize(("kind", "code"), [("missing", "runtime.not_found"), ("failing", "runtime.start_failed")])
def test_a_program_that_is_not_a_runtime_degrades_searches_and_defers_saves(
    new_client: NewClient, executable: Callable[[str], str], kind: str, code: str
) -> None:
    program = "/no/such/runtime" if kind == "missing" else executable("#!/bin/sh\necho 'no licence' >&2\nexit 1\n")
    client = new_client(runtime_binary=program)
    found = client.search_memory("hello", user_id="ada", timeout_ms=PATIENT_MS)
    assert (found.contextText, found.trace["degraded"]) == ("", True)
    assert found.trace["error"]["code"] == code
    assert save(client, "ada", "t1") is None
    with pytest.raises(MemoAirVoiceMemoryError) as refused:
        client.load_index(user_id="ada")
    assert refused.value.code == code
    with client.session(user_id="ada") as session:
        assert session.search_memory("hello", timeout_ms=PATIENT_MS).trace["error"]["code"] == code
    stats = client.stats()
    assert (stats["degraded_searches"], stats["deferred_saves"], stats["pending_saves"]) == (2, 1, 1)


def test_with_an_unwritable_storage_root_searches_are_empty_and_a_save_says_that_nothing_is_kept(
    new_client: NewClient, tmp_path: Path
) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("no folder")
    client = new_client(storage_root=str(blocked / "storage"))
    found = client.search_memory("hello", user_id="ada", timeout_ms=PATIENT_MS)
    assert found.contextText == ""
    with pytest.raises(MemoAirVoiceMemoryError) as refused:
        save(client, "ada", "t1")
    assert refused.value.code == "runtime.storage_unavailable"
    assert (client.stats()["pending_saves"], client.stats()["deferred_saves"]) == (0, 0)
