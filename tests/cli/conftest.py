"""Fixtures of the command line: a real cloud on SQLite for all tests, and stand-ins that fail as a test says."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cli.event_server import EventServer
from cli.imports import NewFile
from support.clouds import Client, RunningCloud, running


@pytest.fixture(scope="session")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningCloud]:
    """One server for all tests. Each test has an account of its own."""
    folder = tmp_path_factory.mktemp("cloud")
    with running(f"sqlite:///{folder / 'cloud.db'}", folder) as server:
        yield server


@pytest.fixture
def client(cloud: RunningCloud) -> Client:
    """A client of a new account, in a project with an agent."""
    return cloud.tenant()


@pytest.fixture
def server() -> Iterator[EventServer]:
    """A stand-in for a cloud."""
    with EventServer() as known:
        yield known


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home folder for the test, without the state of other imports."""
    for name in ("XDG_STATE_HOME", "XDG_DATA_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


@pytest.fixture
def new_file(tmp_path: Path) -> NewFile:
    """Return a function that writes a file of JSON lines. Rows of str or bytes are written as they are."""

    def write(*rows: Any, name: str = "calls.jsonl") -> Path:
        path = tmp_path / name
        raw = (
            each if isinstance(each, bytes) else (each if isinstance(each, str) else json.dumps(each)).encode()
            for each in rows
        )
        path.write_bytes(b"".join(line + b"\n" for line in raw))
        return path

    return write
