"""``memoair sync``: what waits on this machine is sent in the foreground."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.commands import memoair
from support.devices import device
from support.runtimes import PROJECT
from support.scripted_cloud import KEY, ScriptedCloud, error_body, responds_with

from memoair_runtime.storage.project_folder import ProjectFolder
from memoair_runtime.storage.user_folder import UserFolder

CALLERS = ("ada", "bob", "cyd")


@pytest.fixture
def cloud() -> Iterator[ScriptedCloud]:
    with ScriptedCloud() as cloud:
        yield cloud


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "storage"


def save_during_an_outage(cloud: ScriptedCloud | None, root: Path, *callers: str, turns: int = 1) -> None:
    """Let a device of each caller save turns that are not sent, or never: without a cloud."""
    if cloud is not None:
        cloud.behave("*", always=responds_with(503))
    for caller in callers:
        with device(cloud, root, waits_for_pull=False, user_id=caller, agent_id="agent_a") as runtime:
            for number in range(turns):
                runtime.save(f"t{number}", f"I am {caller}, {number}.")
    if cloud is not None:
        cloud.behave_well()


def sync(cloud: ScriptedCloud, root: Path, *options: str, code: int = 0) -> Any:
    """Run the command and return what it prints as JSON."""
    where = ("--project", PROJECT, "--base-url", cloud.url, "--storage", root)
    return json.loads(memoair("sync", "--json", *where, *options, code=code, MEMOAIR_API_KEY=KEY).out)


def test_all_callers_are_sent_once(cloud: ScriptedCloud, root: Path) -> None:
    save_during_an_outage(cloud, root, *CALLERS, turns=2)
    result = sync(cloud, root)
    assert result["sent"] == {"turns": 6, "users": 3}
    assert result["left"] == {"turns": 0, "events": 0, "users": 0, "oldestS": None}
    assert (result["refused"], result["error"], result["cloud"], result["project"]) == (0, None, cloud.url, PROJECT)
    for caller in CALLERS:
        assert cloud.turn_texts(caller) == [f"I am {caller}, {number}." for number in range(2)]
    assert {request.headers["x-agent-id"] for request in cloud.requests_to("events")[-3:]} == {"agent_a"}
    sent = len(cloud.requests_to("events"))
    assert sync(cloud, root)["sent"] == {"turns": 0, "users": 0}
    assert len(cloud.requests_to("events")) == sent


def test_without_anything_to_send_it_is_done(cloud: ScriptedCloud, root: Path) -> None:
    assert sync(cloud, root)["left"]["turns"] == 0
    assert not root.exists(), "nothing is created"


def test_turns_are_left_while_the_cloud_is_away(cloud: ScriptedCloud, root: Path) -> None:
    save_during_an_outage(cloud, root, *CALLERS)
    cloud.behave("*", always=responds_with(503))
    result = sync(cloud, root, "--retry-timeout", "0.5", code=1)
    assert (result["left"]["turns"], result["left"]["users"]) == (3, 3)
    assert result["left"]["oldestS"] > 0
    assert "503" in result["error"]
    text = memoair(
        *("sync", "--project", PROJECT, "--base-url", cloud.url, "--storage", root, "--retry-timeout", "0"),
        code=1,
        MEMOAIR_API_KEY=KEY,
    ).out
    assert "3 turns of 3 callers left: the cloud answered 503" in text


def test_an_outage_that_passes_is_waited_for(cloud: ScriptedCloud, root: Path) -> None:
    save_during_an_outage(cloud, root, *CALLERS)
    cloud.behave("events", responds_with(503), responds_with(429, None, Retry_After="0"))
    assert sync(cloud, root)["sent"] == {"turns": 3, "users": 3}


def test_a_wrong_key_is_reported_at_once(cloud: ScriptedCloud, root: Path) -> None:
    save_during_an_outage(cloud, root, "ada")
    cloud.behave("*", always=responds_with(401, error_body("cloud.unauthorized")))
    result = sync(cloud, root, code=1)
    assert "check api_key" in result["error"]
    assert len(cloud.requests_to("bootstrap")) >= 1
    assert cloud.accepted_events("ada") == []


def test_refused_turns_have_an_exit_code_of_their_own(cloud: ScriptedCloud, root: Path) -> None:
    save_during_an_outage(cloud, root, "ada")
    cloud.behave(
        "events", responds_with(422, error_body("cloud.invalid")), responds_with(422, error_body("cloud.invalid"))
    )
    assert sync(cloud, root, code=3)["refused"] >= 1
    assert sync(cloud, root, code=3)["refused"] >= 1, "as long as the file lists them"
    UserFolder(root, PROJECT, "ada").rejected_events.unlink()
    assert sync(cloud, root)["refused"] == 0


def test_what_was_said_without_a_cloud_is_sent_only_if_asked_for(cloud: ScriptedCloud, root: Path) -> None:
    save_during_an_outage(None, root, *CALLERS)
    result = sync(cloud, root)
    assert (result["sent"]["turns"], result["local"]) == (0, {"turns": 3, "users": 3})
    assert cloud.requests_to("events") == []
    result = sync(cloud, root, "--include-local")
    assert (result["sent"], result["local"]) == ({"turns": 3, "users": 3}, {"turns": 0, "users": 0})
    for caller in CALLERS:
        assert cloud.turn_texts(caller) == [f"I am {caller}, 0."]
    sent = len(cloud.requests_to("events"))
    assert sync(cloud, root, "--include-local")["sent"]["turns"] == 0
    assert len(cloud.requests_to("events")) == sent


def test_turns_for_another_cloud_are_sent_only_if_it_has_moved(cloud: ScriptedCloud, root: Path) -> None:
    save_during_an_outage(cloud, root, *CALLERS)
    with ScriptedCloud() as moved:
        assert sync(moved, root)["sent"]["turns"] == 0
        assert sync(moved, root, "--moved-from", cloud.url + "/")["sent"] == {"turns": 3, "users": 3}
        assert moved.turn_texts("ada") == ["I am ada, 0."]
    assert cloud.turn_texts("ada") == []


def test_turns_of_erased_callers_are_deleted_and_not_sent(cloud: ScriptedCloud, root: Path) -> None:
    save_during_an_outage(cloud, root, *CALLERS)
    cloud.erase_user("bob")
    assert sync(cloud, root)["sent"] == {"turns": 2, "users": 2}
    assert "I am bob" not in str([request.body for request in cloud.requests[-8:]])
    assert not UserFolder(root, PROJECT, "bob").path.exists()


def test_long_backlogs_of_one_caller_do_not_hold_up_the_others(
    cloud: ScriptedCloud, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("memoair_runtime.sync.push.MAX_BATCH_EVENTS", 5)
    save_during_an_outage(cloud, root, "ada", turns=20)
    save_during_an_outage(cloud, root, "bob", "cyd")
    begin = len(cloud.requests_to("events"))
    sync(cloud, root)
    users = [request.user for request in cloud.requests_to("events")[begin:]]
    assert users[:4] == ["ada", "bob", "cyd", "ada"]


def test_other_projects_are_left_alone(cloud: ScriptedCloud, root: Path) -> None:
    save_during_an_outage(cloud, root, "ada")
    ProjectFolder(root, PROJECT).path.rename(root / "another")
    assert sync(cloud, root)["sent"]["turns"] == 0


@pytest.mark.parametrize(
    ("options", "variable"),
    [(("--base-url", "nonsense"), "MEMOAIR_BASE_URL"), (("--project", ""), "MEMOAIR_PROJECT_ID")],
)
def test_invalid_options_are_named(tmp_path: Path, options: tuple[str, ...], variable: str) -> None:
    arguments = ("--project", PROJECT, "--storage", tmp_path, *options)
    assert variable in memoair("sync", *arguments, code=2, MEMOAIR_API_KEY=KEY).err
