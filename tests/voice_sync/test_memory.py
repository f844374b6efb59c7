"""The memory of one user, through its public methods, with real runtimes."""

import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil
import pytest
import urllib3
from support.runtimes import USER, RunningRuntime
from support.timing import fastest
from support.waiting import eventually

from memoair_voice_sync import MemoAirVoiceMemoryError, MemoAirVoiceMemorySync, SearchResult

NewMemory = Callable[..., MemoAirVoiceMemorySync]

# Long enough for a loaded machine. Other tests check deadlines.
PATIENT_MS = 10_000


def recall(memory: MemoAirVoiceMemorySync, query: str, **options: Any) -> SearchResult:
    return memory.search_memory(query, timeout_ms=PATIENT_MS, **options)


def save(memory: MemoAirVoiceMemorySync, turn_id: str, user: str, agent: str = "", **options: Any) -> str:
    event_id = memory.after_turn(user, agent, turn_id, timeout_s=10.0, **options)
    assert event_id
    return event_id


def logged(path: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path(path).read_bytes().splitlines()]


def logged_turns(storage_root: Path) -> list[str]:
    lines = [line for log in storage_root.rglob("session.jsonl") for line in logged(str(log))]
    return sorted(line["payload"]["turnId"] for line in lines if line["type"] == "turn")


def test_a_second_call_remembers_the_first(new_memory: NewMemory) -> None:
    with new_memory() as first:
        first.start_session({"user": {"id": USER, "name": "Dana"}})
        save(first, "t1", "I would like to swap the red boots for size nine.", "I have noted that.")
        first.end_session()

    with new_memory() as second:
        second.start_session({"user": {"id": USER, "name": "Dana"}})
        found = recall(second, "which boots was it?")

    assert "swap the red boots for size nine" in found.contextText
    assert [hit["source"]["turnId"] for hit in found.permanent] == ["t1"]
    assert found.working == []


def test_a_turn_is_recalled_as_soon_as_it_is_saved(memory: MemoAirVoiceMemorySync) -> None:
    memory.start_session()
    save(memory, "t1", "my parcel number is 4471")
    found = recall(memory, "parcel number")

    assert "4471" in found.contextText
    assert found.working[0]["source"] in found.sources
    assert found.trace["degraded"] is False


def test_start_session_returns_the_paths_and_budgets(memory: MemoAirVoiceMemorySync, storage_root: Path) -> None:
    reply = memory.start_session({"channel": "phone"})

    assert reply["sessionId"] == memory.session_id
    assert reply["bootstrap"]["budgets"]["contextCharCap"] == 8_000
    assert Path(reply["paths"]["sessionJsonl"]).is_relative_to(storage_root)
    assert logged(reply["paths"]["sessionJsonl"])[0]["payload"]["metadata"] == {"channel": "phone"}


def test_a_known_turn_id_is_not_saved_again_and_returns_the_same_event_id(
    memory: MemoAirVoiceMemorySync, storage_root: Path
) -> None:
    memory.start_session()
    first = save(memory, "t1", "hello", "good morning")

    assert save(memory, "t1", "hello", "good morning") == first
    assert logged_turns(storage_root) == ["t1"]
    assert save(memory, "t1", "hello there", "good morning") != first, "other words correct the turn"
    assert logged_turns(storage_root) == ["t1", "t1"]


def test_a_saved_turn_is_on_the_disk_with_all_its_fields_when_the_save_returns(
    memory: MemoAirVoiceMemorySync,
) -> None:
    path = memory.start_session()["paths"]["sessionJsonl"]
    tool_calls = [{"name": "search_memory", "latencyMs": 8.8, "hits": 3}]
    metadata = {"interrupted": False, "framework": "none"}
    event_id = save(memory, "t1", "hello", "good morning", tool_calls=tool_calls, metadata=metadata)

    turn = logged(path)[-1]
    assert turn["eventId"] == event_id
    assert turn["payload"] == {
        "turnId": "t1",
        "userText": "hello",
        "assistantText": "good morning",
        "toolCalls": tool_calls,
        "metadata": metadata,
    }


