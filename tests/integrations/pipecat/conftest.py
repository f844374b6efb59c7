"""A client over real runtimes for the pipelines of one test."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support.clients import client_arguments, logged

pytest.importorskip("pipecat", reason="Pipecat needs Python 3.11")

from memoair_voice import MemoAirVoiceClient


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"  # Pipecat knows no other


@pytest.fixture
def storage_root(tmp_path: Path) -> Path:
    return tmp_path / "storage"


@pytest.fixture
def client(storage_root: Path, nothing_left_behind: None) -> Iterator[MemoAirVoiceClient]:
    """One client for all calls of a test."""
    made = MemoAirVoiceClient(**client_arguments(storage_root))
    yield made
    made._sync.close()  # by then the event loop has ended


@pytest.fixture
def kept(storage_root: Path) -> Callable[..., list[tuple[str, str]]]:
    """What is kept of a caller: what he said and what he heard, turn by turn."""

    def read(user_id: str = "ada") -> list[tuple[str, str]]:
        return [(turn["userText"], turn["assistantText"]) for turn in kept_payloads(storage_root, user_id)]

    return read


def kept_payloads(storage_root: Path, user_id: str = "ada") -> list[dict[str, Any]]:
    return [event["payload"] for event in logged(storage_root, user_id, "turn")]


@pytest.fixture
def payloads(storage_root: Path) -> Callable[..., list[dict[str, Any]]]:
    """What is kept of a caller's turns, whole."""
    return lambda user_id="ada": kept_payloads(storage_root, user_id)
