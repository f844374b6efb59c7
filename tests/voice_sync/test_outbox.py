"""The outbox without runtimes: fair, in batches, full is an error, and it survives moments without threads."""

import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.waiting import eventually
from voice_sync.test_turn_spool import MEMORY, PROJECT, files, unsaved

from memoair_protocol.turn_spool import count_turns
from memoair_voice_sync import MemoAirVoiceMemoryError
from memoair_voice_sync._turns import outbox as outbox_module
from memoair_voice_sync._turns.outbox import TurnOutbox
from memoair_voice_sync._turns.spool import TurnSpool
from memoair_voice_sync._turns.unsaved_turn import UnsavedTurn

Save = Callable[[Sequence[UnsavedTurn]], object]
BUSY, INVALID = "runtime.timeout", "runtime.bad_request"


class Log:
    """Saves turns as runtimes do: a turn id counts once for its user. Callers can be blocked."""

    def __init__(self) -> None:
        self.saved: dict[str, list[str]] = defaultdict(list)
        self.batches: list[int] = []
        self.blocked: dict[str, threading.Event] = {}
        self.invalid: set[str] = set()
        self.attempts: dict[str, int] = defaultdict(int)

    def save(self, turns: Sequence[UnsavedTurn]) -> None:
        user_id = turns[0].user.id
        assert {(turn.user.id, turn.session_id) for turn in turns} == {(user_id, turns[0].session_id)}
        self.attempts[user_id] += 1
        released = self.blocked.get(user_id)
        if released is not None and not released.wait(0.1):
            raise MemoAirVoiceMemoryError(BUSY, "blocked")
        if self.invalid & {turn.turn.turn_id for turn in turns}:
            raise MemoAirVoiceMemoryError(INVALID, "invalid")
        self.batches.append(len(turns))
        known = self.saved[user_id]
        known += [turn.turn.turn_id for turn in turns if turn.turn.turn_id not in known]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "storage"


@pytest.fixture
def new_outbox(root: Path) -> Iterator[Callable[[Save], TurnOutbox]]:
    """Return a function that makes outboxes over one storage root; they are closed after the test."""
    made: list[TurnOutbox] = []

    def make(save: Save, max_threads: int = 4) -> TurnOutbox:
        spool = TurnSpool(root, PROJECT, None)
        made.append(TurnOutbox(save, lambda error: error.code == INVALID, spool=spool, max_threads=max_threads))
        return made[-1]

    yield make
    for outbox in made:
        outbox.close(0)
    eventually(lambda: not [thread for thread in threading.enumerate() if thread.name.startswith("memoair-")])


def test_a_free_caller_does_not_wait_for_blocked_ones(new_outbox: Callable[[Save], TurnOutbox]) -> None:
    log = Log()
    blocked = [f"blocked-{number}" for number in range(12)]
    log.blocked = {user_id: threading.Event() for user_id in blocked}
    outbox = new_outbox(log.save)
    for user_id in blocked:
        outbox.put(unsaved(user_id, "t1"))
    eventually(lambda: all(log.attempts[user_id] >= 2 for user_id in blocked), 60.0)
    in_progress: list[str] = []

    def save(turns: Sequence[UnsavedTurn]) -> None:
        in_progress.append(turns[0].user.id)
        log.save(turns)

    outbox._save = save
    for number in range(20):
        in_progress.clear()
        outbox.put(unsaved("free", f"t{number}"))
        eventually(lambda: "free" in in_progress, 60.0)
        assert len(in_progress) <= 8, "at most some attempts that were due come before it"
    eventually(lambda: len(log.saved["free"]) == 20)
    for released in log.blocked.values():
        released.set()
    eventually(lambda: not outbox, 60.0)
    assert all(log.saved[user_id] == ["t1"] for user_id in blocked)


def test_many_turns_of_a_caller_are_saved_with_few_requests(
    new_outbox: Callable[[Save], TurnOutbox], root: Path
) -> None:
    log = Log()
    log.blocked["ada"] = threading.Event()
    outbox = new_outbox(log.save)
    for number in range(250):
        outbox.put(unsaved("ada", f"t{number}", "call-1" if number < 150 else "call-2"))
    assert count_turns(root).turns == len(outbox) == outbox.count_spooled() == 250
    log.blocked["ada"].set()
    eventually(lambda: not outbox, 60.0)

    assert log.saved["ada"] == [f"t{number}" for number in range(250)]
    assert len(log.batches) <= 6, "the first attempt may have begun with the first turns only"
    assert max(log.batches) == 100
    eventually(lambda: files(root) == [])


