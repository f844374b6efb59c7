"""The tools of sessions and clients: one client for all users, with tools that are bound to one user each."""

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from adapters.model_server import ARGUMENTS
from support.clients import PATIENT_MS, client_arguments, say

from memoair_voice import MemoAirVoiceClient, MemoryTool, VoiceSession
from memoair_voice_sync import MemoAirVoiceClientSync, MemoAirVoiceMemoryError, MemoryToolSync


@pytest.fixture
def client(tmp_path: Path, no_process_left: None) -> Iterator[MemoAirVoiceClientSync]:
    """Return a client with a saved turn of each of two users."""
    with MemoAirVoiceClientSync(**client_arguments(tmp_path / "storage")) as client:
        say(client, "ana", "The boots are red.")
        say(client, "ben", "The boots are blue.")
        yield client


@pytest.fixture(params=["sync", "async"])
def session(request: pytest.FixtureRequest, client: MemoAirVoiceClientSync) -> Iterator[Any]:
    """Return a session of one of them, of each class."""
    with client.session(user={"id": "ana"}) as user_session:
        yield user_session if request.param == "sync" else VoiceSession(user_session)


def test_the_tool_of_a_session_searches_only_its_user(session: Any) -> None:
    tool = session.search_memory_tool(search_memory_timeout_ms=PATIENT_MS)
    assert isinstance(tool, MemoryTool if isinstance(session, VoiceSession) else MemoryToolSync)
    found = asyncio.run(tool("boots")) if isinstance(tool, MemoryTool) else tool("boots")
    assert ("red" in found, "blue" in found) == (True, False)
    assert tool.last_trace is not None
    assert tool.schema() == session.to_openai_function()


def test_a_client_makes_a_tool_for_each_user(client: MemoAirVoiceClientSync) -> None:
    ana = client.search_memory_tool(user={"id": "ana"}, search_memory_timeout_ms=PATIENT_MS)
    ben = client.search_memory_tool(user_id="ben", search_memory_timeout_ms=PATIENT_MS)
    assert ("red" in ana("boots"), "blue" in ana("boots")) == (True, False)
    assert ("red" in ben("boots"), "blue" in ben("boots")) == (False, True)

    client.close()
    with pytest.raises(MemoAirVoiceMemoryError) as raised:
        ana("boots")
    assert raised.value.code == "pool.closed"
    with pytest.raises(ValueError, match="is required"):
        client.search_memory_tool()


def test_a_failing_memory_gives_an_empty_text(tmp_path: Path, no_process_left: None) -> None:
    arguments = client_arguments(tmp_path / "storage")
    with MemoAirVoiceClientSync(**arguments | {"runtime_binary": "/no/such/runtime"}) as client:
        tool = client.search_memory_tool(user_id="ana")
        assert tool("boots") == ""
        assert tool.last_trace is not None
        assert tool.last_trace["error"]["code"] == "runtime.not_found"


def test_a_session_has_the_tool_for_each_framework(session: Any) -> None:
    langchain = session.to_langchain_tool(search_memory_timeout_ms=PATIENT_MS)
    livekit = session.to_livekit_tool(search_memory_timeout_ms=PATIENT_MS)
    pipecat = session.to_pipecat_tool(search_memory_timeout_ms=PATIENT_MS)

    class Params:
        arguments = ARGUMENTS
        found = ""

        async def result_callback(self, found: str) -> None:
            self.found = found

    params = Params()
    asyncio.run(pipecat["handler"](params))
    for found in (langchain.invoke(ARGUMENTS), asyncio.run(livekit(**ARGUMENTS)), params.found):
        assert ("red" in found, "blue" in found) == (True, False)
    assert json.dumps(session.to_openai_function("responses"))


def test_a_framework_tool_of_a_closed_client_returns_an_empty_text(
    session: Any, client: MemoAirVoiceClientSync
) -> None:
    tool = session.to_langchain_tool()
    client.close()
    assert tool.invoke(ARGUMENTS) == ""


def test_an_invalid_timeout_is_rejected_when_the_tool_is_made(session: Any) -> None:
    for make in (session.search_memory_tool, session.to_livekit_tool, session.to_pipecat_tool):
        with pytest.raises(ValueError, match="search_memory_timeout_ms must be positive"):
            make(search_memory_timeout_ms=0)


def test_the_async_client_makes_the_same_tools(tmp_path: Path, no_process_left: None) -> None:
    async def converse() -> str:
        async with (
            MemoAirVoiceClient(**client_arguments(tmp_path / "storage")) as client,
            await client.session(user={"id": "ana"}) as call,
        ):
            await client.load_index(user={"id": "ana"})
            await call.save_response(user_text="The boots are red.", assistant_text="Noted.")
            found: str = await call.to_livekit_tool(search_memory_timeout_ms=PATIENT_MS)(query="boots")
            tool = client.search_memory_tool(user_id="ana", search_memory_timeout_ms=PATIENT_MS)
            assert isinstance(tool, MemoryTool)
            assert "red" in await tool("boots")
            return found

    assert "red" in asyncio.run(converse())
