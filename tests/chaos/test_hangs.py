"""Runtimes are stopped at random moments: whoever searches waits no longer than he said, and all is well afterwards."""

import os
import random
import signal
import statistics
import time
from collections.abc import Callable
from contextlib import suppress
from itertools import count
from pathlib import Path

import filelock
import psutil
import pytest
from chaos.callers import (
    PATIENT_S,
    CallerThreads,
    Savers,
    Stalls,
    assert_kept_once,
    caller_folder,
    codes,
    running,
    search,
    wait_for_more,
)
from support.clients import patient_saves
from support.runtimes import freeze
from support.timing import least
from support.waiting import eventually

from memoair_voice_sync import MemoAirVoiceClientSync, MemoAirVoiceMemoryError

pytestmark = pytest.mark.alone

CALLERS = [f"caller-{number}" for number in range(4)]
TIMEOUT_MS = 200
# What a search may take beyond its time, and beyond what a thread had to wait that does nothing at all. One search of
# fifty may be over that, and none by more than half a second.
GRACE_S, LONGEST_GRACE_S, OUTLIERS = 0.05, 0.5, 1 / 50


def assert_in_time(durations: list[float], stalls: Stalls) -> None:
    limit = TIMEOUT_MS / 1e3 + GRACE_S + stalls.longest_s
    late = [duration for duration in durations if duration > limit]
    assert statistics.median(each for each in durations if each >= TIMEOUT_MS / 1e3) <= limit, "of those that hung"
    assert len(late) <= max(2, OUTLIERS * len(durations)), (late, stalls.longest_s)
    # It may have to wait when its time is over, and again with the answer.
    assert max(durations) <= limit + LONGEST_GRACE_S - GRACE_S + stalls.longest_s, (late, stalls.longest_s)


def wake(pid: int) -> None:
    """Let a process go on that was stopped, unless it has been replaced by now."""
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGCONT)


def searching(client: MemoAirVoiceClientSync) -> CallerThreads:
    """Threads of which each searches for one of the callers."""

    def call_of(caller: str) -> Callable[[int], object]:
        return lambda _: client.search_memory("When do you open?", user={"id": caller}, timeout_ms=TIMEOUT_MS)

    return CallerThreads([call_of(caller) for caller in CALLERS])


def greet(client: MemoAirVoiceClientSync) -> None:
    for caller in CALLERS:
        client.load_index(user={"id": caller})
        assert client.save_response(
            user={"id": caller}, user_text="When do you open?", assistant_text=f"At nine, {caller}.", turn_id="t1"
        )


def assert_all_is_well(client: MemoAirVoiceClientSync) -> None:
    for caller in CALLERS:
        assert f"At nine, {caller}." in search(client, caller, "When do you open?")
        assert client.save_response(user={"id": caller}, user_text="Bye.", assistant_text="Bye.", turn_id="t2")


@pytest.mark.parametrize("seed", range(2), ids=lambda seed: f"seed{seed}")
def test_a_search_keeps_its_time_while_runtimes_stop_and_go_on(
    new_client: Callable[..., MemoAirVoiceClientSync], patient_saves: None, seed: int
) -> None:
    chance = random.Random(seed)
    client = new_client()
    greet(client)
    with Stalls() as stalls, searching(client) as threads:
        for _ in range(5):
            pid = freeze(chance.choice(sorted(running(client).values())))
            wait_for_more(lambda: int(client.stats()["degraded_searches"]))
            wait_for_more(lambda: len(threads.durations), chance.randint(1, 300))
            wake(pid)

    assert not codes(threads.errors)
    assert_in_time(threads.durations, stalls)
    assert_all_is_well(client)


def test_a_search_keeps_its_time_while_a_runtime_that_hangs_is_replaced(
    new_client: Callable[..., MemoAirVoiceClientSync], patient_saves: None
) -> None:
    client = new_client()
    greet(client)
    with Stalls() as stalls, searching(client) as threads:
        stuck = freeze(running(client)[CALLERS[0]])
        eventually(lambda: running(client).get(CALLERS[0], stuck) != stuck, PATIENT_S)

    assert not codes(threads.errors)
    assert_in_time(threads.durations, stalls)
    assert_all_is_well(client)
    eventually(lambda: not psutil.pid_exists(stuck), PATIENT_S)
    assert client.stats()["restarts"] == 1


