"""Calls that have names and ends: sessions, and webhooks that name their call."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from support.clients import PATIENT_MS, NewClient, frozen, logged, pid_of, recall, turn_ids
from support.scripted_cloud import KEY, ScriptedCloud
from support.waiting import eventually

from memoair_voice_sync import MemoAirVoiceClientSync, MemoAirVoiceMemoryError, SearchResult
from memoair_voice_sync._loopback.user_runtime_client import UserRuntimeClient

pytestmark = pytest.mark.usefixtures("patient_saves")
_numbers = count()


@pytest.fixture(scope="module")
def client(shared_client: MemoAirVoiceClientSync) -> MemoAirVoiceClientSync:
    """Return one client for all tests with users of their own."""
    return shared_client


@pytest.fixture
def caller() -> str:
    """Return the id of a user that no other test has."""
    return f"caller_{next(_numbers)}"


def say(
    client: MemoAirVoiceClientSync, user_id: str, text: str, session_id: str | None, turn_id: str | None = None
) -> str:
    event_id = client.save_response(
        user_id=user_id, user_text=text, assistant_text="Noted.", session_id=session_id, turn_id=turn_id
    )
    assert event_id
    return event_id


def types_of(root: Path, user_id: str, session_id: str) -> list[str]:
    """Return the types of a session's events, in order."""
    return [event["type"] for event in logged(root, user_id) if event["sessionId"] == session_id]


def working_texts(found: SearchResult) -> list[str]:
    return [hit["text"] for hit in found.working]


# Sessions


def test_each_session_is_a_call_of_its_own_and_ends_with_its_block(
    client: MemoAirVoiceClientSync, caller: str, shared_root: Path
) -> None:
    session_ids = []
    for colour in ("red", "green", "blue"):
        with client.session(user={"id": caller}) as call:
            before = call.search_memory("which boots?", timeout_ms=PATIENT_MS)
            assert before.working == []
            assert call.save_response(user_text=f"The boots are {colour}.", assistant_text="Noted.", turn_id="turn-1")
            during = call.search_memory("which boots?", timeout_ms=PATIENT_MS)
            session_ids.append(call.session_id)
        assert [colour in text for text in working_texts(during)] == [True]
        assert types_of(shared_root, caller, call.session_id) == ["session_start", "turn", "session_end"]

    assert len(set(session_ids)) == 3
    assert turn_ids(shared_root, caller) == ["turn-1"] * 3
    later = recall(client, caller, "which boots did I ask for?", session_id="call-4")
    assert all(colour in later.contextText for colour in ("red", "green", "blue"))
    assert later.working == []


def test_two_calls_of_one_caller_at_once_do_not_mix(client: MemoAirVoiceClientSync, caller: str) -> None:
    with client.session(user={"id": caller}) as home, client.session(user={"id": caller}) as office:
        home.save_response(user_text="I am at home.", assistant_text="Noted.")
        office.save_response(user_text="I am in the office.", assistant_text="Noted.")
        found = {call: call.search_memory("home or office?", timeout_ms=PATIENT_MS) for call in (home, office)}

    assert "home" in str(working_texts(found[home]))
    assert "office" not in str(working_texts(found[home]))
    assert "office" in str(working_texts(found[office]))
    assert "home" not in str(working_texts(found[office]))
    assert [hit["source"]["sessionId"] for hit in found[home].permanent] == [office.session_id]


def test_a_session_can_be_named_and_described(client: MemoAirVoiceClientSync, caller: str, shared_root: Path) -> None:
    user = {"id": caller, "name": "Dana", "metadata": {"plan": "gold"}}
    with client.session(user=user, session_id="CA123", metadata={"assistantName": "Robin", "room": "r1"}) as call:
        assert call.session_id == "CA123"
        assert "CA123" in repr(call)
        call.save_response(user_text="Hello.", assistant_text="Hello.")
    start = logged(shared_root, caller, "session_start")[0]
    assert start["sessionId"] == "CA123"
    assert start["payload"] == {"user": user, "metadata": {"assistantName": "Robin", "room": "r1"}}


def test_the_first_search_of_a_session_knows_what_is_stored(new_client: NewClient) -> None:
    with new_client() as first:
        say(first, "ada", "My dog is called Biscuit.", "call-1")
        first.end_call(user_id="ada", session_id="call-1")
    with new_client() as second, second.session(user={"id": "ada"}) as call:
        found = call.search_memory("what is my dog called?")
    assert found.trace["degraded"] is False
    assert "Biscuit" in found.contextText