def test_a_turn_that_can_never_be_saved_is_found_among_others_and_reported(
    new_outbox: Callable[[Save], TurnOutbox], caplog: pytest.LogCaptureFixture
) -> None:
    log = Log()
    log.blocked["ada"] = threading.Event()
    log.invalid = {"t3", "t7"}
    outbox = new_outbox(log.save)
    for number in range(10):
        outbox.put(unsaved("ada", f"t{number}"))
    log.blocked["ada"].set()
    eventually(lambda: not outbox, 60.0)
    assert log.saved["ada"] == ["t0", "t1", "t2", "t4", "t5", "t6", "t8", "t9"]
    assert outbox.lost == 2
    assert caplog.text.count("action=turn_lost") == 2


def test_a_full_outbox_raises_and_keeps_nothing_of_the_turn(
    new_outbox: Callable[[Save], TurnOutbox], root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox_module, "_MAX_PENDING_TURNS", 6)
    monkeypatch.setattr(outbox_module, "_MAX_PENDING_TURNS_OF_USER", 4)
    log = Log()
    log.blocked = {"ada": threading.Event(), "bob": threading.Event()}
    outbox = new_outbox(log.save)
    for number in range(4):
        outbox.put(unsaved("ada", f"t{number}"))
    with pytest.raises(MemoAirVoiceMemoryError) as full:
        outbox.put(unsaved("ada", "t4"))
    assert full.value.code == "pool.outbox_full"
    for number in range(2):
        outbox.put(unsaved("bob", f"t{number}"))  # one caller does not take all the room
    with pytest.raises(MemoAirVoiceMemoryError, match="outbox_full"):
        outbox.put(unsaved("bob", "t2"))
    assert (len(outbox), count_turns(root).turns, outbox.lost) == (6, 6, 0)
    for released in log.blocked.values():
        released.set()
    eventually(lambda: not outbox, 60.0)
    outbox.put(unsaved("ada", "t4"))
    eventually(lambda: log.saved["ada"] == ["t0", "t1", "t2", "t3", "t4"])


def test_without_a_disk_a_turn_is_refused_and_not_kept(new_outbox: Callable[[Save], TurnOutbox], root: Path) -> None:
    root.write_text("a file where a folder should be")
    outbox = new_outbox(Log().save)
    with pytest.raises(MemoAirVoiceMemoryError) as refused:
        outbox.put(unsaved("ada", "t1"))
    assert (refused.value.code, len(outbox)) == ("runtime.storage_unavailable", 0)


def test_another_outbox_saves_what_a_closed_one_has_left(new_outbox: Callable[[Save], TurnOutbox], root: Path) -> None:
    log = Log()
    log.blocked["ada"] = threading.Event()
    first, second = new_outbox(log.save), new_outbox(log.save)
    for number in range(3):
        first.put(unsaved("ada", f"t{number}"))
    second.tend_once()
    assert len(second) == 0, "the first client lives"
    first.close(0)
    assert first.count_spooled() == 3
    second.tend()  # begins at once
    eventually(lambda: len(second) == 3, 60.0)
    log.blocked["ada"].set()
    eventually(lambda: not second, 60.0)
    assert log.saved["ada"] == ["t0", "t1", "t2"]
    eventually(lambda: files(root) == [])


def test_what_is_erased_does_not_come_back_from_a_dead_client(
    new_outbox: Callable[[Save], TurnOutbox], root: Path
) -> None:
    log = Log()
    log.blocked = {"ada": threading.Event(), "bob": threading.Event()}
    dead, outbox = new_outbox(log.save), new_outbox(log.save)
    dead.put(unsaved("ada", "t1"))
    dead.put(unsaved("bob", "t1"))
    dead.close(0)
    outbox.put(unsaved("ada", "t2"))
    user = unsaved("ada", "t0").user
    assert outbox.discard(user)
    assert not outbox.discard(user)
    assert not [path for path in files(root) if b'"ada"' in path.read_bytes()]
    outbox.tend_once()
    for released in log.blocked.values():
        released.set()
    eventually(lambda: not outbox and files(root) == [], 60.0)
    assert log.saved["bob"] == ["t1"]
    assert "t1" not in log.saved["ada"]


