"""What the client does when runtimes die, hang, or can't be started: searches come back in time, no turn is lost."""

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
    frozen,
    host_of,
    lives,
    pid_of,
    recall,
    runtime_of,
    say,
    turn_ids,
)
from support.waiting import eventually

from memoair_voice_sync import MemoAirVoiceClientSync, MemoAirVoiceMemoryError, _handle


def save(client: MemoAirVoiceClientSync, user_id: str, turn_id: str) -> str | None:
    return client.save_response(
        user={"id": user_id}, user_text=f"The word is {turn_id}.", assistant_text="Noted.", turn_id=turn_id
    )


# Runtimes that die


def test_a_runtime_that_is_killed_is_replaced_and_nothing_that_was_kept_is_lost(
    new_client: NewClient, storage_root: Path
) -> None:
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


def test_a_runtime_that_is_killed_again_and_again_costs_no_turn(new_client: NewClient, storage_root: Path) -> None:
    client = new_client()
    say(client, "ada", "hello", "t0")
    for number in range(1, 6):
        os.kill(pid_of(client, "ada"), signal.SIGKILL)
        save(client, "ada", f"t{number}")
        eventually(lambda: client.stats()["pending_saves"] == 0, within_s=60.0)
        client.load_index(user_id="ada")
    assert turn_ids(storage_root, "ada") == [f"t{number}" for number in range(6)]
    assert client.stats()["lost_saves"] == 0


def test_threads_that_meet_the_same_death_get_one_new_runtime_between_them(new_client: NewClient) -> None:
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


def test_the_death_of_one_runtime_is_nothing_to_the_others(new_client: NewClient) -> None:
    client = new_client()
    say(client, "ada", "The boots are red.")
    say(client, "bob", "The boots are blue.")
    bobs = pid_of(client, "bob")
    os.kill(pid_of(client, "ada"), signal.SIGKILL)

    assert "blue" in recall(client, "bob", "the boots").contextText
    assert pid_of(client, "bob") == bobs


def test_a_death_between_two_calls_is_noticed_by_itself(new_client: NewClient) -> None:
    client = new_client()
    client.load_index(user_id="ada")
    pid = pid_of(client, "ada")
    os.kill(pid, signal.SIGKILL)

    def noticed() -> bool:
        told = runtime_of(client, "ada")
        return (told["pid"], told["state"], client.stats()["restarts"]) == (None, "idle", 1)

    eventually(noticed)
    eventually(lambda: not psutil.pid_exists(pid))


# Runtimes that hang


def test_a_runtime_that_hangs_is_waited_for_no_longer_than_was_said_and_then_replaced(
    new_client: NewClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = new_client()
    say(client, "ada", "The boots are red.", "t1")
    replaced_after_s = _handle.HUNG_AFTER_S
    monkeypatch.setattr(_handle, "HUNG_AFTER_S", 60.0)  # else five searches may take as long on a slow machine
    with frozen(pid_of(client, "ada")) as pid:
        overruns_ms = []
        for _ in range(5):
            began_at = time.monotonic()
            found = client.search_memory("the boots", user_id="ada", timeout_ms=200)
            overruns_ms.append((time.monotonic() - began_at) * 1e3 - 200)
            assert (found.trace["degraded"], found.trace["error"]["code"]) == (True, "runtime.timeout")
            assert found.contextText == ""
        assert min(overruns_ms) < 50
        assert max(overruns_ms) < 4_000, "one of them waits until it is replaced"
        assert pid_of(client, "ada") == pid

        assert replaced_after_s >= 5, "a second of silence is no reason yet"
        monkeypatch.setattr(_handle, "HUNG_AFTER_S", replaced_after_s)
        context = eventually(lambda: _whole(client, "ada", "the boots"), within_s=30.0)
        assert "The boots are red." in context
        assert pid_of(client, "ada") != pid
    eventually(lambda: not lives(pid))


def _whole(client: MemoAirVoiceClientSync, user_id: str, query: str) -> str:
    found = client.search_memory(query, user_id=user_id, timeout_ms=500)
    return "" if found.trace["degraded"] else found.contextText


def test_who_waited_for_a_runtime_that_was_replaced_does_not_end_its_successor(new_client: NewClient) -> None:
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


# The host


def test_the_death_of_the_host_is_nothing_to_who_is_served_and_newcomers_get_another(new_client: NewClient) -> None:
    client = new_client()
    say(client, "ada", "The boots are red.")
    pid, host = pid_of(client, "ada"), host_of(client, "ada")
    host.kill()
    host.wait()

    assert "red" in recall(client, "ada", "the boots").contextText
    say(client, "bob", "The boots are blue.")
    assert pid_of(client, "ada") == pid
    assert host_of(client, "bob").pid != host.pid
    pids = [pid, pid_of(client, "bob"), host_of(client, "bob").pid]
    client.close()
    eventually(lambda: not [each for each in pids if lives(each)])  # of one without a host, the system takes leave


def test_a_runtime_whose_host_has_died_is_replaced_when_it_dies_itself(new_client: NewClient) -> None:
    client = new_client()
    say(client, "ada", "The boots are red.")
    host = host_of(client, "ada")
    host.kill()
    host.wait()
    os.kill(pid_of(client, "ada"), signal.SIGKILL)

    assert "red" in recall(client, "ada", "the boots").contextText
    assert runtime_of(client, "ada")["restarts"] == 1
    assert host_of(client, "ada").pid != host.pid


# No runtime can be started


@pytest.mark.parametrize(("kind", "code"), [("missing", "runtime.not_found"), ("failing", "runtime.start_failed")])
def test_a_program_that_is_no_runtime_costs_recall_and_nothing_else(
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


def test_a_storage_root_that_can_not_be_written_costs_no_call(new_client: NewClient, tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("no folder")
    client = new_client(storage_root=str(blocked / "storage"))
    found = client.search_memory("hello", user_id="ada", timeout_ms=PATIENT_MS)
    assert found.contextText == ""
    assert save(client, "ada", "t1") is None
    assert client.stats()["pending_saves"] == 1
