"""The backlog of a machine: turns that wait in it are sent without their callers, by one process at a time."""

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import urllib3
from support.clients import NewClient, is_alive, recall, say
from support.runtimes import PROJECT
from support.scripted_cloud import KEY, ScriptedCloud, responds_with
from support.waiting import eventually

from memoair_runtime.settings import cloud_id_of
from memoair_runtime.storage.backlog_status import read_status
from memoair_runtime.storage.project_folder import ProjectFolder
from memoair_voice_sync import MemoAirVoiceClientSync

CALLERS = ("ada", "bob", "cyd")


@pytest.fixture
def cloud(nothing_left_behind: None) -> Iterator[ScriptedCloud]:
    with ScriptedCloud() as cloud:
        yield cloud


@pytest.fixture
def new_client(cloud: ScriptedCloud, new_client: NewClient) -> NewClient:
    """Make clients of the cloud over one empty storage root."""
    return lambda **arguments: new_client(**{"cloud_base_url": cloud.url, "api_key": KEY, **arguments})


def save_during_an_outage(cloud: ScriptedCloud, new_client: NewClient, *callers: str, **arguments: Any) -> None:
    """Let a client save a turn of each caller while the cloud is away, and close it."""
    cloud.behave("*", always=responds_with(503))
    client = new_client(**arguments)
    for caller in callers:
        say(client, caller, f"I am {caller}.")
    client.close()
    assert not any(cloud.turn_texts(caller) for caller in callers)
    cloud.behave_well()


def backlog_of(client: MemoAirVoiceClientSync) -> dict[str, Any]:
    """Return the backlog that a client reports, as soon as it does."""
    return dict(eventually(lambda: client.stats()["backlog"], within_s=30))


def sender_pid(cloud: ScriptedCloud, storage_root: Path) -> int | None:
    """Return the process that sends the backlog, as the status file says."""
    return read_status(ProjectFolder(storage_root, PROJECT).backlog_status(cloud_id_of(cloud.url))).pid


def test_turns_of_all_callers_are_sent_though_only_one_calls_again(cloud: ScriptedCloud, new_client: NewClient) -> None:
    save_during_an_outage(cloud, new_client, *CALLERS)
    client = new_client()
    recall(client, "someone else", "Hello?")
    for caller in CALLERS:
        cloud.wait_for_turns(f"I am {caller}.", user=caller)
    eventually(lambda: backlog_of(client)["users"] == 0)
    assert len(client.stats()["runtimes"]) == 1, "no runtime is started for them"
    sent = [event["eventId"] for request in cloud.requests_to("events") for event in request.body["events"]]
    accepted = [event["eventId"] for caller in CALLERS for event in cloud.accepted_events(caller)]
    assert sorted(set(sent) & set(accepted)) == sorted(accepted)


def test_stats_and_metrics_tell_of_the_backlog_of_the_machine(cloud: ScriptedCloud, new_client: NewClient) -> None:
    save_during_an_outage(cloud, new_client, *CALLERS)
    cloud.behave("*", always=responds_with(503))
    client = new_client()
    recall(client, "someone else", "Hello?")

    def is_counted() -> bool:  # before, the status is that of the last process, or not complete
        backlog = backlog_of(client)
        return backlog["sync"] == "retrying" and (backlog["turns"], backlog["users"]) == (3, 3)

    eventually(is_counted, within_s=30)
    backlog = backlog_of(client)
    assert backlog["refused_events"] == 0
    assert 0 < backlog["oldest_s"] < 600
    metrics = _fetch_metrics(client)
    assert (metrics["memoair_runtime_backlog_turns"], metrics["memoair_runtime_backlog_users"]) == (3, 3)
    assert metrics["memoair_runtime_backlog_oldest_seconds"] > 0
    assert new_client(cloud_base_url=None).stats()["backlog"] is None


def _fetch_metrics(client: MemoAirVoiceClientSync) -> dict[str, float]:
    handle = next(each for each in client._pool.handles() if each.runtime is not None)
    assert handle.runtime is not None
    transport = handle.runtime.transport
    headers = transport._headers
    url = f"http://127.0.0.1:{transport.port}/v1/runtime/metrics"
    with urllib3.PoolManager() as http:
        lines = http.request("GET", url, headers=headers).data.decode().splitlines()
    return {line.split()[0]: float(line.split()[1]) for line in lines if line and line[0] != "#"}