def test_after_a_moment_without_threads_everything_is_saved(
    new_outbox: Callable[[Save], TurnOutbox], monkeypatch: pytest.MonkeyPatch
) -> None:
    log = Log()
    outbox = new_outbox(log.save)

    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        outbox.tend()
        for number in range(5):
            outbox.put(unsaved("ada", f"t{number}"))
    assert len(outbox) == 5

    def is_saved() -> bool:
        outbox.tend()  # as each call of the client does
        return log.saved["ada"] == ["t0", "t1", "t2", "t3", "t4"]

    eventually(is_saved, 60.0)
    eventually(lambda: not [each for each in threading.enumerate() if each.name.startswith("memoair-")], 60.0)


def test_without_threads_close_saves_in_its_own(
    new_outbox: Callable[[Save], TurnOutbox], monkeypatch: pytest.MonkeyPatch
) -> None:
    log = Log()
    outbox = new_outbox(log.save)

    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    for number in range(5):
        outbox.put(unsaved("ada", f"t{number}"))
    outbox.close(60.0)
    assert log.saved["ada"] == ["t0", "t1", "t2", "t3", "t4"]


@pytest.mark.parametrize(
    "error", [OSError(24, "Too many open files"), RuntimeError("can't start new thread"), MemoryError()]
)
def test_a_moment_without_resources_loses_no_turn(new_outbox: Callable[[Save], TurnOutbox], error: Exception) -> None:
    log = Log()
    errors = [error, error]

    def save(turns: Sequence[UnsavedTurn]) -> None:
        if errors:
            raise errors.pop()
        log.save(turns)

    outbox = new_outbox(save)
    outbox.put(unsaved("ada", "t1"))
    eventually(lambda: log.saved["ada"] == ["t1"], 60.0)
    assert outbox.lost == 0


def test_a_caller_who_speaks_without_a_pause_catches_up(new_outbox: Callable[[Save], TurnOutbox]) -> None:
    log = Log()
    log.blocked["ada"] = threading.Event()
    outbox = new_outbox(log.save)
    user = unsaved("ada", "t0").user
    outbox.put(unsaved("ada", "t0"))
    eventually(lambda: log.attempts["ada"] >= 2, 60.0)
    began_at = time.monotonic()
    assert not outbox.catch_up(user), "it is blocked"
    assert time.monotonic() - began_at < 30.0
    log.blocked["ada"].set()
    eventually(lambda: outbox.catch_up(user), 60.0)
    assert not outbox.has_pending(user)


@given(
    steps=st.lists(
        st.tuples(st.sampled_from(["ada", "bob"]), st.sampled_from(["call-1", "call-2"]), st.booleans()), max_size=30
    ),
    failures=st.lists(st.integers(0, 5), max_size=10),
)
@settings(max_examples=25)
def test_each_turn_is_saved_once_and_in_order_or_reported(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, str, bool]], failures: list[int]
) -> None:
    root = Path(MEMORY or tmp_path_factory.mktemp("memory")) / f"memoair-test-{time.monotonic_ns()}"
    log, pending_failures = Log(), list(failures)

    def save(turns: Sequence[UnsavedTurn]) -> None:
        if pending_failures and pending_failures.pop() == 0:
            raise MemoAirVoiceMemoryError(BUSY, "fails now")
        log.save(turns)

    expected: dict[str, list[str]] = defaultdict(list)
    outbox = TurnOutbox(save, lambda error: error.code == INVALID, spool=TurnSpool(root, PROJECT, None))
    for number, (user_id, session_id, is_invalid) in enumerate(steps):
        turn = unsaved(user_id, f"t{number}", session_id)
        if is_invalid:
            log.invalid.add(f"t{number}")
        else:
            expected[user_id].append(f"t{number}")
        outbox.put(turn)
    outbox.close(60.0)
    assert log.saved == expected
    assert outbox.lost == len(log.invalid)
    assert files(root) == []
    root.rmdir() if root.exists() else None
