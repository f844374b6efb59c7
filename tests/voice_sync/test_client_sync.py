"""Clients whose runtimes sync with a cloud: users known from elsewhere, new documents, erased users."""

import os
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from support.clients import NewClient, frozen, logged, pid_of, recall, runtime_of, say
from support.scripted_cloud import KEY, ScriptedCloud, error_body, hangs, remote_turn, responds_with
from support.timing import fastest, least
from support.waiting import eventually

from memoair_protocol.enums import EventType
from memoair_protocol.timestamps import utc_now
from memoair_runtime.storage.events import encode_line, new_event
from memoair_runtime.storage.user_folder import UserFolder
from memoair_voice_sync import MemoAirVoiceClientSync, MemoAirVoiceMemoryError
from memoair_voice_sync._processes.spawn import inherited_env
from memoair_voice_sync._processes.spec import RuntimeSpec

SECRET = "zanzibarplum"
DOCUMENTS = [
    {"id": "returns", "text": "Returns accepted within 30 days with a receipt.", "metadata": {"topic": "returns"}}
]


@pytest.fixture(autouse=True)
def no_hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let refreshes and stats() take as long as a loaded machine needs."""
    monkeypatch.setattr("memoair_voice_sync._pool.refresh._START_TIMEOUT_S", 60.0)
    monkeypatch.setattr("memoair_voice_sync._pool.refresh._PULL_TIMEOUT_S", 10.0)
    monkeypatch.setattr("memoair_voice_sync._pool.sync_health._TIMEOUT_S", 10.0)


@pytest.fixture
def cloud(nothing_left_behind: None) -> Iterator[ScriptedCloud]:
    with ScriptedCloud() as cloud:
        yield cloud


@pytest.fixture
def new_client(cloud: ScriptedCloud, new_client: NewClient) -> NewClient:
    """Make clients of the cloud over one empty storage root."""
    return lambda **arguments: new_client(**{"cloud_base_url": cloud.url, "api_key": KEY, **arguments})


# The start of a call


def test_a_user_known_from_another_machine_is_recalled_in_the_first_turn(
    cloud: ScriptedCloud, client: MemoAirVoiceClientSync, monkeypatch: pytest.MonkeyPatch
) -> None:
    cloud.add_event(remote_turn("e-1", "My dog is called Biscuit."), "ada")
    cloud.update_profile("ada", summary="Has a dog.")
    cloud.put_documents(("hours", "We open at nine."))
    monkeypatch.setattr("memoair_voice_sync._loopback.user_runtime_client._FIRST_PULL_TIMEOUT_S", 60.0)
    loaded = client.load_index(user={"id": "ada"}, timeout_s=60)
    assert (loaded.profile_version, loaded.permanent_manifest_version, loaded.org_manifest_version) == (1, 1, 1)
    context = recall(client, "ada", "What is my dog called?").contextText
    assert "Biscuit" in context
    assert "Has a dog." in context


@pytest.mark.parametrize("behaviour", [responds_with(500), responds_with(401)])
def test_a_cloud_that_rejects_or_fails_does_not_delay_calls(
    cloud: ScriptedCloud, client: MemoAirVoiceClientSync, behaviour: Callable[..., bool]
) -> None:
    client.load_index(user_id="bob")  # the fork server has started
    cloud.behave("*", always=behaviour)
    callers = count()
    assert fastest(lambda: client.load_index(user_id=f"caller_{next(callers)}"), 1.5) < 1.5
    assert say(client, "ada", "Hello.")
    runtime = runtime_of(client, "ada")
    assert runtime["sync"] in ("retrying", "refused")
    assert (runtime["unsynced_events"], runtime["refused_events"]) == (2, 0)
    assert runtime["oldest_unsynced_s"] >= 0


def test_a_hanging_cloud_delays_load_and_close_only_up_to_their_limits(
    cloud: ScriptedCloud, new_client: NewClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("memoair_voice_sync._loopback.user_runtime_client._FIRST_PULL_TIMEOUT_S", 0.3)
    cloud.behave("*", always=hangs)
    callers = count()

    def loads_s(client: MemoAirVoiceClientSync) -> float:
        caller = f"caller_{next(callers)}"
        began_at = time.monotonic()
        assert client.load_index(user_id=caller).profile_version == 0
        took_s = time.monotonic() - began_at
        assert runtime_of(client, caller)["sync"] == "connecting"
        return took_s

    def closes_s() -> float:
        client = new_client()
        loads_s(client)
        began_at = time.monotonic()
        client.close()
        return time.monotonic() - began_at

    assert 0.25 < least(partial(loads_s, new_client()), 3) < 3
    assert least(closes_s, 7) < 7


def test_all_turns_are_in_the_cloud_after_close(cloud: ScriptedCloud, client: MemoAirVoiceClientSync) -> None:
    say(client, "ada", "The boots, please.")
    client.close()
    assert [event["type"] for event in cloud.accepted_events("ada")] == ["session_start", "turn", "session_end"]


def test_without_a_cloud_no_request_is_made_and_cloud_calls_raise(cloud: ScriptedCloud, new_client: NewClient) -> None:
    client = new_client(cloud_base_url=None)
    say(client, "ada", "Hello.")
    runtime = runtime_of(client, "ada")
    assert (runtime["sync"], runtime["unsynced_events"], runtime["refused_events"]) == ("off", 0, 0)
    for call in (client.list_indexes, lambda: client.create_index("faq", DOCUMENTS)):
        with pytest.raises(MemoAirVoiceMemoryError) as raised:
            call()  # type: ignore[operator]
        assert raised.value.code == "cloud.unreachable"
    assert client.forget_user(user_id="ada") == {
        "user_id": "ada",
        "removed": {"cloud": None, "local": {"sessions": 1, "turns": 1}},
        "receipt": None,
    }
    assert cloud.requests == []


# Documents


def test_indexed_documents_are_found_by_the_first_search_of_a_user(
    cloud: ScriptedCloud, client: MemoAirVoiceClientSync
) -> None:
    client.create_index("agent-memory", DOCUMENTS)
    found = recall(client, "caller_42", "How long do I have to return something?")
    assert found.org[0]["id"] == "returns"
    assert found.org[0]["source"]["indexName"] == "agent-memory"
    assert "within 30 days" in found.contextText
    runtimes = {each["user_id"]: each for each in client.stats()["runtimes"]}
    assert set(runtimes) == {"__org__", "caller_42"}


def test_every_runtime_of_the_client_has_a_change_when_the_call_returns(
    cloud: ScriptedCloud, client: MemoAirVoiceClientSync
) -> None:
    for user in ("ada", "bob", "cyd"):
        client.load_index(user_id=user)
    client.create_index("faq", DOCUMENTS)
    found = [[hit["id"] for hit in recall(client, user, "return receipt").org] for user in ("ada", "bob", "cyd")]
    assert found == [["returns"]] * 3
    client.delete_document("faq", "returns")
    assert recall(client, "bob", "return receipt").org == []
    client.create_index("faq", DOCUMENTS)
    client.delete_index("faq")
    assert recall(client, "ada", "return receipt").org == []
    assert {each["user_id"] for each in client.stats()["runtimes"]} == {"ada", "bob", "cyd"}


def test_a_runtime_that_hangs_or_fails_to_pull_does_not_fail_the_change(
    cloud: ScriptedCloud,
    client: MemoAirVoiceClientSync,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("memoair_voice_sync._pool.refresh._PULL_TIMEOUT_S", 0.5)
    monkeypatch.setattr("memoair_voice_sync._pool.sync_health._TIMEOUT_S", 0.5)
    monkeypatch.setattr(
        "memoair_voice_sync._pool.handle.UNRESPONSIVE_AFTER_S", 60.0
    )  # the hanging runtime must not be replaced
    for user in ("ada", "bob"):
        client.load_index(user_id=user)
    cloud.behave("projections/org", responds_with(500))
    versions: list[int | None] = []
    with frozen(pid_of(client, "ada")):
        assert fastest(lambda: versions.append(client.create_index("faq", DOCUMENTS).version), 1.5) < 1.5
        assert fastest(lambda: runtime_of(client, "ada"), 1.25) < 1.25, "stats() must not wait for it"
        assert runtime_of(client, "ada")["sync"] is None
        assert eventually(lambda: runtime_of(client, "bob")["sync"])
    assert versions[0] == 1
    assert "action=refresh_failed" in caplog.text


# Erasure


@pytest.mark.usefixtures("patient_saves")
def test_an_erased_user_is_gone_in_the_cloud_and_locally_and_the_call_goes_on(
    cloud: ScriptedCloud, client: MemoAirVoiceClientSync, storage_root: Path
) -> None:
    user = {"id": "Zoë/../ada", "name": "Zoë"}
    cloud.add_event(remote_turn("e-1", f"The word is {SECRET}."), user["id"])
    client.load_index(user=user)
    client.save_response(user=user, user_text=SECRET, assistant_text="", turn_id="t1")
    assert SECRET in recall(client, user["id"], SECRET).contextText
    eventually(lambda: runtime_of(client, user["id"])["unsynced_events"] == 0)
    receipt = client.forget_user(user=user)
    assert receipt["user_id"] == user["id"]
    assert receipt["removed"]["cloud"]["events"] == 3
    assert receipt["removed"]["local"] == {"sessions": 2, "turns": 2}
    assert SECRET not in recall(client, user["id"], SECRET).contextText
    client.save_response(user=user, user_text="The boots, please.", assistant_text="", turn_id="t1")
    assert "The boots" in recall(client, user["id"], "boots").contextText
    folder = UserFolder(storage_root, client._project_id, user["id"]).path
    assert [path for path in folder.rglob("*") if path.is_file() and SECRET.encode() in path.read_bytes()] == []
    client.close()
    assert cloud.turn_texts(user["id"]) == ["The boots, please."]


@pytest.mark.usefixtures("patient_saves")
def test_a_second_delivery_of_a_turn_completes_it_and_brings_nothing_back_after_an_erasure(
    cloud: ScriptedCloud, new_client: NewClient, storage_root: Path
) -> None:
    user: dict[str, Any] = {"user_id": "ada"}
    question = f"Is the word {SECRET}?"
    client = new_client()
    first = client.save_response(user_text=question, assistant_text="", turn_id="turn-1", **user)
    second = client.save_response(user_text=question, assistant_text="It is plum.", turn_id="turn-1", **user)
    assert None not in (first, second)
    assert first != second
    assert client.save_response(user_text=question, assistant_text="", turn_id="turn-1", **user) == first
    assert "plum" in recall(client, "ada", "the word").contextText
    eventually(lambda: runtime_of(client, "ada")["unsynced_events"] == 0)
    client.forget_user(**user)
    for _ in range(2):
        for answer in ("", "It is plum."):
            assert client.save_response(user_text=question, assistant_text=answer, turn_id="turn-1", **user) is None
        assert client.stats()["pending_saves"] == 0
        assert SECRET not in recall(client, "ada", SECRET).contextText
        client.close()
        client = new_client()  # after a restart
    assert client.save_response(user_text="The boots, please.", assistant_text="", turn_id="turn-1", **user)
    assert "The boots" in recall(client, "ada", "boots").contextText


@pytest.mark.parametrize("user_id", ["...", "a/b", "%2e", "a b?c#d"])
def test_forget_user_sends_the_exact_user_id(
    cloud: ScriptedCloud, new_client: NewClient, user_id: str, storage_root: Path
) -> None:
    client = new_client(org_only=True)  # which saves nothing, and so starts no runtime for this
    assert client.forget_user(user_id=user_id)["removed"]["local"] is None
    assert [each for each, caller in cloud.users.items() if caller.forgotten_at] == [user_id]


def test_if_the_cloud_fails_to_erase_the_machine_does_and_the_error_says_what_is_left(
    cloud: ScriptedCloud, client: MemoAirVoiceClientSync, storage_root: Path
) -> None:
    say(client, "ada", SECRET)
    cloud.behave("users/ada", responds_with(404))
    with pytest.raises(MemoAirVoiceMemoryError, match="on this machine only") as raised:
        client.forget_user(user_id="ada")
    assert raised.value.status_code == 404
    assert raised.value.details["left"] == ["cloud"]
    assert raised.value.details["removed"] == {"cloud": None, "local": {"sessions": 1, "turns": 1}}
    assert not logged(storage_root, "ada", "turn")
    assert client.forget_user(user_id="ada")["receipt"]


def test_under_a_legal_hold_nothing_is_erased_on_the_machine(
    cloud: ScriptedCloud, client: MemoAirVoiceClientSync, storage_root: Path
) -> None:
    say(client, "ada", SECRET)
    cloud.behave("users/ada", responds_with(409, error_body("cloud.legal_hold")))
    with pytest.raises(MemoAirVoiceMemoryError, match="legal_hold"):
        client.forget_user(user_id="ada")
    assert logged(storage_root, "ada", "turn")


@pytest.mark.parametrize("user_id", ["caller_1 ", "..", "a" * 600, "caller\n1"])
def test_what_an_earlier_version_kept_under_an_id_that_is_invalid_now_is_erased(
    cloud: ScriptedCloud, client: MemoAirVoiceClientSync, user_id: str, storage_root: Path
) -> None:
    folder = UserFolder(storage_root, client._project_id, user_id)
    session = folder.create_session("call-1")
    turn = {"turnId": "t1", "userText": SECRET, "assistantText": ""}
    session.log.write_bytes(encode_line(new_event(EventType.TURN, "call-1", 1, utc_now(), turn)))
    with pytest.raises(ValueError, match="user_id"):
        client.search_memory("?", user_id=user_id)
    erased = client.forget_user(user_id=user_id)
    assert erased["removed"] == {"cloud": None, "local": {"sessions": 1, "turns": 1}}
    assert [path for path in folder.path.rglob("*") if path.is_file() and SECRET.encode() in path.read_bytes()] == []
    assert not [request for request in cloud.requests if "/users/" in request.path]


def test_pending_turns_are_not_saved_after_their_user_is_erased(
    cloud: ScriptedCloud, client: MemoAirVoiceClientSync, storage_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("memoair_voice_sync._pool.sync_health._TIMEOUT_S", 0.5)  # for the stats of a runtime that hangs
    client.load_index(user_id="ada")
    receipts: list[Any] = []
    with frozen(pid_of(client, "ada")):
        assert client.save_response(user_id="ada", user_text=SECRET, assistant_text="") is None
        thread = threading.Thread(target=lambda: receipts.append(client.forget_user(user_id="ada")))
        thread.start()
        eventually(lambda: client.stats()["pending_saves"] == 0)
    thread.join()
    assert receipts
    assert client.forget_user(user_id="ada")["removed"]["local"] == {"sessions": 0, "turns": 0}
    assert client.stats()["pending_saves"] == 0
    assert logged(storage_root, "ada", "turn") == []


def test_the_reserved_user_id_is_rejected(client: MemoAirVoiceClientSync) -> None:
    with pytest.raises(ValueError, match="__org__"):
        client.load_index(user_id="__org__")


# Memories


def test_memories_are_listed_corrected_and_deleted_and_searches_follow(
    cloud: ScriptedCloud, client: MemoAirVoiceClientSync
) -> None:
    for number in range(5):
        cloud.add_fact(f"fact_{number}", f"Has parcel {number}.", "ada")
    client.load_index(user_id="ada")
    assert [each["memoryId"] for each in client.list_memories(user={"id": "ada"})] == [f"fact_{n}" for n in range(5)]
    assert client.list_memories(user_id="ada", history=True)
    assert [each.path.rpartition("?")[2] for each in cloud.requests_to("users/ada/memories")] == [
        *("limit=500", "limit=500&cursor=2", "limit=500&cursor=4"),
        *("limit=500&history=true", "limit=500&history=true&cursor=2", "limit=500&history=true&cursor=4"),
    ]
    assert client.memory_history("fact_1", user_id="ada") == [{"action": "learned", "text": "Has parcel 1."}]
    assert client.update_memory("fact_1", user_id="ada", text="Has a quince.", holds_until="2026-05-01") == {
        "memoryId": "fact_1",
        "text": "Has a quince.",
        "holdsUntil": "2026-05-01",
    }
    assert [hit["text"] for hit in recall(client, "ada", "quince").permanent] == ["Has a quince."]
    client.delete_memory("fact_1", user_id="ada")
    assert recall(client, "ada", "quince").permanent == []
    with pytest.raises(MemoAirVoiceMemoryError) as raised:
        client.delete_memory("fact_1", user_id="ada")
    assert (raised.value.code, raised.value.status_code) == ("cloud.not_found", 404)
    with pytest.raises(ValueError, match="no change is given"):
        client.update_memory("fact_2", user_id="ada")


# The environment of runtimes


def test_proxies_and_certificates_are_passed_to_runtimes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    proxies = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY")
    for name in (*proxies, *map(str.lower, proxies)):
        monkeypatch.setenv(name, f"{name}.example")
    bundles = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE", "SSL_CERT_DIR")
    monkeypatch.chdir(tmp_path)
    for name in bundles:
        monkeypatch.setenv(name, "here.pem")
    inherited = inherited_env()
    assert {name: inherited[name] for name in (*proxies, *map(str.lower, proxies))} == {
        name: f"{name}.example" for name in (*proxies, *map(str.lower, proxies))
    }
    assert {inherited[name] for name in bundles} == {str(tmp_path / "here.pem")}, (
        "relative paths must become absolute: runtimes start in another folder"
    )


def test_a_spec_without_a_cloud_tells_the_runtime_so() -> None:
    assert RuntimeSpec("p", "u").environment("127.0.0.1:0")["MEMOAIR_RUNTIME_CLOUD_BASE_URL"] == ""
    environment = RuntimeSpec("p", "u", cloud_base_url="https://cloud").environment("127.0.0.1:0")
    assert environment["MEMOAIR_RUNTIME_CLOUD_BASE_URL"] == "https://cloud"
    assert os.environ.get("MEMOAIR_RUNTIME_CLOUD_BASE_URL") is None
