"""Agents over a storage root of their own, and the turns that are saved there."""

import sys
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from memoair_livekit import MemoAirLiveKitAgent
from support.clients import AGENT, API_KEY, free_ports, logged
from support.runtimes import PROJECT
from support.traces import record_livekit

NewAgent = Callable[..., MemoAirLiveKitAgent]
ReadPayloads = Callable[..., list[dict[str, Any]]]


@pytest.fixture(autouse=True)
def use_long_save_timeout(patient_saves: None) -> None:
    """Give each save a long timeout. The client tests cover saves that time out."""


@pytest.fixture(autouse=True)
def calls_are_recorded(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Record the events of LiveKit, if that is asked for."""
    with record_livekit(request.node.name, monkeypatch):
        yield


@pytest.fixture
def anyio_backend() -> str:
    """LiveKit supports asyncio only."""
    return "asyncio"


@pytest.fixture
def agent_arguments(storage_root: Path) -> dict[str, Any]:
    """Return the default arguments of an agent; the search timeout suits a loaded machine."""
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
    anyio_backend: str, agent_arguments: dict[str, Any], nothing_left_behind: None
) -> AsyncIterator[NewAgent]:
    """Make agents; close their memory after the test, then check that nothing is left behind."""
    agents: list[MemoAirLiveKitAgent] = []

    def make(kind: type[MemoAirLiveKitAgent] = MemoAirLiveKitAgent, **overrides: Any) -> MemoAirLiveKitAgent:
        agents.append(kind(**{**agent_arguments, **overrides}))
        return agents[-1]

    yield make
    for agent in agents:
        await MemoAirLiveKitAgent.on_exit(agent)


@pytest.fixture
def saved_payloads(storage_root: Path) -> ReadPayloads:
    """Return a function that reads the payloads of a user's saved turns from the disk, in order."""

    def read(user_id: str = "ada") -> list[dict[str, Any]]:
        return [event["payload"] for event in logged(storage_root, user_id, "turn")]

    return read


class GatedRuntime(NamedTuple):
    """A runtime program that starts only once the switch file exists: until then, no memory can open."""

    program: str
    switch: Path


@pytest.fixture
def gated_runtime(tmp_path: Path) -> GatedRuntime:
    """Return a runtime program that does not start yet."""
    program, switch = tmp_path / "runtime", tmp_path / "on"
    wait = f"while ! [ -e {switch} ]; do sleep 0.01; done"
    program.write_text(f"#!/bin/sh\n{wait}\nexec {sys.executable} -m memoair_runtime\n", encoding="utf-8")
    program.chmod(0o755)
    return GatedRuntime(str(program), switch)
