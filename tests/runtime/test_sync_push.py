"""Push: what stands in the logs comes to the cloud, once, whatever the cloud does; and nothing else does."""

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
    Behaviour,
    ScriptedCloud,
    answers,
    answers_half,
    changes_answer,
    cuts_off,
    dribbles,
    fault,
    hangs,
    keeps_and_cuts_off,
    scripted_cloud,
)
from support.timing import fastest, least
from support.waiting import eventually

from memoair_runtime.storage.events import from_line
from memoair_runtime.sync.outbox import MOST_EVENTS

SECRET = "zanzibarplum"

pytestmark = pytest.mark.usefixtures("short_pauses")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "storage"


def events_of(*logs: Path) -> list[str]:
    """The ids of all events in logs."""
    read = [from_line(line) for log in logs for line in log.read_bytes().splitlines()]
    return [event.event_id for event in read if event]


def pushes(cloud: ScriptedCloud) -> list[list[str]]:
    """The events of each push, by their ids."""
    return [[event["eventId"] for event in each.body["events"]] for each in cloud.asked("events")]


# What is sent


def test_a_turn_is_in_the_cloud_a_moment_later_as_it_was_logged(cloud: ScriptedCloud, root: Path) -> None:
    with device(cloud, root) as runtime:
        runtime.start("call-1", name="Dana")
        event_id = runtime.save("t1", "I like the red boots.", "Noted.", "call-1")
        cloud.waits_for_turns("I like the red boots.")
        eventually(lambda: runtime.sync["unsynced"] == 0)
        assert runtime.sync["oldestUnsyncedMs"] is None

    requests = cloud.asked("events")  # on a busy machine the start of the call goes ahead of the turn
    for request in requests:
        assert request.user == "caller_42"
        assert request.headers["x-project-id"] == PROJECT
        assert request.headers["authorization"] == f"Bearer {KEY}"
        assert request.headers["content-encoding"] == "gzip"
    lines = [json.loads(line) for line in user_folder(root).session("call-1").log.read_bytes().splitlines()]
    assert [event for request in requests for event in request.body["events"]] == lines
    assert lines[1]["eventId"] == event_id


