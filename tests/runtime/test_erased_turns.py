"""Turns of an erased user: a repeated delivery brings none of them back, and new turns are kept."""

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from support.devices import device
from support.runtimes import PROJECT, USER, RunningRuntime
from support.scripted_cloud import ScriptedCloud
from support.stored_files import read_stored_files
from support.waiting import eventually

from memoair_protocol.timestamps import format_utc, utc_now
from memoair_runtime.storage import erasure
from memoair_runtime.storage.user_folder import UserFolder

SECRET = "zanzibarplum"
UNIQUE_ID = "7c9e6679-7425-40de-944b-e07fc1f90ae7"


def deliver(
    runtime: RunningRuntime, turn_id: str, user: str, agent: str = "", session: str = "call-1", **more: Any
) -> Any:
    """Save a turn and return the reply, which must be a 200."""
    body = {"sessionId": session, "turnId": turn_id, "userText": user, "assistantText": agent, "metadata": more}
    status, reply = runtime.post("turn/after", **body)
    assert status == 200, reply
    return reply


def is_forgotten(reply: Any) -> bool:
    assert reply == {"localEventId": None, "forgotten": True} or reply["localEventId"]
    return "forgotten" in reply


def content_of(root: Path) -> bytes:
    return b"".join(content for _, content in read_stored_files(root))


@pytest.mark.parametrize("session", ["call-1", "another"])
@pytest.mark.parametrize("turn_id", ["turn-1", UNIQUE_ID])
def test_a_delivery_of_an_erased_turn_brings_nothing_back_also_after_a_restart(
    turn_id: str, session: str, start_runtime: Callable[..., RunningRuntime]
) -> None:
    first = start_runtime()
    deliver(first, turn_id, f"The word is {SECRET}.", "Noted.")
    assert first.post("forget")[0] == 200
    for _ in range(2):
        assert is_forgotten(deliver(first, turn_id, f"The word is {SECRET}.", "Noted.", session))
    assert SECRET not in first.search("later", "the word")["contextText"]
    assert first.terminate() == 0
    assert not UserFolder(first.storage_root, PROJECT, USER).path.exists(), "its name is the user's id"

    second = start_runtime()
    assert is_forgotten(deliver(second, turn_id, f" The word is  {SECRET}.", "Noted.", session))
    assert SECRET not in second.search("later", "the word")["contextText"]
    content = content_of(second.storage_root)
    assert SECRET.encode() not in content
    assert turn_id.encode() not in content
    assert SECRET not in second.output()
    metrics = second.http.request("GET", "/v1/runtime/metrics").data.decode()
    assert "memoair_runtime_turns_forgotten_total 1.0" in metrics


def test_new_turns_after_the_erasure_are_kept(runtime: RunningRuntime) -> None:
    deliver(runtime, "turn-1", "I live in Lisbon.", "Noted.")
    runtime.post("forget")
    later = format_utc(utc_now() + timedelta(seconds=5))
    kept = [
        deliver(runtime, "turn-1", "Where is my parcel?", "In Leeds."),  # numbered in each call
        deliver(runtime, "turn-2", "And the boots?"),
        deliver(runtime, "turn-3", "Hello?", occurredAt=later),
        deliver(runtime, "turn-1", "I live in Lisbon.", "Noted.", "call-2", occurredAt=later),  # says when
    ]
    assert not any(map(is_forgotten, kept))
    assert deliver(runtime, "turn-2", "And the boots?") == kept[1]
    assert "Leeds" in runtime.search("later", "parcel")["contextText"]


def test_what_was_said_before_the_erasure_is_recognized_by_its_time(runtime: RunningRuntime) -> None:
    before = format_utc(utc_now() - timedelta(minutes=1))
    runtime.post("forget")  # nothing was known here
    assert is_forgotten(deliver(runtime, "turn-1", f"The word is {SECRET}.", occurredAt=before))
    assert not is_forgotten(deliver(runtime, "turn-1", "I am back."))


