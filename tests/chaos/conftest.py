"""Fixtures for clients with pools of real processes, and the check that no process is left."""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from chaos.callers import MARK, PATIENT_S, ClientProcess, find_marked_processes, resume_all
from support.ports import free_ports
from support.runtimes import PROJECT
from support.waiting import eventually

from memoair_voice_sync import MemoAirVoiceClientSync


@pytest.fixture
def mark(tmp_path: Path, nothing_left_behind: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Mark the environment of every process of this test; none with the mark may be left."""
    monkeypatch.setenv(MARK, str(tmp_path))
    yield tmp_path
    eventually(lambda: not find_marked_processes(tmp_path), PATIENT_S)


@pytest.fixture
def arguments(storage_root: Path) -> dict[str, Any]:
    """Return the default arguments of a test's clients."""
    return {
        "api_key": "key",
        "project_id": PROJECT,
        "agent_id": "agent",
        "storage_root": str(storage_root),
        "runtime_port_range": free_ports(60),
    }


@pytest.fixture
def new_client(mark: Path, arguments: dict[str, Any]) -> Iterator[Callable[..., MemoAirVoiceClientSync]]:
    """Return a function that makes clients; all are closed after the test."""
    made: list[MemoAirVoiceClientSync] = []

    def make(**changed: Any) -> MemoAirVoiceClientSync:
        made.append(MemoAirVoiceClientSync(**arguments | changed))
        return made[-1]

    yield make
    resume_all(find_marked_processes(mark))
    for client in made:
        client.close()


@pytest.fixture
def new_process(mark: Path, arguments: dict[str, Any]) -> Iterator[Callable[..., ClientProcess]]:
    """Return a function that makes clients in their own processes; all are ended after the test."""
    made: list[ClientProcess] = []

    def make(variables: Mapping[str, str] | None = None, **changed: Any) -> ClientProcess:
        made.append(ClientProcess(mark, variables, **arguments | changed))
        return made[-1]

    yield make
    for process in made:
        process.close()
