"""Push: logged events arrive in the cloud, once, whatever the cloud does; and nothing else does."""

import json
import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from support.calls import user_folder, write_call
from support.devices import device
from support.runtimes import PROJECT, RunningRuntime
from support.scripted_cloud import (
    KEY,
    Behavior,
    ScriptedCloud,
    accepts_and_closes_connection,
    changes_response,
    closes_connection,
    error_body,
    hangs,
    responds_with,
    sends_half,
    sends_slowly,
)
from support.timing import fastest, least
from support.waiting import eventually

from memoair_runtime.errors import BadRequestError
from memoair_runtime.storage.events import decode_line
from memoair_runtime.sync.outbox import MAX_BATCH_EVENTS

SECRET = "zanzibarplum"

pytestmark = pytest.mark.usefixtures("short_pauses")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "storage"


def read_event_ids(*logs: Path) -> list[str]:
    """Return the ids of all events in some logs."""
    read = [decode_line(line) for log in logs for line in log.read_bytes().splitlines()]
    return [event.event_id for event in read if event]


def pushed_event_ids(cloud: ScriptedCloud) -> list[list[str]]:
    """Return the ids of the events in each push."""
    return [[event["eventId"] for event in request.body["events"]] for request in cloud.requests_to("events")]


# What is pushed


def test_a_turn_is_pushed_as_it_was_logged(cloud: ScriptedCloud, root: Path) -> None:
    with device(cloud, root) as runtime:
        runtime.start("call-1", name="Dana")
        event_id = runtime.save("t1", "I like the red boots.", "Noted.", "call-1")
        cloud.wait_for_turns("I like the red boots.")
        eventually(lambda: runtime.sync["unsynced"] == 0)
        assert runtime.sync["oldestUnsyncedMs"] is None

    requests = cloud.requests_to("events")  # on a busy machine the session start is pushed before the turn
    for request in requests:
        assert request.user == "caller_42"
        assert request.headers["x-project-id"] == PROJECT
        assert request.headers["authorization"] == f"Bearer {KEY}"
        assert request.headers["content-encoding"] == "gzip"
    lines = [json.loads(line) for line in user_folder(root).session("call-1").log.read_bytes().splitlines()]
    assert [event for request in requests for event in request.body["events"]] == lines
    assert lines[1]["eventId"] == event_id


