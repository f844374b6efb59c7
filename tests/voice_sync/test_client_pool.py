"""The client's pool: a runtime for each user, never more than allowed, on allowed ports, and none left behind."""

import json
import logging
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import psutil
import pytest
from support.clients import (
    PATIENT_MS,
    NewClient,
    fork_server_of,
    free_ports,
    is_alive,
    logged,
    pid_of,
    recall,
    runtime_of,
    say,
    turn_ids,
)
from support.runtimes import PROJECT
from support.timing import least
from support.waiting import eventually

from memoair_runtime.storage.user_folder import UserFolder
from memoair_voice_sync import MemoAirVoiceClientSync, MemoAirVoiceMemoryError


@pytest.fixture
def program(executable: Callable[[str], str]) -> str:
    """Write a runtime program, as an operator may configure one."""
    return executable(f'#!/bin/sh\nexec {sys.executable} -m memoair_runtime "$@"\n')


def served_users(client: MemoAirVoiceClientSync) -> list[str]:
    return [each["user_id"] for each in client.stats()["runtimes"]]


def error_code(call: Callable[[], object]) -> str:
    with pytest.raises(MemoAirVoiceMemoryError) as refused:
        call()
    return refused.value.code


def succeeds(call: Callable[[], bool]) -> bool:
    try:
        return call()
    except MemoAirVoiceMemoryError:
        return False


# A place for each user


@pytest.mark.usefixtures("patient_saves")
def test_threads_that_call_for_the_same_new_user_share_one_runtime(new_client: NewClient, storage_root: Path) -> None:
    client, together = new_client(), threading.Barrier(8)

    def call(number: int) -> str:
        together.wait()
        client.load_index(user_id="ada")
        assert client.save_response(user_id="ada", user_text="hello", assistant_text="", turn_id=f"t{number}")
        return str(runtime_of(client, "ada")["pid"])

    with ThreadPoolExecutor(8) as threads:
        pids = set(threads.map(call, range(8)))
    assert len(pids) == 1
    children = {str(each.pid) for each in fork_server_of(client, "ada").children()}
    assert pids <= children
    assert len(children) <= 2, "the runtime, and the spare process of the fork server"
    assert sorted(turn_ids(storage_root, "ada")) == [f"t{number}" for number in range(8)]
    assert len({event["sessionId"] for event in logged(storage_root, "ada")}) == 1


def test_a_new_user_evicts_the_least_recently_used_runtime(new_client: NewClient, storage_root: Path) -> None:
    client = new_client(max_concurrent_users=2)
    say(client, "ada", "The boots are red.", "t1")
    say(client, "bob", "The boots are blue.", "t2")
    recall(client, "ada", "the boots")
    bobs_runtime = runtime_of(client, "bob")
    say(client, "cyd", "The boots are green.", "t3")

    assert served_users(client) == ["ada", "cyd"]
    assert client.stats()["evictions"] == 1
    eventually(lambda: not is_alive(bobs_runtime["pid"]))
    assert [event["type"] for event in logged(storage_root, "bob")] == ["session_start", "turn", "session_end"]
    assert [event["type"] for event in logged(storage_root, "ada")] == ["session_start", "turn"]


def test_an_evicted_user_is_remembered_on_return(new_client: NewClient, storage_root: Path) -> None:
    client = new_client(max_concurrent_users=1)
    say(client, "ada", "The boots are red.", "t1")
    say(client, "bob", "The boots are blue.", "t2")
    say(client, "ada", "I am back.", "t3")
    found = recall(client, "ada", "which colour are the boots?", lanes=["permanent"])

    assert [hit["source"]["turnId"] for hit in found.permanent] == ["t1"]
    assert "The boots are red." in found.contextText
    assert client.stats()["evictions"] == 2
    assert [event["type"] for event in logged(storage_root, "ada")][:3] == ["session_start", "turn", "session_end"]


def test_there_are_never_more_runtimes_than_allowed(new_client: NewClient, storage_root: Path) -> None:
    client, done, most = new_client(max_concurrent_users=3), threading.Event(), []

    def watch() -> None:
        while not done.is_set():
            most.append(len(client.stats()["runtimes"]))

    def call(number: int) -> None:
        say(client, f"caller_{number % 6}", f"Word {number}.", f"t{number}")

    watcher = threading.Thread(target=watch)
    watcher.start()
    with ThreadPoolExecutor(3) as threads:
        list(threads.map(call, range(18)))
    done.set()
    watcher.join()

    assert max(most) == 3
    kept = sorted(turn for number in range(6) for turn in turn_ids(storage_root, f"caller_{number}"))
    assert kept == sorted(f"t{number}" for number in range(18))


