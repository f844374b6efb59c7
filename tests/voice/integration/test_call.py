"""The calls of integrations: named, opened and ended; and what the cloud rejects of their identity."""

import asyncio
import logging
from pathlib import Path

import pytest
from support.clients import AGENT, client_arguments, logged

from memoair_voice import MemoAirVoiceClient, MemoAirVoiceMemoryError, Prompt
from memoair_voice.integration import NamedCall

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


async def test_a_call_is_open_before_its_prompt_is_there(storage_root: Path, nothing_left_behind: None) -> None:
    released = asyncio.Event()

    async def fetch() -> Prompt | None:
        await released.wait()
        return Prompt("You help.", 3, "production", AGENT, is_stale=False)

    async with MemoAirVoiceClient(**client_arguments(storage_root)) as client:
        call = NamedCall(client, ADA, session_id="CA1")
        await asyncio.wait_for(call.open(asyncio.create_task(fetch())), 30)
        released.set()
        await call.end(has_turns=False)
        starts = logged(storage_root, "ada", "session_start")
    prompts = [start["payload"]["metadata"].get("prompt") for start in starts]
    assert prompts == [None, {"version": 3, "label": "production"}]


async def test_a_prompt_that_is_there_soon_is_recorded_at_the_start(
    storage_root: Path, nothing_left_behind: None
) -> None:
    async def fetch() -> Prompt | None:
        return Prompt("You help.", 3, "production", AGENT, is_stale=False)

    async with MemoAirVoiceClient(**client_arguments(storage_root)) as client:
        call = NamedCall(client, ADA, session_id="CA1")
        await call.open(asyncio.create_task(fetch()))
        await call.end(has_turns=False)
        [start] = logged(storage_root, "ada", "session_start")
    assert start["payload"]["metadata"]["prompt"] == {"version": 3, "label": "production"}


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
