"""The index file of a user's memory: it saves reading the logs, may be lost, and never overrides them."""

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
from support.calls import LONG_AGO, find_texts, open_store, save_turn, start_session, user_folder, write_call
from support.runtimes import PROJECT, USER, RunningRuntime
from support.waiting import eventually

from memoair_index import ContainerError, Document, Index
from memoair_index.static_model import default_model
from memoair_protocol.enums import EventType
from memoair_runtime.readiness import Readiness
from memoair_runtime.storage.events import encode_line, new_event

SECRET = "zanzibarplum"
# More turns than an index file is written for; each has two passages.
TURN_COUNT = 230


def write_long_call(root: Path, session_id: str = "old-1", subject: str = SECRET, turn_count: int = TURN_COUNT) -> Path:
    """Write a log of many turns; the first and the last differ from all others."""
    turns = [
        (f"Parcel {number} of the {subject}, please.", f"Parcel {number} is noted.") for number in range(turn_count)
    ]
    turns[0] = ("It began with a persimmon.", "A persimmon, then.")
    turns[-1] = ("It ended with a quince.", "A quince, then.")
    return write_call(root, session_id, turns)


def list_index_files(root: Path) -> list[str]:
    """Return the names of index files, and of temporary files."""
    return sorted(path.name for path in user_folder(root).path.glob("*permanent-*"))


def the_index_file(root: Path) -> Path:
    (path,) = user_folder(root).list_indexes()
    return path


