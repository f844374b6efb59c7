"""The spool: what a client has promised survives it, is saved once by another one, and is erased with its user."""

import json
import os
import stat
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from memoair_protocol import turn_spool
from memoair_protocol.turn_spool import SegmentContent, SegmentName, count_turns, erase_user
from memoair_voice_sync._turns.spool import TurnSpool
from memoair_voice_sync._turns.turn import Turn
from memoair_voice_sync._turns.unsaved_turn import UnsavedTurn
from memoair_voice_sync._turns.user import User

PROJECT = "proj_spool"
# Where a sync costs nothing: these tests write thousands of files, and do not depend on the disk.
MEMORY = "/dev/shm" if Path("/dev/shm").is_dir() else None
NOON = datetime(2026, 5, 4, 12, tzinfo=timezone.utc)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "storage"


def new_spool(root: Path, project_id: str = PROJECT, cloud: str | None = None) -> TurnSpool:
    return TurnSpool(root, project_id, cloud)


def unsaved(user_id: str, turn_id: str, session_id: str | None = "call-1", *, is_named: bool = True) -> UnsavedTurn:
    fields = {"turn_id": turn_id, "user_text": f"I say {turn_id}.", "assistant_text": "Noted.\n\u2028"}
    metadata = {"occurredAt": (NOON + timedelta(hours=int(turn_id[1:] or 0))).isoformat()}
    turn = Turn.parse({**fields, "metadata": metadata, "tool_calls": [{"name": "look"}]})
    return UnsavedTurn(User.parse({"id": user_id, "name": "Ada"}, None), turn, session_id, is_named=is_named)


def put(spool: TurnSpool, turn: UnsavedTurn) -> UnsavedTurn:
    turn.entry = spool.append(turn)
    return turn


def done(spool: TurnSpool, *turns: UnsavedTurn) -> None:
    spool.mark_done(turn.entry for turn in turns if turn.entry is not None)


def ids(turns: Sequence[UnsavedTurn]) -> list[str]:
    return [turn.turn.turn_id for turn in turns]


def files(root: Path) -> list[Path]:
    folder = root / turn_spool.SPOOL_FOLDER
    return sorted(folder.iterdir()) if folder.is_dir() else []


def segments(root: Path) -> list[Path]:
    return [path for path in files(root) if path.suffix == ".jsonl"]


def test_a_turn_comes_back_as_it_was_and_its_words_are_readable_by_this_user_only(root: Path) -> None:
    first = new_spool(root)
    turn = put(first, unsaved("yolanda", "t1"))
    assert stat.S_IMODE((root / turn_spool.SPOOL_FOLDER).stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in files(root)} == {0o600}
    assert not [path for path in files(root) if "yolanda" in path.name or PROJECT in path.name]
    first.close()

    second = new_spool(root)
    [found] = second.adopt(100)
    assert (found.user, found.turn, found.session_id) == (turn.user, turn.turn, turn.session_id)
    assert second.count() == 1
    done(second, found)
    assert (second.count(), files(root), (root / turn_spool.SPOOL_FOLDER).exists()) == (0, [], False)


def test_the_turns_of_a_client_that_lives_are_left_alone(root: Path) -> None:
    first, second, third = new_spool(root), new_spool(root), new_spool(root)
    put(first, unsaved("yolanda", "t1"))
    assert second.adopt(100) == []
    first.close()
    assert ids(second.adopt(100)) == ["t1"]
    assert third.adopt(100) == [], "another client looks after it"
    assert second.adopt(100) == [], "it does so already"
    second.close()
    assert ids(third.adopt(100)) == ["t1"]


def test_another_project_or_cloud_sees_none_of_it(root: Path) -> None:
    first = new_spool(root, cloud="https://cloud.example")
    put(first, unsaved("yolanda", "t1"))
    first.close()
    for spool in (new_spool(root), new_spool(root, "proj_other", "https://cloud.example")):
        assert (spool.adopt(100), spool.count()) == ([], 0)
    assert ids(new_spool(root, cloud="https://cloud.example").adopt(100)) == ["t1"]


def test_what_is_done_does_not_come_back(root: Path) -> None:
    first = new_spool(root)
    turns = [put(first, unsaved("ada", f"t{number}")) for number in range(5)]
    done(first, turns[1], turns[3])
    first.close()
    assert ids(new_spool(root).adopt(100)) == ["t0", "t2", "t4"]


