"""Limits of a pool: runtimes, ports, descriptors, threads, and the time to close."""

import os
import signal
import socket
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from itertools import count
from pathlib import Path

import psutil
import pytest
from chaos.callers import (
    PATIENT_MS,
    PATIENT_S,
    CallerThreads,
    assert_saved_once,
    count_turns_on_disk,
    error_codes,
    find_marked_processes,
    is_port_free,
    runtime_pids,
    search,
)
from support.clients import patient_saves
from support.ports import free_ports
from support.runtimes import freeze
from support.timing import least
from support.waiting import eventually

from memoair_voice_sync import MemoAirVoiceClientSync, MemoAirVoiceMemoryError

USER_COUNT, MAX_RUNTIMES = 200, 20
# For each runtime the client has a channel and a connection; the others belong to the fork server and the supervisor.
DESCRIPTORS_PER_RUNTIME, OTHER_DESCRIPTORS = 2, 10
THREADS = 6
CLOSE_S = 10.0

pytestmark = pytest.mark.timeout(900)


def test_hundreds_of_users_use_no_more_than_twenty_runtimes(
    new_client: Callable[..., MemoAirVoiceClientSync], storage_root: Path, mark: Path
) -> None:
    this = psutil.Process()
    descriptors, threads = this.num_fds(), set(threading.enumerate())
    first, last = free_ports(2 * MAX_RUNTIMES)
    client = new_client(max_concurrent_users=MAX_RUNTIMES, runtime_port_range=(first, last))

    def call(number: int) -> None:
        caller = f"caller-{number}"
        if number % 2:
            search(client, caller, "When do you open?")
        else:
            client.save_response(user={"id": caller}, user_text="Hello.", assistant_text="Hello.", turn_id="t1")

    with ThreadPoolExecutor(THREADS) as executor:
        list(executor.map(call, range(USER_COUNT)))

    eventually(lambda: client.stats()["pending_saves"] == client.stats()["retiring"] == 0, PATIENT_S)
    assert len(client.stats()["runtimes"]) == MAX_RUNTIMES
    assert client.stats()["evictions"] >= USER_COUNT - MAX_RUNTIMES
    eventually(
        lambda: len(find_marked_processes(mark)) <= MAX_RUNTIMES + 3
    )  # the runtimes, the fork server and its spare child, and the process that sends the backlog
    eventually(lambda: this.num_fds() <= descriptors + MAX_RUNTIMES * DESCRIPTORS_PER_RUNTIME + OTHER_DESCRIPTORS)
    eventually(lambda: len(set(threading.enumerate()) - threads) <= 1)  # the supervisor

    client.close()

    assert not find_marked_processes(mark)
    assert not this.children()
    eventually(lambda: not set(threading.enumerate()) - threads)  # their work is done; they end a moment later
    assert this.num_fds() <= descriptors
    assert all(is_port_free(port) for port in range(first, last + 1))
    assert not [*storage_root.rglob("lease.json"), *storage_root.rglob("*.tmp")]
    assert_saved_once(storage_root, {f"caller-{number}": ["t1"] for number in range(0, USER_COUNT, 2)})


@pytest.mark.parametrize("closed_after", [0, 1, 300])
def test_each_call_of_sixteen_threads_returns_or_raises_closed_while_the_client_closes(
    new_client: Callable[..., MemoAirVoiceClientSync], tmp_path: Path, mark: Path, closed_after: int
) -> None:
    numbers = count(1)

    def seconds_to_close() -> float:
        storage_root = tmp_path / f"storage-{next(numbers)}"
        client = new_client(storage_root=str(storage_root))
        acknowledged: dict[str, list[str]] = defaultdict(list)
        deferred: dict[str, list[str]] = defaultdict(list)

        def call_of(thread: int) -> Callable[[int], object]:
            caller = f"caller-{thread // 2}"

            def call(number: int) -> None:
                if thread % 2:
                    client.search_memory("When do you open?", user={"id": caller})
                    return
                turn_id = f"{thread}-{number}"
                event_id = client.save_response(
                    user={"id": caller}, user_text="Hello.", assistant_text="Hello.", turn_id=turn_id
                )
                (deferred if event_id is None else acknowledged)[caller].append(turn_id)

            return call

        with CallerThreads([call_of(thread) for thread in range(16)]) as threads:
            eventually(lambda: len(threads.durations) >= closed_after, PATIENT_S)
            began_at = time.monotonic()
            client.close()
            closing_s = time.monotonic() - began_at
            threads.join(PATIENT_S)

        assert len(threads.errors) == 16
        assert error_codes(threads.errors) == {"pool.closed"}
        eventually(lambda: not find_marked_processes(mark))
        assert_saved_once(storage_root, acknowledged)
        assert client.stats()["pending_saves"] == 0
        lost = [
            turn
            for caller, turns in deferred.items()
            for turn in set(turns) - set(count_turns_on_disk(storage_root, caller))
        ]
        stats = client.stats()
        left = stats["lost_saves"] + stats["spooled_saves"]
        assert len(lost) <= left, "a deferred turn was lost without being counted"
        return closing_s

    assert least(seconds_to_close, CLOSE_S) < CLOSE_S


