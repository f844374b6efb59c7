"""The session log over real files and processes: no acknowledged event is lost, no torn line is read."""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import IO, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from support.waiting import eventually

from memoair_protocol.enums import EventType
from memoair_runtime.errors import SessionNotFoundError, StorageUnavailableError
from memoair_runtime.memory.session import LoggedSession, SessionStart, SessionState
from memoair_runtime.storage.events import Event, encode_line
from memoair_runtime.storage.user_folder import SessionFolder, UserFolder

PROJECT, USER, SESSION = "proj_test", "caller_42", "call-1"
NOW = datetime(2026, 3, 3, 12, 0, tzinfo=timezone.utc)
DANA = SessionStart({"id": USER, "name": "Dana"}, {"channel": "phone"})
ROBIN = SessionStart({"id": USER, "name": "Robin"}, {})
START, TURN, END = EventType.SESSION_START, EventType.TURN, EventType.SESSION_END


class SimulatedProcess:
    """A session as one process sees it: its own `LoggedSession`, and every event that came through it."""

    def __init__(self, root: Path, session_id: str = SESSION) -> None:
        self.events: list[Event] = []
        self.session = LoggedSession(session_id, UserFolder(root, PROJECT, USER), self.events.append)
        self.session.load()

    def save(self, turn_id: str, text: str = "the red boots, size nine") -> str:
        return self.session.save_turn(make_payload(turn_id, text), NOW, NOW)


def make_payload(turn_id: str, text: str = "the red boots, size nine") -> dict[str, Any]:
    return {"turnId": turn_id, "userText": text, "assistantText": "certainly", "toolCalls": [], "metadata": {"n": 1.5}}


def session_folder(root: Path, session_id: str = SESSION) -> SessionFolder:
    return UserFolder(root, PROJECT, USER).session(session_id)


def list_turn_ids(events: list[Event]) -> list[str]:
    return [event.payload["turnId"] for event in events if event.type is TURN]


def summarize(events: list[Event]) -> list[tuple[EventType, str]]:
    """Return the kind of each event, and its name, turn id or reason."""
    return [(event.type, _key(event)) for event in events]


def _key(event: Event) -> str:
    if event.type is START:
        return str(event.payload["user"].get("name"))
    return str(event.payload["turnId" if event.type is TURN else "reason"])


@pytest.fixture
def process(tmp_path: Path) -> SimulatedProcess:
    return SimulatedProcess(tmp_path)


# What is written can be read


def test_the_next_process_reads_everything_that_was_logged(process: SimulatedProcess, tmp_path: Path) -> None:
    process.session.start(DANA, NOW)
    saved = [process.save("t1"), process.save("t2")]
    process.session.end("completed", NOW + timedelta(seconds=1))

    after = SimulatedProcess(tmp_path)
    assert after.events == process.events
    assert summarize(after.events) == [(START, "Dana"), (TURN, "t1"), (TURN, "t2"), (END, "completed")]
    assert [event.seq for event in after.events] == [1, 2, 3, 4]
    assert [event.event_id for event in after.events if event.type is TURN] == saved
    assert after.events[1].payload == make_payload("t1")
    assert {event.session_id for event in after.events} == {SESSION}
    assert after.session.state is SessionState.ENDED


@given(st.text(min_size=1), st.text())
@settings(deadline=None, max_examples=40)
def test_any_text_is_one_line(turn_id: str, text: str) -> None:
    with tempfile.TemporaryDirectory() as root:
        first = SimulatedProcess(Path(root))
        first.save(turn_id, text)
        first.save("another\n" + turn_id, "words")

        assert session_folder(Path(root)).log.read_bytes().count(b"\n") == 3
        after = SimulatedProcess(Path(root))
        assert [event.payload for event in after.events[1:]] == [
            make_payload(turn_id, text),
            make_payload("another\n" + turn_id, "words"),
        ]


def test_each_event_is_on_the_disk_when_the_call_returns(process: SimulatedProcess, tmp_path: Path) -> None:
    for number in range(3):
        event_id = process.save(f"t{number}")
        last = json.loads(session_folder(tmp_path).log.read_bytes().splitlines()[-1])
        assert last["eventId"] == event_id