def test_the_context_contains_the_users_name(memory: MemoAirVoiceMemorySync) -> None:
    memory.start_session({"user": {"id": USER, "name": "Dana", "metadata": {"plan": "gold"}}})
    found = recall(memory, "who is it?")

    assert "Dana" in found.contextText
    assert "gold" in found.contextText
    assert found.profile is not None
    assert found.profile["name"] == "Dana"


def test_top_k_limits_the_hits_of_a_lane(new_memory: NewMemory, org_file: Path) -> None:
    memory = new_memory(org_file=str(org_file))
    memory.start_session()
    for number in range(3):
        save(memory, f"t{number}", f"returns, for the {number}. time")

    assert len(recall(memory, "returns").org) == 3
    bounded = recall(memory, "returns", top_k={"org": 1, "working": 2})
    assert (len(bounded.org), len(bounded.working)) == (1, 2)


def test_only_the_given_lanes_are_searched(new_memory: NewMemory, org_file: Path) -> None:
    memory = new_memory(org_file=str(org_file))
    memory.start_session({"user": {"name": "Dana"}})
    save(memory, "t1", "how do returns work?")
    found = recall(memory, "returns", lanes=["org"])

    assert (found.profile, found.working, found.permanent) == (None, [], [])
    assert len(found.org) == 3
    assert {name: lane["status"] for name, lane in found.trace["lanes"].items()} == {
        "profile": "skipped",
        "working": "skipped",
        "permanent": "skipped",
        "org": "ok",
    }


def test_a_filter_keeps_only_documents_with_matching_metadata(new_memory: NewMemory, org_file: Path) -> None:
    memory = new_memory(org_file=str(org_file))
    memory.start_session()

    assert [hit["id"] for hit in recall(memory, "returns", filter={"topic": "shipping"}).org] == ["express"]
    either = recall(memory, "returns", filter={"topic": {"$in": ["returns", "boots"]}}).org
    assert {hit["id"] for hit in either} == {"returns", "boots"}


def test_a_search_leaves_out_what_is_not_confident_enough_and_says_so(new_memory: NewMemory, org_file: Path) -> None:
    memory = new_memory(org_file=str(org_file))
    memory.start_session()
    foreign = "who won the chess championship with the boots?"

    found = recall(memory, foreign, lanes=["org"])
    assert all(0 <= hit["confidence"] <= 1 for hit in found.org)
    assert found.trace["lanes"]["org"]["nothingFound"] is False
    confidence = found.trace["lanes"]["org"]["confidence"]
    assert confidence == max(hit["confidence"] for hit in found.org)

    strict = recall(memory, foreign, lanes=["org"], min_confidence=0.5, say_nothing_found=True)
    assert strict.org == []
    assert "boots" not in strict.contextText
    assert "nothing found in the organization's documents" in strict.contextText
    assert strict.trace["lanes"]["org"]["nothingFound"] is True
    assert strict.trace["lanes"]["org"]["confidence"] == confidence

    known = recall(memory, "how long do returns take?", lanes=["org"], min_confidence=confidence)
    assert known.org[0]["id"] == "returns"


def test_a_turn_keeps_its_occurred_at(memory: MemoAirVoiceMemorySync) -> None:
    memory.start_session()
    save(memory, "t1", "the boots are too small", metadata={"occurredAt": "2021-03-04T05:06:07Z"})

    assert recall(memory, "boots").sources[0]["createdAt"].startswith("2021-03-04T05:06:07")


