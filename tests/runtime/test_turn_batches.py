"""Several turns with one request: one write and one sync, and otherwise as if they came one by one."""

import json
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from runtime.test_session_log import NOW, PROJECT, USER, SimulatedProcess, list_turn_ids, make_payload, session_folder
from support.runtimes import RunningRuntime

from memoair_protocol.durable import sync_data
from memoair_protocol.limits import MAX_TURNS
from memoair_runtime.errors import SessionNotFoundError, StorageUnavailableError
from memoair_runtime.memory.saved_turns import SavedTurn, SpokenTurn
from memoair_runtime.storage.erasure import erase
from memoair_runtime.storage.user_folder import UserFolder


def spoken(turn_id: str, text: str = "the red boots", occurred_at: datetime | None = None) -> SpokenTurn:
    return SpokenTurn(make_payload(turn_id, text), occurred_at)


def test_a_batch_is_synced_once_and_read_as_turns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[int] = []

    def count(fd: int) -> None:
        synced.append(fd)
        sync_data(fd)

    monkeypatch.setattr("memoair_runtime.storage.session_log.sync_data", count)
    process = SimulatedProcess(tmp_path)
    saved = process.session.save_turns([spoken(f"t{number}") for number in range(50)], NOW)
    assert len(synced) == 1
    assert len({turn.event_id for turn in saved}) == 50
    events = SimulatedProcess(tmp_path).events
    assert list_turn_ids(events) == [f"t{number}" for number in range(50)]
    assert [event.seq for event in events] == list(range(1, 52))
    assert process.session.save_turns([spoken(f"t{number}") for number in range(50)], NOW) == saved
    assert len(synced) == 1, "nothing is written"


def test_a_batch_that_cannot_be_written_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    process = SimulatedProcess(tmp_path)
    process.save("t0")
    size = session_folder(tmp_path).log.stat().st_size

    def fail(_: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("memoair_runtime.storage.session_log.sync_data", fail)
        with pytest.raises(StorageUnavailableError):
            process.session.save_turns([spoken("t1"), spoken("t2")], NOW)
    assert session_folder(tmp_path).log.stat().st_size == size
    assert len(process.session.save_turns([spoken("t1"), spoken("t2")], NOW)) == 2
    assert list_turn_ids(process.events) == ["t0", "t1", "t2"]


def test_known_turns_of_a_session_that_has_ended_are_acknowledged_and_new_ones_refused(tmp_path: Path) -> None:
    process = SimulatedProcess(tmp_path)
    saved = process.session.save_turns([spoken("t1"), spoken("t2")], NOW)
    process.session.end("completed", NOW)
    assert process.session.save_turns([spoken("t1"), spoken("t2")], NOW) == saved
    with pytest.raises(SessionNotFoundError):
        process.session.save_turns([spoken("t1"), spoken("t3")], NOW)
    assert list_turn_ids(process.events) == ["t1", "t2"]


def test_turns_from_before_an_erasure_are_left_out(tmp_path: Path) -> None:
    process = SimulatedProcess(tmp_path)
    process.session.save_turns([spoken("t1", occurred_at=NOW)], NOW)
    erase(UserFolder(tmp_path, PROJECT, USER), NOW + timedelta(hours=1), keeps_later=False)
    later = SimulatedProcess(tmp_path)
    early, late = NOW + timedelta(minutes=30), NOW + timedelta(hours=2)
    saved = later.session.save_turns([spoken("t2", occurred_at=early), spoken("t3", occurred_at=late)], late)
    assert saved[0] == SavedTurn(is_erased=True)
    assert list_turn_ids(later.events) == ["t3"]


@settings(max_examples=25)
@given(
    deliveries=st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from(["red", "blue", ""])), max_size=12),
    cuts=st.lists(st.integers(1, 12)),
)
def test_a_batch_does_what_its_turns_do_one_by_one(
    tmp_path_factory: pytest.TempPathFactory, deliveries: list[tuple[str, str]], cuts: list[int]
) -> None:
    turns = [spoken(turn_id, text) for turn_id, text in deliveries]
    single = SimulatedProcess(tmp_path_factory.mktemp("single"))
    expected = [single.session.save_turn(turn.payload, turn.occurred_at, NOW) for turn in turns]
    batched = SimulatedProcess(tmp_path_factory.mktemp("batched"))
    got: list[str | None] = []
    for cut in [*cuts, len(turns)]:
        part = turns[len(got) : len(got) + cut]
        got += [turn.event_id for turn in batched.session.save_turns(part, NOW)]

    def shape(process: SimulatedProcess, ids: list[Any]) -> tuple[Any, ...]:
        order = {event.event_id: event.seq for event in process.events}
        words = [
            {**event.payload, "corrects": order.get(str(event.payload.get("corrects")))} for event in process.events
        ]
        return words, [event.seq for event in process.events], [order[event_id] for event_id in ids]

    assert shape(batched, got) == shape(single, expected)


# The endpoint


def turn(turn_id: str, **fields: Any) -> dict[str, Any]:
    return {"turnId": turn_id, "userText": f"I say {turn_id}.", "assistantText": "Noted.", **fields}


def turns_on_disk(runtime: RunningRuntime) -> list[str]:
    lines = [line for path in runtime.storage_root.rglob("session.jsonl") for line in path.read_bytes().splitlines()]
    events = [json.loads(line) for line in lines]
    return [event["payload"]["turnId"] for event in events if event["type"] == "turn"]


def test_the_endpoint_saves_turns_once_and_in_order(runtime: RunningRuntime) -> None:
    turns = [turn(f"t{number}") for number in range(5)]
    status, reply = runtime.post("turns/after", sessionId="call-1", turns=turns)
    assert status == 200
    assert (len(set(reply["localEventIds"])), reply["forgotten"]) == (5, 0)
    assert runtime.post("turns/after", sessionId="call-1", turns=turns)[1] == reply
    assert runtime.post("turn/after", sessionId="call-1", **turns[2])[1]["localEventId"] == reply["localEventIds"][2]
    assert turns_on_disk(runtime) == ["t0", "t1", "t2", "t3", "t4"]
    now = datetime.now(timezone.utc).isoformat()
    assert runtime.post("forget")[0] == 200
    later = [turn("t0", metadata={"occurredAt": "2020-01-01T00:00:00Z"}), turn("t9", metadata={"occurredAt": now})]
    reply = runtime.post("turns/after", sessionId="call-2", turns=later)[1]
    assert reply["localEventIds"][0] is None
    assert reply["forgotten"] >= 1


@pytest.mark.parametrize(
    "turns",
    [
        [],
        "zanzibarplum",
        [turn("t1"), {"turnId": "t2", "userText": "zanzibarplum"}],
        [turn("t1"), turn("")],
        [turn("t1"), turn("t2", metadata={"occurredAt": "zanzibarplum"})],
        [turn("t1"), turn("t2", metadata=["zanzibarplum"])],
        [turn(f"t{number}") for number in range(MAX_TURNS + 1)],
    ],
)
def test_an_invalid_turn_refuses_the_batch_and_is_not_quoted(shared: RunningRuntime, turns: Any) -> None:
    status, reply = shared.post("turns/after", sessionId="call-1", turns=turns)
    assert (status, reply["error"]["code"]) == (400, "runtime.bad_request")
    assert "zanzibarplum" not in json.dumps(reply)
    assert turns_on_disk(shared) == []


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Start one runtime for all tests that store nothing."""
    runtime = RunningRuntime(tmp_path_factory.mktemp("batches"))
    yield runtime
    runtime.close()