@pytest.mark.parametrize("seed", range(2), ids=lambda seed: f"seed{seed}")
def test_no_turn_is_lost_or_doubled_while_runtimes_stop_and_go_on(
    new_client: Callable[..., MemoAirVoiceClientSync], storage_root: Path, seed: int
) -> None:
    """A turn that was written, and of which nobody was told in time, is saved again: it must be known."""
    chance = random.Random(seed)
    client = new_client()

    def hangs_until_a_turn_is_deferred() -> bool:
        before = client.stats()["deferred_saves"]
        pid = freeze(chance.choice(sorted(running(client).values())))
        try:
            while client.stats()["deferred_saves"] == before:
                if pid not in running(client).values():
                    return False  # its caller waited for what was deferred before, and it was replaced by then
                time.sleep(0.02)
        finally:
            wake(pid)
        return True

    with Savers(client, CALLERS) as savers:
        eventually(lambda: len(running(client)) == len(CALLERS), PATIENT_S)
        for _ in range(3):
            wait_for_more(lambda: savers.count, chance.randint(1, 60))
            time.sleep(chance.uniform(0, 0.01))
            eventually(hangs_until_a_turn_is_deferred, PATIENT_S)

    eventually(lambda: not client.stats()["pending_saves"], PATIENT_S)
    assert not savers.errors
    assert client.stats()["lost_saves"] == 0
    assert_kept_once(storage_root, savers.all)


def test_a_deferred_turn_is_kept_once_though_its_caller_loses_his_place_meanwhile(
    new_client: Callable[..., MemoAirVoiceClientSync], storage_root: Path
) -> None:
    """The disk is slow: the first runtime keeps it in the end, the next one, with another call, is given it again."""
    client = new_client(max_concurrent_users=1)
    first, second = CALLERS[:2]
    client.load_index(user={"id": first})
    with patient_saves():
        assert client.save_response(user={"id": first}, user_text="Hello.", assistant_text="Hello.", turn_id="t1")
    (log,) = caller_folder(storage_root, first).glob("*/session.jsonl")

    def can_second_speak() -> bool:
        try:
            client.save_response(user={"id": second}, user_text="Hello.", assistant_text="Hello.", turn_id="t1")
        except MemoAirVoiceMemoryError as error:
            if error.code != "pool.exhausted":  # while the turn of the first one is tried again
                raise
            return False
        return True

    with filelock.FileLock(log.with_name("session.lock")):
        assert client.save_response(user={"id": first}, user_text="Bye.", assistant_text="Bye.", turn_id="t2") is None
        eventually(can_second_speak, PATIENT_S)
    eventually(lambda: not client.stats()["pending_saves"], PATIENT_S)
    eventually(lambda: not client.stats()["retiring"], PATIENT_S)

    assert_kept_once(storage_root, {first: ["t1", "t2"], second: ["t1"]})


def test_a_turn_that_can_not_be_sent_does_not_hold_up_those_that_wait(
    new_client: Callable[..., MemoAirVoiceClientSync], storage_root: Path
) -> None:
    """It is refused as it is where nothing waits, and the turns before and after it are kept."""
    client = new_client()
    caller = {"id": CALLERS[0]}
    client.load_index(user=caller)
    with patient_saves():
        assert client.save_response(user=caller, user_text="Hello.", assistant_text="Hello.", turn_id="t1")
    stuck = freeze(running(client)[CALLERS[0]])
    assert client.save_response(user=caller, user_text="Yes.", assistant_text="Yes.", turn_id="t2") is None
    with suppress(TypeError):
        client.save_response(
            user=caller, user_text="No.", assistant_text="No.", turn_id="t3", metadata={"no": object()}
        )
    assert client.save_response(user=caller, user_text="Bye.", assistant_text="Bye.", turn_id="t4") is None
    wake(stuck)

    eventually(lambda: not client.stats()["pending_saves"], PATIENT_S)
    assert_kept_once(storage_root, {CALLERS[0]: ["t1", "t2", "t4"]})


def test_a_client_is_closed_in_bounded_time_though_a_runtime_hangs(
    new_client: Callable[..., MemoAirVoiceClientSync], tmp_path: Path, patient_saves: None
) -> None:
    numbers = count(1)

    def seconds_to_close() -> float:
        client = new_client(storage_root=str(tmp_path / f"storage-{next(numbers)}"))
        greet(client)
        freeze(running(client)[CALLERS[0]])
        began_at = time.monotonic()
        client.close()
        return time.monotonic() - began_at

    assert least(seconds_to_close, 15) < 15
