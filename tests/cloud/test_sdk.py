"""The SDK against a real server: indexes are built, listed and deleted."""

import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support.clients import runtime_of
from support.clouds import Client, RunningCloud
from support.waiting import eventually

import memoair_voice_sync._cloud.api as sdk
from memoair_voice_sync import (
    IndexBuildResult,
    MemoAirVoiceClientSync,
    MemoAirVoiceMemoryError,
    MemoAirVoiceMemorySync,
)


@pytest.fixture
def new_sdk(cloud: RunningCloud, tmp_path: Path) -> Iterator[Callable[[Client], MemoAirVoiceClientSync]]:
    """Yield a function that creates an SDK client with the identity of a test client, and close them all at the end."""
    clients: list[MemoAirVoiceClientSync] = []

    def make(client: Client) -> MemoAirVoiceClientSync:
        clients.append(
            MemoAirVoiceClientSync(
                api_key=str(client.key),
                project_id=client.identity["project"],
                agent_id=client.identity["agent"],
                cloud_base_url=cloud.url,
                storage_root=str(tmp_path),
            )
        )
        return clients[-1]

    yield make
    for sdk_client in clients:
        sdk_client.close()


def test_an_index_is_built_extended_listed_and_deleted(
    client: Client, new_sdk: Callable[[Client], MemoAirVoiceClientSync]
) -> None:
    sdk_client = new_sdk(client)
    documents = [{"id": "returns", "text": "Thirty days.", "metadata": {"topic": "returns"}}]
    assert sdk_client.create_index("agent memory", documents) == IndexBuildResult("agent memory", 1, 1)
    documents = [{"id": "returns", "text": "Forty days."}, {"id": "shipping", "text": "Two days."}]
    assert sdk_client.create_index("agent memory", documents, metadata={"from": "handbook"}).version == 2
    [index] = sdk_client.list_indexes()
    assert (index["name"], index["version"], index["documentCount"]) == ("agent memory", 2, 2)
    assert sdk_client.get_index("agent memory")["chunkCount"] == 2
    sdk_client.delete_document("agent memory", "shipping")
    assert sdk_client.get_index("agent memory")["documentCount"] == 1
    sdk_client.delete_index("agent memory")
    assert sdk_client.list_indexes() == []


def test_another_account_does_not_see_the_index(
    cloud: RunningCloud, client: Client, new_sdk: Callable[[Client], MemoAirVoiceClientSync]
) -> None:
    new_sdk(client).create_index("faq", [{"id": "a", "text": "Ours."}])
    stranger = new_sdk(cloud.tenant())
    assert stranger.list_indexes() == []
    with pytest.raises(MemoAirVoiceMemoryError) as raised:
        stranger.get_index("faq")
    assert (raised.value.code, raised.value.status_code) == ("cloud.not_found", 404)


def test_an_unknown_key_is_rejected(
    client: Client, new_sdk: Callable[[Client], MemoAirVoiceClientSync], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "key", "memoair_pk_nobody")
    with pytest.raises(MemoAirVoiceMemoryError) as raised:
        new_sdk(client).list_indexes()
    assert (raised.value.code, raised.value.status_code) == ("cloud.unauthorized", 401)


def test_the_sdk_and_the_server_have_the_same_limits(
    client: Client, new_sdk: Callable[[Client], MemoAirVoiceClientSync], monkeypatch: pytest.MonkeyPatch
) -> None:
    too_many = [{"id": str(number), "text": "x"} for number in range(sdk.MAX_DOCUMENTS + 1)]
    sdk_client = new_sdk(client)
    with pytest.raises(MemoAirVoiceMemoryError) as here:
        sdk_client.create_index("faq", too_many)
    monkeypatch.setattr(sdk, "MAX_DOCUMENTS", sdk.MAX_DOCUMENTS + 1)
    with pytest.raises(MemoAirVoiceMemoryError) as there:
        sdk_client.create_index("faq", too_many)
    assert (here.value.code, here.value.status_code) == (there.value.code, there.value.status_code)
    assert sdk_client.create_index("faq", too_many[: sdk.MAX_DOCUMENTS - 1]).version == 1


WRONG = {
    "key": ({"api_key": "memoair_pk_wrong"}, "API key"),
    "project": ({"project_id": "proj_wrong"}, "no such project"),
    "agent": ({"agent_id": "agent_wrong"}, "no such agent"),
}


def rejections(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if "action=cloud_rejects" in record.getMessage()]