def test_a_pool_with_all_places_pinned_raises_exhausted(new_client: NewClient) -> None:
    client = new_client(max_concurrent_users=2)
    with client.session(user_id="ada") as first, client.session(user_id="bob"):
        assert error_code(lambda: client.search_memory("hello", user_id="cyd")) == "pool.exhausted"
        assert error_code(lambda: client.load_index(user_id="cyd")) == "pool.exhausted"
        assert error_code(lambda: client.session(user_id="cyd")) == "pool.exhausted"
        save: dict[str, Any] = {"user_text": "hello", "assistant_text": "", "user_id": "cyd"}
        assert error_code(lambda: client.save_response(**save)) == "pool.exhausted"
        assert served_users(client) == ["ada", "bob"]
        first.close()
        recall(client, "cyd", "hello")
        assert served_users(client) == ["bob", "cyd"]


# Ports


def test_runtimes_listen_only_on_free_ports_of_the_range(new_client: NewClient) -> None:
    first, last = free_ports(4)
    with socket.create_server(("127.0.0.1", first + 1)):
        client = new_client(runtime_port_range=(first, last))
        for caller in ("ada", "bob", "cyd"):
            client.load_index(user_id=caller)
        ports = {each["port"] for each in client.stats()["runtimes"]}
    assert ports == {first, first + 2, last}


def test_the_error_names_a_port_range_without_a_free_port(new_client: NewClient) -> None:
    first, last = free_ports(3)
    with ExitStack() as taken:
        for port in range(first, last + 1):
            taken.enter_context(socket.create_server(("127.0.0.1", port)))
        client = new_client(runtime_port_range=(first, last))
        with pytest.raises(MemoAirVoiceMemoryError, match=f"{first} to {last}") as refused:
            client.load_index(user_id="ada")
        assert refused.value.code == "pool.port_exhausted"
        search: dict[str, Any] = {"query": "hello", "user_id": "ada", "timeout_ms": PATIENT_MS}
        assert error_code(lambda: client.search_memory(**search)) == "pool.port_exhausted"

    def served_again() -> bool:  # a start in progress when the ports were released may still fail
        return not client.search_memory(**search).trace["degraded"]

    eventually(lambda: succeeds(served_again))
    assert first <= runtime_of(client, "ada")["port"] <= last


def test_users_take_turns_on_a_single_port(new_client: NewClient, storage_root: Path) -> None:
    port, _ = free_ports(1)
    client = new_client(runtime_port_range=(port, port), max_concurrent_users=1)
    for number in range(3):
        for caller in ("ada", "bob"):
            say(client, caller, "hello", f"t{number}")
            assert runtime_of(client, caller)["port"] == port
    assert turn_ids(storage_root, "ada") == turn_ids(storage_root, "bob") == ["t0", "t1", "t2"]


