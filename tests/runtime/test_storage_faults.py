"""Disk errors: no turn is acknowledged that was not stored, recall works, and saving works again afterwards."""

import json
import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from support.runtimes import PATIENT_MS, PROJECT, USER, RunningRuntime
from support.waiting import eventually

SECRET = "zanzibarplum"


def make_turn(session: str, turn_id: str, text: str) -> dict[str, Any]:
    return {"sessionId": session, "turnId": turn_id, "userText": text, "assistantText": ""}


def assert_turn_is_rejected(runtime: RunningRuntime, session: str, turn_id: str, text: str = SECRET) -> None:
    status, body = runtime.post("turn/after", **make_turn(session, turn_id, text))
    assert (status, body["error"]["code"]) == (503, "runtime.storage_unavailable")
    assert set(body["error"]) == {"code", "message", "details"}
    assert SECRET not in json.dumps(body)
    assert USER not in json.dumps(body), "no path with the user id"


def session_folder(storage_root: Path, session: str) -> Path:
    return storage_root / PROJECT / USER / session


def read_turn_ids(log: Path) -> list[str]:
    """Return the turn ids in a log; each line must be complete."""
    content = log.read_bytes()
    assert content.endswith(b"\n")
    events = [json.loads(line) for line in content.splitlines()]
    assert [event["seq"] for event in events] == list(range(1, len(events) + 1))
    return [event["payload"]["turnId"] for event in events if event["type"] == "turn"]