def test_a_long_outage_takes_several_files_and_those_that_are_done_go(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("memoair_voice_sync._turns.spool._MAX_SEGMENT_BYTES", 1_000)
    spool = new_spool(root)
    turns = [put(spool, unsaved("ada", f"t{number}")) for number in range(20)]
    before = len(segments(root))
    assert before > 3
    done(spool, *turns[:10])
    assert 1 <= len(segments(root)) < before
    spool.close()
    assert ids(new_spool(root).adopt(100)) == [f"t{number}" for number in range(10, 20)]


def test_a_user_is_erased_from_the_spools_of_all_clients(root: Path) -> None:
    dead, living, own = new_spool(root), new_spool(root, cloud="https://cloud.example"), new_spool(root)
    put(dead, unsaved("ada", "t1"))
    dead.close()
    erased = put(living, unsaved("ada", "t2"))
    put(own, unsaved("ada", "t3"))
    put(own, unsaved("bob", "t4"))
    assert own.erase("ada")
    assert not own.erase("ada")

    assert not [path for path in segments(root) if b"I say t4" not in path.read_bytes()]
    put(living, unsaved("ada", "t5"))  # said after the erasure
    done(living, erased)
    living.close()
    own.close()
    later = new_spool(root, cloud="https://cloud.example")
    assert ids([*later.adopt(100), *new_spool(root).adopt(100)]) == ["t5", "t4"]


def test_an_erasure_with_a_time_keeps_what_was_said_later(root: Path) -> None:
    spool = new_spool(root)
    for number in range(4):
        put(spool, unsaved("ada", f"t{number}"))
    spool.close()
    assert erase_user(root, PROJECT, "ada", before=NOON + timedelta(hours=1))
    assert ids(new_spool(root).adopt(100)) == ["t2", "t3"]
    assert erase_user(root, PROJECT, "ada", before=NOON + timedelta(hours=9))
    assert segments(root) == []


def test_turns_without_a_session_come_to_the_call_that_they_were_said_in(root: Path) -> None:
    first = new_spool(root)
    put(first, unsaved("ada", "t1", None, is_named=False))
    put(first, unsaved("bob", "t1", "own-call", is_named=False))
    put(first, unsaved("bob", "t2", "another"))
    put(first, unsaved("bob", "t3", None, is_named=False))
    first.close()

    def sessions() -> list[tuple[str, str, str | None]]:
        spool = new_spool(root)
        found = [(each.user.id, each.turn.turn_id, each.session_id) for each in spool.adopt(100)]
        spool.close()
        return found

    once = sessions()
    assert [each for each in once if each[0] == "bob"] == [
        ("bob", "t1", "own-call"),
        ("bob", "t2", "another"),
        ("bob", "t3", "own-call"),
    ]
    assert once[0][2] not in (None, "own-call", "another")
    assert sessions() == once, "a second client must not save them to another call"


def test_a_folder_that_is_a_link_or_of_another_user_is_not_used(root: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    root.mkdir()
    (root / turn_spool.SPOOL_FOLDER).symlink_to(elsewhere)
    with pytest.raises(NotADirectoryError):
        new_spool(root).append(unsaved("ada", "t1"))
    assert list(elsewhere.iterdir()) == []
    assert new_spool(root).adopt(100) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give a folder away")
def test_a_folder_of_another_operating_system_user_is_not_used(root: Path) -> None:
    (root / turn_spool.SPOOL_FOLDER).mkdir(parents=True)
    os.chown(root / turn_spool.SPOOL_FOLDER, 12_345, 12_345)
    with pytest.raises(PermissionError):
        new_spool(root).append(unsaved("ada", "t1"))
    assert files(root) == []


def test_a_folder_that_others_may_read_is_closed_to_them(root: Path) -> None:
    (root / turn_spool.SPOOL_FOLDER).mkdir(parents=True, mode=0o755)
    put(new_spool(root), unsaved("ada", "t1"))
    assert stat.S_IMODE((root / turn_spool.SPOOL_FOLDER).stat().st_mode) == 0o700


def test_a_failed_write_promises_nothing_and_the_next_one_succeeds(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spool = new_spool(root)
    put(spool, unsaved("ada", "t1"))
    write = os.write
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", lambda fd, data: write(fd, bytes(data)[: len(data) // 2]))
        with pytest.raises(OSError, match="No space"):
            spool.append(unsaved("ada", "t2"))
    put(spool, unsaved("ada", "t3"))
    spool.close()
    assert ids(new_spool(root).adopt(100)) == ["t1", "t3"]


def test_each_turn_is_synced_with_its_file_and_its_name_before_it_is_promised(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[str] = []
    fsync, fdatasync = os.fsync, os.fdatasync

    def record(fd: int, sync: object) -> None:
        synced.append(str(Path(f"/proc/self/fd/{fd}").readlink()))
        assert callable(sync)
        sync(fd)

    monkeypatch.setattr(os, "fsync", lambda fd: record(fd, fsync))
    monkeypatch.setattr(os, "fdatasync", lambda fd: record(fd, fdatasync))
    spool = new_spool(root)
    folder = str(root / turn_spool.SPOOL_FOLDER)
    put(spool, unsaved("ada", "t1"))
    [segment] = map(str, segments(root))
    assert synced[-2:] == [segment, folder]
    assert str(root) in synced
    synced.clear()
    put(spool, unsaved("ada", "t2"))
    assert synced == [segment]


@given(cut=st.integers(min_value=0))
@settings(max_examples=60)
def test_a_kill_at_any_byte_loses_no_turn_that_was_promised(cut: int) -> None:
    with tempfile.TemporaryDirectory(dir=MEMORY) as folder:
        root = Path(folder)
        first = new_spool(root)
        promised_at, turns = [], []
        for number in range(4):
            turns.append(put(first, unsaved("ada", f"t{number}")))
            [path] = segments(root)
            promised_at.append(path.stat().st_size)
        done(first, turns[0], turns[2])
        done_at = path.stat().st_size
        first.close()
        size = cut % (done_at + 1)
        os.truncate(path, size)

        promised = [f"t{number}" for number, end in enumerate(promised_at) if end <= size]
        expected = promised if size < done_at else ["t1", "t3"]
        second = new_spool(root)
        found = second.adopt(100)
        assert ids(found) == expected
        done(second, *found[:1])
        second.close()
        assert ids(new_spool(root).adopt(100)) == expected[1:]


@settings(max_examples=60)
@given(content=st.binary(max_size=400) | st.lists(st.sampled_from(
    [b'{"n": 1}', b'{"done": [1]}', b'{"done": 3}', b"[1]", b"null", b'{"n": "x"}', b"\xff", b"", b'{"n": 1e999}']
)).map(b"\n".join))  # fmt: skip
def test_no_content_of_a_file_raises(content: bytes) -> None:
    parsed = SegmentContent.parse(content)
    assert 0 <= parsed.end <= len(content)
    with tempfile.TemporaryDirectory(dir=MEMORY) as folder:
        root = Path(folder)
        spool = new_spool(root)
        put(spool, unsaved("ada", "t1"))
        [path] = segments(root)
        spool.close()
        path.write_bytes(path.read_bytes() + content)
        later = new_spool(root)
        found = later.adopt(100)
        assert set(ids(found)) <= {"t1"}
        done(later, *found)
        assert segments(root) == []


def test_only_names_of_segments_are_read() -> None:
    name = SegmentName("p" * 32, "local", "u" * 32, "0" * 32, 3)
    assert SegmentName.parse(str(name)) == name
    for other in ("", "x.jsonl", "a.b.c.d.e.jsonl", "a.b.c.d.1.json", "a.b.c.d.\u0663.jsonl", "1.lock"):
        assert SegmentName.parse(other) is None


_KILLED = """
import sys, json, os
sys.path[:0] = json.loads(sys.argv[2])
from voice_sync.test_turn_spool import new_spool, put, unsaved
from pathlib import Path
spool = new_spool(Path(sys.argv[1]))
number = 0
while True:
    put(spool, unsaved("ada", f"t{number}"))
    os.write(1, b"%d\\n" % number)
    number += 1
"""


def test_what_a_killed_process_has_promised_is_there(root: Path) -> None:
    command = [sys.executable, "-c", _KILLED, str(root), json.dumps(sys.path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        promised = [int(process.stdout.readline()) for _ in range(20)]
        assert new_spool(root).adopt(100) == [], "the process lives"
        process.kill()
        promised += [int(line) for line in process.stdout.read().split(b"\n")[:-1]]
    found = ids(new_spool(root).adopt(10_000))
    assert found[: len(promised)] == [f"t{number}" for number in promised]
    assert len(found) <= len(promised) + 1


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_the_child_of_a_fork_leaves_the_turns_to_its_parent(root: Path) -> None:
    spool = new_spool(root)
    turn = put(spool, unsaved("ada", "t1"))
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        with suppress(BaseException):
            spool.reset_after_fork()
            put(spool, unsaved("bob", "t2"))
            os.write(writer, b"%d" % len(spool.adopt(100)))
        os._exit(0)
    os.waitpid(child, 0)
    assert os.read(reader, 10) == b"0"
    os.close(reader)
    os.close(writer)
    assert ids(new_spool(root).adopt(100)) == ["t2"], "the child has ended, and its parent has not"
    done(spool, turn)
    assert [path for path in segments(root) if b"t1" in path.read_bytes()] == []


def test_locks_that_belong_to_no_file_are_removed_after_a_while(root: Path) -> None:
    spool = new_spool(root)
    put(spool, unsaved("ada", "t1"))
    folder = root / turn_spool.SPOOL_FOLDER
    old, new = folder / f"{'a' * 32}.lock", folder / f"{'b' * 32}.lock"
    for path in (old, new):
        path.touch()
    os.utime(old, (time.time() - 3_600,) * 2)
    new_spool(root).adopt(100)
    assert (old.exists(), new.exists(), len(segments(root))) == (False, True, 1)


def test_threads_that_promise_and_save_at_once_leave_nothing_behind(root: Path) -> None:
    spool = new_spool(root)
    errors: list[BaseException] = []

    def work(user_id: str) -> None:
        try:
            for number in range(30):
                done(spool, put(spool, unsaved(user_id, f"t{number}")))
        except BaseException as error:  # noqa: BLE001 - the test checks it
            errors.append(error)

    threads = [threading.Thread(target=work, args=(f"caller-{number % 2}",)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (errors, files(root), count_turns(root).turns) == ([], [], 0)


class SpoolMachine(RuleBasedStateMachine):
    """Clients promise, save, die and take over: each turn waits until it is saved, with one client at most."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory(dir=MEMORY)
        self.root = Path(self.folder.name)
        self.clients = [new_spool(self.root) for _ in range(3)]
        self.held: list[list[UnsavedTurn]] = [[], [], []]
        self.waiting: dict[str, list[str]] = {"ada": [], "bob": []}
        self.numbers = iter(range(1_000_000))

    @rule(client=st.integers(0, 2), user=st.sampled_from(["ada", "bob"]))
    def promise(self, client: int, user: str) -> None:
        turn = put(self.clients[client], unsaved(user, f"t{next(self.numbers)}"))
        self.held[client].append(turn)
        self.waiting[user].append(turn.turn.turn_id)

    @rule(client=st.integers(0, 2), position=st.integers(0, 5))
    def save(self, client: int, position: int) -> None:
        if self.held[client]:
            turn = self.held[client].pop(position % len(self.held[client]))
            done(self.clients[client], turn)
            with suppress(ValueError):  # erased
                self.waiting[turn.user.id].remove(turn.turn.turn_id)

    @rule(client=st.integers(0, 2))
    def die(self, client: int) -> None:
        self.clients[client].close()
        self.clients[client], self.held[client] = new_spool(self.root), []

    @rule(client=st.integers(0, 2))
    def adopt(self, client: int) -> None:
        found = self.clients[client].adopt(10_000)
        for user in self.waiting:
            turns = [turn.turn.turn_id for turn in found if turn.user.id == user]
            by_owner: dict[object, list[int]] = {}
            for turn in found:
                if turn.user.id == user and turn.entry is not None:
                    by_owner.setdefault(turn.entry.segment.name.owner, []).append(int(turn.turn.turn_id[1:]))  # type: ignore[attr-defined]
            assert all(numbers == sorted(numbers) for numbers in by_owner.values())
            assert set(turns) <= set(self.waiting[user])
        self.held[client] += found
        everywhere = [
            turn.turn.turn_id for held in self.held for turn in held if turn.turn.turn_id in self.all_waiting()
        ]
        assert len(everywhere) == len(set(everywhere)), "two clients look after one turn"
        assert set(everywhere) == self.all_waiting(), "nobody looks after a turn"

    @precondition(lambda self: self.waiting["ada"])
    @rule(client=st.integers(0, 2))
    def erase(self, client: int) -> None:
        assert self.clients[client].erase("ada")
        self.waiting["ada"] = []

    def all_waiting(self) -> set[str]:
        return {turn_id for turn_ids in self.waiting.values() for turn_id in turn_ids}

    @invariant()
    def what_waits_is_on_the_disk(self) -> None:
        assert count_turns(self.root, PROJECT).turns == len(self.all_waiting())

    def teardown(self) -> None:
        last = new_spool(self.root)
        for client in self.clients:
            client.close()
        found = last.adopt(10_000)
        assert set(ids(found)) == self.all_waiting()
        done(last, *found)
        assert segments(self.root) == []
        self.folder.cleanup()


SpoolMachine.TestCase.settings = settings(max_examples=50, stateful_step_count=25, deadline=None)
TestSpool = SpoolMachine.TestCase
