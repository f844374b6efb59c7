"""Fixtures and helpers for the tool adapters: memories with one saved turn, sync and async."""

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
def use_long_save_timeout(patient_saves: None) -> None:
    """Give each save a long timeout. The client tests cover saves that time out."""


@pytest.fixture
def no_process_left() -> Iterator[None]:
    """Fail a test that leaves a process behind. Threads and descriptors are not checked: frameworks keep their own."""
    process = psutil.Process()
    children = set(process.children(recursive=True))
    yield
    eventually(lambda: set(process.children(recursive=True)) <= children)


@pytest.fixture
def new_memory(tmp_path: Path, no_process_left: None) -> Iterator[Callable[..., Any]]:
    """Make sync or async memories with one saved turn."""
    memories: list[MemoAirVoiceMemorySync] = []

    def make(kind: type[Any] = MemoAirVoiceMemorySync, **arguments: Any) -> Any:
        defaults = {"project_id": PROJECT, "user_id": USER, "runtime_url": "http://127.0.0.1:0"}
        memory = kind(**defaults | {"storage_root": str(tmp_path / "storage")} | arguments)
        memories.append(memory if kind is MemoAirVoiceMemorySync else memory._sync)
        memories[-1].start_session({"user": {"name": "Dana"}}, timeout_s=30.0)
        memories[-1].after_turn("the boots are red", "", "t1", timeout_s=30.0)
        return memory

    yield make
    for memory in memories:
        memory.close()


@pytest.fixture(params=[MemoAirVoiceMemorySync, MemoAirVoiceMemory], ids=["sync", "async"])
def memory(request: pytest.FixtureRequest, new_memory: Callable[..., Any]) -> Any:
    """Return a memory of each class."""
    return new_memory(request.param)


@pytest.fixture
def model_server() -> Iterator[ModelServer]:
    """Serve OpenAI's protocols on loopback, with a model that calls the tool it is offered."""
    with ModelServer() as server:
        yield server


def delay_searches(memory: Any, wait: Callable[[], object]) -> None:
    """Delay each search of a memory until ``wait`` returns, and give it the search timeout of a loaded machine."""
    sync = getattr(memory, "_sync", memory)
    search = sync.search_memory

    def search_late(*arguments: Any, **options: Any) -> Any:
        wait()
        return search(*arguments, **{**options, "timeout_ms": PATIENT_MS})

    sync.search_memory = search_late


async def measure_loop_stall_s(search: Callable[[], Awaitable[object]]) -> float:
    """Return the longest stall of the event loop, in seconds, during a search that takes at least half a second."""
    beat_times = [time.monotonic()]

    async def beat() -> None:
        while True:
            beat_times.append(time.monotonic())
            await asyncio.sleep(0.01)

    heartbeat = asyncio.create_task(beat())
    try:
        with blockbuster_ctx():  # raises in what would block the loop
            await search()
    finally:
        beat_times.append(time.monotonic())
        heartbeat.cancel()
    assert beat_times[-1] - beat_times[0] > 0.45
    return max(later - earlier for earlier, later in pairwise(beat_times))
