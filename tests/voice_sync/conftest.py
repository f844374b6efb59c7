"""Memories and clients that are closed after the test, and substitutes for a runtime."""

import json
import signal
from collections.abc import Callable, Iterator, Mapping
from itertools import count
from pathlib import Path
from typing import Any

import psutil
import pytest
from support.clients import NewClient, checking_for_leaks, clients_over
from support.ports import free_port as find_free_port
from support.runtimes import PROJECT, USER
from voice_sync.scripted import Answer, ScriptedServer

from memoair_voice_sync import MemoAirVoiceClientSync, MemoAirVoiceMemorySync

_numbers = count()


class PatientMemory(MemoAirVoiceMemorySync):
    """A memory whose calls wait for a start as long as a loaded machine needs, unless a test says otherwise."""

    def start_session(self, metadata: dict[str, Any] | None = None, timeout_s: float = 30.0) -> dict[str, Any]:
        return super().start_session(metadata, timeout_s)

    def runtime_url(self, timeout_s: float = 30.0) -> str:
        return super().runtime_url(timeout_s)

    def after_turn(
        self,
        user_text: str,
        assistant_text: str,
        turn_id: str,
        tool_calls: list[dict[str, Any]] | None = None,
        metadata: dict[str, Any] | None = None,
        timeout_s: float = 30.0,
    ) -> str | None:
        return super().after_turn(user_text, assistant_text, turn_id, tool_calls, metadata, timeout_s)


@pytest.fixture
def new_memory(storage_root: Path, nothing_left_behind: None) -> Iterator[Callable[..., MemoAirVoiceMemorySync]]:
    """Make memories of one user, each with its own runtime on a free port; close them after the test."""
    made: list[MemoAirVoiceMemorySync] = []

    def make(**arguments: Any) -> MemoAirVoiceMemorySync:
        defaults: dict[str, Any] = {
            "project_id": PROJECT,
            "user_id": USER,
            "runtime_url": "http://127.0.0.1:0",
            "storage_root": str(storage_root),
        }
        made.append(PatientMemory(**defaults | arguments))
        return made[-1]

    yield make
    for each in reversed(made):
        if each.runtime_pid is not None:  # a test may have stopped it, and it should end as usual
            psutil.Process(each.runtime_pid).send_signal(signal.SIGCONT)
        each.close()


@pytest.fixture
def memory(new_memory: Callable[..., MemoAirVoiceMemorySync]) -> MemoAirVoiceMemorySync:
    """Make one memory over an empty storage root."""
    return new_memory()


@pytest.fixture
def new_client(storage_root: Path, nothing_left_behind: None) -> Iterator[NewClient]:
    """Make clients over one empty storage root."""
    with clients_over(storage_root) as make:
        yield make


@pytest.fixture
def client(new_client: NewClient) -> MemoAirVoiceClientSync:
    """Make one client over an empty storage root."""
    return new_client()


@pytest.fixture(scope="module")
def shared_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the storage root of the shared client."""
    return tmp_path_factory.mktemp("shared") / "storage"


@pytest.fixture(scope="module")
def shared_client(shared_root: Path) -> Iterator[MemoAirVoiceClientSync]:
    """Make one client for all tests of a module that use users of their own or change nothing."""
    with checking_for_leaks(), clients_over(shared_root) as make:
        yield make()


@pytest.fixture
def caller() -> str:
    """Return the id of a user that no other test has."""
    return f"caller_{next(_numbers)}"


@pytest.fixture
def scripted(nothing_left_behind: None) -> Iterator[Callable[[Mapping[str, Answer]], ScriptedServer]]:
    """Start servers with scripted answers."""
    servers: list[ScriptedServer] = []

    def start(answers: Mapping[str, Answer]) -> ScriptedServer:
        servers.append(ScriptedServer(answers))
        return servers[-1]

    yield start
    for each in servers:
        each.close()


@pytest.fixture
def executable(tmp_path: Path) -> Callable[[str], str]:
    """Write a program to use instead of the runtime, and return its path."""

    def write(text: str) -> str:
        path = tmp_path / "programs" / f"runtime-{len(text)}"
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        path.chmod(0o755)
        return str(path)

    return write


@pytest.fixture
def free_port() -> int:
    """Return a free port."""
    return find_free_port()


@pytest.fixture
def org_file(tmp_path: Path) -> Path:
    """Write a file with an organization's documents."""
    path = tmp_path / "org.jsonl"
    documents = [
        {"id": "returns", "text": "Returns are accepted within 30 days.", "metadata": {"topic": "returns"}},
        {"id": "boots", "text": "Returns of boots need the original box.", "metadata": {"topic": "boots"}},
        {"id": "express", "text": "Returns by express cost five pounds.", "metadata": {"topic": "shipping"}},
    ]
    path.write_text("".join(json.dumps(each) + "\n" for each in documents))
    return path