def test_the_clock_of_the_application_may_be_ahead(runtime: RunningRuntime) -> None:
    ahead = format_utc(utc_now() + timedelta(minutes=2))
    deliver(runtime, "turn-1", SECRET, occurredAt=ahead)
    runtime.post("forget")
    assert is_forgotten(deliver(runtime, "turn-1", SECRET, occurredAt=ahead))


def test_a_late_answer_to_an_erased_question_does_not_bring_it_back(runtime: RunningRuntime) -> None:
    deliver(runtime, "turn-1", f"Is the word {SECRET}?")
    deliver(runtime, UNIQUE_ID, "And now?")
    runtime.post("forget")
    assert is_forgotten(deliver(runtime, "turn-1", f"Is the word {SECRET}?", "It is."))
    assert is_forgotten(deliver(runtime, UNIQUE_ID, "And now?", "Nothing."))


def test_every_version_of_an_erased_turn_stays_erased(runtime: RunningRuntime) -> None:
    versions = [("The code is plum", ""), ("The code is plum.", "Plum."), ("The code is pear.", "Pear.")]
    for version in versions:
        deliver(runtime, "turn-1", *version)
    assert runtime.post("forget")[1]["removed"] == {"sessions": 1, "turns": 1}
    assert all(is_forgotten(deliver(runtime, "turn-1", *version)) for version in versions)


def test_an_erasure_in_the_cloud_counts_like_one_here(cloud: ScriptedCloud, tmp_path: Path) -> None:
    with device(cloud, tmp_path) as runtime:
        runtime.save("turn-1", SECRET)
        runtime.flush()
        cloud.erase_user()
        runtime.pull()
        assert runtime.save("turn-1", SECRET) == "None"
    with device(None, tmp_path, user_id="other") as other:
        assert other.save("turn-1", SECRET) != "None"
    cloud.erase_user("other")
    with device(cloud, tmp_path) as runtime:  # the runtime of one user erases the others
        eventually(lambda: not UserFolder(tmp_path, PROJECT, "other").path.exists())
    with device(None, tmp_path, user_id="other") as other:
        assert other.save("turn-1", SECRET) == "None"
        assert other.save("turn-1", "I am back.") != "None"


def test_an_erasure_is_recorded_before_anything_is_deleted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with device(None, tmp_path) as runtime:
        runtime.save("turn-1", SECRET)

    def crash(path: Path) -> None:
        raise OSError("as if the machine had crashed here")

    monkeypatch.setattr(erasure, "remove_private_tree", crash)
    folder = UserFolder(tmp_path, PROJECT, USER)
    with pytest.raises(OSError, match="crashed"):
        erasure.erase(folder, utc_now(), keeps_later=False)
    monkeypatch.undo()
    with device(None, tmp_path) as runtime:
        eventually(lambda: SECRET.encode() not in content_of(tmp_path))
        assert runtime.save("turn-1", SECRET) == "None"


def test_a_session_that_is_being_deleted_is_not_found_any_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with device(None, tmp_path) as runtime:
        runtime.save("turn-1", SECRET, session_id="one")
        runtime.save("turn-1", SECRET, session_id="two")
    folder = UserFolder(tmp_path, PROJECT, USER)
    found: list[list[str]] = []

    def look(path: Path) -> None:
        found.append([session_id for session_id, _ in folder.list_session_logs()])
        assert (path / "session.jsonl").exists()
        delete(path)

    delete = erasure.remove_private_tree
    monkeypatch.setattr(erasure, "remove_private_tree", look)
    erasure.erase(folder, utc_now(), keeps_later=False)
    assert found == [[], []], "half of a session could have been read"


def test_a_damaged_record_refuses_turns_aloud(runtime: RunningRuntime) -> None:
    runtime.post("forget")
    UserFolder(runtime.storage_root, PROJECT, USER).erasure_record.write_bytes(b"{")
    body = {"sessionId": "call-1", "turnId": "t1", "userText": SECRET, "assistantText": ""}
    status, reply = runtime.post("turn/after", **body)
    assert (status, reply["error"]["code"]) == (503, "runtime.storage_unavailable")
    assert SECRET not in str(reply)