@contextmanager
def disk_full_at(runtime: RunningRuntime, size: int) -> Iterator[None]:
    """Limit the files of a process to a size: as on a full disk, it writes only a part.

    A limit on the process needs no privileges and no mount, and can be removed while the process runs.
    """
    unlimited = resource.prlimit(runtime.process.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(runtime.process.pid, resource.RLIMIT_FSIZE, (size, unlimited[1]))
    try:
        yield
    finally:
        resource.prlimit(runtime.process.pid, resource.RLIMIT_FSIZE, unlimited)


def test_on_a_full_disk_turns_are_rejected_and_recall_works(runtime: RunningRuntime) -> None:
    runtime.start("earlier", name="Dana")
    runtime.save("earlier", "t1", "I would like persimmons.")
    runtime.start("call-1")
    event_ids = [runtime.save("call-1", "t1", "Two persimmons, please.")]
    runtime.wait_until_loaded()
    log = session_folder(runtime.storage_root, "call-1") / "session.jsonl"
    for free_bytes in (0, 1, 40, 400):  # nothing is written, or a part of a line
        with disk_full_at(runtime, log.stat().st_size + free_bytes):
            for attempt in range(3):
                assert_turn_is_rejected(runtime, "call-1", f"full-{free_bytes}-{attempt}", f"{SECRET} persimmons " * 40)
            found = runtime.search("call-1", "persimmons")
            assert found["trace"]["degraded"] is False
            assert [hit["id"] for hit in found["working"]][:1] == event_ids[-1:]
            assert found["permanent"]
            assert SECRET not in json.dumps(found), "a rejected turn is not recalled"
            assert runtime.health()["status"] == "ok"

        event_ids.append(runtime.save("call-1", f"after-{free_bytes}", "More persimmons."))
        assert read_turn_ids(log)[-1] == f"after-{free_bytes}"

    assert read_turn_ids(log) == ["t1", "after-0", "after-1", "after-40", "after-400"]
    assert SECRET not in runtime.output()


def test_a_turn_that_was_rejected_can_be_saved_again(runtime: RunningRuntime) -> None:
    runtime.start("call-1")
    log = session_folder(runtime.storage_root, "call-1") / "session.jsonl"
    with disk_full_at(runtime, log.stat().st_size + 20):
        assert_turn_is_rejected(runtime, "call-1", "t1")

    event_id = runtime.save("call-1", "t1", "persimmons")

    assert runtime.save("call-1", "t1", "persimmons") == event_id
    assert read_turn_ids(log) == ["t1"]


def test_on_a_full_disk_a_session_starts_and_its_first_turn_is_rejected(runtime: RunningRuntime) -> None:
    runtime.save("earlier", "t1", "I would like persimmons.")
    runtime.wait_until_loaded()
    with disk_full_at(runtime, 0):
        reply = runtime.start("call-1", name="Dana")
        assert reply["sessionId"] == "call-1"
        assert_turn_is_rejected(runtime, "call-1", "t1")
        assert_turn_is_rejected(runtime, "never-started", "t1")
        assert runtime.search("call-1", "persimmons")["permanent"]
        assert runtime.post("session/end", sessionId="unknown", reason="completed")[0] == 200

    runtime.save("call-1", "t1", "Now there is room.")
    start, kept = runtime.log_lines("call-1")[:2]
    assert start["payload"]["user"]["name"] == "Dana", "the start is logged later"
    assert kept["payload"]["turnId"] == "t1"


def test_a_turn_rejected_by_a_full_disk_is_unknown_to_the_next_process(
    start_runtime: Callable[..., RunningRuntime],
) -> None:
    first = start_runtime()
    first.start("call-1")
    first.save("call-1", "t1", "persimmons")
    log = session_folder(first.storage_root, "call-1") / "session.jsonl"
    with disk_full_at(first, log.stat().st_size + 100):
        assert_turn_is_rejected(first, "call-1", "t2", f"{SECRET} persimmons " * 20)
    first.kill()

    second = start_runtime()
    second.wait_until_loaded()
    second.save("call-1", "t3", "more persimmons")
    found = second.search("call-2", "persimmons", topK={"permanent": 50})
    assert sorted(hit["source"]["turnId"] for hit in found["permanent"]) == ["t1", "t3"]
    assert read_turn_ids(log) == ["t1", "t3"]


def test_derived_files_that_cannot_be_written_cause_no_error_and_leave_no_temporary_files(
    runtime: RunningRuntime,
) -> None:
    brief = Path(runtime.start("call-1", name="Dana")["paths"]["workingBrief"])
    runtime.save("call-1", "t1", "persimmons")
    assert runtime.post("sync/flush", deadlineMs=PATIENT_MS)[1]["status"] == "ok"
    before = brief.read_bytes()
    brief.unlink()
    brief.mkdir()

    runtime.save("call-1", "t2", SECRET)
    assert runtime.post("sync/flush", deadlineMs=PATIENT_MS)[0] == 200
    eventually(lambda: "action=upkeep_failed" in runtime.output())
    assert SECRET not in runtime.output()
    assert not list(runtime.storage_root.rglob("*.tmp"))

    brief.rmdir()
    runtime.save("call-1", "t3", "more")
    assert runtime.post("sync/flush", deadlineMs=PATIENT_MS)[1] == {"status": "ok", "pending": 0}
    assert json.loads(brief.read_bytes())["turnCount"] == json.loads(before)["turnCount"] + 2


def root_is_a_file(folder: Path) -> Path:
    (folder / "root").write_text("not a folder")
    return folder / "root"


def root_is_below_a_file(folder: Path) -> Path:
    return root_is_a_file(folder) / "deeper" / "down"


def root_is_a_dangling_link(folder: Path) -> Path:
    (folder / "root").symlink_to(folder / "gone" / "away")
    return folder / "root"


def root_is_not_writable(folder: Path) -> Path:
    return Path("/proc/1/memoair")  # not even by root


def user_folder_is_a_file(folder: Path) -> Path:
    (folder / "root" / PROJECT).mkdir(parents=True)
    (folder / "root" / PROJECT / USER).write_text("not a folder")
    return folder / "root"


ROOTS = [
    root_is_a_file,
    root_is_below_a_file,
    root_is_a_dangling_link,
    root_is_not_writable,
    user_folder_is_a_file,
]


@pytest.mark.parametrize("make_root", ROOTS)
def test_without_storage_a_runtime_serves_documents(
    start_runtime: Callable[..., RunningRuntime], tmp_path: Path, make_root: Callable[[Path], Path]
) -> None:
    org_file = tmp_path / "org.jsonl"
    org_file.write_text('{"id": "returns", "text": "Boots can be returned."}\n')
    runtime = start_runtime(storage_root=make_root(tmp_path), ORG_FILE=str(org_file))
    runtime.wait_until_loaded()

    assert runtime.health()["status"] == "ok"
    assert runtime.start("call-1", name="Dana")["sessionId"] == "call-1"
    assert_turn_is_rejected(runtime, "call-1", "t1")
    assert_turn_is_rejected(runtime, "never-started", "t1")
    for session in ("call-1", "never-started", "unknown"):
        assert [hit["id"] for hit in runtime.search(session, "boots")["org"]] == ["returns"]
    assert SECRET not in json.dumps(runtime.search("call-1", SECRET))
    assert runtime.post("sync/flush", deadlineMs=500)[0] == 200
    assert SECRET not in runtime.output()
    assert "Traceback" not in runtime.output()
    assert runtime.terminate() == 0


def test_storage_is_used_once_it_is_repaired(start_runtime: Callable[..., RunningRuntime], tmp_path: Path) -> None:
    root = root_is_a_file(tmp_path)
    runtime = start_runtime(storage_root=root)
    runtime.wait_until_loaded()
    runtime.start("call-1", name="Dana")
    assert_turn_is_rejected(runtime, "call-1", "t1")

    root.unlink()
    runtime.save("call-1", "t1", "I would like persimmons.")
    runtime.start("call-2")

    eventually(lambda: runtime.search("call-2", "persimmons")["permanent"])
    assert read_turn_ids(session_folder(root, "call-1") / "session.jsonl") == ["t1"]


@pytest.mark.parametrize("name", ["session.jsonl", "session.lock"])
def test_a_folder_in_the_place_of_a_session_file_affects_only_that_session(
    start_runtime: Callable[..., RunningRuntime], tmp_path: Path, name: str
) -> None:
    first = start_runtime()
    first.save("good", "t1", "I would like persimmons.")
    first.terminate()
    (session_folder(first.storage_root, "bad") / name).mkdir(parents=True)

    runtime = start_runtime()
    runtime.wait_until_loaded()

    assert_turn_is_rejected(runtime, "bad", "t1")
    assert runtime.search("call-2", "persimmons")["permanent"], "other sessions are recalled"
    assert runtime.post("search_memory", sessionId="bad", query="persimmons")[0] == 200
    runtime.save("good", "t2", "More persimmons.")
    (session_folder(first.storage_root, "bad") / name).rmdir()
    runtime.save("bad", "t1", "Now it works.")


def test_folders_that_disappear_while_the_process_runs_are_created_again(runtime: RunningRuntime) -> None:
    runtime.save("call-1", "t1", "persimmons")
    assert runtime.post("sync/flush", deadlineMs=PATIENT_MS)[1]["status"] == "ok"
    runtime.storage_root.rename(runtime.storage_root.with_name("moved"))

    event_id = runtime.save("call-1", "t2", "more persimmons")

    log = session_folder(runtime.storage_root, "call-1") / "session.jsonl"
    assert event_id in log.read_text()
    assert runtime.search("call-1", "persimmons", topK={"working": 9})["working"]


# Torn and damaged logs


TORN = [
    b'{"eventId":"' + SECRET.encode(),
    b"{",
    b'{"eventId": "x"}',
    b"\x00" * 40,
    SECRET.encode() * 1_000,
    b"\xff\xfe",
]


@pytest.mark.parametrize("torn", TORN, ids=lambda torn: repr(torn)[:24])
def test_a_torn_last_line_is_cut_off_and_logged_without_its_content(
    start_runtime: Callable[..., RunningRuntime], torn: bytes
) -> None:
    first = start_runtime()
    first.save("call-1", "t1", "I would like persimmons.")
    first.kill()
    log = session_folder(first.storage_root, "call-1") / "session.jsonl"
    whole = log.read_bytes()
    log.write_bytes(whole + torn)

    second = start_runtime()
    second.wait_until_loaded()
    assert second.search("call-2", "persimmons")["permanent"]
    second.save("call-1", "t2", "More persimmons.")

    content = log.read_bytes()
    assert content.startswith(whole)
    assert read_turn_ids(log) == ["t1", "t2"]
    assert "action=log_repaired" in second.output()
    assert f"bytes={len(torn)}" in second.output()
    assert SECRET not in second.output()
    assert "persimmons" not in second.output()


@pytest.mark.parametrize("damage", [SECRET.encode(), b'{"eventId": 5}', b"\xff\xfe", b"\x00" * 9, b"[" * 50_000, b""])
def test_a_damaged_line_hides_no_other_and_stays_unchanged(
    start_runtime: Callable[..., RunningRuntime], damage: bytes
) -> None:
    first = start_runtime()
    first.save("call-1", "t1", "I would like persimmons.")
    first.save("call-1", "t2", "And quinces.")
    first.kill()
    log = session_folder(first.storage_root, "call-1") / "session.jsonl"
    lines = log.read_bytes().splitlines(keepends=True)
    lines.insert(2, damage + b"\n")
    log.write_bytes(b"".join(lines))

    second = start_runtime()
    second.wait_until_loaded()
    event_id = second.save("call-1", "t1", "I would like persimmons.")

    assert event_id.encode() in lines[1], "a turn before the damaged line is known"
    found = second.search("call-2", "persimmons quinces", topK={"permanent": 9})
    assert sorted(hit["source"]["turnId"] for hit in found["permanent"]) == ["t1", "t2"]
    assert log.read_bytes() == b"".join(lines)
    assert "lines=1" in second.output()
    assert SECRET not in second.output()


def test_a_damaged_profile_file_is_rebuilt(start_runtime: Callable[..., RunningRuntime]) -> None:
    first = start_runtime()
    first.start("call-1", name="Dana")
    first.save("call-1", "t1", "hello")
    first.terminate()
    profile = first.storage_root / PROJECT / USER / "profile.json"
    profile.write_bytes(b'{"version": 3, "name": "' + SECRET.encode())

    second = start_runtime()
    second.wait_until_loaded()

    assert second.search("call-2", "who is it?")["profile"]["name"] == "Dana"
    second.start("call-2", name="Dana")
    assert second.post("sync/flush", deadlineMs=PATIENT_MS)[1]["status"] == "ok"
    assert json.loads(profile.read_bytes())["name"] == "Dana"
