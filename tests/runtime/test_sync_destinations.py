"""Where events are sent: to the cloud that they were logged for, and nowhere else."""

import json
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from support.calls import user_folder, write_call
from support.devices import device
from support.runtimes import RunningRuntime
from support.scripted_cloud import ScriptedCloud, error_body, responds_with
from support.waiting import eventually

from memoair_runtime.settings import cloud_id_of
from memoair_runtime.storage.erasure_record import record_erasure
from memoair_runtime.storage.events import decode_line
from memoair_runtime.sync.outbox import Outbox, Selection

pytestmark = pytest.mark.usefixtures("short_pauses")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "storage"


def wait_until_sent(cloud: ScriptedCloud, root: Path) -> None:
    """Run a device until it has nothing left to send."""
    with device(cloud, root) as runtime:
        assert runtime.flush()["pending"] == 0


def test_what_is_said_without_a_cloud_is_never_sent(cloud: ScriptedCloud, root: Path) -> None:
    with device(None, root) as runtime:
        runtime.start("call-1")
        runtime.save("t1", "Stay here.", session_id="call-1")
    with device(cloud, root) as runtime:
        runtime.save("t2", "Go there.", session_id="call-1")  # the same session
        runtime.save("t1", "Stay here, I said.", session_id="call-1")  # a correction, which repeats it
        runtime.save("t3", "And this.", session_id="call-2")
        assert runtime.flush()["pending"] == 0
        assert len(runtime.find_texts("stay here")) > 0, "it is recalled on this machine"
    assert cloud.turn_texts() == ["Go there.", "And this."]
    assert "Stay here" not in json.dumps([request.body for request in cloud.requests])


def test_it_is_sent_if_that_is_asked_for(cloud: ScriptedCloud, root: Path) -> None:
    with device(None, root) as runtime:
        runtime.save("t1", "Said without a cloud.")
    wait_until_sent(cloud, root)
    cloud_id = cloud_id_of(cloud.url)
    outbox, local_outbox = Outbox(user_folder(root), cloud_id), Outbox(user_folder(root), cloud_id, Selection.LOCAL)
    for each in (outbox, local_outbox):
        each.scan(all_sessions=True)
    assert (outbox.count, local_outbox.count, local_outbox.turn_count) == (0, 2, 1)
    batch = local_outbox.next_batch()
    assert batch is not None
    local_outbox.acknowledge(batch, {line.event_id for line in batch.event_lines if line.event_id})
    again = Outbox(user_folder(root), cloud_id, Selection.LOCAL)
    again.scan(all_sessions=True)
    assert again.count == 0, "what was sent counts as sent"
    outbox.scan(all_sessions=True)
    assert outbox.count == 0


@pytest.mark.parametrize(
    ("files", "is_sent"),
    [
        ({}, False),
        ({"outbox.json": {"cloud": "ours", "sessions": {}}}, True),
        ({"outbox.json": {"cloud": "another", "sessions": {}}}, False),
        ({"outbox.json": {"cloud": "ours", "sessions": {}, "unmarked": None}}, False),
        ({"outbox.json": {"cloud": "another", "sessions": {}, "unmarked": "ours"}}, True),
        ({"cloud_state.json": {"cloud": "ours"}}, True),
        ({"cloud_state.json": {"cloud": "another"}}, False),
        ({"cloud_state.json": {"cloud": "ours", "marks": True}}, False),
    ],
)
def test_events_without_a_mark_go_to_the_cloud_that_the_user_was_synced_with(
    cloud: ScriptedCloud, root: Path, files: dict[str, dict[str, object]], is_sent: bool
) -> None:
    log = write_call(root, "old", [("An old turn.", "")])
    events = [decode_line(line) for line in log.read_bytes().splitlines()]
    unmarked = [msgspec.structs.replace(event, cloud=msgspec.UNSET) for event in events if event]
    log.write_bytes(b"".join(msgspec.json.encode(event) + b"\n" for event in unmarked))
    assert b"cloud" not in log.read_bytes()
    for name, content in files.items():
        encoded = json.dumps(content).replace('"ours"', f'"{cloud_id_of(cloud.url)}"')
        (user_folder(root).path / name).write_text(encoded)
    for number in range(2):  # the second device finds what the first has written
        with device(cloud, root) as runtime:
            runtime.save(f"t{number}", f"Turn {number}.")
            assert runtime.flush()["pending"] == 0
    assert sorted(cloud.turn_texts()) == ["An old turn."] * is_sent + ["Turn 0.", "Turn 1."]


def test_what_was_said_before_an_erasure_is_not_sent_even_if_a_crash_has_left_it(
    cloud: ScriptedCloud, root: Path
) -> None:
    log = write_call(root, "old", [("Forget me.", "")], cloud_url=cloud.url)
    events = [event for event in map(decode_line, log.read_bytes().splitlines()) if event]
    record_erasure(user_folder(root), events[-1].occurred_at, events)  # the crash came before the log was deleted
    with device(cloud, root) as runtime:
        runtime.save("t1", "I am back.", session_id="new")
        assert runtime.flush()["pending"] == 0
    assert cloud.turn_texts() == ["I am back."]


def test_events_are_sent_as_the_agent_that_logged_them(cloud: ScriptedCloud, root: Path) -> None:
    cloud.behave("events", always=responds_with(503))
    with device(cloud, root, agent_id="agent_a") as runtime:
        runtime.save("t1", "One.", session_id="first")
    cloud.behave_well()
    with device(cloud, root, agent_id="agent_b") as runtime:
        runtime.save("t2", "Two.", session_id="second")
        cloud.wait_for_turns("One.", "Two.")
    agents = {
        event["payload"]["userText"]: request.headers["x-agent-id"]
        for request in cloud.requests_to("events")
        for event in request.body["events"]
        if event["type"] == "turn"
    }
    assert agents == {"One.": "agent_a", "Two.": "agent_b"}


def test_events_of_an_agent_that_is_gone_are_sent_as_the_current_one(cloud: ScriptedCloud, root: Path) -> None:
    cloud.behave("events", always=responds_with(503))
    with device(cloud, root, agent_id="agent_gone") as runtime:
        runtime.save("t1", "One.")
    unknown = responds_with(404, error_body("cloud.not_found"))
    cloud.behave(
        "events", always=lambda handler: handler.received.headers["x-agent-id"] == "agent_gone" and unknown(handler)
    )
    wait_until_sent_as_agent(cloud, root)
    assert cloud.turn_texts() == ["One."]


def wait_until_sent_as_agent(cloud: ScriptedCloud, root: Path) -> None:
    with device(cloud, root, agent_id="agent_b") as runtime:
        assert runtime.flush()["pending"] == 0


def test_runtimes_share_a_user_only_with_the_same_cloud(
    cloud: ScriptedCloud, start_runtime: Callable[..., RunningRuntime], root: Path
) -> None:
    with_cloud = start_runtime(root, SHARED="1", **cloud.variables)
    without = start_runtime(root, SHARED="1")
    assert without.port != with_cloud.port
    without.start("call-1")
    without.save("call-1", "t1", "Stay here.")
    with_cloud.start("call-2")
    with_cloud.save("call-2", "t2", "Go there.")
    eventually(lambda: cloud.turn_texts() == ["Go there."])
