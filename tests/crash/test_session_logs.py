"""Session logs after power failures: every acknowledged turn is there exactly once, and each log goes on."""

import random
from pathlib import Path

import pytest
from crash.power import SimulatedProcess, survivors
from support.crash_disk import CrashDisk

# The last two have folders with other names, and a file with the id in them.
SESSIONS = ("call-1", "a session / no folder may have this name", "x" * 300)


@pytest.mark.parametrize("seed", range(3))
def test_every_acknowledged_turn_is_there_once(tmp_path: Path, seed: int) -> None:
    rng = random.Random(seed)
    (tmp_path / "disk").mkdir()
    said: dict[str, tuple[str, str]] = {}  # session and words by turn id
    with CrashDisk(tmp_path / "disk") as disk:
        for _ in range(12):
            # A client that got no answer says the same turn again, perhaps to another process.
            if said and rng.random() < 0.4:
                turn_id = rng.choice(list(said))
            else:
                turn_id = f"turn-{len(said)}"
                said[turn_id] = rng.choice(SESSIONS), f"these are the words of {turn_id}" * rng.randint(1, 20)
            session_id, text = said[turn_id]
            with disk.killing(rng.choice([None, None, rng.randint(0, 15)])):
                disk.promise((turn_id, SimulatedProcess(tmp_path / "disk", session_id).save(turn_id, text)))
    for crash, root in survivors(disk, tmp_path, seed):
        sessions = {session_id: SimulatedProcess(root, session_id) for session_id in SESSIONS}
        for session_id, process in sessions.items():
            assert all(said[turn_id] == (session_id, text) for turn_id, (_, text) in process.turns().items())
        for turn_id, event_id in crash.promises:
            session_id, text = said[turn_id]
            assert sessions[session_id].turns()[turn_id][0] == event_id, "an acknowledged turn is lost"
            assert sessions[session_id].save(turn_id, text) == event_id
        for session_id in SESSIONS:
            sessions[session_id].save("afterwards", "the log goes on")
            later = SimulatedProcess(root, session_id).turns()
            assert later == sessions[session_id].turns()
            assert "afterwards" in later


@pytest.mark.parametrize("operations", range(4, 8))
def test_what_a_dead_process_wrote_is_durable_before_its_repetition_is_acknowledged(
    tmp_path: Path, operations: int
) -> None:
    (tmp_path / "disk").mkdir()
    with CrashDisk(tmp_path / "disk") as disk:
        SimulatedProcess(tmp_path / "disk", "call-1").save("turn-0", "hello")
        with disk.killing(operations):  # after it has synced the folders, written the line, and synced that
            SimulatedProcess(tmp_path / "disk", "call-1").save("turn-1", "my boots are red")
        disk.promise(SimulatedProcess(tmp_path / "disk", "call-1").save("turn-1", "my boots are red"))
    for crash, root in survivors(disk, tmp_path):
        turns = SimulatedProcess(root, "call-1").turns()
        assert not crash.promises or turns["turn-1"][0] == crash.promises[0]