def test_a_start_without_changes_is_not_logged(process: SimulatedProcess) -> None:
    process.session.start(DANA, NOW)
    process.session.start(SessionStart(dict(DANA.user), dict(DANA.metadata)), NOW)
    process.session.start(ROBIN, NOW)
    assert summarize(process.events) == [(START, "Dana"), (START, "Robin")]


def test_the_start_of_a_session_is_not_later_than_its_first_turn(process: SimulatedProcess) -> None:
    long_ago = NOW - timedelta(days=400)
    process.session.save_turn(make_payload("t1"), long_ago, NOW)
    assert [event.occurred_at for event in process.events] == [long_ago, long_ago]


def test_times_are_stored_in_utc(process: SimulatedProcess, tmp_path: Path) -> None:
    there = timezone(timedelta(hours=5, minutes=45))
    process.session.save_turn(make_payload("t1"), NOW.astimezone(there), NOW)
    assert (
        json.loads(session_folder(tmp_path).log.read_bytes().splitlines()[-1])["occurredAt"] == "2026-03-03T12:00:00Z"
    )


def test_a_session_that_has_ended_rejects_turns_until_it_is_started_again(process: SimulatedProcess) -> None:
    process.session.start(DANA, NOW)
    process.session.end("completed", NOW)
    process.session.end("once more", NOW)
    with pytest.raises(SessionNotFoundError):
        process.save("t1")

    process.session.start(DANA, NOW)
    process.save("t1")
    assert summarize(process.events) == [(START, "Dana"), (END, "completed"), (START, "Dana"), (TURN, "t1")]


def test_ending_an_unknown_session_writes_nothing(process: SimulatedProcess, tmp_path: Path) -> None:
    process.session.end("completed", NOW)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o027, 0o077])
def test_folders_are_0700_and_files_0600_whatever_the_umask(umask: int, tmp_path: Path) -> None:
    root = tmp_path / "made" / "by us"
    before = os.umask(umask)
    try:
        process = SimulatedProcess(root, session_id="x" * 300)
        process.save("t1")
    finally:
        os.umask(before)

    made = [path for path in (tmp_path / "made", *tmp_path.rglob("made/**/*")) if path.exists()]
    assert {f"{path.stat().st_mode & 0o777:o}" for path in made if path.is_dir()} == {"700"}
    assert {f"{path.stat().st_mode & 0o777:o}" for path in made if path.is_file()} == {"600"}
    assert {path.name for path in made if path.is_file()} >= {"session.jsonl", "id.txt"}


# A turn id counts once


def test_a_known_turn_id_writes_nothing_and_returns_the_first_event_id(
    process: SimulatedProcess, tmp_path: Path
) -> None:
    first = process.save("t1")
    content = session_folder(tmp_path).log.read_bytes()

    assert process.save("t1") == first
    assert SimulatedProcess(tmp_path).save("t1") == first
    assert session_folder(tmp_path).log.read_bytes() == content


def test_two_alternating_processes_log_each_turn_once_and_in_order(tmp_path: Path) -> None:
    processes = [SimulatedProcess(tmp_path), SimulatedProcess(tmp_path)]
    first_ids = {}
    for number in range(10):
        first_ids[f"t{number}"] = processes[number % 2].save(f"t{number}")
        assert processes[(number + 1) % 2].save(f"t{number}") == first_ids[f"t{number}"]

    reader = SimulatedProcess(tmp_path)
    assert list_turn_ids(reader.events) == [f"t{number}" for number in range(10)]
    assert [event.seq for event in reader.events] == list(range(1, 12))
    assert {event.payload["turnId"]: event.event_id for event in reader.events[1:]} == first_ids
    for process in processes:
        process.session.load(reload=True)
        assert process.events == reader.events


def test_the_end_by_another_process_is_respected(tmp_path: Path) -> None:
    one, other = SimulatedProcess(tmp_path), SimulatedProcess(tmp_path)
    one.save("t1")
    other.save("t2")
    one.session.end("completed", NOW)
    with pytest.raises(SessionNotFoundError):
        other.save("t3")


def test_an_end_is_logged_if_only_another_process_has_written(tmp_path: Path) -> None:
    one, other = SimulatedProcess(tmp_path), SimulatedProcess(tmp_path)
    one.save("t1")
    other.session.end("completed", NOW)
    assert SimulatedProcess(tmp_path).session.state is SessionState.ENDED


