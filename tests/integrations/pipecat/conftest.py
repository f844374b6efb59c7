"""A client over real runtimes for the pipelines of one test."""

from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from support.clients import clients_over, logged
from support.traces import record_pipecat
from support.waiting import eventually

from memoair_voice import MemoAirVoiceClient

if find_spec("pipecat") is None:  # Pipecat requires Python 3.11
    collect_ignore_glob = ["test_*.py"]


@pytest.fixture(autouse=True)
def use_long_timeouts(patient_saves: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Give saves and the flush at the end of a call long timeouts, unless a test sets others."""
    from memoair_pipecat import MemoAirMemoryProcessor

    monkeypatch.setitem(MemoAirMemoryProcessor.__init__.__kwdefaults__, "flush_timeout_s", 30.0)


@pytest.fixture(autouse=True)
def calls_are_recorded(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Record the events of Pipecat, if that is asked for."""
    with record_pipecat(request.node.name, monkeypatch):
        yield


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"  # Pipecat supports asyncio only


@pytest.fixture
def client(storage_root: Path, nothing_left_behind: None) -> Iterator[MemoAirVoiceClient]:
    """Return one client for all calls of a test."""
    with clients_over(storage_root, MemoAirVoiceClient) as make:
        yield make()


@pytest.fixture
def saved_payloads(storage_root: Path, request: pytest.FixtureRequest) -> Callable[..., list[dict[str, Any]]]:
    """Return a function that reads a user's saved turns, once the client has no pending saves (slow machines)."""
    client = request.getfixturevalue("client") if "client" in request.fixturenames else None

    def read(user_id: str = "ada") -> list[dict[str, Any]]:
        if client is not None:
            eventually(lambda: client._sync.stats()["pending_saves"] == 0, within_s=60.0)
        return [event["payload"] for event in logged(storage_root, user_id, "turn")]

    return read


@pytest.fixture
def saved_turns(saved_payloads: Callable[..., list[dict[str, Any]]]) -> Callable[..., list[tuple[str, str]]]:
    """Return a function that reads what the caller said and heard, turn by turn."""
    return lambda user_id="ada": [(turn["userText"], turn["assistantText"]) for turn in saved_payloads(user_id)]


@pytest.fixture
def queries(client: MemoAirVoiceClient, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return what the client is asked in this test."""
    asked: list[str] = []
    search = client.search_memory

    async def search_and_note(query: str, **options: Any) -> Any:
        asked.append(query)
        return await search(query, **options)

    monkeypatch.setattr(client, "search_memory", search_and_note)
    return asked
