"""The client's calls: whom they reach, what they return, and what they refuse."""

import os
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from pathlib import Path
from typing import Any

import psutil
import pytest
from support.clients import (
    PATIENT_MS,
    NewClient,
    clients_over,
    leaving_nothing,
    logged,
    recall,
    runtime_of,
    say,
    turn_ids,
)
from support.waiting import eventually

from memoair_voice_sync import MemoAirVoiceClientSync, MemoAirVoiceMemoryError, SearchResult

pytestmark = pytest.mark.usefixtures("patient_saves")

LANES = {"profile", "working", "permanent", "org"}

_numbers = count()


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the shared client keeps what it keeps."""
    return tmp_path_factory.mktemp("shared") / "storage"


@pytest.fixture(scope="module")
def client(root: Path) -> Iterator[MemoAirVoiceClientSync]:
    """One client for all tests that have callers of their own."""
    with leaving_nothing(), clients_over(root) as new_client:
        yield new_client()


@pytest.fixture
def new_client(tmp_path: Path, nothing_left_behind: None) -> Iterator[NewClient]:
    """Make clients over an empty storage root."""
    with clients_over(tmp_path / "storage") as make:
        yield make


@pytest.fixture
def caller() -> str:
    """The id of a caller whom no other test knows."""
    return f"caller_{next(_numbers)}"


# What is said is remembered, for who said it


def test_callers_hear_nothing_of_each_other(client: MemoAirVoiceClientSync) -> None:
    say(client, "ada", "My boots are red.")
    say(client, "bob", "My boots are blue.")
    ada, bob = recall(client, "ada", "which colour are my boots?"), recall(client, "bob", "which colour are my boots?")

    assert "red" in ada.contextText
    assert "blue" not in ada.contextText
    assert "blue" in bob.contextText
    assert "red" not in bob.contextText
    assert runtime_of(client, "ada")["pid"] != runtime_of(client, "bob")["pid"]


def test_a_turn_is_recalled_in_its_own_call_and_by_another_client_later(new_client: NewClient) -> None:
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


def test_who_calls_is_known_by_name_as_soon_as_his_memory_is_loaded(new_client: NewClient) -> None:
    told = {"id": "ada", "name": "Ada", "metadata": {"plan": "premium"}}
    with new_client() as first:
        first.load_index(user=told)
        first.save_response(user=told, user_text="My boots are red.", assistant_text="Noted.")
    with new_client() as second:
        second.load_index(user={"id": "ada"})
        known = recall(second, "ada", "", lanes=["profile"])
        stranger = recall(second, "bob", "", lanes=["profile"])

    assert known.profile is not None
    assert (known.profile["name"], known.profile["metadata"]) == ("Ada", {"plan": "premium"})
    assert (known.permanent, known.working, known.org) == ([], [], [])
    assert (stranger.profile, stranger.contextText) == (None, "")


def test_an_id_that_is_no_file_name_is_a_caller_like_any_other(client: MemoAirVoiceClientSync, root: Path) -> None:
    for number, caller in enumerate(["../../etc/passwd", "Åda +44 20/7946", "ADA-x", "ada-x", "a" * 1_024]):
        say(client, caller, f"The code is number{number}.", f"t{number}")
        assert f"number{number}" in recall(client, caller, "what is the code?").contextText
        assert turn_ids(root, caller) == [f"t{number}"]
    assert "number2" not in recall(client, "ada-x", "what is the code?").contextText
    assert {path.name for path in root.iterdir()} == {"proj_test"}


def test_a_turn_id_that_is_known_keeps_nothing_again(client: MemoAirVoiceClientSync, caller: str, root: Path) -> None:
    first = say(client, caller, "hello", "t1")
    assert say(client, caller, "hello again", "t1") == first
    assert turn_ids(root, caller) == ["t1"]


def test_turns_without_an_id_are_all_kept(client: MemoAirVoiceClientSync, caller: str, root: Path) -> None:
    event_ids = [say(client, caller, "yes") for _ in range(3)]

    assert [event["eventId"] for event in logged(root, caller, "turn")] == event_ids
    assert len(set(turn_ids(root, caller))) == 3


def test_what_a_turn_carries_is_logged_as_it_is(client: MemoAirVoiceClientSync, caller: str, root: Path) -> None:
    client.load_index(user_id=caller)
    calls = [{"name": "search_memory", "latencyMs": 8.8, "hits": 3}]
    metadata = {"interrupted": False, "framework": "livekit"}
    client.save_response(
        user_id=caller, user_text="grüß dich \ud800", assistant_text="", tool_calls=calls, metadata=metadata
    )

    [turn] = logged(root, caller, "turn")
    assert turn["payload"]["userText"].startswith("grüß dich ")
    assert (turn["payload"]["toolCalls"], turn["payload"]["metadata"]) == (calls, metadata)


def test_lanes_and_top_k_choose_what_is_searched(client: MemoAirVoiceClientSync, caller: str) -> None:
    for number in range(3):
        say(client, caller, f"The boots of order {number} are red.")
    found = recall(client, caller, "the boots", lanes=["working", "org"], top_k={"working": 1})

    assert len(found.working) == 1
    statuses = {lane: told["status"] for lane, told in found.trace["lanes"].items()}
    assert statuses == {"profile": "skipped", "working": "ok", "permanent": "skipped", "org": "ok"}


# Who calls


@pytest.mark.parametrize(
    "named",
    [
        lambda caller: {"user": {"id": caller}},
        lambda caller: {"user_id": caller},
        lambda caller: {"user": {"id": caller}, "user_id": caller},
        lambda caller: {"user": {"name": "Dana"}, "user_id": caller},
        lambda caller: {"user": {"id": caller, "name": None, "metadata": None}},
    ],
)
def test_a_caller_may_be_named_in_either_way(
    client: MemoAirVoiceClientSync, caller: str, named: Callable[[str], dict[str, Any]]
) -> None:
    say(client, caller, "The boots are red.")
    found = client.search_memory("the boots", timeout_ms=PATIENT_MS, **named(caller))
    assert "The boots are red." in found.contextText
    assert client.save_response(user_text="Thanks.", assistant_text="", **named(caller))
    assert client.load_index(**named(caller)).session_id == runtime_of(client, caller)["session_id"]


def test_who_calls_is_noted_when_it_changes_and_only_then(
    client: MemoAirVoiceClientSync, caller: str, root: Path
) -> None:
    told: list[dict[str, Any]] = [
        {"id": caller, "name": "Dana"},
        {"id": caller, "name": "Dana"},
        {"id": caller},  # says nothing new
        {"id": caller, "name": "Dana Scully"},
        {"id": caller, "name": "Dana Scully", "metadata": {"plan": "premium"}},
        {"id": caller, "metadata": {"plan": "premium"}},
    ]
    for user in told:
        client.load_index(user=user)
        client.search_memory("hello", user=user, timeout_ms=PATIENT_MS)
        client.save_response(user=user, user_text="hello", assistant_text="")

    noted = [event["payload"]["user"] for event in logged(root, caller, "session_start")]
    assert noted[0] == told[0]
    assert noted[-1] == told[4]
    assert len({event["sessionId"] for event in logged(root, caller)}) == 1
    assert noted == [told[0], told[3], told[4]]


def test_who_calls_is_noted_once_though_it_is_told_again_amid_turns(
    client: MemoAirVoiceClientSync, caller: str, root: Path
) -> None:
    user = {"id": caller, "name": "Dana"}
    client.load_index(user=user)

    def tell_again(_: int) -> None:
        client.load_index(user=user)

    def save(number: int) -> None:
        client.save_response(user=user, user_text="yes", assistant_text="", turn_id=f"t{number}")

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(lambda number: (save if number % 2 else tell_again)(number), range(200)))
    assert len(turn_ids(root, caller)) == 100
    assert len(logged(root, caller, "session_start")) == 1


# A search never raises for a memory that fails


def test_a_first_search_without_time_is_empty_and_says_why(client: MemoAirVoiceClientSync, caller: str) -> None:
    before = client.stats()["degraded_searches"]
    found = client.search_memory("hello", user_id=caller, timeout_ms=1, lanes=["permanent", "working"])

    trace = found.trace
    assert found == SearchResult("", None, [], [], [], [], trace)
    assert trace["degraded"] is True
    assert trace["error"]["code"] == "runtime.timeout"
    assert trace["deadlineMs"] == 1
    statuses = {lane: told["status"] for lane, told in trace["lanes"].items()}
    assert statuses == {"profile": "skipped", "working": "late", "permanent": "late", "org": "skipped"}
    assert client.stats()["degraded_searches"] == before + 1

    loaded = client.load_index(user_id=caller)  # finds the start that went on
    assert set(loaded.scopes_loaded) >= LANES - {"org"}
    assert set(loaded.scopes_loaded) <= LANES
    assert loaded.session_id == runtime_of(client, caller)["session_id"]
    assert client.search_memory("hello", user_id=caller, timeout_ms=PATIENT_MS).trace["degraded"] is False


def test_a_load_without_time_raises_and_the_next_one_finds_it_further(
    client: MemoAirVoiceClientSync, caller: str
) -> None:
    with pytest.raises(MemoAirVoiceMemoryError) as refused:
        client.load_index(user_id=caller, timeout_s=0.001)
    assert refused.value.code == "runtime.timeout"
    assert client.load_index(user_id=caller).scopes_loaded


# Sessions


def test_a_session_pins_its_runtime_and_may_be_closed_twice(client: MemoAirVoiceClientSync, caller: str) -> None:
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


def test_a_session_of_a_client_that_was_closed_says_so(new_client: NewClient) -> None:
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


# The organisation's documents alone


def test_org_only_searches_documents_for_everybody_and_keeps_nothing(
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


# What the client tells of itself


def test_stats_tell_the_truth(client: MemoAirVoiceClientSync, caller: str) -> None:
    client.load_index(user_id=caller)
    stats, told = client.stats(), runtime_of(client, caller)

    assert set(stats) >= {
        "max_concurrent_users", "runtimes", "retiring", "evictions", "restarts",
        "degraded_searches", "prefetched_searches", "deferred_saves", "pending_saves", "lost_saves",
    }  # fmt: skip
    assert set(told) >= {
        "user_id", "session_id", "state", "in_use", "restarts", "pid",
        "port", "borrowed", "rss_bytes", "cpu_s", "uptime_s",
        "sync", "unsynced_events", "oldest_unsynced_s", "refused_events",
    }  # fmt: skip
    process = psutil.Process(told["pid"])
    assert psutil.Process(os.getpid()) in process.parents()
    assert told["port"] in [each.laddr.port for each in process.net_connections() if each.status == "LISTEN"]
    assert (told["state"], told["in_use"], told["restarts"], told["borrowed"]) == ("running", 0, 0, False)
    assert told["rss_bytes"] > 1 << 20
    assert told["cpu_s"] >= 0
    assert 0 <= told["uptime_s"] < 60


# What is refused there


def test_what_the_runtime_refuses_for_good_is_raised_and_not_tried_again(
    client: MemoAirVoiceClientSync, caller: str, root: Path
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
    assert turn_ids(root, caller) == []


# Calls that are over


def past_turn(number: int) -> dict[str, Any]:
    return {
        "turn_id": f"t{number}",
        "user_text": f"The boots are number {number}.",
        "assistant_text": "Noted.",
        "metadata": {"occurredAt": f"2025-03-0{number}T09:30:00Z"},
    }


def test_a_call_that_is_over_is_kept_once_under_its_own_id_and_time(
    client: MemoAirVoiceClientSync, caller: str, root: Path
) -> None:
    user = {"id": caller, "name": "Dana"}
    first = client.import_call("old-call", [past_turn(1), past_turn(2)], user=user, metadata={"assistantName": "Juno"})
    again = client.import_call("old-call", [past_turn(number) for number in (1, 2, 3)], user_id=caller)

    events = logged(root, caller)
    assert {event["sessionId"] for event in events} == {"old-call"}
    turns = [event for event in events if event["type"] == "turn"]
    assert [event["payload"]["turnId"] for event in turns] == ["t1", "t2", "t3"]
    assert [event["occurredAt"][:10] for event in turns] == ["2025-03-01", "2025-03-02", "2025-03-03"]
    assert [event["eventId"] for event in turns] == [*first, again[2]] == again
    assert events[0]["payload"] == {"user": user, "metadata": {"assistantName": "Juno"}}
    assert (events[-1]["type"], events[-1]["payload"]) == ("session_end", {"reason": "imported"})
    assert "number 3" in recall(client, caller, "Which number are the boots?").contextText


def test_parts_of_a_call_that_come_at_the_same_time_are_all_kept_once(
    client: MemoAirVoiceClientSync, caller: str, root: Path
) -> None:
    parts = [[past_turn(number)] for number in range(1, 10)] * 4
    client.load_index(user_id=caller)
    with ThreadPoolExecutor(8) as pool:
        kept = list(pool.map(lambda part: client.import_call("old-call", part, user_id=caller), parts))

    assert all(len(each) == 1 for each in kept)
    assert Counter(turn_ids(root, caller)) == Counter(f"t{number}" for number in range(1, 10))


@pytest.mark.parametrize(
    ("turn", "error", "message"),
    [
        ({**past_turn(1), "turn_id": ""}, ValueError, r'turns\[0\]\["turn_id"\] is empty'),
        ({**past_turn(1), "user_text": None}, TypeError, r'turns\[0\]\["user_text"\] must be a str'),
        ({**past_turn(1), "userText": "x"}, ValueError, r"turns\[0\] has no userText"),
        ({**past_turn(1), "metadata": {"a": object()}}, TypeError, r'turns\[0\]\["metadata"\] holds what JSON can'),
    ],
)
def test_a_past_turn_that_can_not_be_is_told_before_anything_is_kept(
    client: MemoAirVoiceClientSync, caller: str, root: Path, turn: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        client.import_call("old-call", [turn], user_id=caller)
    assert not logged(root, caller)


def test_a_past_call_that_can_not_be_kept_in_time_raises(client: MemoAirVoiceClientSync, caller: str) -> None:
    with pytest.raises(MemoAirVoiceMemoryError, match=r"runtime\.timeout"):
        client.import_call("old-call", [past_turn(1)], user_id=caller, timeout_s=1e-4)
