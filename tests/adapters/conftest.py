"""Memories in which something was said, in both faces, for the tools that are made of them."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from adapters.model_server import ModelServer
from support.clients import PATIENT_MS
from support.runtimes import PROJECT, USER
from support.waiting import eventually

from memoair_voice import MemoAirVoiceMemory
from memoair_voice_sync import MemoAirVoiceMemorySync


@pytest.fixture
def no_process_left() -> Iterator[None]:
    """Fail a test that leaves a process; frameworks keep threads and descriptors of their own."""
    process = psutil.Process()
    children = set(process.children(recursive=True))
    yield
    eventually(lambda: set(process.children(recursive=True)) <= children)


@pytest.fixture
def new_talk(tmp_path: Path, no_process_left: None) -> Iterator[Callable[..., Any]]:
    """Make memories, of the sync class or the async one, in which something was said."""
    made: list[MemoAirVoiceMemorySync] = []

    def make(kind: type[Any] = MemoAirVoiceMemorySync, **arguments: Any) -> Any:
        defaults = {"project_id": PROJECT, "user_id": USER, "runtime_url": "http://127.0.0.1:0"}
        memory = kind(**defaults | {"storage_root": str(tmp_path / "storage")} | arguments)
        made.append(memory if kind is MemoAirVoiceMemorySync else memory._sync)
        made[-1].start_session({"user": {"name": "Dana"}}, timeout_s=15.0)
        made[-1].after_turn("the boots are red", "", "t1", timeout_s=15.0)
        return memory

    yield make
    for each in made:
        each.close()


@pytest.fixture(params=[MemoAirVoiceMemorySync, MemoAirVoiceMemory], ids=["sync", "async"])
def talk(request: pytest.FixtureRequest, new_talk: Callable[..., Any]) -> Any:
    """A memory of each class."""
    return new_talk(request.param)


@pytest.fixture
def model_server() -> Iterator[ModelServer]:
    """What speaks OpenAI's protocols on loopback, and calls the tool that it is offered."""
    server = ModelServer()
    yield server
    server.close()


def pause(memory: Any, seconds: float) -> None:
    """Let each search of a memory take its time, as a machine under load does."""
    sync = getattr(memory, "_sync", memory)
    search = sync.search_memory

    def late(*arguments: Any, **options: Any) -> Any:
        time.sleep(seconds)
        return search(*arguments, **{**options, "timeout_ms": PATIENT_MS})

    sync.search_memory = late
