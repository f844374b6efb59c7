"""A call on several machines: its turns are pulled when it begins here and while it goes on, and keep their order."""

import json
from pathlib import Path

import pytest
from support.calls import user_folder
from support.devices import Device, device
from support.runtimes import PROJECT
from support.scripted_cloud import ScriptedCloud, remote_turn, responds_with
from support.waiting import eventually

from memoair_runtime import requests
from memoair_runtime.errors import SessionNotFoundError

pytestmark = pytest.mark.usefixtures("short_pauses")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "storage"


@pytest.fixture
def short_follow_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("memoair_runtime.sync.scheduler._NAMED_CALL_PAUSES_S", (0.01,) * 3)
    monkeypatch.setattr("memoair_runtime.sync.scheduler._SHARED_CALL_PAUSES_S", (0.01,) * 1_000)


def start(here: Device, session_id: str, **options: bool) -> None:
    identity = {"workspace_id": PROJECT, "user_id": here.settings.user_id}
    here.service.start_session(requests.StartRequest(session_id=session_id, **identity, **options))


def logged_seqs(root: Path) -> list[int]:
    log = user_folder(root).session("CA1").log
    return [json.loads(line)["seq"] for line in log.read_bytes().splitlines()]


def bootstraps(cloud: ScriptedCloud) -> int:
    return len(cloud.requests_to("bootstrap"))


def test_the_first_start_of_a_session_pulls_its_turns_of_other_machines(cloud: ScriptedCloud, root: Path) -> None:
    with device(cloud, root) as here:
        cloud.add_event(remote_turn("e-1", "The boots are red.", session_id="CA1"))
        start(here, "CA1")
        eventually(lambda: here.search("boots", session_id="CA1")["working"])
        pulled = bootstraps(cloud)
        start(here, "CA1")  # it is known
        here.pull()
        assert bootstraps(cloud) == pulled + 1


@pytest.mark.usefixtures("short_follow_pauses")
def test_a_shared_call_is_followed_and_another_is_not(cloud: ScriptedCloud, root: Path) -> None:
    with device(cloud, root) as here:
        start(here, "alone")
        start(here, "CA1", shared=True)
        here.flush()
        here.pull()
        pulled = bootstraps(cloud)
        here.save("t1", "Hello.", session_id="CA1")
        eventually(lambda: bootstraps(cloud) >= pulled + 3)  # three pauses follow a turn
        here.pull()
        here.flush()
        pulled = bootstraps(cloud)
        here.search("boots", session_id="alone")
        here.save("t1", "Hello.", session_id="alone")
        here.flush()
        assert bootstraps(cloud) == pulled

        cloud.add_event(remote_turn("e-1", "The boots are red.", session_id="alone"))
        here.pull()
        pulled = bootstraps(cloud)
        here.search("boots", session_id="alone")  # from now on it is known that another machine takes part
        eventually(lambda: bootstraps(cloud) > pulled + 3)


def test_events_continue_from_the_last_known_number(cloud: ScriptedCloud, root: Path) -> None:
    cloud.add_event(remote_turn("e-1", "The boots are red.", session_id="CA1", seq=7))
    with device(cloud, root) as here:
        here.save("t1", "And size nine.", session_id="CA1")
        here.flush()
        here.end("CA1")
    with device(cloud, root) as again:  # also after a restart, from what is on the disk
        cloud.behave("*", always=responds_with(503))
        start(again, "CA1")
    assert logged_seqs(root) == [8, 9, 10, 11]
    sent = [(event["type"], event["seq"]) for event in cloud.accepted_events() if event["sessionId"] == "CA1"]
    assert sent[-3:] == [("session_start", 8), ("turn", 9), ("session_end", 10)]


def test_the_end_of_a_session_of_other_machines_is_logged_and_that_of_an_unknown_one_is_not(
    cloud: ScriptedCloud, root: Path
) -> None:
    with device(cloud, root) as here:
        cloud.add_event(remote_turn("e-1", "The boots are red.", session_id="CA1", seq=2))
        here.end("CA1")
        here.end("CA-unanswered")
        here.flush()
        sent = [(event["type"], event["sessionId"]) for event in cloud.accepted_events()]
    assert ("session_end", "CA1") in sent
    assert not [session_id for _, session_id in sent if session_id == "CA-unanswered"]


def test_a_start_that_does_not_reopen_leaves_an_ended_session_ended(root: Path) -> None:
    with device(None, root) as here:
        start(here, "CA1", reopen=False)
        start(here, "CA1", reopen=False)
        here.save("t1", "Hello.", session_id="CA1")
        here.end("CA1")
        with pytest.raises(SessionNotFoundError):
            start(here, "CA1", reopen=False)
        with pytest.raises(SessionNotFoundError):
            here.save("t2", "Hello again.", session_id="CA1")
        start(here, "CA1")
        here.save("t2", "Hello again.", session_id="CA1")


def test_an_end_by_another_process_counts_for_a_start_that_does_not_reopen(root: Path) -> None:
    with device(None, root) as here, device(None, root) as other:
        start(here, "CA1")
        here.save("t1", "Hello.", session_id="CA1")
        other.end("CA1")
        with pytest.raises(SessionNotFoundError):
            start(here, "CA1", reopen=False)
