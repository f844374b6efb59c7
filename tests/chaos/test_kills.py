"""Processes are killed at random moments: no turn that was acknowledged is lost or kept twice, and nothing is left."""

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
    assert_kept_once,
    marked,
    running,
    search,
    turns_on_disk,
    wait_for_more,
)
from support.runtimes import freeze
from support.timing import least
from support.waiting import eventually

from memoair_voice_sync import MemoAirVoiceClientSync

pytestmark = pytest.mark.alone

ONE_EACH = [f"caller-{number}" for number in range(8)]
TWO_EACH = [f"caller-{number // 2}" for number in range(8)]
# How long after the death of its client a process may live.
LONGEST_ORPHAN_S = 10.0

seeds = pytest.mark.parametrize("seed", range(2), ids=lambda seed: f"seed{seed}")


def callers(seed: int) -> list[str]:
    """The caller of each of eight threads."""
    return TWO_EACH if seed % 2 else ONE_EACH


def wait_for_progress(chance: random.Random, savers: Savers) -> None:
    """Wait until some more turns were acknowledged, and then to somewhere within the next ones."""
    wait_for_more(lambda: savers.count, chance.randint(1, 60))
    time.sleep(chance.uniform(0, 0.01))  # no luck is waited for: any moment will do


def kill_a_runtime(chance: random.Random, client: MemoAirVoiceClientSync) -> None:
    with suppress(ProcessLookupError):
        os.kill(chance.choice(sorted(eventually(lambda: running(client), PATIENT_S).values())), signal.SIGKILL)


def host_pid() -> int:
    """The process id of this process's runtime host; 0 where none lives."""
    for each in psutil.Process().children():
        with suppress(psutil.Error):
            if each.status() != psutil.STATUS_ZOMBIE and "memoair_runtime.fork_server" in each.cmdline():
                return each.pid
    return 0


def assert_nothing_was_lost(client: MemoAirVoiceClientSync, storage_root: Path, savers: Savers) -> None:
    eventually(lambda: not client.stats()["pending_saves"], PATIENT_S)
    assert not savers.errors
    assert client.stats()["lost_saves"] == 0
    assert_kept_once(storage_root, savers.all)
    for caller, turns in savers.all.items():  # on a busy machine a caller may have had none acknowledged at once
        assert turns[0] in search(client, caller, f"I say {turns[0]}.")


@seeds
def test_no_acknowledged_turn_is_lost_when_runtimes_are_killed(
    new_client: Callable[..., MemoAirVoiceClientSync], storage_root: Path, seed: int
) -> None:
    chance = random.Random(seed)
    client = new_client()
    with Savers(client, callers(seed)) as savers:
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

    def seconds_to_miss_it() -> float:
        number = next(numbers)
        caller = f"caller-{number}"
        client.load_index(user={"id": caller})
        assert client.save_response(user={"id": caller}, user_text="Hello.", assistant_text="Hello.")
        os.kill(running(client)[caller], signal.SIGKILL)
        killed_at = time.monotonic()
        eventually(lambda: client.stats()["restarts"] == number + 1)
        return time.monotonic() - killed_at

    for _ in range(3):
        assert least(seconds_to_miss_it, 2.0) < 2.0


@seeds
def test_no_acknowledged_turn_is_lost_when_the_fork_server_is_killed(
    new_client: Callable[..., MemoAirVoiceClientSync], storage_root: Path, seed: int
) -> None:
    """Its runtimes go on; whoever needs a new one is forked by a new host."""
    chance = random.Random(seed)
    client = new_client()
    with Savers(client, callers(seed)) as savers:
        for _ in range(4):
            wait_for_progress(chance, savers)
            os.kill(eventually(host_pid, PATIENT_S), signal.SIGKILL)
            wait_for_progress(chance, savers)
            kill_a_runtime(chance, client)
            eventually(host_pid, PATIENT_S)  # the new one
        wait_for_progress(chance, savers)

    assert_nothing_was_lost(client, storage_root, savers)


def acknowledged_in(path: Path) -> dict[str, list[str]]:
    """What a client process wrote down, by caller."""
    found: dict[str, list[str]] = defaultdict(list)
    for line in path.read_text().split("\n")[:-1] if path.exists() else []:
        caller, turn_id = line.split()
        found[caller].append(turn_id)
    return found


def seconds_until_none_is_left(mark: Path, died_at: float) -> float:
    eventually(lambda: not marked(mark), PATIENT_S)
    return time.monotonic() - died_at


@pytest.mark.parametrize("seed", range(5), ids=lambda seed: f"seed{seed}")
def test_no_turn_is_lost_and_no_process_left_when_the_client_is_killed(
    new_process: Callable[..., ClientProcess], mark: Path, tmp_path: Path, seed: int
) -> None:
    chance, numbers = random.Random(seed), count(1)
    # From the start of the first runtime to many turns.
    wanted = chance.choice([0, 1, 10, 400])

    def seconds_to_end() -> float:
        number = next(numbers)
        storage_root, written = tmp_path / f"storage-{number}", tmp_path / f"acknowledged-{number}"
        process = new_process(storage_root=str(storage_root))
        process.ask("save_on", callers=callers(seed), acknowledged=str(written))
        eventually(lambda: sum(map(len, acknowledged_in(written).values())) >= wanted, PATIENT_S)
        time.sleep(chance.uniform(0, 0.2))
        process.kill()
        died_at = time.monotonic()

        acknowledged = acknowledged_in(written)
        assert sum(map(len, acknowledged.values())) >= wanted
        assert_kept_once(storage_root, acknowledged)
        took_s = seconds_until_none_is_left(mark, died_at)
        assert_kept_once(storage_root, acknowledged)
        # One that has no time to drain is killed in the end, as one that hangs.
        leases = list(storage_root.rglob("lease.json"))
        return float("inf") if leases else took_s

    assert least(seconds_to_end, LONGEST_ORPHAN_S, tries=3) < LONGEST_ORPHAN_S, "none is left, nor any lease"


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
        took_s = seconds_until_none_is_left(mark, time.monotonic())
        assert turns_on_disk(storage_root, "caller-0") == Counter({"t1": 1})
        return took_s

    assert least(seconds_to_end, LONGEST_ORPHAN_S, tries=3) < LONGEST_ORPHAN_S
