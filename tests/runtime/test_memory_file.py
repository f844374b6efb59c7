"""The index file of a caller's memory: it saves reading the logs, costs nothing when it is lost, and is never believed
against them."""

import gc
import json
import os
import resource
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from support.calls import LONG_AGO, found, keeping, save, start, user_folder, write_call
from support.runtimes import PROJECT, USER, RunningRuntime
from support.waiting import eventually

from memoair_index import ContainerError, Document, Index
from memoair_index.static_model import default_model
from memoair_runtime.gate import Readiness
from memoair_runtime.storage.events import EventType, new_event, to_line

SECRET = "zanzibarplum"
# More than it takes to be worth a file: two passages each.
MANY = 230


def write_many(root: Path, session_id: str = "old-1", about: str = SECRET, turns: int = MANY) -> Path:
    """A log of many turns, the first and the last of which can be told from all others."""
    said = [(f"Parcel {number} of the {about}, please.", f"Parcel {number} is noted.") for number in range(turns)]
    said[0] = ("It began with a persimmon.", "A persimmon, then.")
    said[-1] = ("It ended with a quince.", "A quince, then.")
    return write_call(root, session_id, said)


def files_of(root: Path) -> list[str]:
    """The index files, and what was left of any."""
    return sorted(path.name for path in user_folder(root).path.glob("*permanent-*"))


def the_file(root: Path) -> Path:
    (path,) = user_folder(root).indexes()
    return path


@pytest.fixture(autouse=True, scope="module")
def model_is_open() -> None:
    """It is opened once for a process, so that no single test seems to leave it behind."""
    default_model()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "storage"


@pytest.fixture
def filed(root: Path) -> Path:
    """A storage with many turns and an index file that holds them."""
    write_many(root)
    with keeping(root):
        pass
    assert files_of(root) == ["permanent-1.index"]
    return root


def assert_all_is_found(root: Path) -> None:
    with keeping(root) as keeper:
        assert keeper.gate.readiness is Readiness.READY
        assert "It began with a persimmon." in found(keeper, "persimmon")
        assert "It ended with a quince." in found(keeper, "quince")
        assert len(keeper.memory.turns("old-1")) == MANY
        assert keeper.memory.count("old-1") == MANY
    del keeper
    gc.collect()  # a file stays open for as long as an index that maps it lives


def turns_found(runtime: RunningRuntime, question: str, session_id: str = "now") -> list[str]:
    return [hit["text"] for hit in runtime.search(session_id, question, lanes=["permanent"])["permanent"]]


# Written and opened


def test_few_turns_are_worth_no_file(root: Path) -> None:
    write_many(root, turns=20)
    with keeping(root):
        assert files_of(root) == []


def test_many_turns_are_kept_in_one_file_that_only_its_owner_may_read(filed: Path) -> None:
    assert the_file(filed).stat().st_mode & 0o777 == 0o600
    assert_all_is_found(filed)
    assert files_of(filed) == ["permanent-1.index"]


