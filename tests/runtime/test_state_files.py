"""Small files that are read back: an impossible value in one is moved aside and fetched again, and stops no push."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.devices import device
from support.runtimes import PROJECT, USER
from support.scripted_cloud import ScriptedCloud, remote_turn, responds_with
from support.waiting import eventually

from memoair_protocol.backoff import Backoff
from memoair_runtime.storage.backlog_status import BacklogStatus, read_status
from memoair_runtime.storage.project_folder import ProjectFolder
from memoair_runtime.storage.retention import RetentionRules, read_rules, write_rules
from memoair_runtime.storage.user_folder import UserFolder
from memoair_voice_sync._processes.backlog_process import read_backlog

pytestmark = pytest.mark.usefixtures("short_pauses")

Change = Callable[[dict[str, Any]], object]
NEGATIVE, HUGE, NOT_A_NUMBER, WRONG_TYPE = -1, 10**30, float("nan"), "seven"
NAIVE, DISTANT = "2026-01-01T00:00:00", "0001-01-01T00:00:00+14:00"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "storage"


def put(*keys: str, value: Any) -> Change:
    """Return a change of the value under some keys."""

    def change(content: dict[str, Any]) -> None:
        part = content
        for key in keys[:-1]:
            part = part[key]
        part[keys[-1]] = value

    return change


def nest(content: dict[str, Any]) -> None:
    content["metadata"] = content["extra"] = json.loads("[" * 900 + "]" * 900)


CHANGES: dict[str, list[Change]] = {
    "org.json": [put("version", value=value) for value in (NEGATIVE, HUGE, NOT_A_NUMBER, WRONG_TYPE)]
    + [put("base", value={"sha256": "../../../etc/pass", "version": 1})],
    "cloud_profile.json": [put("profile", "version", value=value) for value in (NEGATIVE, HUGE, WRONG_TYPE)],
    "cloud_state.json": [
        put("bootstrap", "permanentManifestVersion", value=NEGATIVE),
        put("forgotten_at", value=NAIVE),
        put("forgotten_at", value=DISTANT),
        put("etag", value="a\nb"),
    ],
    "forgotten.json": [put("version", value=NEGATIVE), put("users", value={"0" * 64: NAIVE})],
    "retention.json": [put("turns_days", value=value) for value in (NEGATIVE, HUGE, WRONG_TYPE)],
    "outbox.json": [put("sessions", value={"call-1": [-5, 0, 0]}), put("sessions", value=WRONG_TYPE)],
    "profile.json": [put("version", value=NEGATIVE), nest],
}


@pytest.mark.parametrize("name", CHANGES)
def test_an_impossible_value_in_a_file_is_fetched_again_and_turns_are_sent(
    cloud: ScriptedCloud, root: Path, name: str
) -> None:
    cloud.put_documents(("hours", "We open at nine."))
    cloud.update_profile(summary="Likes boots.")
    cloud.add_event(remote_turn("e-1", "My dog is called Biscuit."))
    cloud.erase_user("somebody else")
    folder = UserFolder(root, PROJECT, USER)
    project = ProjectFolder(root, PROJECT)
    with device(cloud, root) as runtime:
        runtime.start("call-1", name="Dana")
        runtime.save("t0", "First.", session_id="call-1")
        runtime.flush()
        runtime.pull()
    write_rules(project, RetentionRules("another cloud", 1, 365))
    path = next(path for path in (folder.path / name, project.path / name) if path.exists())
    sound = path.read_text()
    for number, change in enumerate(CHANGES[name], 1):
        content = json.loads(sound)
        change(content)
        path.write_text(json.dumps(content))
        with device(cloud, root) as runtime:
            runtime.save(f"t{number}", f"Turn {number}.", session_id="call-1")
            cloud.wait_for_turns(
                *["My dog is called Biscuit.", "First.", *(f"Turn {sent}." for sent in range(1, number + 1))]
            )
            assert runtime.pull()["status"] == "ok"
            assert runtime.sync["state"] == "ok"
            assert "nine" in runtime.search("when do you open?")["contextText"]
            assert "Likes boots." in runtime.search("boots", lanes=["profile"])["contextText"]
            assert runtime.find_texts("what is my dog called?")
        assert path.with_name(f"{name}.damaged").exists()
        path.with_name(f"{name}.damaged").unlink()


def test_a_version_in_the_replica_that_is_impossible_is_pulled_again(cloud: ScriptedCloud, root: Path) -> None:
    cloud.add_event(remote_turn("e-1", "My dog is called Biscuit."))
    folder = UserFolder(root, PROJECT, USER)
    with device(cloud, root) as runtime:
        runtime.pull()
    content = folder.cloud_replica.read_text()
    assert '"version":1,' in content
    folder.cloud_replica.write_text(content.replace('"version":1,', '"version":-7,'))
    with device(cloud, root) as runtime:
        runtime.save("t1", "One.")
        cloud.wait_for_turns("My dog is called Biscuit.", "One.")
        assert runtime.pull()["status"] == "ok"
        assert runtime.find_texts("what is my dog called?")


def test_a_period_that_is_impossible_drops_nothing(root: Path) -> None:
    project = ProjectFolder(root, PROJECT)
    project.create()
    for days in ("-1", "0", str(10**12), "true"):
        project.retention.write_text(f'{{"cloud":"c","version":1,"turns_days":{days}}}')
        assert read_rules(project) is None


@pytest.mark.parametrize("value", ["-3", "1e400", "1" + "0" * 400, "NaN", '"x"', "[]", "true"])
def test_an_impossible_status_of_the_backlog_counts_as_none(tmp_path: Path, value: str) -> None:
    path = tmp_path / "backlog-1.json"
    for field in ("oldestAt", "turns"):
        fields = {"turns": "1", "users": "1", "refused": "0", "state": '"ok"', "oldestAt": "null", field: value}
        path.write_text("{" + ",".join(f'"{key}":{content}' for key, content in fields.items()) + "}")
        assert read_backlog(path) is None
        assert read_status(path) == BacklogStatus()


@pytest.mark.parametrize("status", [400, 404, 422, 403])
def test_one_pull_that_is_rejected_stops_neither_pushes_nor_other_pulls(
    cloud: ScriptedCloud, root: Path, status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("memoair_runtime.sync.pull_attempts.BACKOFF", Backoff(0.05, 0.1))
    cloud.put_documents(("hours", "We open at nine."))
    cloud.add_event(remote_turn("e-1", "My dog is called Biscuit."))
    for scope in ("org", "profile", "forgotten", "retention"):
        cloud.behave(f"projections/{scope}", always=responds_with(status))
    cloud.erase_user("somebody else")
    cloud.update_profile(summary="Likes boots.")
    with device(cloud, root, pull_interval_s=0.2) as runtime:
        runtime.save("t1", "One.")
        cloud.wait_for_turns("My dog is called Biscuit.", "One.")
        assert runtime.pull()["status"] == "partial"
        assert runtime.find_texts("what is my dog called?")
        assert runtime.sync["state"] == "ok"
        cloud.behave_well()
        eventually(lambda: "nine" in runtime.search("when do you open?")["contextText"])
        eventually(lambda: runtime.pull()["status"] == "ok")
        assert "Likes boots." in runtime.search("boots", lanes=["profile"])["contextText"]


def test_a_pull_that_is_rejected_is_repeated_less_and_less_often_and_from_the_beginning(
    cloud: ScriptedCloud, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("memoair_runtime.sync.pull_attempts.BACKOFF", Backoff(0.05, 60.0, jitter=0.0))
    cloud.put_documents(("hours", "We open at nine."))
    with device(cloud, root, pull_interval_s=0.02) as runtime:
        runtime.pull()
        cloud.put_documents(("closing", "We close at five."))
        cloud.behave("projections/org", responds_with(422), responds_with(422), responds_with(422))
        before = len(cloud.requests_to("projections/org"))
        eventually(lambda: "five" in runtime.search("when do you close?")["contextText"])
    queries = [request.path.partition("?")[2] for request in cloud.requests_to("projections/org")[before:]]
    assert queries[:4] == ["since=1", "", "", ""]


def test_turns_are_sent_while_a_pull_fails_again_and_again(cloud: ScriptedCloud, root: Path) -> None:
    cloud.add_event(remote_turn("e-1", "My dog is called Biscuit."))
    cloud.behave("projections/permanent", always=responds_with(500))
    with device(cloud, root, waits_for_pull=False) as runtime:
        for number in (1, 2):
            runtime.save(f"t{number}", f"Turn {number}.")
            cloud.wait_for_turns("My dog is called Biscuit.", *(f"Turn {sent}." for sent in range(1, number + 1)))
        assert len(cloud.requests_to("projections/permanent")) >= 1
