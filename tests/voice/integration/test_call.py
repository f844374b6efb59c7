"""The calls of integrations: named, opened and ended; and what the cloud rejects of their identity."""

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.clients import client_arguments, logged
from support.clouds import Client, RunningCloud, running

from memoair_voice import MemoAirVoiceClient, MemoAirVoiceMemoryError
from memoair_voice.integration import NamedCall, report_rejected_identity

pytestmark = pytest.mark.anyio

ADA = {"id": "ada", "name": "Ada"}
log = logging.getLogger("an_integration")


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"  # as all integrations


async def test_a_call_has_its_id_and_ends_once(storage_root: Path, nothing_left_behind: None) -> None:
    async with MemoAirVoiceClient(**client_arguments(storage_root)) as client:
        call = NamedCall(client, ADA, session_id="CA1", metadata={"framework": "test"})
        await call.open()
        await client.save_response(user=ADA, session_id=call.session_id, user_text="Hi.", assistant_text="Hello.")
        for _ in range(2):
            await call.end(has_turns=True)
        events = logged(storage_root, "ada")
    assert [(event["sessionId"], event["type"]) for event in events] == [
        ("CA1", "session_start"),
        ("CA1", "turn"),
        ("CA1", "session_end"),
    ]
    assert events[0]["payload"]["metadata"]["framework"] == "test"
    assert NamedCall(client, ADA).session_id != NamedCall(client, ADA).session_id


async def test_a_call_that_found_no_place_is_ended_if_it_has_turns(
    storage_root: Path, nothing_left_behind: None
) -> None:
    async with MemoAirVoiceClient(**client_arguments(storage_root, max_concurrent_users=1)) as client:
        call = NamedCall(client, ADA, session_id="CA1")
        async with await client.session(user_id="eve"):
            with pytest.raises(MemoAirVoiceMemoryError, match="pool"):
                await call.open()
            await call.end(has_turns=False)
        await client.save_response(user=ADA, session_id="CA1", user_text="Hi.", assistant_text="Hello.")
        await call.end(has_turns=True)
    assert [event["type"] for event in logged(storage_root, "ada")] == ["session_start", "turn", "session_end"]


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningCloud]:
    """Run a server."""
    folder = tmp_path_factory.mktemp("cloud")
    with running(f"sqlite:///{folder / 'cloud.db'}", folder) as cloud:
        yield cloud


@pytest.fixture(scope="module")
def tenant(cloud: RunningCloud) -> Iterator[Client]:
    tenant = cloud.tenant("shop")
    yield tenant
    tenant.close()


@pytest.mark.parametrize("wrong", ["api_key", "project_id", "agent_id", None])
async def test_what_the_cloud_rejects_is_named_once(
    storage_root: Path, cloud: RunningCloud, tenant: Client, caplog: pytest.LogCaptureFixture, wrong: str | None
) -> None:
    caplog.set_level(logging.ERROR, log.name)
    identity: dict[str, Any] = {"api_key": tenant.key}
    identity |= {"project_id": tenant.identity["project"], "agent_id": tenant.identity["agent"]}
    if wrong:
        identity[wrong] += "x"
    arguments = {**client_arguments(storage_root), **identity, "cloud_base_url": cloud.url}
    async with MemoAirVoiceClient(**arguments) as client:
        for user_id in ("ada", "bob"):
            call = NamedCall(client, {"id": user_id})
            await call.open()
            await report_rejected_identity(client, log)
            await call.end(has_turns=False)
    errors = [record.getMessage() for record in caplog.records if record.name == log.name]
    assert len(errors) == (1 if wrong else 0), errors
    assert all(f"rejects the {wrong}," in error and "action=identity_rejected" in error for error in errors)
