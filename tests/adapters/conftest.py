"""Memories in which something was said, in both faces, for the tools that are made of them."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import psutil
import pytest
from adapters.model_server import ModelServer
from blockbuster import blockbuster_ctx
from support.clients import PATIENT_MS
from support.runtimes import PROJECT, USER
from support.waiting import eventually

from memoair_voice import MemoAirVoiceMemory
from memoair_voice_sync import MemoAirVoiceMemorySync


@pytest.fixture(autouse=True)
def turns_are_kept_at_once(patient_saves: None) -> None:
    """However slow the machine is: what becomes of a turn that is not is tested with the client."""


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
        made[-1].start_session({"user": {"name": "Dana"}}, timeout_s=30.0)
        made[-1].after_turn("the boots are red", "", "t1", timeout_s=30.0)
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


def pause(memory: Any, wait: Callable[[], object]) -> None:
    """Let each search of a memory take its time, as a machine under load does: it begins when ``wait`` is over."""
    sync = getattr(memory, "_sync", memory)
    search = sync.search_memory

    def late(*arguments: Any, **options: Any) -> Any:
        wait()
        return search(*arguments, **{**options, "timeout_ms": PATIENT_MS})

    sync.search_memory = late


async def longest_stop_s(search: Callable[[], Awaitable[object]]) -> float:
    """For how long the event loop stood still at most while something was searched that takes half a second."""
    beats = [time.monotonic()]

    async def heart() -> None:
        while True:
            beats.append(time.monotonic())
            await asyncio.sleep(0.01)

    beating = asyncio.create_task(heart())
    try:
        with blockbuster_ctx():  # what would block the loop raises
            await search()
    finally:
        beats.append(time.monotonic())
        beating.cancel()
    assert beats[-1] - beats[0] > 0.45
    return max(later - earlier for earlier, later in pairwise(beats))
