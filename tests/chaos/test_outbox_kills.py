"""Clients are killed while turns wait to be saved: each turn that was promised is saved once by another client."""

import random
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from chaos.callers import PATIENT_S, ClientProcess, assert_saved_once, count_turns_on_disk
from chaos.test_kills import read_acknowledged
from support.waiting import eventually

from memoair_voice_sync import MemoAirVoiceClientSync

CALLERS = ["caller-0", "caller-1", "caller-2"]


@pytest.mark.parametrize(
    ("is_running", "seed"), [(False, 0), (True, 1)], ids=["by the next client", "by one that is running"]
)
def test_what_waits_survives_a_kill_of_the_client(
    new_client: Callable[..., MemoAirVoiceClientSync],
    new_process: Callable[..., ClientProcess],
    storage_root: Path,
    tmp_path: Path,
    patient_saves: None,
    seed: int,
    is_running: bool,
) -> None:
    chance, promised_file = random.Random(seed), tmp_path / "promised"
    no_runtime = tmp_path / "no-runtime"
    no_runtime.write_text("#!/bin/sh\nexit 1\n")
    no_runtime.chmod(0o755)
    client = new_client()
    if is_running:
        client.load_index(user={"id": "another"}, timeout_s=PATIENT_S)
    process = new_process(runtime_binary=str(no_runtime))
    process.ask("promise_continuously", callers=CALLERS, acknowledged=str(promised_file))
    min_turns = chance.choice([3, 40, 100])
    eventually(lambda: sum(map(len, read_acknowledged(promised_file).values())) >= min_turns, PATIENT_S)
    time.sleep(chance.uniform(0, 0.05))
    process.kill()
    promised = read_acknowledged(promised_file)
    assert not any(count_turns_on_disk(storage_root, caller) for caller in CALLERS)

    def is_saved() -> bool:
        client.search_memory("What did I say?", user={"id": "another"})  # a client that is used looks after the rest
        return client.stats()["spooled_saves"] == 0

    eventually(is_saved, PATIENT_S)
    assert_saved_once(storage_root, promised)
    for caller, turn_ids in promised.items():
        found = list(count_turns_on_disk(storage_root, caller))
        assert found[: len(turn_ids)] == turn_ids, "not in the order in which they were said"
        assert len(found) <= len(turn_ids) + 1, "one more may have been written before it was promised"
    assert (client.stats()["lost_saves"], client.stats()["pending_saves"]) == (0, 0)
    eventually(lambda: not (storage_root / "outbox.d").exists(), PATIENT_S)
