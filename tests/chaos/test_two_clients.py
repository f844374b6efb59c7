"""Two client processes serve one user: they share a runtime, and one continues when the other dies."""

import os
import random
import sys
import time
from collections import Counter
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from chaos.callers import PATIENT_S, ClientProcess, count_turns_on_disk, find_marked_processes
from support.timing import least
from support.waiting import eventually

pytestmark = pytest.mark.alone

CALLER = "caller-0"
TAKE_OVER_S = 2.0


def test_two_clients_share_a_runtime_and_see_each_others_turns_immediately(
    new_process: Callable[..., ClientProcess], storage_root: Path
) -> None:
    first, second = new_process(), new_process()
    assert first.save(CALLER, "t1", "I keep persimmons.")
    assert "persimmons" in second.search(CALLER, "persimmons")
    assert second.save(CALLER, "t2", "I grow artichokes.")
    assert "artichokes" in first.search(CALLER, "artichokes")

    owned, borrowed = first.runtime(CALLER), second.runtime(CALLER)
    assert owned["pid"] == borrowed["pid"]
    assert owned["session_id"] == borrowed["session_id"]
    assert (owned["borrowed"], borrowed["borrowed"]) == (False, True)
    assert count_turns_on_disk(storage_root, CALLER) == Counter({"t1": 1, "t2": 1})