# Torn and damaged lines


def test_a_line_torn_at_any_byte_is_never_read_and_is_cut_off_by_the_next_write(tmp_path: Path) -> None:
    before = SimulatedProcess(tmp_path)
    before.session.start(DANA, NOW)
    before.save("t1", "größer 👢")
    log = session_folder(tmp_path).log
    kept = log.read_bytes()
    torn_id = before.save("torn", "größer 👢")
    torn = log.read_bytes()[len(kept) :]

    for length in range(len(torn)):
        log.write_bytes(kept + torn[:length])
        after = SimulatedProcess(tmp_path)
        assert list_turn_ids(after.events) == ["t1"], length
        assert after.save("t2") != torn_id
        content = log.read_bytes()
        assert content.startswith(kept), length
        assert content.count(b"\n") == 3, length
        assert list_turn_ids(SimulatedProcess(tmp_path).events) == ["t1", "t2"], length


def test_a_turn_whose_line_was_torn_can_be_saved_again(process: SimulatedProcess, tmp_path: Path) -> None:
    process.save("t1")
    process.save("t2")
    log = session_folder(tmp_path).log
    log.write_bytes(log.read_bytes()[:-7])

    after = SimulatedProcess(tmp_path)
    event_id = after.save("t2", "said again")
    reader = SimulatedProcess(tmp_path)
    assert list_turn_ids(reader.events) == ["t1", "t2"]
    assert reader.events[-1].event_id == event_id
    assert reader.events[-1].payload["userText"] == "said again"


def test_a_log_of_one_torn_line_becomes_a_new_one(tmp_path: Path) -> None:
    SimulatedProcess(tmp_path).save("t1")
    log = session_folder(tmp_path).log
    log.write_bytes(b'{"eventId":')

    after = SimulatedProcess(tmp_path)
    assert after.session.state is SessionState.NEW
    after.save("t2")
    assert summarize(SimulatedProcess(tmp_path).events) == [(START, "None"), (TURN, "t2")]


def test_a_line_torn_while_the_log_is_in_use_is_cut_off(process: SimulatedProcess, tmp_path: Path) -> None:
    process.save("t1")
    with session_folder(tmp_path).log.open("ab") as log:
        log.write(b'{"eventId":"torn')
    process.save("t2")
    assert list_turn_ids(SimulatedProcess(tmp_path).events) == ["t1", "t2"]
    assert list_turn_ids(process.events) == ["t1", "t2"]


DAMAGED = [
    b"",
    b"{",
    b"}",
    b"null",
    b"[]",
    b"{}",
    b'"text"',
    b"\xff\xfe\x00",
    b"\x00" * 4096,
    b"[" * 100_000,
    b'{"eventId":"e","type":"turn","sessionId":"call-1","seq":"two","occurredAt":"2026-03-03T12:00:00Z","payload":{}}',
    b'{"eventId":"e","type":"dance","sessionId":"call-1","seq":2,"occurredAt":"2026-03-03T12:00:00Z","payload":{}}',
    b'{"eventId":"e","type":"turn","sessionId":"call-1","seq":2,"occurredAt":"yesterday","payload":{}}',
    b'{"eventId":"e","type":"turn","sessionId":"call-1","seq":2,"occurredAt":"2026-03-03T12:00:00Z","payload":[]}',
]


@pytest.mark.parametrize("damaged", DAMAGED)
def test_a_damaged_line_does_not_affect_others(damaged: bytes, process: SimulatedProcess, tmp_path: Path) -> None:
    first, second = process.save("t1"), process.save("t2")
    log = session_folder(tmp_path).log
    start, *turns = log.read_bytes().splitlines(keepends=True)
    log.write_bytes(b"".join([damaged + b"\n", start, turns[0], damaged + b"\n", damaged + b"\n", turns[1]]))

    after = SimulatedProcess(tmp_path)
    assert list_turn_ids(after.events) == ["t1", "t2"]
    assert [after.save("t1"), after.save("t2")] == [first, second]
    after.save("t3")
    reader = SimulatedProcess(tmp_path)
    assert list_turn_ids(reader.events) == ["t1", "t2", "t3"]
    assert reader.events[-1].seq == 4


