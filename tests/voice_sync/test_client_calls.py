"""The client's calls: which user they reach, what they return, and what they reject."""

import os
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil
import pytest
from support.clients import (
    PATIENT_MS,
    NewClient,
    logged,
    recall,
    runtime_of,
    say,
    turn_ids,
)
from support.runtimes import PROJECT
from support.waiting import eventually

from memoair_voice_sync import (
    MemoAirVoiceAgent,
    MemoAirVoiceClientSync,
    MemoAirVoiceMemoryError,
    RuntimeHandle,
    SearchResult,
)

pytestmark = pytest.mark.usefixtures("patient_saves")

LANES = {"profile", "working", "permanent", "org"}


@pytest.fixture(scope="module")
def client(shared_client: MemoAirVoiceClientSync) -> MemoAirVoiceClientSync:
    """Return one client for all tests with users of their own."""
    return shared_client


# Turns are remembered, each for its user


def test_a_call_asks_once_for_the_running_runtime(
    client: MemoAirVoiceClientSync, caller: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    say(client, caller, "hello", "t1")
    asked: list[str] = []
    ensure_running = RuntimeHandle.ensure_running

    def count_and_ensure(handle: RuntimeHandle, deadline: float) -> Any:
        asked.append(handle.user_id)
        return ensure_running(handle, deadline)

    monkeypatch.setattr(RuntimeHandle, "ensure_running", count_and_ensure)
    recall(client, caller, "hello")
    assert asked == [caller]
    assert client.save_response(user_id=caller, user_text="goodbye", assistant_text="")
    assert asked == [caller] * 2


def test_users_get_no_memories_of_each_other(client: MemoAirVoiceClientSync) -> None:
    say(client, "ada", "My boots are red.")
    say(client, "bob", "My boots are blue.")
    ada, bob = recall(client, "ada", "which colour are my boots?"), recall(client, "bob", "which colour are my boots?")

    assert "red" in ada.contextText
    assert "blue" not in ada.contextText
    assert "blue" in bob.contextText
    assert "red" not in bob.contextText
    assert runtime_of(client, "ada")["pid"] != runtime_of(client, "bob")["pid"]


def test_a_turn_is_recalled_in_its_session_and_by_a_later_client(new_client: NewClient) -> None:
    with new_client() as first:
        say(first, "ada", "I would like to swap the red boots for size nine.", "t1")
        during = recall(first, "ada", "which boots was it?")
    with new_client() as second:
        second.load_index(user={"id": "ada"})
        later = recall(second, "ada", "which boots was it?")

    assert "swap the red boots" in during.contextText
    assert [hit["source"]["turnId"] for hit in later.permanent] == ["t1"]
    assert "swap the red boots" in later.contextText
    assert later.working == []


def test_a_user_is_known_by_name_once_the_memory_is_loaded(new_client: NewClient) -> None:
    user = {"id": "ada", "name": "Ada", "metadata": {"plan": "premium"}}
    with new_client() as first:
        first.load_index(user=user)
        first.save_response(user=user, user_text="My boots are red.", assistant_text="Noted.")
    with new_client() as second:
        second.load_index(user={"id": "ada"})
        known = recall(second, "ada", "", lanes=["profile"])
        stranger = recall(second, "bob", "", lanes=["profile"])

    assert known.profile is not None
    assert (known.profile["name"], known.profile["metadata"]) == ("Ada", {"plan": "premium"})
    assert (known.permanent, known.working, known.org) == ([], [], [])
    assert (stranger.profile, stranger.contextText) == (None, "")


def test_a_user_id_can_be_an_invalid_file_name(client: MemoAirVoiceClientSync, shared_root: Path) -> None:
    for number, caller in enumerate(["../../etc/passwd", "Åda +44 20/7946", "ADA-x", "ada-x", "a" * 512]):
        say(client, caller, f"The code is number{number}.", f"t{number}")
        assert f"number{number}" in recall(client, caller, "what is the code?").contextText
        assert turn_ids(shared_root, caller) == [f"t{number}"]
    assert "number2" not in recall(client, "ada-x", "what is the code?").contextText
    assert {path.name for path in shared_root.iterdir()} == {"proj_test"}


def test_a_known_turn_is_not_saved_again_and_other_words_correct_it(
    client: MemoAirVoiceClientSync, caller: str, shared_root: Path
) -> None:
    first = say(client, caller, "hello", "t1")
    assert say(client, caller, "hello", "t1") == first
    assert turn_ids(shared_root, caller) == ["t1"]
    assert say(client, caller, "hello again", "t1") != first
    assert "hello again" in recall(client, caller, "hello").contextText
    assert [event["payload"].get("corrects") for event in logged(shared_root, caller, "turn")] == [None, first]


def test_turns_without_an_id_are_all_saved(client: MemoAirVoiceClientSync, caller: str, shared_root: Path) -> None:
    event_ids = [say(client, caller, "yes") for _ in range(3)]

    assert [event["eventId"] for event in logged(shared_root, caller, "turn")] == event_ids
    assert len(set(turn_ids(shared_root, caller))) == 3


def test_all_fields_of_a_turn_are_logged_unchanged(
    client: MemoAirVoiceClientSync, caller: str, shared_root: Path
) -> None:
    client.load_index(user_id=caller)
    calls = [{"name": "search_memory", "latencyMs": 8.8, "hits": 3}]
    metadata = {"interrupted": False, "framework": "livekit"}
    client.save_response(
        user_id=caller, user_text="grüß dich \ud800", assistant_text="", tool_calls=calls, metadata=metadata
    )

    [turn] = logged(shared_root, caller, "turn")
    assert turn["payload"]["userText"].startswith("grüß dich ")
    assert (turn["payload"]["toolCalls"], turn["payload"]["metadata"]) == (calls, metadata)


def test_lanes_and_top_k_limit_the_search(client: MemoAirVoiceClientSync, caller: str) -> None:
    for number in range(3):
        say(client, caller, f"The boots of order {number} are red.")
    found = recall(client, caller, "the boots", lanes=["working", "org"], top_k={"working": 1})

    assert len(found.working) == 1
    statuses = {lane: outcome["status"] for lane, outcome in found.trace["lanes"].items()}
    assert statuses == {"profile": "skipped", "working": "ok", "permanent": "skipped", "org": "ok"}


# Who calls


@pytest.mark.parametrize(
    "user_arguments",
    [
        lambda caller: {"user": {"id": caller}},
        lambda caller: {"user_id": caller},
        lambda caller: {"user": {"id": caller}, "user_id": caller},
        lambda caller: {"user": {"name": "Dana"}, "user_id": caller},
        lambda caller: {"user": {"id": caller, "name": None, "metadata": None}},
    ],
)
def test_user_and_user_id_name_the_same_user(
    client: MemoAirVoiceClientSync, caller: str, user_arguments: Callable[[str], dict[str, Any]]
) -> None:
    say(client, caller, "The boots are red.")
    found = client.search_memory("the boots", timeout_ms=PATIENT_MS, **user_arguments(caller))
    assert "The boots are red." in found.contextText
    assert client.save_response(user_text="Thanks.", assistant_text="", **user_arguments(caller))
    assert client.load_index(**user_arguments(caller)).session_id == runtime_of(client, caller)["session_id"]


def test_user_fields_are_logged_only_when_they_change(
    client: MemoAirVoiceClientSync, caller: str, shared_root: Path
) -> None:
    users: list[dict[str, Any]] = [
        {"id": caller, "name": "Dana"},
        {"id": caller, "name": "Dana"},
        {"id": caller},  # no change
        {"id": caller, "name": "Dana Scully"},
        {"id": caller, "name": "Dana Scully", "metadata": {"plan": "premium"}},
        {"id": caller, "metadata": {"plan": "premium"}},
    ]
    for user in users:
        client.load_index(user=user)
        client.search_memory("hello", user=user, timeout_ms=PATIENT_MS)
        client.save_response(user=user, user_text="hello", assistant_text="")

    logged_users = [event["payload"]["user"] for event in logged(shared_root, caller, "session_start")]
    assert logged_users[0] == users[0]
    assert logged_users[-1] == users[4]
    assert len({event["sessionId"] for event in logged(shared_root, caller)}) == 1
    assert logged_users == [users[0], users[3], users[4]]


def test_unchanged_user_fields_are_logged_once_despite_concurrent_turns(
    client: MemoAirVoiceClientSync, caller: str, shared_root: Path
) -> None:
    user = {"id": caller, "name": "Dana"}
    client.load_index(user=user)

    def load_again(_: int) -> None:
        client.load_index(user=user)

    def save(number: int) -> None:
        client.save_response(user=user, user_text="yes", assistant_text="", turn_id=f"t{number}")

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(lambda number: (save if number % 2 else load_again)(number), range(200)))
    assert len(turn_ids(shared_root, caller)) == 100
    assert len(logged(shared_root, caller, "session_start")) == 1