@pytest.fixture(autouse=True, scope="module")
def model_is_open() -> None:
    """Open the model once for the process, so that no single test seems to leave it open."""
    default_model()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "storage"


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A storage root with many turns and an index file of them, to be copied."""
    root = tmp_path_factory.mktemp("template")
    write_long_call(root)
    with open_store(root):
        pass
    assert list_index_files(root) == ["permanent-1.index"]
    return root


@pytest.fixture
def indexed_root(template: Path, root: Path) -> Path:
    """A storage root with many turns and an index file of them."""
    shutil.copytree(template, root)
    return root


def assert_all_turns_are_found(root: Path) -> None:
    with open_store(root) as store:
        assert store.gate.readiness is Readiness.READY
        assert "It began with a persimmon." in find_texts(store, "persimmon")
        assert "It ended with a quince." in find_texts(store, "quince")
        assert len(store.memory.get_turns("old-1")) == TURN_COUNT
        assert store.memory.count_turns("old-1") == TURN_COUNT
    del store
    gc.collect()  # an index keeps the file that it maps open for as long as the index lives


def find_turns(runtime: RunningRuntime, question: str, session_id: str = "now") -> list[str]:
    return [hit["text"] for hit in runtime.search(session_id, question, lanes=["permanent"])["permanent"]]


# Writing and opening


def test_a_short_history_gets_no_index_file(root: Path) -> None:
    write_long_call(root, turn_count=20)
    with open_store(root):
        assert list_index_files(root) == []


def test_a_long_history_gets_one_index_file_that_only_its_owner_may_read(indexed_root: Path) -> None:
    assert the_index_file(indexed_root).stat().st_mode & 0o777 == 0o600
    assert_all_turns_are_found(indexed_root)
    assert list_index_files(indexed_root) == ["permanent-1.index"]


def test_a_process_writes_an_index_file_at_the_next_session_start(runtime: RunningRuntime) -> None:
    write_long_call(runtime.storage_root, turn_count=TURN_COUNT // 2)
    write_long_call(runtime.storage_root, "old-2", turn_count=TURN_COUNT // 2)
    assert list_index_files(runtime.storage_root) == []
    runtime.start("now")
    eventually(lambda: list_index_files(runtime.storage_root) == ["permanent-1.index"])
    assert find_turns(runtime, "persimmon")


def test_a_process_that_opens_an_index_file_does_not_read_unchanged_logs(
    start_runtime: Callable[..., RunningRuntime], root: Path
) -> None:
    log = write_long_call(root)
    with log.open("ab") as file:
        file.write(b"not an event\n")  # a process that reads this log logs a warning
    first = start_runtime(root)
    first.wait_until_loaded()
    eventually(lambda: list_index_files(root) == ["permanent-1.index"])
    assert "action=lines_skipped" in first.output()
    assert first.terminate() == 0

    second = start_runtime(root)
    second.wait_until_loaded()
    assert "Caller: It began with a persimmon.\nAgent: A persimmon, then." in find_turns(second, "persimmon")
    assert find_turns(second, "quince")
    assert second.health()["lanes"]["permanent"] == "ready"
    assert "action=lines_skipped" not in second.output()
    assert second.start("now")["bootstrap"]["permanentManifestVersion"] == 2 * TURN_COUNT
    second.kill()

    the_index_file(root).unlink()
    third = start_runtime(root)
    third.wait_until_loaded()
    assert "action=lines_skipped" in third.output()


def test_a_session_in_the_index_file_continues_where_it_was(indexed_root: Path) -> None:
    with open_store(indexed_root) as store:
        save_turn(store, "old-1", "t0", "It began with a persimmon.", "A persimmon, then.")
        save_turn(store, "old-1", "new", "And a medlar.", "A medlar, too.")
        assert [turn.ordinal for turn in store.memory.get_turns("old-1")] == list(range(TURN_COUNT + 1))
        assert {"And a medlar.", "A medlar, too."} <= set(find_texts(store, "medlar"))
        assert [turn.turn_id for turn in store.memory.get_recent_turns("old-1")][-2:] == [f"t{TURN_COUNT - 1}", "new"]
    assert len(user_folder(indexed_root).session("old-1").log.read_bytes().splitlines()) == TURN_COUNT + 2


def test_turns_after_the_index_file_are_found(indexed_root: Path) -> None:
    with open_store(indexed_root) as store:
        start_session(store, "later")
        save_turn(store, "later", "t1", "A medlar, please.")
        save_turn(store, "old-1", "t-new", "And a sorb.")
    for _ in range(2):
        with open_store(indexed_root) as store:
            assert "A medlar, please." in find_texts(store, "medlar")
            assert "And a sorb." in find_texts(store, "sorb")
            assert find_texts(store, "persimmon")
            assert store.memory.unmerged_count == 2


def test_a_log_that_has_grown_is_read_from_where_the_index_file_ends(indexed_root: Path) -> None:
    log = user_folder(indexed_root).session("old-1").log
    payload = {"turnId": "new", "userText": "And a medlar.", "assistantText": "", "toolCalls": [], "metadata": {}}
    event = new_event(EventType.TURN, "old-1", TURN_COUNT + 2, LONG_AGO + timedelta(days=1), payload)
    with log.open("ab") as file:
        file.write(encode_line(event))
    with open_store(indexed_root) as store:
        assert "And a medlar." in find_texts(store, "medlar")
        assert store.memory.count_turns("old-1") == TURN_COUNT + 1
        assert len(store.memory) == 2 * TURN_COUNT + 1, "known turns are not added twice"


def test_a_session_that_starts_before_the_index_file_is_opened_loses_no_turn(indexed_root: Path) -> None:
    with open_store(indexed_root, is_loaded=False) as store:
        start_session(store, "now")
        save_turn(store, "now", "t1", "A medlar, please.", "A medlar it is.")
        save_turn(store, "old-1", "t-new", "And a sorb.")
        store.load()
        save_turn(store, "now", "t2", "Thank you.")
        assert {"A medlar, please.", "A medlar it is."} <= set(find_texts(store, "medlar", group="now"))
        assert [turn.turn_id for turn in store.memory.get_turns("now")] == ["t1", "t2"]
        assert [turn.turn_id for turn in store.memory.get_recent_turns("now")] == ["t1", "t2"]
        assert store.memory.count_turns("old-1") == TURN_COUNT + 1
        assert "And a sorb." in find_texts(store, "sorb")
        assert find_texts(store, "persimmon")


def test_the_profile_is_restored_from_the_logs_if_its_file_is_lost(root: Path) -> None:
    write_long_call(root)
    write_call(root, "old-2", [("Hello.", "Hello.")], user={"name": "Dana", "metadata": {"plan": "gold"}})
    for _ in range(2):
        with open_store(root) as store:
            profile = store.memory.profile
            assert (profile.name, profile.metadata) == ("Dana", {"plan": "gold"})
        user_folder(root).profile.unlink(missing_ok=True)
    assert list_index_files(root) == ["permanent-1.index"]


# Damage


def flip_byte_in_text(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[content.index(b"persimmon")] ^= 1
    path.write_bytes(content)


def flip_byte_in_items(path: Path) -> None:
    content = bytearray(path.read_bytes())
    begin = 16 + int.from_bytes(content[8:12], "little")
    content[begin + 512] ^= 0x40
    path.write_bytes(content)


def flip_byte_in_table(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[200] ^= 1
    path.write_bytes(content)


def cut_in_half(path: Path) -> None:
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size // 2)


def cut_last_byte(path: Path) -> None:
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size - 1)


def make_empty(path: Path) -> None:
    path.write_bytes(b"")


def replace_by_another_format(path: Path) -> None:
    path.write_bytes(b"\x7fELF" + os.urandom(4096))


def replace_by_another_index(path: Path) -> None:
    index = Index()
    index.add([Document("a", "nothing of this caller's")])
    index.merge(path, lambda: {"stamp": [1, 2]})


def replace_by_index_with_invalid_note(path: Path) -> None:
    index = Index()
    index.add([Document("a", "nothing of this caller's")])
    index.merge(path, lambda: {"logs": {}, "names": ["Dana"]})


def replace_by_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def has_one_valid_index_file(root: Path) -> bool:
    paths = [path for path in user_folder(root).list_indexes() if path.is_file()]
    if len(paths) != 1:
        return False
    try:
        Index.open(paths[0]).verify()
    except (ContainerError, FileNotFoundError):  # it is being replaced
        return False
    return True


DAMAGES = [
    flip_byte_in_text,
    flip_byte_in_items,
    flip_byte_in_table,
    cut_in_half,
    cut_last_byte,
    make_empty,
    replace_by_another_format,
    replace_by_another_index,
    replace_by_index_with_invalid_note,
    replace_by_folder,
]


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_index_file_loses_no_turn_is_logged_without_content_and_is_replaced(
    indexed_root: Path, damage: Callable[[Path], None], caplog: pytest.LogCaptureFixture
) -> None:
    damage(the_index_file(indexed_root))
    assert_all_turns_are_found(indexed_root)
    assert "action=index_refused" in caplog.text
    for word in (SECRET, "persimmon", "quince", "old-1", USER, PROJECT, str(indexed_root)):
        assert word not in caplog.text

    assert has_one_valid_index_file(indexed_root)
    caplog.clear()
    with open_store(indexed_root) as store:
        assert store.memory.unmerged_count == 0, "no log was read"
    assert "index_refused" not in caplog.text


def test_the_log_output_on_a_damaged_index_file_does_not_reveal_the_caller(
    indexed_root: Path, start_runtime: Callable[..., RunningRuntime]
) -> None:
    flip_byte_in_text(the_index_file(indexed_root))
    runtime = start_runtime(indexed_root)
    runtime.wait_until_loaded()
    assert find_turns(runtime, "persimmon")
    eventually(lambda: has_one_valid_index_file(indexed_root))
    assert "action=index_refused" in runtime.output()
    for word in (SECRET, "persimmon", "old-1", USER, str(indexed_root)):
        assert word not in runtime.output()


def test_a_session_that_was_read_before_the_damage_was_found_is_still_known(indexed_root: Path) -> None:
    flip_byte_in_text(the_index_file(indexed_root))
    with open_store(indexed_root, is_loaded=False) as store:
        save_turn(store, "old-1", "t-new", "And a sorb.")
        save_turn(store, "now", "t1", "A medlar, please.")
        store.load()
        assert store.memory.count_turns("old-1") == TURN_COUNT + 1
        assert find_texts(store, "persimmon")
        assert "And a sorb." in find_texts(store, "sorb")
        assert "A medlar, please." in find_texts(store, "medlar")


@given(st.floats(0, 1, exclude_max=True), st.integers(1, 255), st.booleans())
@settings(deadline=None, max_examples=10, phases=[Phase.generate])
def test_a_wrong_byte_anywhere_loses_no_turn(
    template: Path, tmp_path_factory: pytest.TempPathFactory, position: float, mask: int, is_cut: bool
) -> None:
    root = tmp_path_factory.mktemp("copy") / "storage"
    shutil.copytree(template, root)
    path = the_index_file(root)
    content = bytearray(path.read_bytes())
    offset = int(position * len(content))
    if is_cut:
        del content[offset:]
    else:
        content[offset] ^= mask
    path.write_bytes(content)
    assert_all_turns_are_found(root)
    shutil.rmtree(root)


# The logs override the index file


def test_turns_of_a_deleted_log_are_no_longer_found(indexed_root: Path) -> None:
    write_long_call(indexed_root, "old-2", "mirabelle")
    with open_store(indexed_root) as store:
        assert find_texts(store, SECRET)
    shutil.rmtree(user_folder(indexed_root).session("old-1").path)

    with open_store(indexed_root) as store:
        assert find_texts(store, "mirabelle")
        assert not any(SECRET in text for text in find_texts(store, SECRET, 1_000))
        assert len(store.memory) == 2 * TURN_COUNT


def test_turns_of_a_deleted_log_are_in_no_file(indexed_root: Path) -> None:
    write_call(indexed_root, "old-2", [("A mirabelle.", "A mirabelle, then.")])
    shutil.rmtree(user_folder(indexed_root).session("old-1").path)
    with open_store(indexed_root) as store:
        assert find_texts(store, "mirabelle")
    for path in indexed_root.rglob("*"):
        assert path.is_dir() or SECRET.encode() not in path.read_bytes(), path.name


def test_a_log_that_became_shorter_overrides_the_index_file(indexed_root: Path) -> None:
    log = user_folder(indexed_root).session("old-1").log
    log.write_bytes(b"".join(log.read_bytes().splitlines(keepends=True)[:-100]))
    with open_store(indexed_root) as store:
        assert store.memory.count_turns("old-1") == TURN_COUNT - 100
        assert not any("quince" in text for text in find_texts(store, "quince"))


def test_a_new_session_with_an_old_id_has_none_of_the_old_turns(indexed_root: Path) -> None:
    shutil.rmtree(user_folder(indexed_root).session("old-1").path)
    write_long_call(indexed_root, "old-1", "mirabelle of another and longer call")
    with open_store(indexed_root) as store:
        assert not any(SECRET in text for text in find_texts(store, SECRET, 1_000))
        assert store.memory.count_turns("old-1") == TURN_COUNT


def test_a_log_that_was_edited_overrides_the_index_file(indexed_root: Path) -> None:
    log = user_folder(indexed_root).session("old-1").log
    log.write_bytes(log.read_bytes().replace(b"persimmon", b"[deleted]"))
    with open_store(indexed_root) as store:
        assert not any("persimmon" in text for text in find_texts(store, "persimmon", 1_000))
        assert any("[deleted]" in text for text in find_texts(store, "deleted"))
        assert store.memory.count_turns("old-1") == TURN_COUNT


# Several processes


def test_only_one_of_two_processes_writes_until_it_ends(start_runtime: Callable[..., RunningRuntime]) -> None:
    first, second = start_runtime(), start_runtime()
    root = first.storage_root
    for runtime in (first, second):
        runtime.wait_until_loaded()
    write_long_call(root)
    first.start("first")
    eventually(lambda: list_index_files(root) == ["permanent-1.index"])
    written = the_index_file(root).stat()

    second.start("second")
    eventually(lambda: find_turns(second, "persimmon"))
    second.start("second again")
    eventually(lambda: second.start("second")["bootstrap"]["permanentManifestVersion"] == 2 * TURN_COUNT)
    assert list_index_files(root) == ["permanent-1.index"]
    assert (the_index_file(root).stat().st_ino, the_index_file(root).stat().st_mtime_ns) == (
        written.st_ino,
        written.st_mtime_ns,
    )

    assert first.terminate() == 0
    second.start("third")
    eventually(lambda: list_index_files(root) == ["permanent-2.index"])
    assert find_turns(second, "persimmon")


def test_many_processes_at_once_leave_one_valid_index_file(
    start_runtime: Callable[..., RunningRuntime], root: Path
) -> None:
    write_long_call(root)
    runtimes = [start_runtime(root) for _ in range(4)]
    for runtime in runtimes:
        runtime.wait_until_loaded()
        assert find_turns(runtime, "persimmon")
    eventually(lambda: [name.rpartition(".")[2] for name in list_index_files(root)] == ["index"])
    for runtime in runtimes:
        runtime.terminate()
    assert_all_turns_are_found(root)
    assert list_index_files(root) == [the_index_file(root).name]


def test_old_and_temporary_files_are_deleted_with_the_next_index_file(indexed_root: Path) -> None:
    folder = user_folder(indexed_root).path
    (folder / ".permanent-7.index.4711.0badcafe.part").write_bytes(b"half a file")
    shutil.copy(folder / "permanent-1.index", folder / "permanent-0.index")
    write_long_call(indexed_root, "old-2", "mirabelle")
    with open_store(indexed_root):
        assert list_index_files(indexed_root) == ["permanent-2.index"]
    assert_all_turns_are_found(indexed_root)


def test_the_newest_valid_index_file_is_used(indexed_root: Path) -> None:
    folder = user_folder(indexed_root).path
    shutil.copy(folder / "permanent-1.index", folder / "permanent-9.index")
    (folder / "permanent-10.index").write_bytes(b"another format")
    with open_store(indexed_root) as store:
        assert store.memory.unmerged_count == 0, "no log was read"
        assert find_texts(store, "persimmon")


def test_a_process_can_use_an_index_file_that_was_deleted(indexed_root: Path) -> None:
    with open_store(indexed_root) as store:
        the_index_file(indexed_root).unlink()
        assert "It began with a persimmon." in find_texts(store, "persimmon")
        assert store.memory.count_turns("old-1") == TURN_COUNT


# Disk errors


def test_a_full_disk_costs_only_the_index_file(start_runtime: Callable[..., RunningRuntime], root: Path) -> None:
    runtime = start_runtime(root)
    runtime.wait_until_loaded()
    write_long_call(root)
    unlimited = resource.prlimit(runtime.process.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(runtime.process.pid, resource.RLIMIT_FSIZE, (50_000, unlimited[1]))
    runtime.start("now")
    eventually(lambda: "action=index_unwritten" in runtime.output())
    assert list_index_files(root) == [], "and no temporary file"
    runtime.save("now", "t1", "A medlar, please.")
    runtime.start("next")
    eventually(lambda: find_turns(runtime, "persimmon", "next"))
    assert find_turns(runtime, "medlar", "next")
    assert SECRET not in runtime.output()

    resource.prlimit(runtime.process.pid, resource.RLIMIT_FSIZE, unlimited)
    runtime.start("and again")
    eventually(lambda: list_index_files(root) == ["permanent-1.index"])
    assert find_turns(runtime, "medlar", "next")
    assert find_turns(runtime, "persimmon", "next")


def test_all_turns_are_found_if_the_process_lock_cannot_be_acquired(root: Path) -> None:
    write_long_call(root)
    user_folder(root).lock("permanent").mkdir()
    assert_all_turns_are_found(root)
    assert list_index_files(root) == []


def test_without_a_folder_nothing_is_written_and_nothing_fails(tmp_path: Path) -> None:
    (tmp_path / "root").write_text("not a folder")
    with open_store(tmp_path / "root") as store:
        assert find_texts(store, "persimmon") == []
    assert (tmp_path / "root").read_text() == "not a folder"


# During a write


def test_turns_saved_while_the_index_file_is_written_are_not_lost(root: Path) -> None:
    for number in range(6):
        write_long_call(root, f"old-{number}", "mirabelle")
    with open_store(root, is_loaded=False) as store, ThreadPoolExecutor(1) as threads:
        loaded = threads.submit(store.load)
        saved_count = 0
        while not loaded.done() or saved_count < 20:
            save_turn(store, "now", f"t{saved_count}", f"Medlar number {saved_count}.")
            saved_count += 1
        loaded.result()
        assert [turn.ordinal for turn in store.memory.get_turns("now")] == list(range(saved_count))
        assert len(store.memory) == 6 * 2 * TURN_COUNT + saved_count
    assert list_index_files(root) == ["permanent-1.index"]
    with open_store(root) as store:
        assert [turn.user_text for turn in store.memory.get_turns("now")] == [
            f"Medlar number {n}." for n in range(saved_count)
        ]
        assert len(store.memory) == 6 * 2 * TURN_COUNT + saved_count


# Not in the page cache


def test_a_search_on_an_uncached_index_file_meets_the_deadline_or_is_degraded(
    indexed_root: Path, start_runtime: Callable[..., RunningRuntime]
) -> None:
    runtime = start_runtime(indexed_root)
    runtime.wait_until_loaded()
    for round_ in range(5):
        descriptor = os.open(the_index_file(indexed_root), os.O_RDONLY)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(descriptor)
        answer = runtime.search("now", f"persimmon {round_}", timeoutMs=250)
        lane = answer["trace"]["lanes"]["permanent"]
        assert lane["status"] == "ok" or answer["trace"]["degraded"], json.dumps(answer["trace"])
        assert bool(answer["permanent"]) == (lane["status"] == "ok")
    assert find_turns(runtime, "persimmon")


def test_several_stores_read_and_write_one_folder_in_turn(root: Path) -> None:
    write_long_call(root)
    with ExitStack() as held:
        stores = [held.enter_context(open_store(root)) for _ in range(3)]
        for number, store in enumerate(stores):
            save_turn(store, f"call-{number}", "t1", f"Medlar number {number}.")
        for store in stores:
            store.load()
            assert len(find_texts(store, "medlar")) == len(stores)
            assert store.memory.count_turns("old-1") == TURN_COUNT