def test_a_session_with_a_damaged_start_is_open_and_has_its_turns(process: SimulatedProcess, tmp_path: Path) -> None:
    process.save("t1")
    log = session_folder(tmp_path).log
    log.write_bytes(b"#" + log.read_bytes())
    after = SimulatedProcess(tmp_path)
    assert after.session.state is SessionState.OPEN
    assert list_turn_ids(after.events) == ["t1"]


@given(st.data())
@settings(deadline=None, max_examples=60)
def test_a_flipped_byte_loses_at_most_two_lines(data: st.DataObject) -> None:
    with tempfile.TemporaryDirectory() as root:
        before = SimulatedProcess(Path(root))
        for number in range(4):
            before.save(f"t{number}")
        log = session_folder(Path(root)).log
        content = bytearray(log.read_bytes())
        # The last line feed is not changed: without it the last line is torn, which is another test.
        content[data.draw(st.integers(0, len(content) - 2))] ^= data.draw(st.integers(1, 255))
        log.write_bytes(content)

        after = SimulatedProcess(Path(root))
        untouched = [event for event in after.events if event in before.events]
        assert len(untouched) >= 3
        after.save("t9")
        assert [event for event in SimulatedProcess(Path(root)).events if event in before.events] == untouched


def test_an_incomplete_line_is_read_once_it_is_complete(process: SimulatedProcess, tmp_path: Path) -> None:
    process.save("t1")
    line = encode_line(Event("e2", TURN, SESSION, 3, NOW, make_payload("t2")))
    reader = SimulatedProcess(tmp_path)
    with session_folder(tmp_path).log.open("ab", buffering=0) as log:
        for byte in line[:-1]:
            log.write(bytes([byte]))
            reader.session.load(reload=True)
            assert list_turn_ids(reader.events) == ["t1"]
        log.write(line[-1:])
    reader.session.load(reload=True)
    reader.session.load(reload=True)
    assert list_turn_ids(reader.events) == ["t1", "t2"]


# Concurrent processes

# Prints "ready", waits for a line, saves the turns named in its arguments, and prints each one's event id.
WRITER = """
import sys
from datetime import datetime, timezone
from pathlib import Path
from memoair_runtime.memory.session import LoggedSession
from memoair_runtime.storage import session_log
from memoair_runtime.storage.user_folder import UserFolder

session_log.LOCK_TIMEOUT_S = 60  # on a busy machine another writer may have the log for long
root, project, user, session_id, words, *turn_ids = sys.argv[1:]
session = LoggedSession(session_id, UserFolder(Path(root), project, user), lambda event: None)
now = datetime.now(timezone.utc)
print("ready", flush=True)
sys.stdin.readline()
for turn_id in turn_ids:
    payload = {"turnId": turn_id, "userText": "boots " * int(words), "assistantText": ""}
    print(turn_id, session.save_turn(payload, now, now), flush=True)
"""

# Holds the lock of a log until it reads a line, or is killed.
HOLDER = """
import sys
import filelock

with filelock.FileLock(sys.argv[1]):
    print("ready", flush=True)
    sys.stdin.readline()
"""


@contextmanager
def run_script(script: str, *arguments: str) -> Iterator["subprocess.Popen[str]"]:
    """Run a script until it is ready; end it with the block."""
    command = [sys.executable, "-c", script, *arguments]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        try:
            assert _stream(child.stdout).readline() == "ready\n"
            yield child
        finally:
            child.kill()


def _stream(stream: IO[str] | None) -> IO[str]:
    assert stream is not None
    return stream


def _resume(child: "subprocess.Popen[str]") -> None:
    _stream(child.stdin).write("go\n")
    _stream(child.stdin).flush()


def _parse_acknowledged(output: str) -> dict[str, str]:
    """Return the event id of each turn that a writer acknowledged; a line that a kill cut off does not count."""
    complete = output[: output.rfind("\n") + 1]
    return dict(line.split() for line in complete.splitlines())