def test_one_process_sends_and_another_takes_over_when_it_is_killed(
    cloud: ScriptedCloud, new_client: NewClient, storage_root: Path
) -> None:
    save_during_an_outage(cloud, new_client, *CALLERS)
    cloud.behave("events", always=responds_with(503))
    clients = [new_client(), new_client()]
    for number, client in enumerate(clients):
        recall(client, f"someone {number}", "Hello?")
    first = eventually(lambda: sender_pid(cloud, storage_root), within_s=30)
    os.kill(first, signal.SIGKILL)
    second = eventually(lambda: (pid := sender_pid(cloud, storage_root)) != first and pid, within_s=30)
    cloud.behave_well()
    for caller in CALLERS:
        eventually(lambda caller=caller: cloud.turn_texts(caller) == [f"I am {caller}."], within_s=90)
    eventually(lambda: not is_alive(first))
    assert is_alive(int(second))


def test_a_process_that_was_killed_is_started_again(
    cloud: ScriptedCloud, new_client: NewClient, storage_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("memoair_voice_sync._pool.backlog.RESTART_PAUSE_S", 0.2)
    client = new_client()
    say(client, "ada", "Hello.")
    first = eventually(lambda: sender_pid(cloud, storage_root), within_s=30)
    os.kill(first, signal.SIGKILL)
    eventually(lambda: (pid := sender_pid(cloud, storage_root)) != first and pid, within_s=30)


def test_a_client_that_is_closed_at_once_sends_what_waits(cloud: ScriptedCloud, new_client: NewClient) -> None:
    save_during_an_outage(cloud, new_client, *CALLERS)
    started_at = time.monotonic()
    while not all(cloud.turn_texts(caller) for caller in CALLERS):
        client = new_client()
        client.search_memory("Hello?", user={"id": "ada"}, timeout_ms=10_000)
        client.close()
        assert time.monotonic() - started_at < 60


def test_what_was_said_without_a_cloud_stays(cloud: ScriptedCloud, new_client: NewClient, storage_root: Path) -> None:
    local = new_client(cloud_base_url=None)
    say(local, "ada", "Stay here.")
    client = new_client()
    say(client, "ada", "Go there.")  # while the other client serves the same caller
    say(local, "ada", "Stay here, too.")
    cloud.wait_for_turns("Go there.", user="ada")
    local.close()
    eventually(lambda: backlog_of(client)["users"] == 0 and sender_pid(cloud, storage_root), within_s=30)
    client.close()
    assert cloud.turn_texts("ada") == ["Go there."]


def test_turns_of_erased_callers_are_never_sent(cloud: ScriptedCloud, new_client: NewClient) -> None:
    save_during_an_outage(cloud, new_client, *CALLERS)
    cloud.erase_user("bob")
    client = new_client()
    recall(client, "someone else", "Hello?")
    for caller in ("ada", "cyd"):
        cloud.wait_for_turns(f"I am {caller}.", user=caller)
    eventually(lambda: backlog_of(client)["users"] == 0)
    assert "I am bob." not in str([request.body for request in cloud.requests])


def test_a_user_that_the_cloud_rejects_does_not_hold_up_the_others(cloud: ScriptedCloud, new_client: NewClient) -> None:
    save_during_an_outage(cloud, new_client, *CALLERS)

    def rejects_the_first(handler: Any) -> bool:
        return handler.received.user == "ada" and responds_with(403)(handler)

    cloud.behave("events", always=rejects_the_first)
    client = new_client()
    recall(client, "someone else", "Hello?")
    for caller in ("bob", "cyd"):
        cloud.wait_for_turns(f"I am {caller}.", user=caller)
    eventually(lambda: backlog_of(client)["users"] == 1)


def test_the_process_runs_at_a_low_priority_and_ends_with_its_client(
    cloud: ScriptedCloud, new_client: NewClient, storage_root: Path
) -> None:
    client = new_client()
    say(client, "ada", "Hello.")
    pid = int(eventually(lambda: sender_pid(cloud, storage_root), within_s=30))
    assert psutil.Process(pid).nice() == 10
    client.close()
    assert not is_alive(pid)


def test_where_forking_is_not_safe_it_is_a_program(
    cloud: ScriptedCloud, new_client: NewClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_during_an_outage(cloud, new_client, *CALLERS)
    monkeypatch.setattr("memoair_voice_sync._processes.launchers.can_fork", lambda: False)
    client = new_client()
    recall(client, "someone else", "Hello?")
    for caller in CALLERS:
        eventually(lambda caller=caller: cloud.turn_texts(caller) == [f"I am {caller}."], within_s=60)