# A search does not raise if the memory fails


def test_a_first_search_with_too_short_a_timeout_is_empty_and_degraded(
    client: MemoAirVoiceClientSync, caller: str
) -> None:
    before = client.stats()["degraded_searches"]
    found = client.search_memory("hello", user_id=caller, timeout_ms=1, lanes=["permanent", "working"])

    trace = found.trace
    assert found == SearchResult("", None, [], [], [], [], trace)
    assert trace["degraded"] is True
    assert trace["error"]["code"] == "runtime.timeout"
    assert trace["deadlineMs"] == 1
    statuses = {lane: outcome["status"] for lane, outcome in trace["lanes"].items()}
    assert statuses == {"profile": "skipped", "working": "loading", "permanent": "loading", "org": "skipped"}
    assert client.stats()["degraded_searches"] == before + 1

    loaded = client.load_index(user_id=caller)  # finds the start still in progress
    assert set(loaded.scopes_loaded) >= LANES - {"org"}
    assert set(loaded.scopes_loaded) <= LANES
    assert loaded.session_id == runtime_of(client, caller)["session_id"]
    assert client.search_memory("hello", user_id=caller, timeout_ms=PATIENT_MS).trace["degraded"] is False


def test_a_load_that_times_out_raises_and_the_next_one_continues_the_start(
    client: MemoAirVoiceClientSync, caller: str
) -> None:
    with pytest.raises(MemoAirVoiceMemoryError) as refused:
        client.load_index(user_id=caller, timeout_s=0.001)
    assert refused.value.code == "runtime.timeout"
    assert client.load_index(user_id=caller).scopes_loaded