def test_a_burst_is_one_batch(cloud: ScriptedCloud, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("memoair_runtime.sync.scheduler.LINGER_S", 60.0)  # a burst, on any machine
    with device(cloud, root) as runtime:
        for number in range(20):
            runtime.save(f"t{number}", f"Turn {number}.")
        assert runtime.flush() == {"status": "ok", "pending": 0}
        cloud.waits_for_turns(*(f"Turn {number}." for number in range(20)))
    assert len(pushes(cloud)) == 1


def test_what_earlier_processes_left_is_sent_the_oldest_session_first_in_batches_that_the_cloud_takes(
    cloud: ScriptedCloud, root: Path
) -> None:
    logs = []
    for number in range(3):
        logs.append(write_call(root, f"old-{number}", [(f"Parcel {each}.", "") for each in range(300)]))
        os.utime(logs[-1], (1_772_443_800 + number,) * 2)  # which was written when is told by the files
    with device(cloud, root) as runtime:
        eventually(lambda: runtime.sync["unsynced"] == 0)
    assert [len(each) for each in pushes(cloud)] == [MOST_EVENTS, 903 - MOST_EVENTS]
    assert [event_id for each in pushes(cloud) for event_id in each] == events_of(*logs)


def test_what_was_sent_is_not_sent_again_by_the_next_process(cloud: ScriptedCloud, root: Path) -> None:
    for number in range(2):
        with device(cloud, root) as runtime:
            runtime.save(f"t{number}", f"Turn {number}.")
            assert runtime.flush() == {"status": "ok", "pending": 0}
    sent = [event_id for each in pushes(cloud) for event_id in each]
    assert len(sent) == len(set(sent)) == 3


@pytest.mark.parametrize("content", [b"", b"no json", b'{"cloud": "another", "sessions": {"old": [1000000, 1]}}'])
def test_cursors_that_are_lost_cost_nothing_but_a_push(cloud: ScriptedCloud, root: Path, content: bytes) -> None:
    log = write_call(root, "old", [("Hello.", "")])
    for _ in range(2):
        with device(cloud, root) as runtime:
            eventually(lambda: runtime.sync["unsynced"] == 0)
        user_folder(root).outbox.write_bytes(content)
    assert pushes(cloud) == [events_of(log)] * 2
    assert len(cloud.pushed()) == 2


def test_a_log_that_was_replaced_is_sent_from_its_beginning(cloud: ScriptedCloud, root: Path) -> None:
    first = events_of(write_call(root, "old", [("One.", "")]))
    with device(cloud, root) as runtime:
        eventually(lambda: runtime.sync["unsynced"] == 0)
    second = events_of(write_call(root, "old", [("Another.", ""), ("And more.", "")]))
    with device(cloud, root) as runtime:
        eventually(lambda: runtime.sync["unsynced"] == 0)
    assert pushes(cloud) == [first, second]


def test_damaged_lines_are_passed_and_a_torn_one_waits(cloud: ScriptedCloud, root: Path) -> None:
    log = write_call(root, "old", [("One.", ""), ("Two.", "")])
    sound = log.read_bytes().splitlines(keepends=True)
    log.write_bytes(b"nonsense\n" + b"".join(sound[:2]) + b"{}\n" + sound[2] + b"more nonsense\n" + sound[1][:40])
    with device(cloud, root) as runtime:
        cloud.waits_for_turns("One.", "Two.")
        eventually(lambda: runtime.sync["unsynced"] == 0)
        runtime.save("t3", "Three.", session_id="old")  # which cuts the torn line away
        cloud.waits_for_turns("One.", "Two.", "Three.")
    assert len(pushes(cloud)) == 2


def test_the_end_of_a_call_is_sent_at_once(cloud: ScriptedCloud, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("memoair_runtime.sync.scheduler.LINGER_S", 60.0)
    with device(cloud, root) as runtime:
        runtime.save("t1", "Goodbye.")
        runtime.end()
        eventually(lambda: [event["type"] for event in cloud.pushed()][-1:] == ["session_end"])


def test_a_disk_that_takes_no_cursors_is_not_tried_without_end(cloud: ScriptedCloud, root: Path) -> None:
    with device(cloud, root) as runtime:
        runtime.save("t1", "One.")
        runtime.flush()
        in_the_way = user_folder(root).outbox.with_name("outbox.json.tmp")
        in_the_way.mkdir()
        runtime.save("t2", "Two.")
        runtime.waits_for_state("retrying")
        eventually(lambda: runtime.sync["unsynced"] == 0)
        in_the_way.rmdir()
        runtime.save("t3", "Three.")
        cloud.waits_for_turns("One.", "Two.", "Three.")
    assert len(pushes(cloud)) == 3


def test_a_session_whose_folder_has_lost_its_id_is_sent_once(cloud: ScriptedCloud, root: Path) -> None:
    session_id = "s" * 200
    with device(cloud, root) as runtime:
        for number in range(3):
            runtime.save(f"t{number}", f"Turn {number}.", session_id=session_id)
            assert runtime.flush() == {"status": "ok", "pending": 0}
            (user_folder(root).session(session_id).path / "id.txt").unlink(missing_ok=True)
    assert [len(each) for each in pushes(cloud)] == [2, 1, 1]


# What the cloud does


@pytest.mark.parametrize(
    "behaviour",
    [
        cuts_off,
        keeps_and_cuts_off,
        answers_half,
        answers(500),
        answers(502, b"<html>"),
        answers(400, b"<html>"),  # which is not the cloud's, but of somebody in between
        answers(422, b"<html>"),
        answers(200, b"no json"),
        answers(200, {"accepted": []}),
        answers(200, {"accepted": ["strangers"], "duplicate": [], "rejected": []}),
        changes_answer(lambda receipt: receipt.update(accepted=receipt["accepted"][:1])),
    ],
)
def test_what_fails_is_sent_again_and_kept_once(cloud: ScriptedCloud, root: Path, behaviour: Behaviour) -> None:
    cloud.behave("events", behaviour, behaviour)
    with device(cloud, root) as runtime:
        runtime.save("t1", "One.")
        runtime.save("t2", "Two.")
        cloud.waits_for_turns("One.", "Two.")
        eventually(lambda: runtime.sync["unsynced"] == 0)
        runtime.waits_for_state("ok")
    assert len(cloud.pushed()) == 3


@pytest.mark.parametrize("status", [429, 503])
def test_a_cloud_that_asks_to_wait_is_left_in_peace(cloud: ScriptedCloud, root: Path, status: int) -> None:
    asked_at: list[float] = []
    wait = answers(status, Retry_After="3")

    def refuse(handler: Any) -> bool:
        asked_at.append(time.monotonic())
        return wait(handler)

    def take(_: Any) -> bool:
        asked_at.append(time.monotonic())
        return False

    cloud.behave("events", refuse, always=take)
    with device(cloud, root) as runtime:
        runtime.save("t1", "One.")
        runtime.waits_for_state("retrying")

        def ask_by_hand() -> None:
            assert runtime.flush()["status"] == "partial"
            assert runtime.pull()["status"] == "partial"

        assert fastest(ask_by_hand, 0.5) < 0.5, "who asks by hand is told at once"
        cloud.waits_for_turns("One.")
    assert asked_at[1] - asked_at[0] >= 3


@pytest.mark.parametrize("status", [401, 403, 404, 409])
def test_no_word_leaves_before_the_cloud_has_accepted_the_key(
    cloud: ScriptedCloud, root: Path, status: int, caplog: pytest.LogCaptureFixture
) -> None:
    cloud.behave("bootstrap", always=answers(status))
    with device(cloud, root, is_calm=False) as runtime:
        runtime.save("t1", SECRET)
        runtime.waits_for_state("refused")
        assert runtime.flush() == {"status": "partial", "pending": 2}
        assert runtime.pull()["status"] == "partial"
        told = runtime.sync
        assert told == {**told, "unsynced": 2, "refused": 0, "hasPulled": False}
        assert told["oldestUnsyncedMs"] >= 0
    assert {each.path for each in cloud.requests} == {"/v1/voice-sdk/bootstrap"}
    [told] = [each for each in caplog.records if "action=sync_refused" in each.message]
    assert told.levelno == logging.ERROR


def test_a_key_that_is_no_longer_accepted_stops_the_words(cloud: ScriptedCloud, root: Path) -> None:
    with device(cloud, root) as runtime:
        cloud.behave("*", always=answers(401))
        runtime.save("t1", "One.")
        runtime.waits_for_state("refused")
        asked = len(cloud.asked("events"))
        runtime.save("t2", "Two.")
        runtime.flush()
        assert len(cloud.asked("events")) == asked == 1


def test_a_batch_that_is_too_large_is_halved_and_an_event_that_is_too_large_given_up(
    cloud: ScriptedCloud, root: Path
) -> None:
    too_large = answers(413, fault("cloud.batch_too_large"))

    def behave(handler: Any) -> bool:
        said = [event["payload"].get("userText") for event in handler.request_made.body["events"]]
        return too_large(handler) if len(said) > 3 or SECRET in said else False

    log = write_call(root, "old", [*((f"Turn {number}.", "") for number in range(8)), (SECRET, ""), ("Last.", "")])
    cloud.behave("events", always=behave)
    with device(cloud, root) as runtime:
        eventually(lambda: runtime.sync["unsynced"] == 0)
        assert (runtime.sync["state"], runtime.sync["refused"]) == ("ok", 1)
    assert len(cloud.turns()) == 9
    noted = user_folder(root).refused.read_text()
    assert json.loads(noted)["eventId"] == events_of(log)[9]
    assert json.loads(noted)["code"] == "cloud.batch_too_large"
    assert SECRET not in noted


def test_what_the_cloud_refuses_for_good_is_noted_without_words_and_never_sent_again(
    cloud: ScriptedCloud, root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(receipt: dict[str, Any]) -> None:
        receipt["rejected"] = [{"eventId": receipt["accepted"].pop(1), "code": "cloud.invalid", "message": SECRET}]

    log = write_call(root, "old", [(SECRET, ""), ("Two.", "")])
    cloud.behave("events", changes_answer(refuse))
    for _ in range(2):
        with device(cloud, root) as runtime:
            eventually(lambda: runtime.sync["unsynced"] == 0)
            assert runtime.sync["refused"] == 1
            metrics = runtime.service.metrics.render().decode()
    assert pushes(cloud) == [events_of(log)]
    path = user_folder(root).refused
    [line] = path.read_text().splitlines()
    assert {**json.loads(line), "at": ""} == {"eventId": events_of(log)[1], "code": "cloud.invalid", "at": ""}
    assert path.stat().st_mode & 0o777 == 0o600
    assert "memoair_runtime_events_unsynced 0.0" in metrics
    assert SECRET not in caplog.text + line


def test_a_redirect_is_not_followed(cloud: ScriptedCloud, root: Path) -> None:
    with scripted_cloud() as stranger:
        cloud.behave("*", always=answers(307, Location=f"{stranger.url}/v1/voice-sdk/bootstrap"))
        with device(cloud, root, is_calm=False) as runtime:
            runtime.waits_for_state("refused")
        assert stranger.requests == []


# Whose words they are


@pytest.mark.parametrize("user_id", ["Zoë/../\N{PILE OF POO}", "a b", "%2F", "x" * 200])
def test_any_caller_is_named_by_his_bytes(cloud: ScriptedCloud, root: Path, user_id: str) -> None:
    with device(cloud, root, user_id=user_id) as runtime:
        runtime.save("t1", "One.")
        cloud.waits_for_turns("One.", user=user_id)


@pytest.mark.parametrize("user_id", ["caller_42 ", " caller_42", "caller\n42", "\tcaller_42"])
def test_a_caller_whom_no_header_can_name_is_never_taken_for_another(
    cloud: ScriptedCloud, root: Path, user_id: str
) -> None:
    with device(cloud, root, is_calm=False, user_id=user_id) as runtime:
        runtime.save("t1", "One.")
        runtime.waits_for_state("refused")
    assert cloud.requests == []


def test_without_a_cloud_nothing_begins_and_nothing_waits(root: Path) -> None:
    before = set(threading.enumerate())
    with device(None, root) as runtime:
        runtime.save("t1", "One.")
        off = {"state": "off", "unsynced": 0, "oldestUnsyncedMs": None, "refused": 0, "hasPulled": False}
        assert runtime.sync == off
        assert runtime.flush() == {"status": "ok", "pending": 0}
        assert runtime.pull() == {"status": "off", "versions": {"profile": None, "permanent": None, "org": None}}
        assert "cloud-sync" not in {each.name for each in set(threading.enumerate()) - before}
    eventually(lambda: set(threading.enumerate()) <= before)
    assert not user_folder(root).outbox.exists()


def test_a_runtime_for_documents_alone_sends_nothing_and_names_nobody(cloud: ScriptedCloud, root: Path) -> None:
    with device(cloud, root, user_id="__org__", org_only=True) as runtime:
        runtime.start()
        runtime.service.health()
        assert runtime.sync["unsynced"] == 0
        assert runtime.forget()["removed"] == {"sessions": 0, "turns": 0}
    assert {each.user for each in cloud.requests} == {None}
    assert cloud.asked("events") == []


def test_two_runtimes_of_a_caller_do_not_push_at_once(cloud: ScriptedCloud, root: Path) -> None:
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
    assert sorted(cloud.turns()) == ["Turn 0.", "Turn 1."]
    assert max(at_once) == 1


# Processes


@pytest.fixture
def start(
    start_runtime: Callable[..., RunningRuntime], cloud: ScriptedCloud, root: Path
) -> Callable[..., RunningRuntime]:
    """Start runtime processes that use the cloud."""
    return lambda **variables: start_runtime(root, **{**cloud.variables, **variables})


def test_who_is_killed_while_he_pushes_loses_nothing(
    cloud: ScriptedCloud, start: Callable[..., RunningRuntime]
) -> None:
    cloud.behave("events", hangs, keeps_and_cuts_off)
    for number in range(3):
        runtime = start()
        eventually(lambda runtime=runtime: runtime.health()["sync"]["hasPulled"])
        runtime.save(f"call-{number}", "t1", f"Turn {number}.")
        eventually(lambda number=number: len(cloud.asked("events")) > number)
        runtime.kill()
    last = start()
    cloud.waits_for_turns("Turn 0.", "Turn 1.", "Turn 2.")
    eventually(lambda: last.health()["sync"]["unsynced"] == 0)


@pytest.mark.parametrize("behaviour", [hangs, dribbles])
def test_a_cloud_that_hangs_delays_nobody(
    cloud: ScriptedCloud, start: Callable[..., RunningRuntime], behaviour: Behaviour
) -> None:
    cloud.behave("*", always=behaviour)
    runtimes: list[RunningRuntime] = []

    def start_one() -> None:
        runtimes.append(start())
        assert runtimes[-1].health()["sync"]["state"] == "connecting"

    assert fastest(start_one, 5.0) < 5.0, "a call to the cloud is given up after 10 s"
    runtime = runtimes[-1]
    runtime.start("call-1")
    runtime.save("call-1", "t1", "One.")
    assert runtime.search_in_time("call-1", "One?", timeout_ms=250)["trace"]["degraded"] is False

    partial = {"status": "partial", "pending": 2}
    eventually(lambda: runtime.post("sync/flush", deadlineMs=300) == (200, partial))  # our own files are written

    def ask_by_hand() -> None:
        assert runtime.post("sync/flush", deadlineMs=300) == (200, partial)
        assert runtime.post("sync/pull", deadlineMs=300)[1]["status"] == "partial"

    assert fastest(ask_by_hand, 1.5) < 1.5

    def seconds_to_end() -> float:
        asked = 0 if runtimes else len(cloud.requests)
        ending = runtimes.pop() if runtimes else start()
        eventually(lambda: len(cloud.requests) > asked)
        told_at = time.monotonic()
        assert ending.terminate() == 0
        return time.monotonic() - told_at

    assert least(seconds_to_end, 2.0) < 2.0


def test_what_was_said_just_before_the_end_is_sent_before_it(
    cloud: ScriptedCloud, start: Callable[..., RunningRuntime]
) -> None:
    def is_sent(said: str) -> bool:
        runtime = start()
        eventually(lambda: runtime.health()["sync"]["hasPulled"])
        runtime.save("call-1", said, said)
        assert runtime.terminate() == 0
        return said in cloud.turns()

    # A process that ends has a second for it, which a busy machine may take from one or another.
    assert any(is_sent(f"Turn {number}.") for number in range(5))


def test_neither_key_nor_words_are_logged(cloud: ScriptedCloud, start: Callable[..., RunningRuntime]) -> None:
    cloud.behave(
        "events", cuts_off, answers(500, {"error": {"code": f"cloud.{SECRET}1"}}), answers(401, SECRET.encode())
    )
    runtime = start()
    runtime.save("call-1", "t1", SECRET)
    eventually(lambda: runtime.health()["sync"]["state"] == "refused")
    eventually(lambda: "action=sync_refused" in runtime.output())
    output = runtime.output()
    assert "action=sync_retrying" in output
    assert SECRET not in output
    assert KEY not in output


def test_a_proxy_of_the_environment_does_not_stand_before_this_machine(
    cloud: ScriptedCloud, start: Callable[..., RunningRuntime], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    runtime = start()
    runtime.save("call-1", "t1", "One.")
    cloud.waits_for_turns("One.")


_WITHOUT_A_CLOUD = """
import sys, time
from pathlib import Path
from memoair_runtime.lifecycle import Lifecycle
from memoair_runtime.service import RuntimeService
from memoair_runtime.settings import Settings

service = RuntimeService(Settings("p", "u", Path(sys.argv[1])), Lifecycle())
service.load()
service.close(time.monotonic() + 5)
print([name for name in ("requests", "memoair_runtime.sync.session") if name in sys.modules])
"""


def test_a_runtime_without_a_cloud_does_not_import_what_talks_with_one(tmp_path: Path) -> None:
    command = [sys.executable, "-c", _WITHOUT_A_CLOUD, str(tmp_path)]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "[]\n"
