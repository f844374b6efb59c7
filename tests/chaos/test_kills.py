"""Processes are killed at random moments: no acknowledged turn is lost or duplicated, and no process is left."""

import os
import random
import signal
import time
from collections import Counter, defaultdict
from collections.abc import Callable
from contextlib import suppress
from itertools import count
from pathlib import Path

import psutil
import pytest
from chaos.callers import (
    PATIENT_S,
    ClientProcess,
    Savers,
    assert_saved_once,
    count_turns_on_disk,
    find_marked_processes,
    runtime_pids,
    search,
    wait_for_increase,
)
from support.runtimes import freeze
from support.timing import least
from support.waiting import eventually

from memoair_voice_sync import MemoAirVoiceClientSync

pytestmark = pytest.mark.alone

ONE_EACH = [f"caller-{number}" for number in range(8)]
TWO_EACH = [f"caller-{number // 2}" for number in range(8)]
# How long a process may outlive its client.
MAX_ORPHAN_S = 10.0

seeds = pytest.mark.parametrize("seed", range(2), ids=lambda seed: f"seed{seed}")


def thread_callers(seed: int) -> list[str]:
    """Return the user id for each of eight threads."""
    return TWO_EACH if seed % 2 else ONE_EACH


def wait_for_progress(chance: random.Random, savers: Savers) -> None:
    """Wait until some more turns are acknowledged, and then for a random time within the next one."""
    wait_for_increase(lambda: savers.acknowledged_count, chance.randint(1, 60))
    time.sleep(chance.uniform(0, 0.01))  # not a wait for a condition: any moment will do


def kill_a_runtime(chance: random.Random, client: MemoAirVoiceClientSync) -> None:
    with suppress(ProcessLookupError):
        os.kill(chance.choice(sorted(eventually(lambda: runtime_pids(client), PATIENT_S).values())), signal.SIGKILL)


def fork_server_pid() -> int:
    """Return the process id of this process's fork server, or 0 if there is no living one."""
    for child in psutil.Process().children():
        with suppress(psutil.Error):
            if child.status() != psutil.STATUS_ZOMBIE and "memoair_runtime.fork_server" in child.cmdline():
                return child.pid
    return 0


def assert_nothing_was_lost(client: MemoAirVoiceClientSync, storage_root: Path, savers: Savers) -> None:
    eventually(lambda: not client.stats()["pending_saves"], PATIENT_S)
    assert not savers.errors
    assert client.stats()["lost_saves"] == 0
    assert_saved_once(storage_root, savers.promised)
    for caller, turns in savers.promised.items():  # including deferred turns: on a busy machine there may be no others
        assert turns[0] in search(client, caller, f"I say {turns[0]}.")


@seeds
def test_no_acknowledged_turn_is_lost_when_runtimes_are_killed(
    new_client: Callable[..., MemoAirVoiceClientSync], storage_root: Path, seed: int
) -> None:
    chance = random.Random(seed)
    client = new_client()
    with Savers(client, thread_callers(seed)) as savers:
        for _ in range(12):
            wait_for_progress(chance, savers)
            kill_a_runtime(chance, client)
        wait_for_progress(chance, savers)

    assert_nothing_was_lost(client, storage_root, savers)
    assert client.stats()["restarts"] > 0


def test_a_killed_runtime_is_replaced_without_a_call(
    new_client: Callable[..., MemoAirVoiceClientSync], patient_saves: None
) -> None:
    client = new_client()
    numbers = count()

    def seconds_to_replace_it() -> float:
        number = next(numbers)
        caller = f"caller-{number}"
        client.load_index(user={"id": caller})
        assert client.save_response(user={"id": caller}, user_text="Hello.", assistant_text="Hello.")
        os.kill(runtime_pids(client)[caller], signal.SIGKILL)
        killed_at = time.monotonic()
        eventually(lambda: client.stats()["restarts"] == number + 1)
        return time.monotonic() - killed_at

    for _ in range(3):
        assert least(seconds_to_replace_it, 2.0) < 2.0