def test_concurrent_closes_all_return_after_the_client_is_closed(
    new_client: Callable[..., MemoAirVoiceClientSync], mark: Path
) -> None:
    client = new_client()
    for number in range(4):
        client.save_response(user={"id": f"caller-{number}"}, user_text="Hello.", assistant_text="Hello.")

    def close(_: int) -> list[psutil.Process]:
        client.close()
        return find_marked_processes(mark)

    with ThreadPoolExecutor(8) as executor:
        assert list(executor.map(close, range(8))) == [[]] * 8


def test_a_save_during_close_is_saved_or_reported_as_lost(
    new_client: Callable[..., MemoAirVoiceClientSync], storage_root: Path
) -> None:
    """After close there are no retries: the turn is in the log or in the outbox, or the client says that it is not."""
    client = new_client()
    caller = {"id": "caller-0"}
    client.load_index(user=caller)
    with patient_saves():
        assert client.save_response(user=caller, user_text="Hello.", assistant_text="Hello.", turn_id="t1")
    pid = freeze(runtime_pids(client)["caller-0"])
    outcome: list[object] = []

    def save() -> None:
        try:
            outcome.append(client.save_response(user=caller, user_text="Bye.", assistant_text="Bye.", turn_id="t2"))
        except MemoAirVoiceMemoryError as error:
            outcome.append(error.code)

    saving = threading.Thread(target=save)
    saving.start()
    eventually(lambda: [runtime for runtime in client.stats()["runtimes"] if runtime["in_use"]])
    closing = threading.Thread(target=client.close)
    closing.start()
    saving.join()
    with suppress(ProcessLookupError):  # it was killed before it could resume
        os.kill(pid, signal.SIGCONT)
    closing.join()

    is_saved = "t2" in count_turns_on_disk(storage_root, "caller-0")
    stats = client.stats()
    assert outcome == ["pool.closed"] or is_saved or stats["spooled_saves"] == 1, outcome
    assert (stats["pending_saves"], stats["lost_saves"]) == (0, 0)


def test_without_a_free_port_the_error_names_the_range_and_a_freed_port_is_used(
    new_client: Callable[..., MemoAirVoiceClientSync], patient_saves: None
) -> None:
    first, last = free_ports(3)
    client = new_client(runtime_port_range=(first, last))
    caller = {"id": "caller-0"}
    with ExitStack() as stack:
        others = [stack.enter_context(socket.create_server(("127.0.0.1", port))) for port in range(first, last + 1)]
        for _ in range(2):
            with pytest.raises(MemoAirVoiceMemoryError, match=rf"{first} to {last}") as searched:
                client.search_memory("When do you open?", user=caller, timeout_ms=PATIENT_MS)
            assert searched.value.code == "pool.port_exhausted"
            with pytest.raises(MemoAirVoiceMemoryError, match=rf"{first} to {last}") as saved:
                client.save_response(user=caller, user_text="Hello.", assistant_text="Hello.", turn_id="t1")
            assert saved.value.code == "pool.port_exhausted"

        others[1].close()
        assert client.save_response(user=caller, user_text="We have persimmons.", assistant_text="Good.", turn_id="t1")

        assert client.stats()["runtimes"][0]["port"] == first + 1
        assert "persimmons" in search(client, "caller-0", "Are there persimmons?")
        with pytest.raises(MemoAirVoiceMemoryError) as second:
            client.search_memory("When do you open?", user={"id": "caller-1"}, timeout_ms=PATIENT_MS)
        assert second.value.code == "pool.port_exhausted", "the one port is in use by our own runtime"
