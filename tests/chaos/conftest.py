"""Clients over pools of real processes, whatever becomes of these, and the check that none of them is left."""

from collections.abc import Callable, Iterator, Mapping
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from chaos.callers import MARK, ClientProcess, can_listen, marked, wake_all
from support.runtimes import PROJECT
from support.waiting import eventually

from memoair_voice_sync import MemoAirVoiceClientSync

# Below the ports that systems give to connections, away from those that runtimes have by themselves.
_ports = count(21_000)


@pytest.fixture
def storage_root(tmp_path: Path) -> Path:
    """Where all runtimes of a test keep what they keep."""
    return tmp_path / "storage"


@pytest.fixture
def new_ports() -> Callable[[int], tuple[int, int]]:
    """Find so many ports in a row on which nobody listens, for this test alone."""

    def find(size: int) -> tuple[int, int]:
        while True:
            ports = [next(_ports) for _ in range(size)]
            if all(map(can_listen, ports)):
                return ports[0], ports[-1]

    return find


@pytest.fixture
def mark(tmp_path: Path, nothing_left_behind: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """What every process of this test has in its environment; none with it may be left."""
    monkeypatch.setenv(MARK, str(tmp_path))
    yield tmp_path
    eventually(lambda: not marked(tmp_path), within_s=15)


@pytest.fixture
def arguments(storage_root: Path, new_ports: Callable[[int], tuple[int, int]]) -> dict[str, Any]:
    """What the clients of a test are made with, unless it says something else."""
    return {
        "api_key": "key",
        "project_id": PROJECT,
        "agent_id": "agent",
        "storage_root": str(storage_root),
        "runtime_port_range": new_ports(60),
    }


@pytest.fixture
def new_client(mark: Path, arguments: dict[str, Any]) -> Iterator[Callable[..., MemoAirVoiceClientSync]]:
    """Make clients; all are closed after the test."""
    made: list[MemoAirVoiceClientSync] = []

    def make(**changed: Any) -> MemoAirVoiceClientSync:
        made.append(MemoAirVoiceClientSync(**arguments | changed))
        return made[-1]

    yield make
    wake_all(marked(mark))
    for each in made:
        each.close()


@pytest.fixture
def new_process(mark: Path, arguments: dict[str, Any]) -> Iterator[Callable[..., ClientProcess]]:
    """Make clients in processes of their own; all are ended after the test."""
    made: list[ClientProcess] = []

    def make(variables: Mapping[str, str] | None = None, **changed: Any) -> ClientProcess:
        made.append(ClientProcess(mark, variables, **arguments | changed))
        return made[-1]

    yield make
    for each in made:
        each.close()