def test_a_burst_is_pushed_in_one_batch(cloud: ScriptedCloud, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("memoair_runtime.sync.scheduler.LINGER_S", 60.0)  # a burst, on any machine
    with device(cloud, root) as runtime:
        for number in range(20):
            runtime.save(f"t{number}", f"Turn {number}.")
        assert runtime.flush() == {"status": "ok", "pending": 0}
        cloud.wait_for_turns(*(f"Turn {number}." for number in range(20)))
    assert len(pushed_event_ids(cloud)) == 1


def test_unsent_events_of_earlier_processes_are_pushed_in_batches_oldest_session_first(
    cloud: ScriptedCloud, root: Path
) -> None:
    logs = []
    for number in range(3):
        logs.append(
            write_call(root, f"old-{number}", [(f"Parcel {parcel}.", "") for parcel in range(300)], cloud_url=cloud.url)
        )
        os.utime(logs[-1], (1_772_443_800 + number,) * 2)  # the time of the file says which session is older
    with device(cloud, root) as runtime:
        eventually(lambda: runtime.sync["unsynced"] == 0)
    assert [len(event_ids) for event_ids in pushed_event_ids(cloud)] == [MAX_BATCH_EVENTS, 903 - MAX_BATCH_EVENTS]
    assert [event_id for event_ids in pushed_event_ids(cloud) for event_id in event_ids] == read_event_ids(*logs)


def test_the_next_process_does_not_push_events_again(cloud: ScriptedCloud, root: Path) -> None:
    for number in range(2):
        with device(cloud, root) as runtime:
            runtime.save(f"t{number}", f"Turn {number}.")
            assert runtime.flush() == {"status": "ok", "pending": 0}
    sent = [event_id for event_ids in pushed_event_ids(cloud) for event_id in event_ids]
    assert len(sent) == len(set(sent)) == 3


@pytest.mark.parametrize("content", [b"", b"no json", b'{"cloud": "another", "sessions": {"old": [1000000, 1]}}'])
def test_lost_cursors_cost_only_a_push(cloud: ScriptedCloud, root: Path, content: bytes) -> None:
    log = write_call(root, "old", [("Hello.", "")], cloud_url=cloud.url)
    for _ in range(2):
        with device(cloud, root) as runtime:
            eventually(lambda: runtime.sync["unsynced"] == 0)
        user_folder(root).outbox.write_bytes(content)
    assert pushed_event_ids(cloud) == [read_event_ids(log)] * 2
    assert len(cloud.accepted_events()) == 2


def test_a_replaced_log_is_pushed_from_its_beginning(cloud: ScriptedCloud, root: Path) -> None:
    first = read_event_ids(write_call(root, "old", [("One.", "")], cloud_url=cloud.url))
    with device(cloud, root) as runtime:
        eventually(lambda: runtime.sync["unsynced"] == 0)
    second = read_event_ids(write_call(root, "old", [("Another.", ""), ("And more.", "")], cloud_url=cloud.url))
    with device(cloud, root) as runtime:
        eventually(lambda: runtime.sync["unsynced"] == 0)
    assert pushed_event_ids(cloud) == [first, second]


def test_damaged_lines_are_skipped_and_a_torn_one_waits(cloud: ScriptedCloud, root: Path) -> None:
    log = write_call(root, "old", [("One.", ""), ("Two.", "")], cloud_url=cloud.url)
    sound = log.read_bytes().splitlines(keepends=True)
    log.write_bytes(b"nonsense\n" + b"".join(sound[:2]) + b"{}\n" + sound[2] + b"more nonsense\n" + sound[1][:40])
    with device(cloud, root) as runtime:
        cloud.wait_for_turns("One.", "Two.")
        eventually(lambda: runtime.sync["unsynced"] == 0)
        runtime.save("t3", "Three.", session_id="old")  # cuts the torn line off
        cloud.wait_for_turns("One.", "Two.", "Three.")
    assert len(pushed_event_ids(cloud)) == 2


def test_the_end_of_a_session_is_pushed_at_once(
    cloud: ScriptedCloud, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("memoair_runtime.sync.scheduler.LINGER_S", 60.0)
    with device(cloud, root) as runtime:
        runtime.save("t1", "Goodbye.")
        runtime.end()
        eventually(lambda: [event["type"] for event in cloud.accepted_events()][-1:] == ["session_end"])


def test_a_runtime_that_ends_before_its_first_pull_pushes_what_was_said(
    cloud: ScriptedCloud, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("memoair_runtime.sync.scheduler.STARTUP_DELAY_S", 60.0)
    with device(cloud, root, waits_for_pull=False) as runtime:
        runtime.save("t1", "One.")
    assert cloud.turn_texts() == ["One."]
    cloud.erase_user()
    with device(cloud, root, waits_for_pull=False) as runtime:
        pass
    assert len(cloud.requests_to("bootstrap")) == 1, "with nothing to send, the cloud is not asked"


def test_a_runtime_that_ends_before_its_first_pull_sends_nothing_of_an_erased_user(
    cloud: ScriptedCloud, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("memoair_runtime.sync.scheduler.STARTUP_DELAY_S", 60.0)
    write_call(root, "old", [(SECRET, "")], cloud_url=cloud.url)
    cloud.erase_user()
    with device(cloud, root, waits_for_pull=False):
        pass
    assert cloud.requests_to("events") == []


def test_cursors_that_cannot_be_written_do_not_cause_endless_pushes(cloud: ScriptedCloud, root: Path) -> None:
    with device(cloud, root) as runtime:
        runtime.save("t1", "One.")
        runtime.flush()
        in_the_way = user_folder(root).outbox
        in_the_way.unlink()
        in_the_way.mkdir()
        runtime.save("t2", "Two.")
        runtime.wait_for_state("retrying")
        eventually(lambda: runtime.sync["unsynced"] == 0)
        in_the_way.rmdir()
        runtime.save("t3", "Three.")
        cloud.wait_for_turns("One.", "Two.", "Three.")
    assert len(pushed_event_ids(cloud)) == 3


def test_a_session_whose_folder_has_lost_its_id_is_pushed_once(cloud: ScriptedCloud, root: Path) -> None:
    session_id = "s" * 200
    with device(cloud, root) as runtime:
        for number in range(3):
            runtime.save(f"t{number}", f"Turn {number}.", session_id=session_id)
            assert runtime.flush() == {"status": "ok", "pending": 0}
            (user_folder(root).session(session_id).path / "id.txt").unlink(missing_ok=True)
    assert [len(event_ids) for event_ids in pushed_event_ids(cloud)] == [2, 1, 1]


# Behavior of the cloud


@pytest.mark.parametrize(
    "behavior",
    [
        closes_connection,
        accepts_and_closes_connection,
        sends_half,
        responds_with(500),
        responds_with(502, b"<html>"),
        responds_with(400, b"<html>"),  # from a proxy, and not from the cloud
        responds_with(422, b"<html>"),
        responds_with(200, b"no json"),
        responds_with(200, {"accepted": []}),
        responds_with(200, {"accepted": ["strangers"], "duplicate": [], "rejected": []}),
        changes_response(lambda receipt: receipt.update(accepted=receipt["accepted"][:1])),
    ],
)
def test_a_failed_push_is_repeated_and_each_event_accepted_once(
    cloud: ScriptedCloud, root: Path, behavior: Behavior
) -> None:
    cloud.behave("events", behavior, behavior)
    with device(cloud, root) as runtime:
        runtime.save("t1", "One.")
        runtime.save("t2", "Two.")
        cloud.wait_for_turns("One.", "Two.")
        eventually(lambda: runtime.sync["unsynced"] == 0)
        runtime.wait_for_state("ok")
    assert len(cloud.accepted_events()) == 3


@pytest.mark.parametrize("status", [429, 503])
def test_a_retry_after_is_respected(cloud: ScriptedCloud, root: Path, status: int) -> None:
    asked_at: list[float] = []
    wait = responds_with(status, Retry_After="3")

    def postpone(handler: Any) -> bool:
        asked_at.append(time.monotonic())
        return wait(handler)

    def take(_: Any) -> bool:
        asked_at.append(time.monotonic())
        return False

    cloud.behave("events", postpone, always=take)
    with device(cloud, root) as runtime:
        runtime.save("t1", "One.")
        runtime.wait_for_state("retrying")

        def request_manually() -> None:
            assert runtime.flush()["status"] == "partial"
            assert runtime.pull()["status"] == "partial"

        assert fastest(request_manually, 0.5) < 0.5, "a manual request is answered at once"
        cloud.wait_for_turns("One.")
    assert asked_at[1] - asked_at[0] >= 3


@pytest.mark.parametrize("status", [401, 403, 404, 409])
def test_nothing_is_pushed_before_the_cloud_has_accepted_the_key(
    cloud: ScriptedCloud, root: Path, status: int, caplog: pytest.LogCaptureFixture
) -> None:
    cloud.behave("bootstrap", always=responds_with(status))
    with device(cloud, root, waits_for_pull=False) as runtime:
        runtime.save("t1", SECRET)
        runtime.wait_for_state("refused")
        assert runtime.flush() == {"status": "partial", "pending": 2}
        assert runtime.pull()["status"] == "partial"
        report = runtime.sync
        assert report == {**report, "unsynced": 2, "refused": 0, "hasPulled": False}
        assert report["oldestUnsyncedMs"] >= 0
    assert {request.path for request in cloud.requests} == {"/v1/voice-sdk/bootstrap"}
    [record] = [record for record in caplog.records if "action=sync_refused" in record.message]
    assert record.levelno == logging.ERROR


def test_a_rejected_key_stops_the_pushes(cloud: ScriptedCloud, root: Path) -> None:
    with device(cloud, root) as runtime:
        cloud.behave("*", always=responds_with(401))
        runtime.save("t1", "One.")
        runtime.wait_for_state("refused")
        asked = len(cloud.requests_to("events"))
        runtime.save("t2", "Two.")
        runtime.flush()
        assert len(cloud.requests_to("events")) == asked == 1


def test_a_batch_that_is_too_large_is_halved_and_a_single_event_rejected(cloud: ScriptedCloud, root: Path) -> None:
    too_large = responds_with(413, error_body("cloud.batch_too_large"))

    def behave(handler: Any) -> bool:
        texts = [event["payload"].get("userText") for event in handler.received.body["events"]]
        return too_large(handler) if len(texts) > 3 or SECRET in texts else False

    log = write_call(
        root,
        "old",
        [*((f"Turn {number}.", "") for number in range(8)), (SECRET, ""), ("Last.", "")],
        cloud_url=cloud.url,
    )
    cloud.behave("events", always=behave)
    with device(cloud, root) as runtime:
        eventually(lambda: runtime.sync["unsynced"] == 0)
        assert (runtime.sync["state"], runtime.sync["refused"]) == ("ok", 1)
    assert len(cloud.turn_texts()) == 9
    recorded = user_folder(root).rejected_events.read_text()
    assert json.loads(recorded)["eventId"] == read_event_ids(log)[9]
    assert json.loads(recorded)["code"] == "cloud.batch_too_large"
    assert SECRET not in recorded


def test_rejected_events_are_recorded_without_content_and_never_pushed_again(
    cloud: ScriptedCloud, root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def reject(receipt: dict[str, Any]) -> None:
        receipt["rejected"] = [{"eventId": receipt["accepted"].pop(1), "code": "cloud.invalid", "message": SECRET}]

    log = write_call(root, "old", [(SECRET, ""), ("Two.", "")], cloud_url=cloud.url)
    cloud.behave("events", changes_response(reject))
    for _ in range(2):
        with device(cloud, root) as runtime:
            eventually(lambda: runtime.sync["unsynced"] == 0)
            assert runtime.sync["refused"] == 1
            metrics = runtime.service.metrics.render().decode()
    assert pushed_event_ids(cloud) == [read_event_ids(log)]
    path = user_folder(root).rejected_events
    [line] = path.read_text().splitlines()
    assert {**json.loads(line), "at": ""} == {"eventId": read_event_ids(log)[1], "code": "cloud.invalid", "at": ""}
    assert path.stat().st_mode & 0o777 == 0o600
    assert "memoair_runtime_events_unsynced 0.0" in metrics
    assert SECRET not in caplog.text + line


def test_a_redirect_is_not_followed(cloud: ScriptedCloud, root: Path) -> None:
    with ScriptedCloud() as stranger:
        cloud.behave("*", always=responds_with(307, Location=f"{stranger.url}/v1/voice-sdk/bootstrap"))
        with device(cloud, root, waits_for_pull=False) as runtime:
            runtime.wait_for_state("refused")
        assert stranger.requests == []


# Identity


@pytest.mark.parametrize("user_id", ["Zoë/../\N{PILE OF POO}", "a b", "%2F", "x" * 200])
def test_any_user_id_is_sent_in_utf8(cloud: ScriptedCloud, root: Path, user_id: str) -> None:
    with device(cloud, root, user_id=user_id) as runtime:
        runtime.save("t1", "One.")
        cloud.wait_for_turns("One.", user=user_id)


@pytest.mark.parametrize("user_id", ["caller_42 ", " caller_42", "caller\n42", "\tcaller_42"])
def test_a_user_id_that_a_header_would_change_is_never_sent(cloud: ScriptedCloud, root: Path, user_id: str) -> None:
    with device(cloud, root, waits_for_pull=False, user_id=user_id) as runtime:
        with pytest.raises(BadRequestError, match="userId"):
            runtime.save("t1", "One.")
        runtime.wait_for_state("refused")
    assert cloud.requests == []


def test_without_a_cloud_there_is_no_sync(root: Path) -> None:
    before = set(threading.enumerate())
    with device(None, root) as runtime:
        runtime.save("t1", "One.")
        off = {"state": "off", "unsynced": 0, "oldestUnsyncedMs": None, "refused": 0, "hasPulled": False}
        assert runtime.sync == off
        assert runtime.flush() == {"status": "ok", "pending": 0}
        assert runtime.pull() == {"status": "off", "versions": {"profile": None, "permanent": None, "org": None}}
        assert "cloud-sync" not in {thread.name for thread in set(threading.enumerate()) - before}
    eventually(lambda: set(threading.enumerate()) <= before)
    assert not user_folder(root).outbox.exists()


def test_a_runtime_for_documents_only_pushes_nothing_and_sends_no_user_id(cloud: ScriptedCloud, root: Path) -> None:
    with device(cloud, root, user_id="__org__", org_only=True) as runtime:
        runtime.start()
        runtime.service.health()
        assert runtime.sync["unsynced"] == 0
        assert runtime.forget()["removed"] == {"sessions": 0, "turns": 0}
    assert {request.user for request in cloud.requests} == {None}
    assert cloud.requests_to("events") == []


def test_two_runtimes_of_a_user_do_not_push_at_the_same_time(cloud: ScriptedCloud, root: Path) -> None:
    at_once: list[int] = []
    lock = threading.Lock()
    now = 0

    def behave(handler: Any) -> bool:
        nonlocal now
        with lock:
            now += 1
            at_once.append(now)
        time.sleep(0.1)
        with lock:
            now -= 1
        return False

    cloud.behave("events", always=behave)
    with ExitStack() as stack:
        runtimes = [stack.enter_context(device(cloud, root)) for _ in range(2)]
        for number, runtime in enumerate(runtimes):
            runtime.save("t1", f"Turn {number}.", session_id=f"call-{number}")
            runtime.end(f"call-{number}")
        for runtime in runtimes:
            eventually(lambda runtime=runtime: runtime.sync["unsynced"] == 0)
    assert sorted(cloud.turn_texts()) == ["Turn 0.", "Turn 1."]
    assert max(at_once) == 1


# Several processes


@pytest.fixture
def start(
    start_runtime: Callable[..., RunningRuntime], cloud: ScriptedCloud, root: Path
) -> Callable[..., RunningRuntime]:
    """A function that starts runtime processes that use the cloud."""
    return lambda **variables: start_runtime(root, **{**cloud.variables, **variables})


def test_a_runtime_killed_during_a_push_loses_nothing(
    cloud: ScriptedCloud, start: Callable[..., RunningRuntime]
) -> None:
    cloud.behave("events", hangs, accepts_and_closes_connection)
    for number in range(3):
        runtime = start()
        eventually(lambda runtime=runtime: runtime.health()["sync"]["hasPulled"])
        runtime.save(f"call-{number}", "t1", f"Turn {number}.")
        eventually(lambda number=number: len(cloud.requests_to("events")) > number)
        runtime.kill()
    last = start()
    cloud.wait_for_turns("Turn 0.", "Turn 1.", "Turn 2.")
    eventually(lambda: last.health()["sync"]["unsynced"] == 0)


@pytest.mark.parametrize("behavior", [hangs, sends_slowly])
def test_a_cloud_that_hangs_delays_nothing(
    cloud: ScriptedCloud, start: Callable[..., RunningRuntime], behavior: Behavior
) -> None:
    cloud.behave("*", always=behavior)
    runtimes: list[RunningRuntime] = []

    def start_one() -> None:
        runtimes.append(start())
        assert runtimes[-1].health()["sync"]["state"] == "connecting"

    assert fastest(start_one, 5.0) < 5.0, "a request to the cloud times out after 10 s"
    runtime = runtimes[-1]
    runtime.start("call-1")
    runtime.save("call-1", "t1", "One.")
    assert runtime.search_in_time("call-1", "One?", timeout_ms=250)["trace"]["degraded"] is False

    partial = {"status": "partial", "pending": 2}
    eventually(lambda: runtime.post("sync/flush", deadlineMs=300) == (200, partial))  # all derived files are written

    def request_manually() -> None:
        assert runtime.post("sync/flush", deadlineMs=300) == (200, partial)
        assert runtime.post("sync/pull", deadlineMs=300)[1]["status"] == "partial"

    assert fastest(request_manually, 1.5) < 1.5

    def seconds_to_end() -> float:
        known = 0 if runtimes else len(cloud.requests)
        ending = runtimes.pop() if runtimes else start()
        eventually(lambda: len(cloud.requests) > known)
        asked_at = time.monotonic()
        assert ending.terminate() == 0
        return time.monotonic() - asked_at

    assert least(seconds_to_end, 2.0) < 2.0


def test_turns_just_before_shutdown_are_pushed(cloud: ScriptedCloud, start: Callable[..., RunningRuntime]) -> None:
    def is_sent(text: str) -> bool:
        runtime = start()
        eventually(lambda: runtime.health()["sync"]["hasPulled"])
        runtime.save("call-1", text, text)
        assert runtime.terminate() == 0
        return text in cloud.turn_texts()

    # A process that ends has one second for the push, which a busy machine may take away from some of them.
    assert any(is_sent(f"Turn {number}.") for number in range(5))


def test_neither_the_key_nor_content_is_logged(cloud: ScriptedCloud, start: Callable[..., RunningRuntime]) -> None:
    cloud.behave(
        "events",
        closes_connection,
        responds_with(500, {"error": {"code": f"cloud.{SECRET}1"}}),
        responds_with(401, SECRET.encode()),
    )
    runtime = start()
    runtime.save("call-1", "t1", SECRET)
    eventually(lambda: runtime.health()["sync"]["state"] == "refused")
    eventually(lambda: "action=sync_refused" in runtime.output())
    output = runtime.output()
    assert "action=sync_retrying" in output
    assert SECRET not in output
    assert KEY not in output


def test_a_cloud_on_this_machine_is_reached_without_a_proxy(
    cloud: ScriptedCloud, start: Callable[..., RunningRuntime], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    runtime = start()
    runtime.save("call-1", "t1", "One.")
    cloud.wait_for_turns("One.")


_WITHOUT_A_CLOUD = """
import sys, time
from pathlib import Path
from memoair_runtime.lifecycle import Lifecycle
from memoair_runtime.service import RuntimeService
from memoair_runtime.settings import RuntimeSettings

service = RuntimeService(RuntimeSettings("p", "u", Path(sys.argv[1])), Lifecycle())
service.start_loading()
service.close(time.monotonic() + 5)
print([name for name in ("requests", "memoair_runtime.sync.session") if name in sys.modules])
"""


def test_a_runtime_without_a_cloud_does_not_import_the_http_client(tmp_path: Path) -> None:
    command = [sys.executable, "-c", _WITHOUT_A_CLOUD, str(tmp_path)]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "[]\n"
