"""The other files of a user after power failures: they are as before or as after, and nothing erased comes back."""

import random
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
from crash.power import CRASHES, NOW, SimulatedProcess, survivors, user_folder
from support.crash_disk import CrashDisk

from memoair_protocol.enums import EventType
from memoair_runtime.errors import ErasedTurnError
from memoair_runtime.storage.erasure import erase, finish_interrupted
from memoair_runtime.storage.erasure_record import record_erasure
from memoair_runtime.storage.events import EventOrigin, new_event
from memoair_runtime.storage.replica_file import ReplicaFact, ReplicaFile, ReplicaPage
from memoair_runtime.storage.trace_file import TraceFile
from memoair_runtime.sync.outbox import Outbox

CLOUD = "cloud-1"
SECRET = "the code of my door is 4711"


@pytest.fixture
def disk_root(tmp_path: Path) -> Path:
    root = tmp_path / "disk"
    root.mkdir()
    return root


@pytest.mark.parametrize("seed", range(2))
def test_every_turn_of_the_logs_is_sent_whatever_is_left_of_the_positions(
    tmp_path: Path, disk_root: Path, seed: int
) -> None:
    rng = random.Random(seed)
    saved = 0
    with CrashDisk(disk_root) as disk:
        for _ in range(8):
            with disk.killing(rng.choice([None, 6, 6, rng.randint(4, 9)])):  # 6: before the line is synced
                saved += 1
                SimulatedProcess(disk_root, rng.choice("ab"), CLOUD).save(f"turn-{saved}", "hello " * rng.randint(1, 9))
            if rng.random() < 0.6:
                push(disk_root, disk.promise)
    for crash, root in survivors(disk, tmp_path, seed):
        accepted: set[str] = set().union(*crash.promises)
        processes = [SimulatedProcess(root, session_id, CLOUD) for session_id in "ab"]
        for number, process in enumerate(processes * 3):
            process.save(f"later-{number}", "hello again " * rng.randint(1, 4))
        accepted |= push(root)
        in_logs = {event.event_id for process in processes for event in process.events}
        assert in_logs <= accepted, "a turn is never sent"
        assert not push(root)


def test_a_position_is_not_ahead_of_a_log_that_its_writer_did_not_sync(tmp_path: Path, disk_root: Path) -> None:
    with CrashDisk(disk_root) as disk:
        SimulatedProcess(disk_root, "a", CLOUD).save("turn-0", "hello")
        with disk.killing(6):  # before the line is synced
            SimulatedProcess(disk_root, "a", CLOUD).save("turn-1", "my boots are red, and I said so " * 5)
        assert len(push(disk_root)) == 3  # the start of the session, and both turns
        disk.promise("sent")
    for crash, root in survivors(disk, tmp_path, count=2 * CRASHES):
        if crash.promises:
            process = SimulatedProcess(root, "a", CLOUD)
            later = {process.save(f"later-{number}", "hello again") for number in range(5)}
            assert later <= push(root)


def push(root: Path, on_sent: Callable[[set[str]], None] = lambda _: None) -> set[str]:
    """Send what is unsent; return the ids of the events. The cloud accepts everything, and keeps it."""
    outbox = Outbox(user_folder(root), CLOUD)
    outbox.scan(all_sessions=True)
    sent: set[str] = set()
    while batch := outbox.next_batch():
        event_ids = {line.event_id for line in batch.event_lines if line.event_id is not None}
        on_sent(event_ids)
        outbox.acknowledge(batch, event_ids)
        sent |= event_ids
    return sent


@pytest.mark.parametrize("seed", range(2))
def test_the_copy_of_the_cloud_is_of_one_version_or_pulled_again(tmp_path: Path, disk_root: Path, seed: int) -> None:
    rng = random.Random(seed)
    states: dict[int | None, tuple[set[str], dict[str, str]]] = {None: (set(), {})}
    event_ids: set[str] = set()
    with CrashDisk(disk_root) as disk:
        folder = user_folder(disk_root)
        folder.create()
        replica = ReplicaFile(folder.cloud_replica, CLOUD)
        for version in range(1, 10):
            if rng.random() < 0.3:
                replica = ReplicaFile(folder.cloud_replica, CLOUD)
                replica.refresh()
            event = new_event(EventType.TURN, "elsewhere", version, NOW, {"turnId": str(version)}, EventOrigin())
            facts = [ReplicaFact(rng.choice("abc"), "identity", f"fact of {version}", NOW)] * rng.randint(0, 1)
            removed = [rng.choice("abc")] if not facts and rng.random() < 0.3 else []
            page = ReplicaPage(version, [event], facts, removed)
            if rng.random() < 0.2:
                replica.replace(page)
                event_ids = {event.event_id}
            else:
                replica.append(page)
                event_ids = {*event_ids, event.event_id}
            states[version] = event_ids, {fact.id: fact.text for fact in replica.facts.values()}
    for _, root in survivors(disk, tmp_path, seed):
        found = ReplicaFile(user_folder(root).cloud_replica, CLOUD)
        change = found.refresh()
        event_ids, facts = states[found.version]
        assert ({event.event_id for event in change.events}, {fact.id: fact.text for fact in change.facts}) == (
            event_ids,
            facts,
        )
        if found.version is not None or user_folder(root).path.exists():
            event = new_event(EventType.TURN, "elsewhere", 99, NOW, {"turnId": "99"}, EventOrigin())
            found.append(ReplicaPage(99, [event]))
            again = ReplicaFile(user_folder(root).cloud_replica, CLOUD)
            assert event.event_id in {known.event_id for known in again.refresh().events}
            assert again.version == 99