def test_concurrent_processes_neither_lose_nor_duplicate_turns(tmp_path: Path) -> None:
    count = 60
    shared = [f"shared-{number}" for number in range(count)]
    plans = [[turn for i in range(count) for turn in (f"{name}-{i}", shared[i])] for name in ("one", "other")]
    SimulatedProcess(tmp_path).session.start(DANA, NOW)
    reader = SimulatedProcess(tmp_path)
    arguments = (str(tmp_path), PROJECT, USER, SESSION, "20")
    with run_script(WRITER, *arguments, *plans[0]) as one, run_script(WRITER, *arguments, *plans[1]) as other:
        _resume(one)
        _resume(other)

        def all_there() -> bool:
            reader.session.load(reload=True)
            assert [event.seq for event in reader.events] == list(range(1, len(reader.events) + 1))
            return len(reader.events) >= 1 + 3 * count

        eventually(all_there, within_s=60)
        acknowledged = [_parse_acknowledged(child.communicate(timeout=60)[0]) for child in (one, other)]
        assert [one.returncode, other.returncode] == [0, 0]

    assert reader.events == SimulatedProcess(tmp_path).events
    assert sorted(list_turn_ids(reader.events)) == sorted({*plans[0], *plans[1]})
    logged = {event.payload["turnId"]: event.event_id for event in reader.events if event.type is TURN}
    assert [list(event_ids) for event_ids in acknowledged] == plans
    for event_ids in acknowledged:
        assert event_ids.items() <= logged.items()


def test_a_concurrent_reader_sees_complete_lines_once_each(tmp_path: Path) -> None:
    words, turns = 40_000, [f"t{number}" for number in range(30)]  # lines that are longer than any buffer
    reader = SimulatedProcess(tmp_path)
    with run_script(WRITER, str(tmp_path), PROJECT, USER, SESSION, str(words), *turns) as writer:
        _resume(writer)

        def all_there() -> bool:
            reader.session.load(reload=True)
            return len(reader.events) == 1 + len(turns)

        eventually(all_there, within_s=60)
    assert list_turn_ids(reader.events) == turns
    assert {event.payload["userText"] for event in reader.events[1:]} == {"boots " * words}


@pytest.mark.parametrize("lines_before_the_kill", [1, 20, 77])
def test_a_killed_writer_loses_no_acknowledged_turn(lines_before_the_kill: int, tmp_path: Path) -> None:
    turns = [f"t{number}" for number in range(5_000)]
    with run_script(WRITER, str(tmp_path), PROJECT, USER, SESSION, "50", *turns) as writer:
        _resume(writer)
        lines = [_stream(writer.stdout).readline() for _ in range(lines_before_the_kill)]
        writer.kill()
        acknowledged = _parse_acknowledged("".join(lines) + _stream(writer.stdout).read())

    after = SimulatedProcess(tmp_path)
    logged = {event.payload["turnId"]: event.event_id for event in after.events if event.type is TURN}
    assert acknowledged.items() <= logged.items()
    assert list(logged) == turns[: len(logged)]
    assert len(logged) - len(acknowledged) <= 1
    after.save("afterwards")
    assert list_turn_ids(SimulatedProcess(tmp_path).events) == [*logged, "afterwards"]


def test_a_log_that_another_process_locks_is_refused_until_that_process_is_killed(
    process: SimulatedProcess, tmp_path: Path
) -> None:
    process.save("t1")
    with run_script(HOLDER, str(session_folder(tmp_path).lock)) as holder:
        with pytest.raises(StorageUnavailableError):
            process.save("t2")
        assert list_turn_ids(SimulatedProcess(tmp_path).events) == ["t1"]  # a reader needs no lock
        holder.kill()
        holder.wait()
        process.save("t3")
    assert list_turn_ids(SimulatedProcess(tmp_path).events) == ["t1", "t3"]


# Storage that fails, in ways that also affect root


@contextmanager
def _replace_path(path: Path, make: Callable[[Path], object]) -> Iterator[None]:
    """Put something else in the place of a file or folder, and restore it after the block."""
    aside = path.with_name(path.name + ".aside")
    if path.exists():
        path.rename(aside)
    path.parent.mkdir(parents=True, exist_ok=True)
    make(path)
    try:
        yield
    finally:
        path.rmdir() if path.is_dir() else path.unlink()
        if aside.exists():
            aside.rename(path)


