"""Agents over a storage root of their own, and what they have kept there."""

from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from memoair_livekit import MemoAirLiveKitAgent
from support.clients import AGENT, API_KEY, free_ports, logged
from support.runtimes import PROJECT
from support.traces import record_livekit

NewAgent = Callable[..., MemoAirLiveKitAgent]
Kept = Callable[..., list[dict[str, Any]]]


@pytest.fixture(autouse=True)
def turns_are_kept_at_once(patient_saves: None) -> None:
    """However slow the machine is: what becomes of a turn that is not is tested with the client."""


@pytest.fixture(autouse=True)
def calls_are_recorded(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Record the events of LiveKit, if that is asked for."""
    with record_livekit(request.node.name, monkeypatch):
        yield


@pytest.fixture
def anyio_backend() -> str:
    """LiveKit knows asyncio only."""
    return "asyncio"


@pytest.fixture
def storage_root(tmp_path: Path) -> Path:
    """Where all agents of a test keep what they keep."""
    return tmp_path / "storage"


@pytest.fixture
def arguments(storage_root: Path) -> dict[str, Any]:
    """What an agent is made with, unless a test says otherwise; a search may take as long as a loaded machine needs."""
    return {
        "api_key": API_KEY,
        "project_id": PROJECT,
        "agent_id": AGENT,
        "user_id": "ada",
        "instructions": "Be kind.",
        "search_timeout_ms": 10_000,
        "cloud_base_url": None,
        "storage_root": str(storage_root),
        "runtime_port_range": free_ports(),
    }


@pytest.fixture
async def new_agent(
    anyio_backend: str, arguments: dict[str, Any], nothing_left_behind: None
) -> AsyncIterator[NewAgent]:
    """Make agents; whatever a test did, their memory is closed after it, and then nothing may be left."""
    made: list[MemoAirLiveKitAgent] = []

    def make(kind: type[MemoAirLiveKitAgent] = MemoAirLiveKitAgent, **others: Any) -> MemoAirLiveKitAgent:
        made.append(kind(**{**arguments, **others}))
        return made[-1]

    yield make
    for each in made:
        await MemoAirLiveKitAgent.on_exit(each)


@pytest.fixture
def kept(storage_root: Path) -> Kept:
    """What is on the disk of a caller's turns: their payloads, in order."""

    def read(user_id: str = "ada") -> list[dict[str, Any]]:
        return [event["payload"] for event in logged(storage_root, user_id, "turn")]

    return read