# Makes a client process see the clock as set forward by an hour since other processes started. On Linux the boot time
# follows the clock, and the start time of a process is relative to the boot time.
CLOCK_SET = """
import time, psutil._pslinux as linux
true_time, true_boot = time.time, linux.boot_time
time.time = lambda: true_time() + 3600
linux.boot_time = lambda: true_boot() + 3600
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="patches how psutil reads the clock on Linux")
def test_two_clients_share_a_runtime_even_if_the_clock_was_set_in_between(
    new_process: Callable[..., ClientProcess], storage_root: Path, tmp_path: Path
) -> None:
    (tmp_path / "path").mkdir()
    (tmp_path / "path" / "sitecustomize.py").write_text(CLOCK_SET)
    path = os.pathsep.join([str(tmp_path / "path"), *filter(None, [os.environ.get("PYTHONPATH")])])
    first, second = new_process(), new_process({"PYTHONPATH": path})
    assert first.save(CALLER, "t1", "I keep persimmons.")
    assert "persimmons" in second.search(CALLER, "persimmons")

    assert second.runtime(CALLER)["pid"] == first.runtime(CALLER)["pid"]
    assert second.runtime(CALLER)["borrowed"] is True


def share_a_runtime(
    new_process: Callable[..., ClientProcess], **owner_arguments: Any
) -> tuple[ClientProcess, ClientProcess, int]:
    """Return the owner of a runtime, its borrower, and the process id; each has saved a turn."""
    owner, borrower = new_process(**owner_arguments), new_process()
    assert owner.save(CALLER, "t1", "I keep persimmons.")
    assert borrower.save(CALLER, "t2", "I grow artichokes.")
    return owner, borrower, owner.runtime(CALLER)["pid"]


def test_a_borrower_that_closes_leaves_the_runtime_to_its_owner(
    new_process: Callable[..., ClientProcess], storage_root: Path
) -> None:
    owner, borrower, pid = share_a_runtime(new_process)
    borrower.close()

    assert "artichokes" in owner.search(CALLER, "artichokes")
    assert owner.save(CALLER, "t3", "Goodbye.")
    assert owner.runtime(CALLER)["pid"] == pid
    assert count_turns_on_disk(storage_root, CALLER) == Counter({"t1": 1, "t2": 1, "t3": 1})


def test_a_borrower_continues_after_its_owner_closes(
    new_process: Callable[..., ClientProcess], storage_root: Path
) -> None:
    owner, borrower, pid = share_a_runtime(new_process)
    owner.close()

    assert borrower.save(CALLER, "t3", "Goodbye.")
    assert "persimmons" in borrower.search(CALLER, "persimmons")
    assert borrower.runtime(CALLER)["pid"] != pid
    assert borrower.runtime(CALLER)["borrowed"] is False
    assert count_turns_on_disk(storage_root, CALLER) == Counter({"t1": 1, "t2": 1, "t3": 1})


def test_a_borrower_continues_after_its_owner_evicts_the_user(
    new_process: Callable[..., ClientProcess], storage_root: Path
) -> None:
    owner, borrower, pid = share_a_runtime(new_process, max_concurrent_users=1)
    assert owner.save("another", "t1", "Hello.")

    for number in range(3, 20):
        assert borrower.save(CALLER, f"t{number}", "I am still here.")
        assert "persimmons" in borrower.search(CALLER, "persimmons")

    def has_its_own_runtime() -> bool:
        assert "persimmons" in borrower.search(CALLER, "persimmons")
        return borrower.runtime(CALLER)["pid"] not in (None, pid)

    eventually(has_its_own_runtime, PATIENT_S)  # the evicted one may take a moment to stop
    assert owner.save(CALLER, "t20", "So am I.")
    assert owner.runtime(CALLER)["borrowed"] is True
    assert count_turns_on_disk(storage_root, CALLER) == Counter({f"t{number}": 1 for number in range(1, 21)})


@pytest.mark.parametrize("seed", range(3), ids=lambda seed: f"seed{seed}")
def test_a_borrower_continues_within_two_seconds_after_its_owner_is_killed(
    new_process: Callable[..., ClientProcess], tmp_path: Path, mark: Path, seed: int
) -> None:
    chance, numbers = random.Random(seed), count(1)

    def seconds_to_continue() -> float:
        folder = tmp_path / f"try-{next(numbers)}"
        folder.mkdir()
        storage_root = folder / "storage"
        owner, borrower = (new_process(storage_root=str(storage_root)) for _ in range(2))
        assert owner.save(CALLER, "t1", "I keep persimmons.")
        assert borrower.search(CALLER, "persimmons")
        pid = owner.runtime(CALLER)["pid"]
        acknowledged_files = {client: folder / name for client, name in ((owner, "owner"), (borrower, "borrower"))}
        others = ["other", "other", CALLER]  # so that the turn ids are unique
        for client, callers in ((owner, [CALLER]), (borrower, others)):
            client.ask("save_continuously", callers=callers, acknowledged=str(acknowledged_files[client]))

        def acknowledged(client: ClientProcess) -> list[str]:
            lines = acknowledged_files[client].read_text().split("\n")[:-1]
            return [line.split()[1] for line in lines if line.startswith(f"{CALLER} ")]

        eventually(lambda: acknowledged(owner) and acknowledged(borrower), PATIENT_S)
        time.sleep(chance.uniform(0, 0.3))
        owner.kill()
        died_at = time.monotonic()
        before = len(acknowledged(borrower))
        # Saves in progress may still be acknowledged; from the fourth on, they come from the new runtime.
        eventually(lambda: len(acknowledged(borrower)) > before + 3, PATIENT_S)
        assert borrower.save(CALLER, "t2", "I grow artichokes.")
        assert "persimmons" in borrower.search(CALLER, "persimmons")
        took_s = time.monotonic() - died_at

        assert eventually(lambda: borrower.runtime(CALLER)["pid"]) != pid
        assert borrower.runtime(CALLER)["borrowed"] is False
        borrower.kill()
        eventually(lambda: not find_marked_processes(mark), PATIENT_S)
        found = count_turns_on_disk(storage_root, CALLER)
        assert not {"t1", "t2", *acknowledged(owner), *acknowledged(borrower)} - set(found), "acknowledged and lost"
        assert set(found.values()) == {1}
        return took_s

    assert least(seconds_to_continue, TAKE_OVER_S) < TAKE_OVER_S
