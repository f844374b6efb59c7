"""The backlog of a project, in this process: what is found, in which order and how fast it is sent."""

import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from support.devices import device, settings_for
from support.runtimes import PROJECT
from support.scripted_cloud import ScriptedCloud, responds_with
from support.waiting import eventually

from memoair_runtime import backlog_process
from memoair_runtime.backlog_process import BacklogSender
from memoair_runtime.errors import BadRequestError
from memoair_runtime.metrics import RuntimeMetrics
from memoair_runtime.settings import cloud_id_of
from memoair_runtime.storage.backlog_status import read_status
from memoair_runtime.storage.project_folder import ProjectFolder
from memoair_runtime.storage.user_folder import UserFolder
from memoair_runtime.sync.backlog import BacklogCounts, Pace, ProjectBacklog
from memoair_runtime.sync.transport import CloudTransport

pytestmark = pytest.mark.usefixtures("short_pauses")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "storage"


@pytest.fixture
def backlog(cloud: ScriptedCloud, root: Path) -> Iterator[ProjectBacklog]:
    settings = settings_for(cloud, root)
    transport = CloudTransport(cloud.url, settings.cloud_key or "", PROJECT, None, None)
    yield ProjectBacklog(ProjectFolder(root, PROJECT), cloud_id_of(cloud.url), transport, RuntimeMetrics())
    transport.close()


def save_during_an_outage(cloud: ScriptedCloud, root: Path, *users: str, turns: int = 1) -> None:
    cloud.behave("*", always=responds_with(503))
    for user in users:
        with device(cloud, root, waits_for_pull=False, user_id=user) as runtime:
            for number in range(turns):
                runtime.save(f"t{number}", f"Turn {number} of {user}.")
    cloud.behave_well()


def test_what_was_kept_under_an_invalid_id_never_waits_and_counts_as_rejected(
    cloud: ScriptedCloud, root: Path, backlog: ProjectBacklog
) -> None:
    save_during_an_outage(cloud, root, "ada", "bob")
    UserFolder(root, PROJECT, "bob").path.rename(UserFolder(root, PROJECT, "bob ").path)
    refresh(backlog)
    assert [folder.user_id for folder in backlog.waiting_users()] == ["ada"]
    assert (backlog.counts.turns, backlog.counts.users, backlog.counts.refused) == (1, 1, 2)


def test_a_runtime_searches_and_erases_what_was_kept_under_an_invalid_id_and_saves_nothing(
    cloud: ScriptedCloud, root: Path
) -> None:
    save_during_an_outage(cloud, root, "bob")
    UserFolder(root, PROJECT, "bob").path.rename(UserFolder(root, PROJECT, "bob ").path)
    with device(cloud, root, waits_for_pull=False, user_id="bob ") as runtime:
        assert runtime.find_texts("turn") == ["Caller: Turn 0 of bob."]
        for save in (partial(runtime.save, "t1", "More."), runtime.start):
            with pytest.raises(BadRequestError, match="userId begins or ends with white space"):
                save()
        assert runtime.forget()["removed"] == {"sessions": 1, "turns": 1}
        assert runtime.find_texts("turn") == []


def refresh(backlog: ProjectBacklog) -> int:
    """Look for what waits; return how many folders were read."""
    return sum(1 for _ in backlog.refresh())


def test_a_folder_is_read_again_only_if_it_has_changed(
    cloud: ScriptedCloud, root: Path, backlog: ProjectBacklog
) -> None:
    assert (refresh(backlog), backlog.counts) == (0, BacklogCounts())
    save_during_an_outage(cloud, root, "ada", "bob")
    assert refresh(backlog) == 2
    assert (backlog.counts.turns, backlog.counts.events, backlog.counts.users) == (2, 4, 2)
    assert refresh(backlog) == 0
    save_during_an_outage(cloud, root, "bob", turns=2)
    assert refresh(backlog) == 1
    assert backlog.counts.turns == 3
    backlog.connect()
    while users := backlog.waiting_users():
        for user in users:
            assert backlog.push(user)
    assert backlog.counts == BacklogCounts()
    assert refresh(backlog) == 0


def test_a_user_whose_push_has_failed_comes_after_the_others(
    cloud: ScriptedCloud, root: Path, backlog: ProjectBacklog
) -> None:
    save_during_an_outage(cloud, root, "ada", "bob")
    refresh(backlog)
    assert [user.user_id for user in backlog.waiting_users()] == ["ada", "bob"]
    cloud.behave("events", responds_with(503))
    with pytest.raises(Exception, match="503"):
        backlog.push(UserFolder(root, PROJECT, "ada"))
    assert [user.user_id for user in backlog.waiting_users()] == ["bob"]
    assert [user.user_id for user in backlog.waiting_users(skips_failed=False)] == ["ada", "bob"]


@pytest.mark.parametrize(("busy_s", "pause_s"), [(0.0, 0.02), (0.005, 0.015), (0.1, 0.1), (1.0, 1.0)])
def test_the_rate_is_bounded_and_a_slow_cloud_is_asked_less_often(busy_s: float, pause_s: float) -> None:
    pauses: list[float] = []
    Pace(backlog_process.MAX_USERS_PER_S, backlog_process.REQUEST_SHARE, pauses.append).pause(busy_s)
    assert pauses == [pytest.approx(pause_s)]


def test_after_a_restore_it_begins_to_resend_at_a_random_moment(
    cloud: ScriptedCloud, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cloud.epoch = "first"
    save_during_an_outage(cloud, root, "ada")
    monkeypatch.setattr(backlog_process, "START_DELAY_S", 0.0)
    monkeypatch.setattr(backlog_process, "REFRESH_INTERVAL_S", 0.01)
    stop = threading.Event()
    sender = BacklogSender(settings_for(cloud, root, pull_interval_s=0.2), stop)
    draws: list[tuple[float, float]] = []

    def draw(low: float, high: float) -> float:
        draws.append((low, high))
        return high

    monkeypatch.setattr("memoair_runtime.backlog_process.random.uniform", draw)
    thread = threading.Thread(target=sender.run)
    thread.start()
    try:
        cloud.wait_for_turns("Turn 0 of ada.", user="ada")
        backup = cloud.back_up()
        backup["users"]["ada"].events.clear()
        cloud.restore(backup, "second")
        restored_at = time.monotonic()
        cloud.wait_for_turns("Turn 0 of ada.", user="ada")
        assert time.monotonic() - restored_at >= 0.1, "half of the interval of pulls, as drawn"
        assert (0.0, 0.1) in draws
    finally:
        stop.set()
        thread.join()


def test_an_error_of_the_cloud_shows_in_the_status(
    cloud: ScriptedCloud, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_during_an_outage(cloud, root, "ada")
    monkeypatch.setattr(backlog_process, "START_DELAY_S", 0.0)
    monkeypatch.setattr(backlog_process, "REFRESH_INTERVAL_S", 0.01)
    cloud.behave("*", always=responds_with(401))
    stop = threading.Event()
    sender = BacklogSender(settings_for(cloud, root), stop)
    thread = threading.Thread(target=sender.run)
    thread.start()
    try:
        status = eventually(lambda: (found := read_status(Path(sender.status_path))).state == "refused" and found)
        assert (status.turns, status.users) == (1, 1)
    finally:
        stop.set()
        thread.join()
    assert cloud.requests_to("events") == []