def test_a_process_that_heard_many_turns_writes_them_to_a_file_at_the_next_call(runtime: RunningRuntime) -> None:
    write_many(runtime.storage_root, turns=MANY // 2)
    write_many(runtime.storage_root, "old-2", turns=MANY // 2)
    assert files_of(runtime.storage_root) == []
    runtime.start("now")
    eventually(lambda: files_of(runtime.storage_root) == ["permanent-1.index"])
    assert turns_found(runtime, "persimmon")


def test_a_process_that_opens_a_file_reads_no_log_that_has_not_changed(
    start_runtime: Callable[..., RunningRuntime], root: Path
) -> None:
    log = write_many(root)
    with log.open("ab") as file:
        file.write(b"what was never a line\n")  # whoever reads this log says so
    first = start_runtime(root)
    first.wait_until_loaded()
    eventually(lambda: files_of(root) == ["permanent-1.index"])
    assert "action=lines_skipped" in first.output()
    assert first.terminate() == 0

    second = start_runtime(root)
    second.wait_until_loaded()
    assert "Caller: It began with a persimmon.\nAgent: A persimmon, then." in turns_found(second, "persimmon")
    assert turns_found(second, "quince")
    assert second.health()["lanes"]["permanent"] == "ready"
    assert "action=lines_skipped" not in second.output()
    assert second.start("now")["bootstrap"]["permanentManifestVersion"] == 2 * MANY
    second.kill()

    the_file(root).unlink()
    third = start_runtime(root)
    third.wait_until_loaded()
    assert "action=lines_skipped" in third.output()


def test_a_session_of_the_file_goes_on_where_it_was(filed: Path) -> None:
    with keeping(filed) as keeper:
        save(keeper, "old-1", "t0", "the same turn again")
        save(keeper, "old-1", "new", "And a medlar.", "A medlar, too.")
        assert [turn.number for turn in keeper.memory.turns("old-1")] == list(range(MANY + 1))
        assert {"And a medlar.", "A medlar, too."} <= set(found(keeper, "medlar"))
        assert [turn.turn_id for turn in keeper.memory.recent("old-1")][-2:] == [f"t{MANY - 1}", "new"]
    assert len(user_folder(filed).session("old-1").log.read_bytes().splitlines()) == MANY + 2


def test_what_was_said_after_the_file_was_written_is_found(filed: Path) -> None:
    with keeping(filed) as keeper:
        start(keeper, "later")
        save(keeper, "later", "t1", "A medlar, please.")
        save(keeper, "old-1", "t-new", "And a sorb.")
    for _ in range(2):
        with keeping(filed) as keeper:
            assert "A medlar, please." in found(keeper, "medlar")
            assert "And a sorb." in found(keeper, "sorb")
            assert found(keeper, "persimmon")
            assert keeper.memory.unmerged == 2


def test_a_log_that_grew_while_nobody_looked_is_read_on(filed: Path) -> None:
    log = user_folder(filed).session("old-1").log
    payload = {"turnId": "new", "userText": "And a medlar.", "assistantText": "", "toolCalls": [], "metadata": {}}
    event = new_event(EventType.TURN, "old-1", MANY + 2, LONG_AGO + timedelta(days=1), payload)
    with log.open("ab") as file:
        file.write(to_line(event))
    with keeping(filed) as keeper:
        assert "And a medlar." in found(keeper, "medlar")
        assert keeper.memory.count("old-1") == MANY + 1
        assert len(keeper.memory) == 2 * MANY + 1, "what was known is not known twice"


def test_a_call_that_begins_before_the_file_was_opened_loses_none_of_its_turns(filed: Path) -> None:
    with keeping(filed, is_loaded=False) as keeper:
        start(keeper, "now")
        save(keeper, "now", "t1", "A medlar, please.", "A medlar it is.")
        save(keeper, "old-1", "t-new", "And a sorb.")
        keeper.load()
        save(keeper, "now", "t2", "Thank you.")
        assert {"A medlar, please.", "A medlar it is."} <= set(found(keeper, "medlar", group="now"))
        assert [turn.turn_id for turn in keeper.memory.turns("now")] == ["t1", "t2"]
        assert [turn.turn_id for turn in keeper.memory.recent("now")] == ["t1", "t2"]
        assert keeper.memory.count("old-1") == MANY + 1
        assert "And a sorb." in found(keeper, "sorb")
        assert found(keeper, "persimmon")


def test_who_calls_is_known_from_the_logs_where_the_snapshot_of_the_profile_is_lost(root: Path) -> None:
    write_many(root)
    write_call(root, "old-2", [("Hello.", "Hello.")], user={"name": "Dana", "metadata": {"plan": "gold"}})
    for _ in range(2):
        with keeping(root) as keeper:
            profile = keeper.memory.profile
            assert (profile.name, profile.metadata) == ("Dana", {"plan": "gold"})
        user_folder(root).profile.unlink(missing_ok=True)
    assert files_of(root) == ["permanent-1.index"]


# Damaged


def flip_a_byte_of_the_words(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[content.index(b"persimmon")] ^= 1
    path.write_bytes(content)


def flip_a_byte_of_the_items(path: Path) -> None:
    content = bytearray(path.read_bytes())
    begin = 16 + int.from_bytes(content[8:12], "little")
    content[begin + 512] ^= 0x40
    path.write_bytes(content)


def flip_a_byte_of_the_table(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[200] ^= 1
    path.write_bytes(content)


def cut_short(path: Path) -> None:
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size // 2)


def cut_by_one(path: Path) -> None:
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size - 1)


def empty(path: Path) -> None:
    path.write_bytes(b"")


def foreign(path: Path) -> None:
    path.write_bytes(b"\x7fELF" + os.urandom(4096))


def index_of_somebody_else(path: Path) -> None:
    index = Index()
    index.add([Document("a", "nothing of this caller's")])
    index.merge(path, lambda: {"stamp": [1, 2]})


def index_with_a_note_of_another_shape(path: Path) -> None:
    index = Index()
    index.add([Document("a", "nothing of this caller's")])
    index.merge(path, lambda: {"logs": {}, "names": ["Dana"]})


def a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def is_one_sound_file_there(root: Path) -> bool:
    paths = [path for path in user_folder(root).indexes() if path.is_file()]
    if len(paths) != 1:
        return False
    try:
        Index.open(paths[0]).verify()
    except (ContainerError, FileNotFoundError):  # it is just about to be replaced
        return False
    return True


DAMAGES = [
    flip_a_byte_of_the_words,
    flip_a_byte_of_the_items,
    flip_a_byte_of_the_table,
    cut_short,
    cut_by_one,
    empty,
    foreign,
    index_of_somebody_else,
    index_with_a_note_of_another_shape,
    a_folder,
]


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_file_costs_no_turn_is_told_of_without_words_and_is_followed_by_a_sound_one(
    filed: Path, damage: Callable[[Path], None], caplog: pytest.LogCaptureFixture
) -> None:
    damage(the_file(filed))
    assert_all_is_found(filed)
    assert "action=index_refused" in caplog.text
    for word in (SECRET, "persimmon", "quince", "old-1", USER, PROJECT, str(filed)):
        assert word not in caplog.text

    assert is_one_sound_file_there(filed)
    caplog.clear()
    with keeping(filed) as keeper:
        assert keeper.memory.unmerged == 0, "no log was read"
    assert "index_refused" not in caplog.text


def test_a_process_says_nothing_of_the_caller_when_its_file_is_damaged(
    filed: Path, start_runtime: Callable[..., RunningRuntime]
) -> None:
    flip_a_byte_of_the_words(the_file(filed))
    runtime = start_runtime(filed)
    runtime.wait_until_loaded()
    assert turns_found(runtime, "persimmon")
    eventually(lambda: is_one_sound_file_there(filed))
    assert "action=index_refused" in runtime.output()
    for word in (SECRET, "persimmon", "old-1", USER, str(filed)):
        assert word not in runtime.output()


def test_a_session_that_was_read_before_the_file_proved_damaged_is_still_known(filed: Path) -> None:
    flip_a_byte_of_the_words(the_file(filed))
    with keeping(filed, is_loaded=False) as keeper:
        save(keeper, "old-1", "t-new", "And a sorb.")
        save(keeper, "now", "t1", "A medlar, please.")
        keeper.load()
        assert keeper.memory.count("old-1") == MANY + 1
        assert found(keeper, "persimmon")
        assert "And a sorb." in found(keeper, "sorb")
        assert "A medlar, please." in found(keeper, "medlar")


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A storage with an index file, to be copied."""
    root = tmp_path_factory.mktemp("template")
    write_many(root)
    with keeping(root):
        pass
    return root


@given(st.floats(0, 1, exclude_max=True), st.integers(1, 255), st.booleans())
@settings(deadline=None, max_examples=10, phases=[Phase.generate])
def test_a_byte_that_is_wrong_anywhere_costs_nothing_that_was_said(
    template: Path, tmp_path_factory: pytest.TempPathFactory, where: float, how: int, is_cut: bool
) -> None:
    root = tmp_path_factory.mktemp("copy") / "storage"
    shutil.copytree(template, root)
    path = the_file(root)
    content = bytearray(path.read_bytes())
    place = int(where * len(content))
    if is_cut:
        del content[place:]
    else:
        content[place] ^= how
    path.write_bytes(content)
    assert_all_is_found(root)
    shutil.rmtree(root)


# The logs decide


def test_what_stood_in_a_log_that_was_deleted_is_not_found_any_more(filed: Path) -> None:
    write_many(filed, "old-2", "mirabelle")
    with keeping(filed) as keeper:
        assert found(keeper, SECRET)
    shutil.rmtree(user_folder(filed).session("old-1").path)

    with keeping(filed) as keeper:
        assert found(keeper, "mirabelle")
        assert not any(SECRET in text for text in found(keeper, SECRET, 1_000))
        assert len(keeper.memory) == 2 * MANY


def test_what_stood_in_a_log_that_was_deleted_stands_nowhere_any_more(filed: Path) -> None:
    write_call(filed, "old-2", [("A mirabelle.", "A mirabelle, then.")])
    shutil.rmtree(user_folder(filed).session("old-1").path)
    with keeping(filed) as keeper:
        assert found(keeper, "mirabelle")
    for path in filed.rglob("*"):
        assert path.is_dir() or SECRET.encode() not in path.read_bytes(), path.name


def test_a_log_that_became_shorter_is_believed_against_the_file(filed: Path) -> None:
    log = user_folder(filed).session("old-1").log
    log.write_bytes(b"".join(log.read_bytes().splitlines(keepends=True)[:-100]))
    with keeping(filed) as keeper:
        assert keeper.memory.count("old-1") == MANY - 100
        assert not any("quince" in text for text in found(keeper, "quince"))


def test_a_session_that_began_anew_under_an_old_id_has_none_of_the_old_turns(filed: Path) -> None:
    shutil.rmtree(user_folder(filed).session("old-1").path)
    write_many(filed, "old-1", "mirabelle of another and longer call")
    with keeping(filed) as keeper:
        assert not any(SECRET in text for text in found(keeper, SECRET, 1_000))
        assert keeper.memory.count("old-1") == MANY


def test_a_log_whose_words_were_changed_is_believed_against_the_file(filed: Path) -> None:
    log = user_folder(filed).session("old-1").log
    log.write_bytes(log.read_bytes().replace(b"persimmon", b"[deleted]"))
    with keeping(filed) as keeper:
        assert not any("persimmon" in text for text in found(keeper, "persimmon", 1_000))
        assert any("[deleted]" in text for text in found(keeper, "deleted"))
        assert keeper.memory.count("old-1") == MANY


# Several processes, and what they leave


def test_of_two_processes_only_one_writes_until_it_has_ended(start_runtime: Callable[..., RunningRuntime]) -> None:
    first, second = start_runtime(), start_runtime()
    root = first.storage_root
    for runtime in (first, second):
        runtime.wait_until_loaded()
    write_many(root)
    first.start("first")
    eventually(lambda: files_of(root) == ["permanent-1.index"])
    written = the_file(root).stat()

    second.start("second")
    eventually(lambda: turns_found(second, "persimmon"))
    second.start("second again")
    eventually(lambda: second.start("second")["bootstrap"]["permanentManifestVersion"] == 2 * MANY)
    assert files_of(root) == ["permanent-1.index"]
    assert (the_file(root).stat().st_ino, the_file(root).stat().st_mtime_ns) == (written.st_ino, written.st_mtime_ns)

    assert first.terminate() == 0
    second.start("third")
    eventually(lambda: files_of(root) == ["permanent-2.index"])
    assert turns_found(second, "persimmon")


def test_many_processes_at_once_leave_one_sound_file(start_runtime: Callable[..., RunningRuntime], root: Path) -> None:
    write_many(root)
    runtimes = [start_runtime(root) for _ in range(4)]
    for runtime in runtimes:
        runtime.wait_until_loaded()
        assert turns_found(runtime, "persimmon")
    eventually(lambda: [name.rpartition(".")[2] for name in files_of(root)] == ["index"])
    for runtime in runtimes:
        runtime.terminate()
    assert_all_is_found(root)
    assert files_of(root) == [the_file(root).name]


def test_what_dead_writers_and_older_files_left_behind_goes_with_the_next_file(filed: Path) -> None:
    folder = user_folder(filed).path
    (folder / ".permanent-7.index.4711.0badcafe.part").write_bytes(b"half a file")
    shutil.copy(folder / "permanent-1.index", folder / "permanent-0.index")
    write_many(filed, "old-2", "mirabelle")
    with keeping(filed):
        assert files_of(filed) == ["permanent-2.index"]
    assert_all_is_found(filed)


def test_the_newest_file_counts_and_behind_a_damaged_one_the_next_older_one(filed: Path) -> None:
    folder = user_folder(filed).path
    shutil.copy(folder / "permanent-1.index", folder / "permanent-9.index")
    (folder / "permanent-10.index").write_bytes(b"none of ours")
    with keeping(filed) as keeper:
        assert keeper.memory.unmerged == 0, "no log was read"
        assert found(keeper, "persimmon")


def test_a_file_that_is_replaced_under_a_process_that_has_it_open_harms_it_not(filed: Path) -> None:
    with keeping(filed) as keeper:
        the_file(filed).unlink()
        assert "It began with a persimmon." in found(keeper, "persimmon")
        assert keeper.memory.count("old-1") == MANY


# Disks that refuse


def test_a_full_disk_costs_nothing_but_the_file(start_runtime: Callable[..., RunningRuntime], root: Path) -> None:
    runtime = start_runtime(root)
    runtime.wait_until_loaded()
    write_many(root)
    unlimited = resource.prlimit(runtime.process.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(runtime.process.pid, resource.RLIMIT_FSIZE, (50_000, unlimited[1]))
    runtime.start("now")
    eventually(lambda: "action=index_unwritten" in runtime.output())
    assert files_of(root) == [], "and no part of one"
    runtime.save("now", "t1", "A medlar, please.")
    runtime.start("next")
    eventually(lambda: turns_found(runtime, "persimmon", "next"))
    assert turns_found(runtime, "medlar", "next")
    assert SECRET not in runtime.output()

    resource.prlimit(runtime.process.pid, resource.RLIMIT_FSIZE, unlimited)
    runtime.start("and again")
    eventually(lambda: files_of(root) == ["permanent-1.index"])
    assert turns_found(runtime, "medlar", "next")
    assert turns_found(runtime, "persimmon", "next")


def test_where_the_role_of_the_writer_can_not_be_taken_all_is_found_without_a_file(root: Path) -> None:
    write_many(root)
    user_folder(root).role("permanent").mkdir()
    assert_all_is_found(root)
    assert files_of(root) == []


def test_without_a_folder_nothing_is_written_and_nothing_fails(tmp_path: Path) -> None:
    (tmp_path / "root").write_text("not a folder")
    with keeping(tmp_path / "root") as keeper:
        assert found(keeper, "persimmon") == []
    assert (tmp_path / "root").read_text() == "not a folder"


# While it is written


def test_what_is_said_while_the_file_is_written_is_known_then_and_to_the_next_process(root: Path) -> None:
    for number in range(6):
        write_many(root, f"old-{number}", "mirabelle")
    with keeping(root, is_loaded=False) as keeper, ThreadPoolExecutor(1) as threads:
        loaded = threads.submit(keeper.load)
        said = 0
        while not loaded.done() or said < 20:
            save(keeper, "now", f"t{said}", f"Medlar number {said}.")
            said += 1
        loaded.result()
        assert [turn.number for turn in keeper.memory.turns("now")] == list(range(said))
        assert len(keeper.memory) == 6 * 2 * MANY + said
    assert files_of(root) == ["permanent-1.index"]
    with keeping(root) as keeper:
        assert [turn.user_text for turn in keeper.memory.turns("now")] == [f"Medlar number {n}." for n in range(said)]
        assert len(keeper.memory) == 6 * 2 * MANY + said


# Cold


def test_a_file_whose_pages_are_not_in_memory_answers_within_the_deadline_or_says_so(
    filed: Path, start_runtime: Callable[..., RunningRuntime]
) -> None:
    runtime = start_runtime(filed)
    runtime.wait_until_loaded()
    for round_ in range(5):
        descriptor = os.open(the_file(filed), os.O_RDONLY)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(descriptor)
        answer = runtime.search("now", f"persimmon {round_}", timeoutMs=250)
        lane = answer["trace"]["lanes"]["permanent"]
        assert lane["status"] == "ok" or answer["trace"]["degraded"], json.dumps(answer["trace"])
        assert bool(answer["permanent"]) == (lane["status"] == "ok")
    assert turns_found(runtime, "persimmon")


def test_many_keepers_read_and_write_one_folder_in_turn(root: Path) -> None:
    write_many(root)
    with ExitStack() as held:
        keepers = [held.enter_context(keeping(root)) for _ in range(3)]
        for number, keeper in enumerate(keepers):
            save(keeper, f"call-{number}", "t1", f"Medlar number {number}.")
        for keeper in keepers:
            keeper.load()
            assert len(found(keeper, "medlar")) == len(keepers)
            assert keeper.memory.count("old-1") == MANY