def test_recall_traces_are_lost_at_most(tmp_path: Path, disk_root: Path) -> None:
    traces = [b'{"trace": %d, "padding": "%s"}' % (number, b"x" * number) for number in range(12)]
    with CrashDisk(disk_root) as disk:
        file = TraceFile(disk_root / "recall_traces.jsonl")
        for number, trace in enumerate(traces):
            file.append([trace])
            if number % 5 == 4:
                file.take()
            if number == 9:
                file.finish()
    for _, root in survivors(disk, tmp_path):
        file = TraceFile(root / "recall_traces.jsonl")
        for _ in range(3):
            found = [line for line in file.take() if line.startswith(b"{") and b"\0" not in line and line in traces]
            assert len(set(found)) == len(found)
            file.finish()
        file.append([b"{}"])
        assert file.take()[-1] == b"{}"


@pytest.mark.parametrize("killed_after", [None, 4, 9, 19])
def test_nothing_that_was_erased_comes_back(tmp_path: Path, disk_root: Path, killed_after: int | None) -> None:
    erased_at = NOW + timedelta(minutes=1)
    with CrashDisk(disk_root) as disk:
        folder = user_folder(disk_root)
        for session_id in ("first", "second"):
            SimulatedProcess(disk_root, session_id, CLOUD).save(f"turn-of-{session_id}", SECRET)
        for path in (folder.profile, folder.vectors, folder.session("first").brief, folder.recall_traces):
            path.write_text(SECRET)
        with disk.killing(killed_after):
            erase(folder, erased_at, keeps_later=False)
        finish_interrupted(folder)  # as a runtime does when it starts, and an application that got no answer asks again
        erase(folder, erased_at, keeps_later=False)
        disk.promise("erased")
        later = NOW + timedelta(hours=1)
        SimulatedProcess(disk_root, "third", CLOUD).save("turn-later", "I am back", later)
        disk.promise("back")
    for crash, root in survivors(disk, tmp_path):
        sessions = dict(user_folder(root).list_session_logs())
        if "erased" in crash.promises:
            assert [name for name, content in crash.files().items() if SECRET.encode() in content] == []
            assert sessions.keys() <= {"third"}
            assert push(root) <= {event.event_id for event in SimulatedProcess(root, "third", CLOUD).events}
            with pytest.raises(ErasedTurnError):
                SimulatedProcess(root, "first", CLOUD).save("turn-of-first", SECRET, NOW)
        if "back" in crash.promises:
            assert "turn-later" in SimulatedProcess(root, "third", CLOUD).turns()
        assert all(turn[1] in (SECRET, "I am back") for name in sessions for turn in _turns(root, name))
        finish_interrupted(user_folder(root))
        erase(user_folder(root), erased_at, keeps_later=True)


def test_what_an_interrupted_erasure_has_left_is_not_sent(disk_root: Path) -> None:
    folder, erased_at = user_folder(disk_root), NOW + timedelta(minutes=1)
    SimulatedProcess(disk_root, "first", CLOUD).save("turn-of-first", SECRET)
    record_erasure(folder, erased_at, [])  # and then the machine stopped
    assert [session_id for session_id, _ in folder.list_session_logs()] == ["first"]
    assert push(disk_root) == set()
    later = SimulatedProcess(disk_root, "later", CLOUD)
    later.save("turn-later", "I am back", NOW + timedelta(hours=1))
    assert push(disk_root) == {event.event_id for event in later.events}


def _turns(root: Path, session_id: str) -> list[tuple[str, str]]:
    return list(SimulatedProcess(root, session_id, CLOUD).turns().values())
