"""Clients over pools of real processes, whatever becomes of these, and the check that none of them is left."""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from chaos.callers import MARK, PATIENT_S, ClientProcess, marked, wake_all
from support.ports import free_ports
from support.runtimes import PROJECT
from support.waiting import eventually

from memoair_voice_sync import MemoAirVoiceClientSync


@pytest.fixture
def storage_root(tmp_path: Path) -> Path:
    """Where all runtimes of a test keep what they keep."""
    return tmp_path / "storage"


@pytest.fixture
def mark(tmp_path: Path, nothing_left_behind: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """What every process of this test has in its environment; none with it may be left."""
    monkeypatch.setenv(MARK, str(tmp_path))
    yield tmp_path
    eventually(lambda: not marked(tmp_path), PATIENT_S)


@pytest.fixture
def arguments(storage_root: Path) -> dict[str, Any]:
    """What the clients of a test are made with, unless it says something else."""
    return {
        "api_key": "key",
        "project_id": PROJECT,
        "agent_id": "agent",
        "storage_root": str(storage_root),
        "runtime_port_range": free_ports(60),
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