# Sessions


def test_a_session_pins_its_runtime_and_can_be_closed_twice(client: MemoAirVoiceClientSync, caller: str) -> None:
    client.load_index(user_id=caller)
    with client.session(user={"id": caller, "name": "Dana"}) as session:
        assert runtime_of(client, caller)["in_use"] == 1
        assert session.save_response(user_text="The boots are red.", assistant_text="Noted.", turn_id="t1")
        found = session.search_memory("the boots", timeout_ms=PATIENT_MS, lanes=["working"], top_k={"working": 1})
        assert "The boots are red." in found.contextText
        assert runtime_of(client, caller)["in_use"] == 1
    session.close()
    session.close()

    assert runtime_of(client, caller)["in_use"] == 0


def test_a_session_of_a_closed_client_raises_closed(new_client: NewClient) -> None:
    client = new_client()
    session = client.session(user_id="ada")
    client.close()
    with pytest.raises(MemoAirVoiceMemoryError) as refused:
        session.search_memory("hello")
    assert refused.value.code == "pool.closed"
    with pytest.raises(MemoAirVoiceMemoryError) as refused:
        session.save_response(user_text="hello", assistant_text="")
    assert refused.value.code == "pool.closed"
    session.close()


# Only the organization's documents


def test_org_only_searches_documents_for_all_users_and_saves_nothing(
    new_client: NewClient, org_file: Path, tmp_path: Path
) -> None:
    client = new_client(org_only=True, org_file=str(org_file))
    loaded = client.load_index(user_id="ada")
    assert "org" in loaded.scopes_loaded
    for caller in ("ada", "bob"):
        found = client.search_memory("may I return something?", user_id=caller, timeout_ms=PATIENT_MS)
        assert "within 30 days" in found.contextText
        assert (found.profile, found.working, found.permanent) == (None, [], [])
        assert client.save_response(user_id=caller, user_text="It is an unkept word.", assistant_text="") is None

    stats = client.stats()
    assert len(stats["runtimes"]) == 1
    assert (stats["deferred_saves"], stats["pending_saves"]) == (0, 0)
    client.close()
    kept = [path for path in (tmp_path / "storage").rglob("*") if path.is_file()]
    assert not [path for path in kept if path.name in ("session.jsonl", "profile.json", "lease.json")]
    assert not [path for path in kept if b"unkept word" in path.read_bytes()]