BROKEN_STORAGE: dict[str, Callable[[Path], tuple[Path, Callable[[Path], object]]]] = {
    "a file in place of the storage root": lambda root: (root, Path.touch),
    "a file in place of the user's folder": lambda root: (UserFolder(root, PROJECT, USER).path, Path.touch),
    "a file in place of the session's folder": lambda root: (session_folder(root).path, Path.touch),
    "a folder in place of the log": lambda root: (session_folder(root).log, Path.mkdir),
    "a folder in place of the lock": lambda root: (session_folder(root).lock, Path.mkdir),
}


@pytest.fixture(params=list(BROKEN_STORAGE))
def broken_storage(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[], Any]:
    """A context manager in which storage fails."""
    return lambda: _replace_path(*BROKEN_STORAGE[request.param](tmp_path / "root"))


def test_nothing_is_acknowledged_while_storage_fails_from_the_start(
    broken_storage: Callable[[], Any], tmp_path: Path
) -> None:
    process = SimulatedProcess(tmp_path / "root")
    with broken_storage():
        with pytest.raises(StorageUnavailableError):
            process.session.start(DANA, NOW)
        with pytest.raises(StorageUnavailableError):
            process.save("t1")
        assert process.events == []

    process.save("t2")
    assert summarize(SimulatedProcess(tmp_path / "root").events) == [(START, "Dana"), (TURN, "t2")]


def test_nothing_is_acknowledged_while_storage_fails_during_a_session(
    broken_storage: Callable[[], Any], tmp_path: Path
) -> None:
    process = SimulatedProcess(tmp_path / "root")
    process.session.start(DANA, NOW)
    first = process.save("t1")
    with broken_storage():
        with pytest.raises(StorageUnavailableError) as refused:
            process.save("t2")
        with pytest.raises(StorageUnavailableError):
            process.session.end("completed", NOW)
        assert list_turn_ids(process.events) == ["t1"]
    message = json.dumps(refused.value.envelope())
    assert not any(name in message for name in (str(tmp_path), PROJECT, USER, SESSION))

    assert process.save("t1") == first
    process.save("t2")
    process.save("t3")
    assert list_turn_ids(process.events) == ["t1", "t2", "t3"]
    assert process.events == SimulatedProcess(tmp_path / "root").events


@pytest.mark.parametrize("what", ["a file in place of the user's folder", "a folder in place of the log"])
def test_an_unreadable_log_is_a_storage_error(what: str, tmp_path: Path) -> None:
    events: list[Event] = []
    session = LoggedSession(SESSION, UserFolder(tmp_path / "root", PROJECT, USER), events.append)
    with _replace_path(*BROKEN_STORAGE[what](tmp_path / "root")), pytest.raises(StorageUnavailableError):
        session.load()
    session.load()


def test_a_start_that_could_not_be_written_is_logged_with_the_first_turn_that_can_be(tmp_path: Path) -> None:
    process = SimulatedProcess(tmp_path)
    process.session.start(DANA, NOW)
    with _replace_path(session_folder(tmp_path).log, Path.mkdir), pytest.raises(StorageUnavailableError):
        process.session.start(ROBIN, NOW)
    process.save("t1")
    assert summarize(SimulatedProcess(tmp_path).events) == [(START, "Dana"), (START, "Robin"), (TURN, "t1")]


# For each given number, in a session of its own: saves a turn while the log may grow by that many bytes, first to an
# empty log and then after another turn; prints the outcome; then removes the limit and saves the turn again.
FULL_DISK = """
import resource, sys
from datetime import datetime, timezone
from pathlib import Path
from memoair_runtime.errors import StorageUnavailableError
from memoair_runtime.memory.session import LoggedSession
from memoair_runtime.storage.user_folder import UserFolder

root, project, user, *sizes = sys.argv[1:]
folder = UserFolder(Path(root), project, user)
now = datetime.now(timezone.utc)
_, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
print("ready", flush=True)
sys.stdin.readline()  # or the reader of that line may consume some of the next ones
for size in sizes:
    session = LoggedSession(size, folder, lambda event: None)
    log = folder.session(size).log
    for turn_id in ("first", "second"):
        payload = {"turnId": turn_id, "userText": "boots " * 20}
        before = log.read_bytes() if log.exists() else b""
        resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) + int(size), hard))
        try:
            session.save_turn(payload, now, now)
            print("kept")
        except StorageUnavailableError:
            print("rejected" if log.read_bytes() == before else "partially written")
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
        session.save_turn(payload, now, now)
"""