@pytest.mark.parametrize("part", WRONG)
def test_a_wrong_part_of_the_identity_is_named_once_in_the_log_by_load_index_and_in_stats(
    cloud: RunningCloud, client: Client, tmp_path: Path, part: str, caplog: pytest.LogCaptureFixture
) -> None:
    wrong, words = WRONG[part]
    right: dict[str, Any] = {"api_key": str(client.key), "project_id": client.identity["project"]}
    right |= {"agent_id": client.identity["agent"], "cloud_base_url": cloud.url, "storage_root": str(tmp_path)}
    user = {"id": "ada"}
    with MemoAirVoiceClientSync(**right | wrong) as sdk_client:
        # The first one may return before the cloud has answered: it does not wait longer than some seconds for it.
        eventually(lambda: sdk_client.load_index(user=user) and rejections(caplog), within_s=30)
        message = runtime_of(sdk_client, "ada")["cloud_rejection"]
        assert words in message
        assert runtime_of(sdk_client, "ada")["sync"] == "refused"
        assert sdk_client.save_response(user=user, user_text="hello", assistant_text="")
        found = sdk_client.search_memory("hello", user=user, timeout_ms=10_000)
        assert found.trace["cloudRejection"] == {"part": part, "message": message}
    [logged] = rejections(caplog)
    assert message in logged
    assert [record.levelno for record in caplog.records if record.getMessage() == logged] == [logging.ERROR]
    assert not [value for value in wrong.values() if value in caplog.text]


@pytest.mark.parametrize("part", WRONG)
def test_the_raw_memory_names_a_wrong_part_of_its_identity_once(
    cloud: RunningCloud, client: Client, tmp_path: Path, part: str, caplog: pytest.LogCaptureFixture
) -> None:
    wrong, words = WRONG[part]
    right: dict[str, Any] = {"api_key": str(client.key), "project_id": client.identity["project"]}
    right |= {"agent_id": client.identity["agent"], "cloud_base_url": cloud.url, "storage_root": str(tmp_path)}
    with MemoAirVoiceMemorySync(user_id="ada", runtime_url="http://127.0.0.1:0", **right | wrong) as memory:
        memory.start_session(timeout_s=30)
        turns = iter(range(1_000))
        eventually(lambda: memory.after_turn("Hi.", "", f"t{next(turns)}", timeout_s=10) and rejections(caplog), 30)
        memory.search_memory("hello", timeout_ms=10_000)
    [logged] = rejections(caplog)
    assert words in logged


def test_the_agent_of_a_raw_memory_is_recorded_with_its_sessions(
    cloud: RunningCloud, client: Client, tmp_path: Path
) -> None:
    with MemoAirVoiceMemorySync(
        api_key=str(client.key),
        project_id=client.identity["project"],
        agent_id=client.identity["agent"],
        user_id="ada",
        cloud_base_url=cloud.url,
        storage_root=str(tmp_path),
        runtime_url="http://127.0.0.1:0",
        session_id="call-7",
    ) as memory:
        memory.start_session({"user": {"id": "ada"}}, timeout_s=30)
        memory.after_turn("Hi.", "Hello.", "t1", timeout_s=10)
        assert memory.flush(timeout_s=30)
    [session] = client.ok("GET", "/v1/voice-sdk/users/ada/sessions")["sessions"]
    assert (session["sessionId"], session["agentId"]) == ("call-7", client.identity["agent"])


def test_what_was_recalled_in_a_call_is_in_the_cloud_beside_its_turns(
    client: Client, new_sdk: Callable[[Client], MemoAirVoiceClientSync]
) -> None:
    sdk_client, user = new_sdk(client), {"id": client.identity["user"]}
    sdk_client.create_index("faq", [{"id": "returns", "text": "Returns of zanzibarplums take thirty days."}])
    sdk_client.load_index(user=user, session_id="call-1")
    asked = {"user": user, "session_id": "call-1", "timeout_ms": 10_000}
    found = sdk_client.search_memory("How long do returns take?", **asked)  # type: ignore[arg-type]
    turn = {"user_text": "How long do returns take?", "assistant_text": "Thirty days.", "turn_id": "t1"}
    sdk_client.save_response(user=user, session_id="call-1", **turn)  # type: ignore[arg-type]
    sdk_client.end_call(user=user, session_id="call-1")

    def linked() -> list[Any]:
        answer = client.call("GET", "/v1/voice-sdk/sessions/call-1/recall-traces")
        return [trace for trace in answer.body.get("traces", []) if trace["turnEventId"]]

    [trace] = eventually(linked, within_s=60)
    events = client.events("call-1")
    assert trace["turnEventId"] == next(event["eventId"] for event in events if event["type"] == "turn")
    assert (trace["turnId"], trace["agentId"]) == ("t1", client.identity["agent"])
    [hit] = trace["details"]["hits"]["org"]
    assert (hit["indexName"], hit["documentId"], hit["inContext"]) == ("faq", "returns", True)
    assert hit["score"] == found.org[0]["score"]
    assert "around" in hit["terms"] or "meaning" in hit["terms"]
    assert "zanzibar" not in str(trace)
    assert trace["orgVersion"] == 1