def test_org_only_needs_no_user(new_client: NewClient, org_file: Path) -> None:
    client = new_client(org_only=True, org_file=str(org_file))
    assert "org" in client.load_index().scopes_loaded
    assert "within 30 days" in client.search_memory("may I return something?", timeout_ms=PATIENT_MS).contextText
    client.prefetch("may I return")
    assert client.save_response(user_text="hello", assistant_text="") is None
    assert "within 30 days" in client.search_memory_tool(search_memory_timeout_ms=PATIENT_MS)("May I return something?")
    with client.session() as call:
        assert "within 30 days" in call.search_memory("may I return something?", timeout_ms=PATIENT_MS).contextText
    client.end_call()
    assert [each["user_id"] for each in client.stats()["runtimes"]] == ["__org__"]
    # What is about a person's data still names one.
    for refused in (
        client.forget_user,
        client.list_memories,
        lambda: client.import_call("call-7", []),
        lambda: client.delete_memory("mem-1"),
    ):
        with pytest.raises(ValueError, match="is required"):
            refused()


def test_an_agent_for_documents_only_needs_no_user(new_client: NewClient, org_file: Path, storage_root: Path) -> None:
    agent = MemoAirVoiceAgent(api_key="k", project_id=PROJECT, agent_id="a", cloud_base_url=None, org_only=True)
    with agent.client(storage_root=str(storage_root), org_file=str(org_file)) as client:
        assert "within 30 days" in client.search_memory("returns", timeout_ms=PATIENT_MS).contextText


# Statistics


def test_stats_are_correct(client: MemoAirVoiceClientSync, caller: str) -> None:
    client.load_index(user_id=caller)
    stats, runtime = client.stats(), runtime_of(client, caller)

    assert set(stats) >= {
        "max_concurrent_users", "runtimes", "retiring", "evictions", "restarts",
        "degraded_searches", "prefetched_searches", "deferred_saves", "pending_saves", "lost_saves", "spooled_saves",
    }  # fmt: skip
    assert set(runtime) >= {
        "user_id", "session_id", "state", "in_use", "restarts", "pid",
        "port", "borrowed", "rss_bytes", "cpu_s", "uptime_s",
        "sync", "unsynced_events", "oldest_unsynced_s", "refused_events",
    }  # fmt: skip
    process = psutil.Process(runtime["pid"])
    assert psutil.Process(os.getpid()) in process.parents()
    assert runtime["port"] in [each.laddr.port for each in process.net_connections() if each.status == "LISTEN"]
    assert (runtime["state"], runtime["in_use"], runtime["restarts"], runtime["borrowed"]) == ("running", 0, 0, False)
    assert runtime["rss_bytes"] > 1 << 20
    assert runtime["cpu_s"] >= 0
    assert 0 <= runtime["uptime_s"] < 60


# Requests that the runtime rejects


def test_permanent_errors_of_the_runtime_are_raised_and_not_retried(
    client: MemoAirVoiceClientSync, caller: str, shared_root: Path
) -> None:
    client.load_index(user_id=caller)
    eventually(lambda: client.stats()["retiring"] == 0)
    before = client.stats()
    with pytest.raises(MemoAirVoiceMemoryError) as refused:
        client.search_memory("hello", user_id=caller, top_k={"nowhere": 1}, timeout_ms=PATIENT_MS)
    assert (refused.value.code, refused.value.status_code) == ("runtime.bad_request", 400)
    with pytest.raises(MemoAirVoiceMemoryError) as refused:
        client.save_response(user_id=caller, user_text="x" * (1 << 20), assistant_text="")
    assert (refused.value.code, refused.value.status_code) == ("runtime.payload_too_large", 413)

    assert {**client.stats(), "runtimes": []} == {**before, "runtimes": []}
    assert turn_ids(shared_root, caller) == []


