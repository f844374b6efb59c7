"""The SDK against a real server: indexes are built, listed and deleted."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.clouds import Client, RunningCloud

import memoair_voice_sync._cloud.api as sdk
from memoair_voice_sync import IndexBuildResult, MemoAirVoiceClientSync, MemoAirVoiceMemoryError


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
