"""Clients whose runtimes talk with a cloud: who is known from elsewhere, what is found at once, who is forgotten."""

import os
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from support.clients import NewClient, clients_over, frozen, logged, pid_of, recall, runtime_of, say
from support.scripted_cloud import KEY, ScriptedCloud, answers, elsewhere, hangs, scripted_cloud
from support.timing import fastest, least
from support.waiting import eventually

from memoair_runtime.storage.user_folder import UserFolder
from memoair_voice_sync import MemoAirVoiceClientSync, MemoAirVoiceMemoryError
from memoair_voice_sync._spec import RuntimeSpec, passed_on

SECRET = "zanzibarplum"
DOCUMENTS = [
    {"id": "returns", "text": "Returns accepted within 30 days with a receipt.", "metadata": {"topic": "returns"}}
]


@pytest.fixture(autouse=True)
def no_hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is done behind a call, or asked for its figures, may take as long as a loaded machine needs."""
    monkeypatch.setattr("memoair_voice_sync._refresh._START_S", 60.0)
    monkeypatch.setattr("memoair_voice_sync._refresh._PULL_S", 10.0)
    monkeypatch.setattr("memoair_voice_sync._sync_health._LONGEST_S", 10.0)


@pytest.fixture
def cloud(nothing_left_behind: None) -> Iterator[ScriptedCloud]:
    with scripted_cloud() as cloud:
        yield cloud


@pytest.fixture
def new_client(cloud: ScriptedCloud, storage_root: Path) -> Iterator[NewClient]:
    """Make clients that use the cloud, over one empty storage root."""
    with clients_over(storage_root) as make:
        yield lambda **arguments: make(**{"cloud_base_url": cloud.url, "api_key": KEY, **arguments})


@pytest.fixture
def client(new_client: NewClient) -> MemoAirVoiceClientSync:
    return new_client()


# The first moments


def test_a_caller_who_is_known_from_another_machine_is_remembered_in_his_first_turn(
    cloud: ScriptedCloud, client: MemoAirVoiceClientSync, monkeypatch: pytest.MonkeyPatch
) -> None:
    cloud.tell(elsewhere("e-1", "My dog is called Biscuit."), "ada")
    cloud.describe("ada", summary="Has a dog.")
    cloud.put(("hours", "We open at nine."))
    monkeypatch.setattr("memoair_voice_sync._user_runtime_client._FIRST_PULL_S", 60.0)
    loaded = client.load_index(user={"id": "ada"}, timeout_s=60)
    assert (loaded.profile_version, loaded.permanent_manifest_version, loaded.org_manifest_version) == (1, 1, 1)
    context = recall(client, "ada", "What is my dog called?").contextText
    assert "Biscuit" in context
    assert "Has a dog." in context


@pytest.mark.parametrize("behaviour", [answers(500), answers(401)])
def test_a_cloud_that_refuses_or_fails_delays_no_call(
    cloud: ScriptedCloud, client: MemoAirVoiceClientSync, behaviour: Callable[..., bool]
) -> None:
    client.load_index(user_id="bob")  # the host has started
    cloud.behave("*", always=behaviour)
    callers = count()
    assert fastest(lambda: client.load_index(user_id=f"caller_{next(callers)}"), 1.5) < 1.5
    assert say(client, "ada", "Hello.")
    told = runtime_of(client, "ada")
    assert told["sync"] in ("retrying", "refused")
    assert (told["unsynced_events"], told["refused_events"]) == (2, 0)
    assert told["oldest_unsynced_s"] >= 0


def test_a_cloud_that_hangs_is_waited_for_no_longer_than_it_may_be(
    cloud: ScriptedCloud, new_client: NewClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("memoair_voice_sync._user_runtime_client._FIRST_PULL_S", 0.3)
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


def test_what_was_said_is_in_the_cloud_when_the_client_has_been_closed(
    cloud: ScriptedCloud, client: MemoAirVoiceClientSync
) -> None:
    say(client, "ada", "The boots, please.")
    client.close()
    assert [event["type"] for event in cloud.pushed("ada")] == ["session_start", "turn", "session_end"]


def test_without_a_cloud_nothing_is_asked_and_calls_to_it_say_so(cloud: ScriptedCloud, new_client: NewClient) -> None:
    client = new_client(cloud_base_url=None)
    say(client, "ada", "Hello.")
    told = runtime_of(client, "ada")
    assert (told["sync"], told["unsynced_events"], told["refused_events"]) == ("off", 0, 0)
    for call in (client.list_indexes, lambda: client.create_index("faq", DOCUMENTS)):
        with pytest.raises(MemoAirVoiceMemoryError) as raised:
            call()  # type: ignore[operator]
        assert raised.value.code == "cloud.unreachable"
    assert client.forget_user(user_id="ada") == {
        "user_id": "ada",
        "removed": {"cloud": None, "local": {"sessions": 1, "turns": 1}},
    }
    assert cloud.requests == []


# Documents


def test_what_is_indexed_is_found_by_the_very_first_search_of_a_caller(
    cloud: ScriptedCloud, client: MemoAirVoiceClientSync
) -> None:
    client.create_index("agent-memory", DOCUMENTS)
    found = recall(client, "caller_42", "How long do I have to return something?")
    assert found.org[0]["id"] == "returns"
    assert found.org[0]["source"]["indexName"] == "agent-memory"
    assert "within 30 days" in found.contextText
    runtimes = {each["user_id"]: each for each in client.stats()["runtimes"]}
    assert set(runtimes) == {"__org__", "caller_42"}


def test_every_runtime_of_the_client_sees_a_change_when_the_call_returns(
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


def test_a_runtime_that_hangs_or_can_not_pull_does_not_fail_the_change(
    cloud: ScriptedCloud,
    client: MemoAirVoiceClientSync,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("memoair_voice_sync._refresh._PULL_S", 0.5)
    monkeypatch.setattr("memoair_voice_sync._sync_health._LONGEST_S", 0.5)
    monkeypatch.setattr("memoair_voice_sync._handle.HUNG_AFTER_S", 60.0)  # it hangs, and is not replaced
    for user in ("ada", "bob"):
        client.load_index(user_id=user)
    cloud.behave("projections/org", answers(500))
    versions: list[int | None] = []
    with frozen(pid_of(client, "ada")):
        assert fastest(lambda: versions.append(client.create_index("faq", DOCUMENTS).version), 1.5) < 1.5
        assert fastest(lambda: runtime_of(client, "ada"), 1.25) < 1.25, "nor does it hold up the figures"
        assert runtime_of(client, "ada")["sync"] is None
        assert eventually(lambda: runtime_of(client, "bob")["sync"])
    assert versions[0] == 1
    assert "action=refresh_failed" in caplog.text


# Forgetting


@pytest.mark.usefixtures("patient_saves")
def test_who_is_forgotten_is_gone_in_the_cloud_and_here_and_his_call_goes_on(
    cloud: ScriptedCloud, client: MemoAirVoiceClientSync, storage_root: Path
) -> None:
    user = {"id": "Zoë/../ada", "name": "Zoë"}
    cloud.tell(elsewhere("e-1", f"The word is {SECRET}."), user["id"])
    client.load_index(user=user)
    client.save_response(user=user, user_text=SECRET, assistant_text="", turn_id="t1")
    assert SECRET in recall(client, user["id"], SECRET).contextText
    eventually(lambda: runtime_of(client, user["id"])["unsynced_events"] == 0)
    forgotten = client.forget_user(user=user)
    assert forgotten["user_id"] == user["id"]
    assert forgotten["removed"]["cloud"]["events"] == 3
    assert forgotten["removed"]["local"] == {"sessions": 2, "turns": 2}
    assert SECRET not in recall(client, user["id"], SECRET).contextText
    client.save_response(user=user, user_text="The boots, please.", assistant_text="", turn_id="t1")
    assert "The boots" in recall(client, user["id"], "boots").contextText
    folder = UserFolder(storage_root, client._project_id, user["id"]).path
    assert [path for path in folder.rglob("*") if path.is_file() and SECRET.encode() in path.read_bytes()] == []
    client.close()
    assert cloud.turns(user["id"]) == ["The boots, please."]


@pytest.mark.parametrize("user_id", [".", "..", "a/b", "%2e", "a b?c#d"])
def test_whoever_is_forgotten_is_named_exactly(
    cloud: ScriptedCloud, new_client: NewClient, user_id: str, storage_root: Path
) -> None:
    client = new_client(org_only=True)  # which keeps nothing, and so starts no runtime for this
    assert client.forget_user(user_id=user_id)["removed"]["local"] is None
    assert [each for each, caller in cloud.callers.items() if caller.forgotten_at] == [user_id]


def test_a_cloud_that_does_not_forget_is_told_and_nothing_is_deleted_here(
    cloud: ScriptedCloud, client: MemoAirVoiceClientSync, storage_root: Path
) -> None:
    say(client, "ada", SECRET)
    cloud.behave("users/ada", answers(404))
    with pytest.raises(MemoAirVoiceMemoryError) as raised:
        client.forget_user(user_id="ada")
    assert raised.value.status_code == 404
    assert logged(storage_root, "ada", "turn")


def test_turns_that_wait_for_a_runtime_are_not_saved_after_their_caller_was_forgotten(
    cloud: ScriptedCloud, client: MemoAirVoiceClientSync, storage_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("memoair_voice_sync._sync_health._LONGEST_S", 0.5)  # for the figures of one that hangs
    client.load_index(user_id="ada")
    forgotten: list[Any] = []
    with frozen(pid_of(client, "ada")):
        assert client.save_response(user_id="ada", user_text=SECRET, assistant_text="") is None
        told = threading.Thread(target=lambda: forgotten.append(client.forget_user(user_id="ada")))
        told.start()
        eventually(lambda: client.stats()["pending_saves"] == 0)
    told.join()
    assert forgotten
    assert client.forget_user(user_id="ada")["removed"]["local"] == {"sessions": 0, "turns": 0}
    assert client.stats()["pending_saves"] == 0
    assert logged(storage_root, "ada", "turn") == []


def test_nobody_is_called_as_the_runtime_for_documents_is(client: MemoAirVoiceClientSync) -> None:
    with pytest.raises(ValueError, match="__org__"):
        client.load_index(user_id="__org__")


# Memories


def test_memories_are_seen_corrected_and_deleted_and_recalled_so(
    cloud: ScriptedCloud, client: MemoAirVoiceClientSync
) -> None:
    for number in range(5):
        cloud.learn(f"fact_{number}", f"Has parcel {number}.", "ada")
    client.load_index(user_id="ada")
    assert [each["memoryId"] for each in client.list_memories(user={"id": "ada"})] == [f"fact_{n}" for n in range(5)]
    assert client.list_memories(user_id="ada", history=True)
    assert [each.path.rpartition("?")[2] for each in cloud.asked("users/ada/memories")] == [
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
    with pytest.raises(ValueError, match="says what to change"):
        client.update_memory("fact_2", user_id="ada")


# What runtimes are started with


def test_the_way_to_the_cloud_is_passed_on_to_runtimes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    proxies = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY")
    for name in (*proxies, *map(str.lower, proxies)):
        monkeypatch.setenv(name, f"{name}.example")
    bundles = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE", "SSL_CERT_DIR")
    monkeypatch.chdir(tmp_path)
    for name in bundles:
        monkeypatch.setenv(name, "here.pem")
    passed = passed_on()
    assert {name: passed[name] for name in (*proxies, *map(str.lower, proxies))} == {
        name: f"{name}.example" for name in (*proxies, *map(str.lower, proxies))
    }
    assert {passed[name] for name in bundles} == {str(tmp_path / "here.pem")}, "they start in another folder"


def test_a_spec_without_a_cloud_says_so_to_the_runtime() -> None:
    assert RuntimeSpec("p", "u").environment("127.0.0.1:0")["MEMOAIR_RUNTIME_CLOUD_BASE_URL"] == ""
    told = RuntimeSpec("p", "u", cloud_base_url="https://cloud").environment("127.0.0.1:0")
    assert told["MEMOAIR_RUNTIME_CLOUD_BASE_URL"] == "https://cloud"
    assert os.environ.get("MEMOAIR_RUNTIME_CLOUD_BASE_URL") is None
