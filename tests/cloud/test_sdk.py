"""The SDK against a server, and the other way round: indexes are built, seen, and deleted."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.clouds import Client, RunningCloud

import memoair_voice_sync._cloud as sdk
from memoair_voice_sync import IndexBuildResult, MemoAirVoiceClientSync, MemoAirVoiceMemoryError


@pytest.fixture
def new_sdk(cloud: RunningCloud, tmp_path: Path) -> Iterator[Callable[[Client], MemoAirVoiceClientSync]]:
    """Make clients of the SDK with the identity of a client of the tests; all are closed after the test."""
    made: list[MemoAirVoiceClientSync] = []

    def make(client: Client) -> MemoAirVoiceClientSync:
        made.append(
            MemoAirVoiceClientSync(
                api_key=str(client.key),
                project_id=client.identity["project"],
                agent_id=client.identity["agent"],
                cloud_base_url=cloud.url,
                storage_root=str(tmp_path),
            )
        )
        return made[-1]

    yield make
    for each in made:
        each.close()


def test_an_index_is_built_added_to_seen_and_deleted(
    client: Client, new_sdk: Callable[[Client], MemoAirVoiceClientSync]
) -> None:
    own = new_sdk(client)
    documents = [{"id": "returns", "text": "Thirty days.", "metadata": {"topic": "returns"}}]
    assert own.create_index("agent memory", documents) == IndexBuildResult("agent memory", 1, 1)
    documents = [{"id": "returns", "text": "Forty days."}, {"id": "shipping", "text": "Two days."}]
    assert own.create_index("agent memory", documents, metadata={"from": "handbook"}).version == 2
    [told] = own.list_indexes()
    assert (told["name"], told["version"], told["documentCount"]) == ("agent memory", 2, 2)
    assert own.get_index("agent memory")["chunkCount"] == 2
    own.delete_document("agent memory", "shipping")
    assert own.get_index("agent memory")["documentCount"] == 1
    own.delete_index("agent memory")
    assert own.list_indexes() == []


def test_another_customer_sees_none_of_it(
    cloud: RunningCloud, client: Client, new_sdk: Callable[[Client], MemoAirVoiceClientSync]
) -> None:
    new_sdk(client).create_index("faq", [{"id": "a", "text": "Ours."}])
    stranger = new_sdk(cloud.tenant())
    assert stranger.list_indexes() == []
    with pytest.raises(MemoAirVoiceMemoryError) as raised:
        stranger.get_index("faq")
    assert (raised.value.code, raised.value.status_code) == ("cloud.not_found", 404)


def test_a_key_that_nobody_has_is_refused(
    client: Client, new_sdk: Callable[[Client], MemoAirVoiceClientSync], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "key", "memoair_pk_nobody")
    with pytest.raises(MemoAirVoiceMemoryError) as raised:
        new_sdk(client).list_indexes()
    assert (raised.value.code, raised.value.status_code) == ("cloud.unauthorized", 401)


def test_the_limits_are_the_servers_own(
    client: Client, new_sdk: Callable[[Client], MemoAirVoiceClientSync], monkeypatch: pytest.MonkeyPatch
) -> None:
    too_many = [{"id": str(number), "text": "x"} for number in range(sdk.MAX_DOCUMENTS + 1)]
    own = new_sdk(client)
    with pytest.raises(MemoAirVoiceMemoryError) as here:
        own.create_index("faq", too_many)
    monkeypatch.setattr(sdk, "MAX_DOCUMENTS", sdk.MAX_DOCUMENTS + 1)
    with pytest.raises(MemoAirVoiceMemoryError) as there:
        own.create_index("faq", too_many)
    assert (here.value.code, here.value.status_code) == (there.value.code, there.value.status_code)
    assert own.create_index("faq", too_many[: sdk.MAX_DOCUMENTS - 1]).version == 1