@seeds
def test_no_acknowledged_turn_is_lost_when_the_fork_server_is_killed(
    new_client: Callable[..., MemoAirVoiceClientSync], storage_root: Path, seed: int
) -> None:
    """Its runtimes continue; new ones are forked by a new fork server."""
    chance = random.Random(seed)
    client = new_client()
    with Savers(client, thread_callers(seed)) as savers:
        for _ in range(4):
            wait_for_progress(chance, savers)
            os.kill(eventually(fork_server_pid, PATIENT_S), signal.SIGKILL)
            wait_for_progress(chance, savers)
            kill_a_runtime(chance, client)
            eventually(fork_server_pid, PATIENT_S)  # the new one
        wait_for_progress(chance, savers)

    assert_nothing_was_lost(client, storage_root, savers)


def read_acknowledged(path: Path) -> dict[str, list[str]]:
    """Return the turn ids that a client process has recorded, by user id."""
    found: dict[str, list[str]] = defaultdict(list)
    for line in path.read_text().split("\n")[:-1] if path.exists() else []:
        caller, turn_id = line.split()
        found[caller].append(turn_id)
    return found


def seconds_until_no_process_is_left(mark: Path, died_at: float) -> float:
    eventually(lambda: not find_marked_processes(mark), PATIENT_S)
    return time.monotonic() - died_at


@pytest.mark.parametrize("seed", range(5), ids=lambda seed: f"seed{seed}")
def test_no_turn_is_lost_and_no_process_left_when_the_client_is_killed(
    new_process: Callable[..., ClientProcess], mark: Path, tmp_path: Path, seed: int
) -> None:
    chance, numbers = random.Random(seed), count(1)
    # From the start of the first runtime to many turns.
    min_turns = chance.choice([0, 1, 10, 400])

    def seconds_to_end() -> float:
        number = next(numbers)
        storage_root, acknowledged_file = tmp_path / f"storage-{number}", tmp_path / f"acknowledged-{number}"
        process = new_process(storage_root=str(storage_root))
        process.ask("save_continuously", callers=thread_callers(seed), acknowledged=str(acknowledged_file))
        eventually(lambda: sum(map(len, read_acknowledged(acknowledged_file).values())) >= min_turns, PATIENT_S)
        time.sleep(chance.uniform(0, 0.2))
        process.kill()
        died_at = time.monotonic()

        acknowledged = read_acknowledged(acknowledged_file)
        assert sum(map(len, acknowledged.values())) >= min_turns
        assert_saved_once(storage_root, acknowledged)
        took_s = seconds_until_no_process_is_left(mark, died_at)
        assert_saved_once(storage_root, acknowledged)
        # A runtime that has no time to drain is killed like one that hangs, and leaves its lease.
        leases = list(storage_root.rglob("lease.json"))
        return float("inf") if leases else took_s

    assert least(seconds_to_end, MAX_ORPHAN_S, tries=3) < MAX_ORPHAN_S, "a process or a lease is left"


def test_a_frozen_runtime_does_not_outlive_its_killed_client(
    new_process: Callable[..., ClientProcess], mark: Path, tmp_path: Path
) -> None:
    numbers = count(1)

    def seconds_to_end() -> float:
        storage_root = tmp_path / f"storage-{next(numbers)}"
        process = new_process(storage_root=str(storage_root))
        assert process.save("caller-0", "t1", "Hello.")
        freeze(process.runtime("caller-0")["pid"])
        process.kill()
        took_s = seconds_until_no_process_is_left(mark, time.monotonic())
        assert count_turns_on_disk(storage_root, "caller-0") == Counter({"t1": 1})
        return took_s

    assert least(seconds_to_end, MAX_ORPHAN_S, tries=3) < MAX_ORPHAN_S