# Imported calls


def past_turn(number: int) -> dict[str, Any]:
    return {
        "turn_id": f"t{number}",
        "user_text": f"The boots are number {number}.",
        "assistant_text": "Noted.",
        "metadata": {"occurredAt": f"2025-03-0{number}T09:30:00Z"},
    }


def test_an_imported_call_is_saved_once_under_its_own_id_and_times(
    client: MemoAirVoiceClientSync, caller: str, shared_root: Path
) -> None:
    user = {"id": caller, "name": "Dana"}
    first = client.import_call("old-call", [past_turn(1), past_turn(2)], user=user, metadata={"assistantName": "Juno"})
    again = client.import_call("old-call", [past_turn(number) for number in (1, 2, 3)], user_id=caller)

    events = logged(shared_root, caller)
    assert {event["sessionId"] for event in events} == {"old-call"}
    turns = [event for event in events if event["type"] == "turn"]
    assert [event["payload"]["turnId"] for event in turns] == ["t1", "t2", "t3"]
    assert [event["occurredAt"][:10] for event in turns] == ["2025-03-01", "2025-03-02", "2025-03-03"]
    assert [event["eventId"] for event in turns] == [*first, again[2]] == again
    assert events[0]["payload"] == {"user": user, "metadata": {"assistantName": "Juno"}}
    assert (events[-1]["type"], events[-1]["payload"]) == ("session_end", {"reason": "imported"})
    assert "number 3" in recall(client, caller, "Which number are the boots?").contextText


def test_parts_of_a_call_imported_concurrently_are_all_saved_once(
    client: MemoAirVoiceClientSync, caller: str, shared_root: Path
) -> None:
    parts = [[past_turn(number)] for number in range(1, 10)] * 4
    client.load_index(user_id=caller)
    with ThreadPoolExecutor(8) as pool:
        kept = list(pool.map(lambda part: client.import_call("old-call", part, user_id=caller), parts))

    assert all(len(each) == 1 for each in kept)
    assert Counter(turn_ids(shared_root, caller)) == Counter(f"t{number}" for number in range(1, 10))


@pytest.mark.parametrize(
    ("turn", "error", "message"),
    [
        ({**past_turn(1), "turn_id": ""}, ValueError, r'turns\[0\]\["turn_id"\] is empty'),
        ({**past_turn(1), "user_text": None}, TypeError, r'turns\[0\]\["user_text"\] must be a str'),
        ({**past_turn(1), "userText": "x"}, ValueError, r"turns\[0\] has no userText"),
        (
            {**past_turn(1), "metadata": {"a": object()}},
            TypeError,
            r'turns\[0\]\["metadata"\] cannot be encoded as JSON',
        ),
    ],
)
def test_an_invalid_turn_is_rejected_before_any_turn_is_imported(
    client: MemoAirVoiceClientSync,
    caller: str,
    shared_root: Path,
    turn: dict[str, Any],
    error: type[Exception],
    message: str,
) -> None:
    with pytest.raises(error, match=message):
        client.import_call("old-call", [turn], user_id=caller)
    assert not logged(shared_root, caller)


def test_an_import_that_times_out_raises(client: MemoAirVoiceClientSync, caller: str) -> None:
    with pytest.raises(MemoAirVoiceMemoryError, match=r"runtime\.timeout"):
        client.import_call("old-call", [past_turn(1)], user_id=caller, timeout_s=1e-4)


def test_an_erasure_may_take_longer_than_a_runtime_accepts_as_its_deadline(
    client: MemoAirVoiceClientSync, caller: str
) -> None:
    say(client, caller, "hello", "t1")

    assert client.forget_user(user_id=caller, timeout_s=600)["removed"]["local"] == {"sessions": 1, "turns": 1}