def test_a_session_that_says_nothing_leaves_no_call_behind(
    client: MemoAirVoiceClientSync, caller: str, shared_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    client.session(user={"id": caller}).close()
    assert logged(shared_root, caller) == []
    may_open = threading.Event()
    open_quietly = UserRuntimeClient._open_quietly

    def open_late(*arguments: Any) -> None:
        assert may_open.wait(30)
        open_quietly(*arguments)

    monkeypatch.setattr(UserRuntimeClient, "_open_quietly", open_late)
    session = client.session(user={"id": caller})
    session.search_memory("hello", timeout_ms=PATIENT_MS)  # opens the session in the background
    session.close()
    may_open.set()
    eventually(lambda: not [thread for thread in threading.enumerate() if thread.name == "memoair-open"])
    assert logged(shared_root, caller) == []


def test_a_call_goes_on_without_waiting_if_its_memory_hangs(
    new_client: NewClient, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("memoair_voice_sync._whole_calls._OPEN_TIMEOUT_S", 0.2)
    monkeypatch.setattr("memoair_voice_sync._whole_calls._CLOSE_CALL_TIMEOUT_S", 0.2)
    client = new_client()
    client.load_index(user_id="ada")
    with frozen(pid_of(client, "ada")), client.session(user={"id": "ada"}) as call:
        assert call.search_memory("hello", timeout_ms=50).trace["degraded"] is True
    assert "action=open_failed code=runtime.timeout" in caplog.text
    assert "action=end_failed code=runtime.timeout" in caplog.text


def test_open_sessions_end_with_their_client_and_named_calls_go_on(new_client: NewClient, storage_root: Path) -> None:
    client = new_client()
    session = client.session(user={"id": "ada"})
    session.save_response(user_text="Hello.", assistant_text="Hello.")
    say(client, "ada", "Hello from a webhook.", "CA1")
    client.close()
    session.close()
    assert types_of(storage_root, "ada", session.session_id) == ["session_start", "turn", "session_end"]
    assert types_of(storage_root, "ada", "CA1") == ["session_start", "turn"]


# Webhooks


def test_a_webhook_names_and_ends_its_call(client: MemoAirVoiceClientSync, caller: str, shared_root: Path) -> None:
    loaded = client.load_index(user={"id": caller, "name": "Dana"}, session_id="CA1")
    assert loaded.session_id == "CA1"
    say(client, caller, "The boots are red.", "CA1", "turn-1")
    assert "red" in str(working_texts(recall(client, caller, "which boots?", session_id="CA1")))
    tool = client.search_memory_tool(user_id=caller, session_id="CA1", search_memory_timeout_ms=PATIENT_MS)
    assert "red" in tool("which boots?")
    client.end_call(user_id=caller, session_id="CA1", reason="caller-hung-up")
    client.end_call(user_id=caller, session_id="CA1")

    say(client, caller, "The boots are blue.", "CA2", "turn-1")
    found = recall(client, caller, "which boots?", session_id="CA2")
    assert "red" not in str(working_texts(found))
    assert "red" in found.contextText
    assert types_of(shared_root, caller, "CA1") == ["session_start", "turn", "session_end"]
    [end] = logged(shared_root, caller, "session_end")
    assert end["payload"] == {"reason": "caller-hung-up"}


def test_a_call_without_an_id_can_be_ended_and_the_next_turn_begins_another(
    client: MemoAirVoiceClientSync, caller: str, shared_root: Path
) -> None:
    client.end_call(user_id=caller)  # there is no such call
    assert logged(shared_root, caller) == []
    say(client, caller, "The boots are red.", None, "turn-1")
    client.end_call(user_id=caller)
    say(client, caller, "The boots are blue.", None, "turn-1")

    first, second = logged(shared_root, caller, "turn")
    assert first["sessionId"] != second["sessionId"]
    assert types_of(shared_root, caller, first["sessionId"]) == ["session_start", "turn", "session_end"]
    assert types_of(shared_root, caller, second["sessionId"]) == ["session_start", "turn"]
    assert "red" not in str(working_texts(recall(client, caller, "which boots?")))


def test_the_end_of_an_unknown_call_leaves_nothing_behind(
    client: MemoAirVoiceClientSync, caller: str, shared_root: Path
) -> None:
    client.end_call(user_id=caller, session_id="CA-unanswered")
    assert logged(shared_root, caller) == []


def test_a_late_turn_is_kept_in_its_ended_call_once(
    client: MemoAirVoiceClientSync, caller: str, shared_root: Path
) -> None:
    say(client, caller, "The boots are red.", "CA1", "t1")
    client.end_call(user_id=caller, session_id="CA1")
    late = say(client, caller, "And size nine.", "CA1", "t2")
    assert say(client, caller, "And size nine.", "CA1", "t2") == late

    expected = ["session_start", "turn", "session_end", "session_start", "turn", "session_end"]
    assert types_of(shared_root, caller, "CA1") == expected


def test_late_turns_from_many_threads_and_another_client_leave_the_call_ended(
    new_client: NewClient, storage_root: Path
) -> None:
    first, second = new_client(), new_client()
    say(first, "ada", "Hello.", "CA1", "t0")
    first.end_call(user_id="ada", session_id="CA1")
    with ThreadPoolExecutor(8) as threads:
        saved = threads.map(
            lambda number: say((first, second)[number % 2], "ada", f"Late {number}.", "CA1", f"t{number}"), range(1, 17)
        )
        assert len(set(saved)) == 16
    assert sorted(turn_ids(storage_root, "ada")) == sorted(f"t{number}" for number in range(17))
    assert types_of(storage_root, "ada", "CA1")[-1] == "session_end"


def test_a_search_opens_an_ended_call_again(client: MemoAirVoiceClientSync, caller: str, shared_root: Path) -> None:
    say(client, caller, "The boots are red.", "chat-1")
    client.end_call(user_id=caller, session_id="chat-1")
    assert "red" in str(working_texts(recall(client, caller, "which boots?", session_id="chat-1")))
    say(client, caller, "And size nine.", "chat-1")
    assert types_of(shared_root, caller, "chat-1")[3:] == ["session_start", "turn"]


def test_a_call_goes_on_in_another_client_of_this_machine(new_client: NewClient, storage_root: Path) -> None:
    first, second = new_client(), new_client()
    say(first, "ada", "The boots are red.", "CA1", "t1")
    assert "red" in str(working_texts(recall(second, "ada", "which boots?", session_id="CA1")))
    say(second, "ada", "And size nine.", "CA1", "t2")
    assert "nine" in str(working_texts(recall(first, "ada", "which size?", session_id="CA1")))
    second.end_call(user_id="ada", session_id="CA1")
    assert types_of(storage_root, "ada", "CA1") == ["session_start", "turn", "turn", "session_end"]


def test_a_turn_id_counts_within_its_call(client: MemoAirVoiceClientSync, caller: str, shared_root: Path) -> None:
    first, second = (say(client, caller, "yes", call, "t1") for call in ("CA1", "CA2"))
    assert first != second
    assert say(client, caller, "yes", "CA1", "t1") == first
    assert say(client, caller, "yes, please", "CA2", "t1") not in (first, second)
    corrected = [event["payload"].get("corrects") for event in logged(shared_root, caller, "turn")]
    assert [event_id for event_id in corrected if event_id is not None] == [second]


def test_a_prefetch_belongs_to_its_call(client: MemoAirVoiceClientSync, caller: str) -> None:
    for call, colour in (("CA1", "red"), ("CA2", "blue")):
        say(client, caller, f"The boots are {colour}.", call)
    client.prefetch("which boots", user_id=caller, session_id="CA1")
    eventually(lambda: client._prefetch_cache._entries.get(caller) is not None)
    other = recall(client, caller, "which boots", session_id="CA2")
    assert "prefetched" not in other.trace
    client.prefetch("which boots", user_id=caller, session_id="CA1")
    eventually(lambda: client._prefetch_cache._entries.get(caller) is not None)
    own = recall(client, caller, "Which boots?", session_id="CA1")
    assert "prefetched" in own.trace
    assert "red" in str(working_texts(own))


def test_many_calls_of_one_caller_cost_no_memory_for_ever(client: MemoAirVoiceClientSync, caller: str) -> None:
    with client.session(user={"id": caller}, session_id="kept", metadata={"room": 1}):
        for number in range(100):
            say(client, caller, f"Hello {number}.", f"call-{number}")
        [handle] = [handle for handle in client._pool.handles() if handle.user_id == caller]
        sessions = client._runtime_client._memory(handle)._sessions
        assert len(sessions) <= 64
        assert "kept" in sessions


@pytest.mark.parametrize("session_id", ["", "a" * 1_025, "\0", "\ud800"])
def test_an_invalid_call_id_is_rejected(client: MemoAirVoiceClientSync, caller: str, session_id: str) -> None:
    calls: list[Callable[[], Any]] = [
        lambda: client.session(user_id=caller, session_id=session_id),
        lambda: client.search_memory("hello", user_id=caller, session_id=session_id),
        lambda: client.prefetch("hello", user_id=caller, session_id=session_id),
        lambda: client.save_response(user_id=caller, user_text="", assistant_text="", session_id=session_id),
        lambda: client.load_index(user_id=caller, session_id=session_id),
        lambda: client.end_call(user_id=caller, session_id=session_id),
        lambda: client.search_memory_tool(user_id=caller, session_id=session_id),
    ]
    for call in calls:
        with pytest.raises(ValueError, match="session_id"):
            call()


# With a cloud


@pytest.fixture
def cloud(nothing_left_behind: None) -> Iterator[ScriptedCloud]:
    with ScriptedCloud() as cloud:
        yield cloud


def test_the_cloud_has_the_end_of_a_call_while_the_client_lives(cloud: ScriptedCloud, new_client: NewClient) -> None:
    client = new_client(cloud_base_url=cloud.url, api_key=KEY)

    def types() -> list[str]:
        return [event["type"] for event in cloud.accepted_events("ada")]

    with client.session(user={"id": "ada"}) as call:
        call.save_response(user_text="My dog is called Biscuit.", assistant_text="Noted.")
    eventually(lambda: types() == ["session_start", "turn", "session_end"])
    say(client, "ada", "Hello again.", "CA1")
    client.end_call(user_id="ada", session_id="CA1")
    eventually(lambda: types() == ["session_start", "turn", "session_end"] * 2)


def test_a_call_without_a_place_in_the_pool_cannot_be_ended(new_client: NewClient) -> None:
    client = new_client(max_concurrent_users=1)
    with client.session(user={"id": "ada"}), pytest.raises(MemoAirVoiceMemoryError) as raised:
        client.end_call(user_id="bob", session_id="CA1")
    assert raised.value.code == "pool.exhausted"