def test_the_environment_can_name_the_org_file(
    new_memory: NewMemory, org_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MEMOAIR_RUNTIME_ORG_FILE", str(org_file))
    memory = new_memory()
    memory.start_session()

    assert "within 30 days" in recall(memory, "returns").contextText


def test_org_only_searches_only_documents_and_saves_nothing(
    new_memory: NewMemory, org_file: Path, storage_root: Path
) -> None:
    with new_memory() as ordinary:
        ordinary.start_session({"user": {"name": "Dana"}})
        save(ordinary, "t1", "returns of my own")

    memory = new_memory(org_only=True, org_file=str(org_file))
    memory.start_session({"user": {"name": "Dana"}})
    assert memory.after_turn("returns, please, says Quixote", "of course", "t2", timeout_s=10.0) is None
    for lanes in (None, ["profile", "working", "permanent", "org"]):
        found = recall(memory, "returns", lanes=lanes)
        assert (found.profile, found.working, found.permanent) == (None, [], [])
        assert len(found.org) == 3
    memory.end_session()
    memory.close()

    assert not [path for path in storage_root.rglob("*") if path.is_file() and b"Quixote" in path.read_bytes()]


def test_each_memory_has_its_own_session_unless_an_id_is_given(new_memory: NewMemory) -> None:
    unnamed = {new_memory().session_id for _ in range(3)}
    assert len(unnamed) == 3
    assert new_memory(session_id="call-7").session_id == "call-7"


def test_ids_of_any_characters_are_separate_and_stay_below_the_storage_root(
    new_memory: NewMemory, storage_root: Path
) -> None:
    for user_id in ("../../etc/\N{TELEPHONE RECEIVER} a/b", "A", "a"):
        with new_memory(user_id=user_id, session_id="../..") as memory:
            memory.start_session()
            assert recall(memory, "words").permanent == []
            save(memory, "t1", f"words of {user_id}")

    logs = list(storage_root.parent.rglob("session.jsonl"))
    assert len(logs) == 3
    assert all(log.is_relative_to(storage_root) for log in logs)


def test_a_lone_surrogate_does_not_lose_the_turn(memory: MemoAirVoiceMemorySync) -> None:
    memory.start_session()
    save(memory, "t1", "the blue \ud83d boots")

    assert "boots" in recall(memory, "blue \ud83d boots").contextText


def test_a_session_can_be_ended_twice_and_opened_again(memory: MemoAirVoiceMemorySync) -> None:
    memory.start_session()
    save(memory, "t1", "hello")
    assert memory.end_session()["status"] == "ok"
    assert memory.end_session("again")["status"] == "ok"

    with pytest.raises(MemoAirVoiceMemoryError) as refused:
        recall(memory, "hello")
    assert refused.value.code == "runtime.session_not_found"

    memory.start_session()
    assert "hello" in recall(memory, "hello").contextText


def test_close_ends_the_session_and_the_runtime_and_can_be_repeated(memory: MemoAirVoiceMemorySync) -> None:
    path = memory.start_session()["paths"]["sessionJsonl"]
    save(memory, "t1", "hello")
    pid = memory.runtime_pid
    assert pid is not None
    memory.close()
    memory.close()

    assert memory.runtime_pid is None
    assert not psutil.pid_exists(pid)
    assert [line["type"] for line in logged(path)] == ["session_start", "turn", "session_end"]


def test_an_unused_memory_starts_no_runtime(memory: MemoAirVoiceMemorySync) -> None:
    assert memory.runtime_pid is None
    memory.close()
    assert not psutil.Process().children()


def test_a_with_block_that_raises_ends_the_runtime(new_memory: NewMemory) -> None:
    memory = new_memory()

    def fails_in_the_middle() -> None:
        with memory:
            memory.start_session()
            raise LookupError

    with pytest.raises(LookupError):
        fails_in_the_middle()
    assert not psutil.Process().children()


def test_a_closed_memory_starts_no_runtime(memory: MemoAirVoiceMemorySync) -> None:
    memory.start_session()
    memory.close()

    with pytest.raises(MemoAirVoiceMemoryError) as refused:
        recall(memory, "hello")
    assert "closed" in refused.value.message
    assert not psutil.Process().children()


def test_a_closed_memory_does_not_connect_to_an_external_runtime(
    new_memory: NewMemory, start_runtime: Callable[..., RunningRuntime], storage_root: Path
) -> None:
    runtime = start_runtime(storage_root)
    memory = new_memory(auto_start_runtime=False, runtime_url=f"http://127.0.0.1:{runtime.port}")
    memory.start_session()
    memory.close()

    with pytest.raises(MemoAirVoiceMemoryError) as refused:
        recall(memory, "hello")
    assert "closed" in refused.value.message


def test_eight_threads_share_one_runtime_and_every_turn_is_saved_once(
    memory: MemoAirVoiceMemorySync, storage_root: Path
) -> None:
    together = threading.Barrier(8)

    def talk(speaker: int) -> None:
        together.wait()
        for number in range(5):
            code = f"code{speaker}x{number}"
            save(memory, f"{speaker}-{number}", f"the parcel is {code}")
            assert code in recall(memory, code).contextText

    with ThreadPoolExecutor(8) as threads:
        for each in [threads.submit(talk, speaker) for speaker in range(8)]:
            each.result()

    assert [child.pid for child in psutil.Process().children()] == [memory.runtime_pid]
    assert logged_turns(storage_root) == sorted(f"{speaker}-{number}" for speaker in range(8) for number in range(5))


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_a_runtime_that_dies_during_a_session_is_replaced_without_losing_saved_turns(
    memory: MemoAirVoiceMemorySync, storage_root: Path, how: signal.Signals
) -> None:
    memory.start_session({"user": {"name": "Dana"}})
    pids: set[int] = set()
    for number in range(3):
        save(memory, f"t{number}", f"sentence {number} about boots")
        if pid := memory.runtime_pid:  # a terminated one may have saved this turn while it was draining
            pids.add(pid)
            os.kill(pid, how)  # not waited for: the next call may hit it while it is dying
    save(memory, "last", "the last sentence about boots")

    assert len(pids) == 3 or how is signal.SIGTERM
    assert logged_turns(storage_root) == ["last", "t0", "t1", "t2"]
    found = recall(memory, "sentence about boots", top_k={"working": 10})
    assert {hit["source"]["turnId"] for hit in found.working} == {"t0", "t1", "t2", "last"}
    assert "Dana" in found.contextText


def test_no_turn_is_lost_when_a_runtime_dies_while_threads_save(
    memory: MemoAirVoiceMemorySync, storage_root: Path
) -> None:
    memory.start_session()
    under_way = threading.Barrier(5)

    def talk(speaker: int) -> None:
        save(memory, f"{speaker}-0", "the first sentence")
        under_way.wait()
        for number in range(1, 30):
            save(memory, f"{speaker}-{number}", f"sentence {number}")

    with ThreadPoolExecutor(4) as threads:
        talks = [threads.submit(talk, speaker) for speaker in range(4)]
        under_way.wait()
        assert memory.runtime_pid is not None
        os.kill(memory.runtime_pid, signal.SIGKILL)
        for each in talks:
            each.result()

    assert logged_turns(storage_root) == sorted(f"{speaker}-{number}" for speaker in range(4) for number in range(30))


def test_a_start_that_outlasts_a_search_goes_on_for_the_next_call(
    new_memory: NewMemory, executable: Callable[[str], str], tmp_path: Path
) -> None:
    switch = tmp_path / "on"
    wait = f"while ! [ -e {switch} ]; do sleep 0.01; done"  # otherwise it may start between two searches
    memory = new_memory(runtime_binary=executable(f"#!/bin/sh\n{wait}\nexec {sys.executable} -m memoair_runtime\n"))

    def search() -> None:
        with pytest.raises(MemoAirVoiceMemoryError) as refused:
            memory.search_memory("hello", timeout_ms=20)
        assert refused.value.code == "runtime.timeout"

    assert fastest(search, 0.12) < 0.12
    pid = memory.runtime_pid
    switch.touch()
    memory.start_session()
    assert pid is not None
    assert memory.runtime_pid == pid


def test_flush_waits_for_files_derived_from_the_log(memory: MemoAirVoiceMemorySync) -> None:
    paths = memory.start_session()["paths"]
    save(memory, "t1", "hello")

    assert memory.flush() is True
    assert Path(paths["workingBrief"]).stat().st_size > 0


def test_an_external_runtime_is_used_and_left_running(
    new_memory: NewMemory, start_runtime: Callable[..., RunningRuntime], storage_root: Path
) -> None:
    runtime = start_runtime(storage_root)
    memory = new_memory(auto_start_runtime=False, runtime_url=f"http://localhost:{runtime.port}")
    memory.start_session()
    save(memory, "t1", "hello")
    assert memory.runtime_pid is None
    memory.close()

    assert runtime.health()["active_sessions"] == 0
    assert [line["type"] for line in runtime.log_lines(memory.session_id)][:3] == [
        "session_start",
        "turn",
        "session_end",
    ]


def test_an_external_runtime_that_is_restarted_is_found_again(
    new_memory: NewMemory, start_runtime: Callable[..., RunningRuntime], storage_root: Path
) -> None:
    first = start_runtime(storage_root)
    address = f"127.0.0.1:{first.port}"
    memory = new_memory(auto_start_runtime=False, runtime_url=f"http://{address}")
    memory.start_session()
    save(memory, "t1", "the first sentence")
    first.kill()
    first.http.close()
    start_runtime(storage_root, BIND_ADDR=address)

    save(memory, "t2", "the second sentence")
    assert {hit["source"]["turnId"] for hit in recall(memory, "sentence").working} == {"t1", "t2"}


def test_a_connection_pool_argument_is_used_and_not_closed(
    new_memory: NewMemory, start_runtime: Callable[..., RunningRuntime], storage_root: Path
) -> None:
    runtime = start_runtime(storage_root)
    with urllib3.HTTPConnectionPool("127.0.0.1", runtime.port) as pool:
        memory = new_memory(client=pool, runtime_url=f"http://127.0.0.1:{runtime.port}")
        memory.start_session()
        save(memory, "t1", "hello")
        memory.close()

        assert pool.num_requests >= 3
        assert pool.request("GET", "/v1/runtime/health").status == 200


def test_a_runtime_manager_can_serve_two_memories_of_a_user(
    new_memory: NewMemory, start_runtime: Callable[..., RunningRuntime], storage_root: Path
) -> None:
    owner = new_memory()
    owner.start_session()
    guest = new_memory(runtime_manager=owner._runtime)
    guest.start_session()
    save(guest, "t1", "hello from the guest")

    assert [child.pid for child in psutil.Process().children()] == [owner.runtime_pid]
    assert owner.session_id != guest.session_id


def test_the_repr_of_a_memory_shows_no_secret(new_memory: NewMemory) -> None:
    memory = new_memory(api_key="memoair_pk_secret", internal_token="secret-internal", runtime_token="secret-token")
    memory.start_session()

    assert "secret" not in repr(memory)
    assert memory.session_id in repr(memory)


def test_runtime_url_serves_another_memory_of_the_same_user(new_memory: NewMemory) -> None:
    first = new_memory(runtime_token="shared")
    first.start_session()
    save(first, "t1", "the boots are red")
    second = new_memory(auto_start_runtime=False, runtime_url=first.runtime_url(), runtime_token="shared")
    second.start_session()

    assert "the boots are red" in recall(second, "boots").contextText
    second.close()
    assert "the boots are red" in recall(first, "boots").contextText


def test_a_trace_has_the_deadline_and_the_duration(memory: MemoAirVoiceMemorySync) -> None:
    memory.start_session()
    began_at = time.monotonic()
    trace = memory.search_memory("hello", timeout_ms=PATIENT_MS).trace
    took_ms = (time.monotonic() - began_at) * 1e3

    assert PATIENT_MS / 2 < trace["deadlineMs"] <= PATIENT_MS
    assert 0 < trace["totalMs"] < took_ms
    assert set(trace["lanes"]) == {"profile", "working", "permanent", "org"}


def test_an_unknown_intent_is_replaced_by_the_default_and_noted(memory: MemoAirVoiceMemorySync) -> None:
    memory.start_session()
    assert any("intent" in note for note in recall(memory, "hello", intent="guess").trace["notes"])
    assert recall(memory, "hello", intent="fallback").trace["notes"] == []


def test_an_open_memory_has_no_process_besides_the_runtime(memory: MemoAirVoiceMemorySync) -> None:
    memory.start_session()
    eventually(lambda: [each.pid for each in psutil.Process().children(recursive=True)] == [memory.runtime_pid])