def test_a_port_that_is_released_while_a_start_fails_is_tried_again(
    new_client: NewClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    port, _ = free_ports(1)
    client = new_client(runtime_port_range=(port, port), max_concurrent_users=1)
    say(client, "ada", "hello", "t0")
    pid = pid_of(client, "ada")
    os.kill(pid, signal.SIGSTOP)  # so that it cannot end before the start of the second user's begins
    launcher = client._pool._launcher
    launch, failures = launcher.launch, []

    def launch_once_too_early(spec: Any, deadline: float, excluded_pids: Any) -> Any:
        if not failures:
            failures.append(spec.user_id)
            os.kill(pid, signal.SIGCONT)
            eventually(lambda: client.stats()["retiring"] == 0)  # the runtime of the first user is gone by now
            raise MemoAirVoiceMemoryError("pool.port_exhausted", "it had the port a moment ago")
        return launch(spec, deadline, excluded_pids)

    monkeypatch.setattr(launcher, "launch", launch_once_too_early)
    say(client, "bob", "hello", "t0")
    assert failures == ["bob"]


# Ends


def test_an_idle_runtime_ends_after_its_ttl_and_a_pinned_one_does_not(
    new_client: NewClient, storage_root: Path
) -> None:
    client = new_client(runtime_idle_ttl_s=1)

    def unused_s() -> float:
        """Return the seconds that a runtime stays after the last call of its user."""
        with client.session(user_id="ada"):
            say(client, "ada", "hello")
            pid, entry = pid_of(client, "ada"), client._pool._entries["ada"]
        eventually(lambda: "ada" not in served_users(client))
        unused_s = time.monotonic() - entry.released_at
        assert unused_s >= 1
        eventually(lambda: not is_alive(pid))
        return unused_s

    with client.session(user_id="bob"):
        say(client, "bob", "hello", "t1")
        assert least(unused_s, 2.0) < 2.0
        assert logged(storage_root, "ada")[-1]["type"] == "session_end"
        assert served_users(client) == ["bob"]
        assert is_alive(pid_of(client, "bob"))
    eventually(lambda: not served_users(client))


def test_close_ends_all_processes_and_can_be_repeated(new_client: NewClient, storage_root: Path) -> None:
    client = new_client()
    for caller in ("ada", "bob"):
        say(client, caller, "hello", "t1")
    pids = [pid_of(client, "ada"), pid_of(client, "bob"), fork_server_of(client, "ada").pid]
    client.close()

    assert not [pid for pid in pids if is_alive(pid)]
    assert [logged(storage_root, caller)[-1]["type"] for caller in ("ada", "bob")] == ["session_end"] * 2
    assert not list(storage_root.rglob("lease.json"))
    client.close()
    assert client.stats()["runtimes"] == []
    save: dict[str, Any] = {"user_text": "hello", "assistant_text": "", "user_id": "ada"}
    assert error_code(lambda: client.search_memory("hello", user_id="ada")) == "pool.closed"
    assert error_code(lambda: client.save_response(**save)) == "pool.closed"
    assert error_code(lambda: client.load_index(user_id="ada")) == "pool.closed"
    assert error_code(lambda: client.session(user_id="ada")) == "pool.closed"


def test_close_during_calls_and_starts_leaves_no_process_and_hangs_no_call(
    new_client: NewClient, storage_root: Path
) -> None:
    client, begun = new_client(), threading.Semaphore(0)
    kept: dict[str, list[str]] = {"ada": [], "bob": []}

    def talk(caller: str) -> str:
        for number in range(10_000):
            try:
                turn: dict[str, Any] = {"user_text": "hello", "assistant_text": "", "turn_id": f"t{number}"}
                if client.save_response(user_id=caller, **turn):
                    kept[caller].append(f"t{number}")
                    begun.release()
            except MemoAirVoiceMemoryError as error:
                return error.code
        return "nothing"

    client.load_index(user_id="ada")
    with ThreadPoolExecutor(2) as threads:
        ends = [threads.submit(talk, caller) for caller in kept]
        begun.acquire()
        client.close()
        assert {end.result(20) for end in ends} == {"pool.closed"}
    assert not psutil.Process().children()
    for caller, turns in kept.items():
        assert set(turns) <= set(turn_ids(storage_root, caller))
        assert len(set(turn_ids(storage_root, caller))) == len(turn_ids(storage_root, caller))


def test_a_runtime_over_its_memory_limit_is_replaced(new_client: NewClient, storage_root: Path) -> None:
    client = new_client(runtime_memory_limit_mb=1)
    client.search_memory("hello", user_id="ada", timeout_ms=PATIENT_MS)
    eventually(lambda: client.stats()["restarts"] >= 1)
    client.save_response(user_id="ada", user_text="hello", assistant_text="", turn_id="t1")
    eventually(lambda: client.stats()["pending_saves"] == 0, within_s=60.0)
    assert turn_ids(storage_root, "ada") == ["t1"]


# Several clients on one machine


def test_a_second_client_shares_the_runtime_of_the_first_and_continues_after_it(
    new_client: NewClient, storage_root: Path
) -> None:
    first, second = new_client(), new_client()
    say(first, "ada", "The boots are red.", "t1")
    say(second, "ada", "The laces are blue.", "t2")
    assert pid_of(first, "ada") == pid_of(second, "ada")
    assert (runtime_of(first, "ada")["borrowed"], runtime_of(second, "ada")["borrowed"]) == (False, True)
    assert "laces are blue" in recall(first, "ada", "the laces").contextText
    first.close()

    found = recall(second, "ada", "the boots")
    assert "boots are red" in found.contextText
    say(second, "ada", "The soles are black.", "t3")
    assert runtime_of(second, "ada")["borrowed"] is False
    assert sorted(turn_ids(storage_root, "ada")) == ["t1", "t2", "t3"]


@pytest.mark.parametrize("how", ["close", "evict"])
def test_the_end_of_a_shared_runtime_is_not_reported_as_a_death(
    new_client: NewClient, how: str, caplog: pytest.LogCaptureFixture
) -> None:
    first, second = new_client(max_concurrent_users=1), new_client()
    say(first, "ada", "The boots are red.")
    say(second, "ada", "The laces are blue.")
    with caplog.at_level(logging.INFO, "memoair_voice"):
        if how == "close":
            first.close()
        else:
            first.load_index(user_id="bob", timeout_s=60)
        eventually(lambda: "action=shared_runtime_ended" in caplog.text, within_s=30)
    assert "action=runtime_died" not in caplog.text
    assert "red" in recall(second, "ada", "the boots").contextText
    assert (second.stats()["restarts"], runtime_of(second, "ada")["restarts"]) == (0, 0)


def test_the_death_of_a_runtime_is_reported_with_its_exit_code(
    new_client: NewClient, caplog: pytest.LogCaptureFixture
) -> None:
    client = new_client()
    client.load_index(user_id="ada")
    pid = pid_of(client, "ada")
    os.kill(pid, signal.SIGKILL)
    eventually(lambda: f"action=runtime_died pid={pid} exit_code=-9" in caplog.text)


def test_clients_with_the_same_port_range_do_not_conflict(new_client: NewClient) -> None:
    ports = free_ports(4)
    first, second = new_client(runtime_port_range=ports), new_client(runtime_port_range=ports)
    for number in range(2):
        say(first, f"ada{number}", "The boots are red.")
        say(second, f"bob{number}", "The boots are blue.")
    assert "red" in recall(first, "ada0", "the boots").contextText
    assert "blue" in recall(second, "bob1", "the boots").contextText
    used = [each["port"] for client in (first, second) for each in client.stats()["runtimes"]]
    assert sorted(used) == list(range(ports[0], ports[1] + 1))


def test_closing_a_client_leaves_a_shared_runtime_running(new_client: NewClient, storage_root: Path) -> None:
    first, second = new_client(), new_client()
    say(first, "ada", "The boots are red.", "t1")
    say(second, "ada", "The laces are blue.", "t2")
    pid = pid_of(first, "ada")
    second.close()

    assert is_alive(pid)
    say(first, "ada", "The soles are black.", "t3")
    assert pid_of(first, "ada") == pid
    assert "session_end" not in [event["type"] for event in logged(storage_root, "ada")]


# Runtimes that are programs


def test_a_runtime_program_serves_like_a_forked_runtime(
    new_client: NewClient, program: str, storage_root: Path
) -> None:
    client = new_client(runtime_binary=program, max_concurrent_users=2)
    say(client, "ada", "The boots are red.", "t1")
    say(client, "bob", "The boots are blue.", "t2")
    pids = [pid_of(client, "ada"), pid_of(client, "bob")]
    assert {each.pid for each in psutil.Process().children()} == set(pids)
    psutil.Process(pids[0]).kill()
    assert "The boots are red." in recall(client, "ada", "the boots").contextText
    say(client, "cyd", "The boots are green.", "t3")

    assert served_users(client) == ["ada", "cyd"]
    eventually(lambda: not is_alive(pids[1]))
    assert logged(storage_root, "bob")[-1]["type"] == "session_end"
    client.close()
    assert not psutil.Process().children()


def test_two_clients_share_a_runtime_program_by_its_lease(
    new_client: NewClient, program: str, storage_root: Path
) -> None:
    first, second = new_client(runtime_binary=program), new_client(runtime_binary=program)
    say(first, "ada", "The boots are red.", "t1")
    say(second, "ada", "The laces are blue.", "t2")

    holder = json.loads(UserFolder(storage_root, PROJECT, "ada").lease.read_bytes())
    assert pid_of(first, "ada") == pid_of(second, "ada") == holder["pid"]
    assert len(psutil.Process().children()) == 1
