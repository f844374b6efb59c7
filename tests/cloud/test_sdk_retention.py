"""The SDK and legal holds, exports and receipts, with a real cloud and real runtimes."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.clouds import Client, RunningCloud
from support.waiting import eventually

from memoair_voice import MemoAirVoiceClient
from memoair_voice_sync import MemoAirVoiceClientSync, MemoAirVoiceMemoryError


@pytest.fixture
def identity(cloud: RunningCloud, client: Client, tmp_path: Path) -> dict[str, Any]:
    return {
        "api_key": client.key,
        "project_id": client.identity["project"],
        "agent_id": client.identity["agent"],
        "cloud_base_url": cloud.url,
        "storage_root": str(tmp_path / "storage"),
    }


@pytest.fixture
def sdk(identity: dict[str, Any]) -> Iterator[MemoAirVoiceClientSync]:
    with MemoAirVoiceClientSync(**identity) as made:
        yield made


def code_of(error: pytest.ExceptionInfo[MemoAirVoiceMemoryError]) -> str:
    return error.value.code


def test_a_held_user_is_erased_in_neither_place(client: Client, sdk: MemoAirVoiceClientSync, tmp_path: Path) -> None:
    client.with_identity(user="ada").send_call("one", "I live in Lisbon.")
    sdk.save_response(user_id="ada", user_text="My parcel is late.", assistant_text="I see.")
    hold = sdk.hold_user("case 12", user_id="ada", by="legal")
    assert hold["reason"] == "case 12"
    with pytest.raises(MemoAirVoiceMemoryError) as refused:
        sdk.forget_user(user_id="ada")
    assert (code_of(refused), refused.value.status_code) == ("cloud.legal_hold", 409)
    # Also a turn that had to wait for the runtime is not lost.
    eventually(lambda: list((tmp_path / "storage").rglob("session.jsonl")), 60)
    assert sdk.lift_hold("settled", user_id="ada")["liftReason"] == "settled"
    assert len(sdk.list_holds(user_id="ada")) == 1
    done = sdk.forget_user(user_id="ada")
    assert done["removed"]["cloud"] == done["receipt"]["removed"]
    assert done["removed"]["local"]["turns"] >= 1
    assert client.ok("GET", f"/v1/voice-sdk/erasures/{done['receipt']['digest']}")["version"] == 1


def test_an_export_is_written_once(client: Client, sdk: MemoAirVoiceClientSync, tmp_path: Path) -> None:
    client.with_identity(user="ada").send_call("one", "I live in Lisbon.")
    path = tmp_path / "ada.json"
    assert sdk.export_user(path, user_id="ada") == path.stat().st_size
    assert len(json.loads(path.read_bytes())["events"]) == 3
    with pytest.raises(FileExistsError):
        sdk.export_user(path, user_id="ada")
    sdk.export_user(str(path), user_id="ada", overwrite=True)
    with pytest.raises(MemoAirVoiceMemoryError) as missing:
        sdk.export_user(tmp_path / "nobody.json", user_id="nobody")
    assert code_of(missing) == "cloud.not_found"
    assert [found.name for found in tmp_path.glob("*.json*")] == ["ada.json"]


def test_without_a_cloud_there_is_nothing_to_export(identity: dict[str, Any], tmp_path: Path) -> None:
    offline = {**identity, "cloud_base_url": None}
    with MemoAirVoiceClientSync(**offline) as sdk, pytest.raises(MemoAirVoiceMemoryError) as refused:
        sdk.export_user(tmp_path / "ada.json", user_id="ada")
    assert code_of(refused) == "cloud.unreachable"


@pytest.mark.anyio
async def test_the_async_client_exports_and_holds(client: Client, identity: dict[str, Any], tmp_path: Path) -> None:
    client.with_identity(user="ada").send_call("one", "I live in Lisbon.")
    async with MemoAirVoiceClient(**identity) as sdk:
        await sdk.hold_user("case 12", user_id="ada")
        assert await sdk.export_user(tmp_path / "ada.json", user_id="ada") > 100
        await sdk.lift_hold("settled", user_id="ada")
        assert len(await sdk.list_holds(user_id="ada")) == 1