def test_a_full_disk_rejects_the_turn_completely_and_accepts_it_later(tmp_path: Path) -> None:
    # A turn needs about 300 bytes, and the start before the first turn nearly 200.
    sizes = ["0", "1", "100", "200", "250"]
    with run_script(FULL_DISK, str(tmp_path), PROJECT, USER, *sizes) as child:
        _resume(child)
        output, _ = child.communicate(timeout=60)
        assert child.returncode == 0
    assert output.splitlines() == ["rejected"] * 2 * len(sizes)
    for size in sizes:
        after = SimulatedProcess(tmp_path, session_id=size)
        assert [event.seq for event in after.events] == [1, 2, 3]
        assert list_turn_ids(after.events) == ["first", "second"]


# Any order of operations


class TwoProcessMachine(RuleBasedStateMachine):
    """Two processes start, write, end, crash and tear one log; a list says what it must hold."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.root = Path(self.folder.name)
        self.processes = [SimulatedProcess(self.root), SimulatedProcess(self.root)]
        self.expected: list[tuple[EventType, str]] = []
        self.event_ids: dict[tuple[str, str], str] = {}  # by turn id and words

    @property
    def state(self) -> EventType | None:
        """The event that determines the state: a session is open after a start or turn, and ended after an end."""
        return self.expected[-1][0] if self.expected else None

    @rule(which=st.integers(0, 1), info=st.sampled_from([DANA, ROBIN]))
    def start(self, which: int, info: SessionStart) -> None:
        self.processes[which].session.start(info, NOW)
        name = str(info.user["name"])
        logged_names = [key for type_, key in self.expected if type_ is START]
        if self.state in (None, END) or logged_names[-1] != name:
            self.expected.append((START, name))

    @rule(which=st.integers(0, 1), turn=st.sampled_from(["t1", "t2", "t3"]), text=st.sampled_from(["boots", "shoes"]))
    def save(self, which: int, turn: str, text: str) -> None:
        if self.state is END and (turn, text) not in self.event_ids:
            with pytest.raises(SessionNotFoundError):
                self.processes[which].save(turn, text)
            return
        event_id = self.processes[which].save(turn, text)
        if (turn, text) in self.event_ids:
            assert event_id == self.event_ids[turn, text]
            return
        assert event_id not in self.event_ids.values()
        self.event_ids[turn, text] = event_id
        self.expected += [(START, "None")] if self.state is None else []
        self.expected.append((TURN, turn))

    @rule(which=st.integers(0, 1))
    def end(self, which: int) -> None:
        self.processes[which].session.end("completed", NOW)
        if self.state in (START, TURN):
            self.expected.append((END, "completed"))

    @rule(which=st.integers(0, 1))
    def crash_and_reopen(self, which: int) -> None:
        self.processes[which] = SimulatedProcess(self.root)

    @rule(which=st.integers(0, 1))
    def reload(self, which: int) -> None:
        self.processes[which].session.load(reload=True)
        assert summarize(self.processes[which].events) == self.expected

    @rule(share=st.floats(0, 1, exclude_max=True))
    def tear(self, share: float) -> None:
        log = session_folder(self.root).log
        if log.exists():
            line = encode_line(Event("torn", TURN, SESSION, 99, NOW, make_payload("torn")))
            with log.open("ab") as file:
                file.write(line[: int(share * len(line))])

    @invariant()
    def a_new_process_reads_the_expected_events(self) -> None:
        after = SimulatedProcess(self.root)
        assert summarize(after.events) == self.expected
        assert [event.seq for event in after.events] == list(range(1, len(self.expected) + 1))
        latest: dict[str, str] = {}  # by turn id
        for event in after.events:
            if event.type is TURN:
                turn, text = event.payload["turnId"], event.payload["userText"]
                assert self.event_ids[turn, text] == event.event_id
                assert event.payload.get("corrects") == latest.get(turn), "each version corrects the one before it"
                latest[turn] = event.event_id

    def teardown(self) -> None:
        self.folder.cleanup()


TwoProcessMachine.TestCase.settings = settings(deadline=None, max_examples=40, stateful_step_count=20)
TestTwoProcesses = TwoProcessMachine.TestCase
