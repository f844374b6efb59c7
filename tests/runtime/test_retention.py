"""Retention on devices: old turns leave the disk, the memory and recall, but never before the cloud has them."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from support.clouds import Client, RunningCloud, running
from support.devices import Device, device
from support.runtimes import PROJECT
from support.stored_files import read_stored_files
from support.waiting import eventually

from memoair_runtime import backlog_process
from memoair_runtime.backlog_process import BacklogSender
from memoair_runtime.metrics import RuntimeMetrics
from memoair_runtime.settings import RuntimeSettings, SettingsError, cloud_id_of
from memoair_runtime.storage.process_lock import ProcessLock
from memoair_runtime.storage.project_folder import ProjectFolder
from memoair_runtime.storage.replica_file import ReplicaFile
from memoair_runtime.storage.retention import read_rules
from memoair_runtime.storage.user_folder import UserFolder
from memoair_runtime.sync.backlog import ProjectBacklog
from memoair_runtime.sync.transport import CloudTransport

pytestmark = pytest.mark.usefixtures("short_pauses", "opened_model")

CALLER = "ada"


@pytest.fixture(scope="module")
def real_cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningCloud]:
    folder = tmp_path_factory.mktemp("cloud")
    with running(f"sqlite:///{folder / 'cloud.db'}", folder) as cloud:
        yield cloud


@pytest.fixture
def client(real_cloud: RunningCloud) -> Client:
    return real_cloud.tenant().with_identity(user=CALLER)


def days_ago(days: float) -> str:
    return (datetime.now(timezone.utc) - timedelta(days=days)).isoformat()


@contextmanager
def machine(client: Client, root: Path, **changes: Any) -> Iterator[Device]:
    settings = {
        "project_id": client.identity["project"],
        "user_id": CALLER,
        "cloud_key": client.key,
        "cloud_base_url": client.url,
        **changes,
    }
    with device(None, root, **settings) as running_device:
        if settings["cloud_base_url"] is not None:
            eventually(
                lambda: running_device.sync["hasPulled"] or running_device.sync["state"] in ("retrying", "refused"), 20
            )
        yield running_device


def say(device: Device, session_id: str, days: float, *texts: str) -> None:
    for said in texts:
        device.save(f"{session_id} {days} {said}", said, session_id=session_id, metadata={"occurredAt": days_ago(days)})


def set_period(client: Client, days: int | None) -> None:
    client.ok("PATCH", f"/v1/projects/{client.identity['project']}", {"retention": {"turnsDays": days}})


def words_on_disk(root: Path) -> str:
    return " ".join(content.decode("latin-1") for _, content in read_stored_files(root))


def test_two_machines_drop_old_turns_from_disk_and_recall(
    real_cloud: RunningCloud, client: Client, tmp_path: Path
) -> None:
    with machine(client, tmp_path / "a") as first, machine(client, tmp_path / "b") as second:
        say(first, "old", 40, "The plum is in the zanzibar crate.", "The zanzibar crate is green.")
        say(first, "mixed", 40, "The zanzibar ship is late.")
        say(first, "mixed", 2, "The parcel is in Lisbon.")
        assert first.flush()["pending"] == 0
        second.pull()
        assert any("zanzibar" in text for text in second.find_texts("Where is the zanzibar crate?"))
        set_period(client, 30)
        real_cloud.run_tasks()
        for one in (first, second):
            assert one.pull()["status"] == "ok"
            assert not [text for text in one.find_texts("Where is the zanzibar crate?") if "zanzibar" in text]
            assert any("Lisbon" in text for text in one.find_texts("Where is the parcel?"))
        for name in ("a", "b"):
            assert "zanzibar" not in words_on_disk(tmp_path / name)
            assert "Lisbon" in words_on_disk(tmp_path / name)
        # The rest of the call is sent again, and known; and both go on.
        say(first, "mixed", 0, "The invoice is in Oslo.")
        assert first.flush()["pending"] == 0
        second.pull()
        assert any("Oslo" in text for text in second.find_texts("Where is the invoice?"))
        said = [event["payload"]["userText"] for event in client.events("mixed") if event["type"] == "turn"]
        assert said == ["The parcel is in Lisbon.", "The invoice is in Oslo."]
    with machine(client, tmp_path / "a", cloud_base_url="http://127.0.0.1:9") as again:
        assert any("Lisbon" in text for text in again.find_texts("Where is the parcel?"))


def test_the_period_holds_offline_and_from_the_start(client: Client, tmp_path: Path) -> None:
    with machine(client, tmp_path) as one:
        say(one, "old", 40, "The plum is in the zanzibar crate.")
        set_period(client, 45)
        assert one.flush()["pending"] == 0
        one.pull()
        assert "zanzibar" in words_on_disk(tmp_path)
    rules_file = ProjectFolder(tmp_path, client.identity["project"]).retention
    rules_file.write_bytes(rules_file.read_bytes().replace(b"45", b"30"))  # as if ten days had passed
    with machine(client, tmp_path, cloud_key=None, cloud_base_url=None) as offline:
        assert offline.find_texts("Where is the zanzibar crate?") == []
        assert "zanzibar" not in words_on_disk(tmp_path)


def test_unsent_turns_are_kept_until_the_cloud_has_them(
    real_cloud: RunningCloud, client: Client, tmp_path: Path
) -> None:
    set_period(client, 30)
    with machine(client, tmp_path) as one:
        one.pull()
    with machine(client, tmp_path, cloud_key="memoair_pk_wrong") as refused:
        say(refused, "old", 40, "The plum is in the zanzibar crate.")
        eventually(lambda: refused.sync["state"] == "refused", 20)
    with machine(client, tmp_path, cloud_key="memoair_pk_wrong") as refused:
        assert refused.find_texts("Where is the zanzibar crate?") != []
    with machine(client, tmp_path) as one:
        assert one.flush()["pending"] == 0
    assert client.call("GET", client.path).status == 404  # accepted, and dropped
    with machine(client, tmp_path) as one:
        assert one.find_texts("Where is the zanzibar crate?") == []
        assert "zanzibar" not in words_on_disk(tmp_path)


@pytest.mark.parametrize("on_project", [False, True])
def test_a_held_caller_keeps_everything(client: Client, tmp_path: Path, on_project: bool) -> None:
    with machine(client, tmp_path) as one:
        say(one, "old", 40, "The plum is in the zanzibar crate.")
        assert one.flush()["pending"] == 0
        owner = f"/v1/projects/{client.identity['project']}" if on_project else client.path
        client.ok("POST", f"{owner}/holds", {"reason": "case 12"})
        set_period(client, 30)
        one.pull()
        assert one.find_texts("Where is the zanzibar crate?") != []
    with machine(client, tmp_path, cloud_key=None, cloud_base_url=None, retention_days=10) as offline:
        assert offline.find_texts("Where is the zanzibar crate?") != []
    with machine(client, tmp_path) as one:
        client.ok("POST", f"{owner}/holds/lift", {"reason": "settled"})
        one.pull()
        assert one.find_texts("Where is the zanzibar crate?") == []


def test_the_backlog_drops_old_turns_of_callers_without_a_runtime(client: Client, tmp_path: Path) -> None:
    for user, days in (("ada", 40), ("bob", 40), ("eve", 2)):
        with machine(client, tmp_path, user_id=user) as one:
            say(one, "old", days, f"The plum of {user} is in the zanzibar crate.")
            assert one.flush()["pending"] == 0
    set_period(client, 30)
    project = ProjectFolder(tmp_path, client.identity["project"])
    transport = CloudTransport(client.url, client.key or "", project.project_id, None, None)
    backlog = ProjectBacklog(project, cloud_id_of(client.url), transport, RuntimeMetrics())
    served = ProcessLock(UserFolder(tmp_path, project.project_id, "bob").lock("runtime"))
    try:
        assert served.try_acquire()  # as a runtime of bob's does
        backlog.connect()
        for _ in backlog.drop_old_turns(datetime.now(timezone.utc)):
            pass
        on_disk = words_on_disk(tmp_path)
        assert [f"plum of {user}" in on_disk for user in ("ada", "bob", "eve")] == [False, True, True]
        assert sorted(folder.user_id for folder in project.list_users()) == ["bob", "eve"]
    finally:
        served.release()
        transport.close()


def test_a_setting_of_the_machine_needs_no_cloud(tmp_path: Path) -> None:
    with device(None, tmp_path) as one:
        say(one, "old", 40, "The plum is in the zanzibar crate.")
        say(one, "new", 2, "The parcel is in Lisbon.")
    with device(None, tmp_path, retention_days=30) as one:
        assert not [text for text in one.find_texts("Where is the zanzibar crate?") if "zanzibar" in text]
        assert one.find_texts("Where is the parcel?") != []
    assert "zanzibar" not in words_on_disk(tmp_path)


@pytest.mark.parametrize("value", ["0", "-1", "1.5", "a week", "40000", "9" * 5_000])
def test_an_impossible_setting_is_rejected(value: str) -> None:
    environ = {"MEMOAIR_RUNTIME_PROJECT_ID": PROJECT, "MEMOAIR_RUNTIME_USER_ID": CALLER}
    assert RuntimeSettings.from_environ({**environ, "MEMOAIR_RUNTIME_RETENTION_DAYS": "7"}).retention_days == 7
    with pytest.raises(SettingsError, match="RETENTION_DAYS"):
        RuntimeSettings.from_environ({**environ, "MEMOAIR_RUNTIME_RETENTION_DAYS": value})


def test_a_snapshot_of_the_cloud_brings_nothing_old_back(client: Client, tmp_path: Path) -> None:
    """The worker of the cloud may not have come to it yet."""
    with machine(client, tmp_path / "a") as one:
        say(one, "old", 40, "The plum is in the zanzibar crate.")
        assert one.flush()["pending"] == 0
    set_period(client, 30)
    with machine(client, tmp_path / "b") as other:
        other.pull()
        assert other.find_texts("Where is the zanzibar crate?") == []
        assert ReplicaFile(other.folder.cloud_replica, None).refresh().events == ()
    rules = read_rules(ProjectFolder(tmp_path / "b", client.identity["project"]))
    assert rules is not None
    assert rules.turns_days == 30


def test_what_is_too_old_for_this_machine_is_not_pulled(client: Client, tmp_path: Path) -> None:
    with machine(client, tmp_path / "a") as one, machine(client, tmp_path / "b", retention_days=30) as other:
        say(other, "mine", 1, "The parcel is in Lisbon.")
        assert other.flush()["pending"] == 0
        other.pull()  # with this, the period was applied on this machine
        say(one, "old", 40, "The plum is in the zanzibar crate.")
        assert one.flush()["pending"] == 0
        other.pull()
        assert not [text for text in other.find_texts("Where is the zanzibar crate?") if "zanzibar" in text]
        assert "zanzibar" not in words_on_disk(tmp_path / "b")


def test_the_process_that_sends_the_backlog_also_drops_old_turns(
    client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with machine(client, tmp_path) as one:
        say(one, "old", 40, "The plum is in the zanzibar crate.")
        assert one.flush()["pending"] == 0
        settings = one.settings
    set_period(client, 30)
    monkeypatch.setattr(backlog_process, "START_DELAY_S", 0.0)
    monkeypatch.setattr(backlog_process, "REFRESH_INTERVAL_S", 0.01)
    stop = threading.Event()
    thread = threading.Thread(target=BacklogSender(settings, stop).run)
    thread.start()
    try:
        eventually(lambda: "zanzibar" not in words_on_disk(tmp_path), 20)
    finally:
        stop.set()
        thread.join()
    assert read_rules(ProjectFolder(tmp_path, settings.project_id)) is not None
