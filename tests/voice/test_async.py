"""The async memory: the main flows of the sync memory in brief, and cancellation."""

import asyncio
import inspect
import json
import os
import signal
import time
from collections.abc import AsyncIterator, Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import anyio
import psutil
import pytest
from support.runtimes import PROJECT, USER, freeze
from support.waiting import eventually
from voice.cancellation import call_in_cancelled_scope, cancel_in_progress, cancel_task

from memoair_voice import (
    MemoAirVoiceMemory,
    MemoAirVoiceMemoryError,
    MemoAirVoiceMemorySync,
    MemoryTool,
    MemoryToolSync,
)

NewMemory = Callable[..., MemoAirVoiceMemory]

PATIENT_MS = 10_000

AWAITED = {
    "runtime_url": "runtime_url",
    "start_session": "start_session",
    "end_session": "end_session",
    "search_memory": "search_memory",
    "after_turn": "after_turn",
    "flush": "flush",
    "close": "aclose",
}


class PatientMemory(MemoAirVoiceMemory):
    """A memory whose calls wait for a start as long as a loaded machine needs."""

    async def start_session(self, metadata: dict[str, Any] | None = None, timeout_s: float = 30.0) -> dict[str, Any]:
        return await super().start_session(metadata, timeout_s)

    async def runtime_url(self, timeout_s: float = 30.0) -> str:
        return await super().runtime_url(timeout_s)


@pytest.fixture
def new_memory(tmp_path: Path, no_process_left: None) -> Iterator[NewMemory]:
    """Make memories of one user; close what a test leaves open."""
    made: list[MemoAirVoiceMemory] = []

    def make(**arguments: Any) -> MemoAirVoiceMemory:
        defaults: dict[str, Any] = {
            "project_id": PROJECT,
            "user_id": USER,
            "runtime_url": "http://127.0.0.1:0",
            "storage_root": str(tmp_path / "storage"),
        }
        made.append(PatientMemory(**defaults | arguments))
        return made[-1]

    yield make
    for each in made:
        if each.runtime_pid is not None:
            os.kill(each.runtime_pid, signal.SIGCONT)
        each._sync.close()  # the event loop has ended by then


@pytest.fixture
async def memory(new_memory: NewMemory) -> AsyncIterator[MemoAirVoiceMemory]:
    """Make one memory with an open session."""
    made = new_memory()
    await made.start_session({"user": {"id": USER, "name": "Dana"}})
    yield made
    if made.runtime_pid is not None:
        os.kill(made.runtime_pid, signal.SIGCONT)
    await made.aclose()


def turn_ids(root: Path) -> list[str]:
    lines = [json.loads(line) for log in root.rglob("session.jsonl") for line in log.read_bytes().splitlines()]
    return [line["payload"]["turnId"] for line in lines if line["type"] == "turn"]


# Main flows


@pytest.mark.anyio
async def test_a_second_call_remembers_the_first(new_memory: NewMemory) -> None:
    async with new_memory() as first:
        reply = await first.start_session({"user": {"id": USER, "name": "Dana"}})
        assert reply["sessionId"] == first.session_id
        event_id = await first.after_turn("the boots are red", "Noted.", "t1", timeout_s=30.0)
        assert await first.after_turn("the boots are red", "Noted.", "t1", timeout_s=30.0) == event_id
        assert await first.flush() is True
        assert (await first.end_session())["status"] == "ok"
    assert first.runtime_pid is None

    async with new_memory() as second:
        assert (await second.runtime_url()).startswith("http://127.0.0.1:")
        await second.start_session()
        found = await second.search_memory("what colour are the boots?", timeout_ms=PATIENT_MS, lanes=["permanent"])
        assert "the boots are red" in found.contextText
        assert second.runtime_pid is not None


@pytest.mark.anyio
async def test_many_tasks_save_and_search_at_once(memory: MemoAirVoiceMemory, tmp_path: Path) -> None:
    async def talk(number: int) -> None:
        await memory.after_turn(f"the parcel is code{number}", "", f"t{number}", timeout_s=30.0)
        found = await memory.search_memory(f"code{number}", timeout_ms=PATIENT_MS)
        assert f"code{number}" in found.contextText

    async with anyio.create_task_group() as group:
        for number in range(20):
            group.start_soon(talk, number)

    assert sorted(turn_ids(tmp_path)) == sorted(f"t{number}" for number in range(20))


@pytest.mark.anyio
async def test_the_tool_searches_and_keeps_the_trace(memory: MemoAirVoiceMemory) -> None:
    await memory.after_turn("the boots are red", "", "t1", timeout_s=30.0)
    tool = memory.search_memory_tool(search_memory_timeout_ms=PATIENT_MS)

    assert isinstance(tool, MemoryTool)
    assert (tool.name, tool.last_trace) == ("search_memory", None)
    assert "the boots are red" in await tool("boots", intent="fallback")
    assert tool.last_trace
    assert tool.schema() == memory.to_openai_function() == memory._sync.search_memory_tool().schema()


@pytest.mark.anyio
async def test_errors_are_raised_unchanged(new_memory: NewMemory) -> None:
    memory = new_memory(runtime_binary="/no/such/runtime")
    with pytest.raises(MemoAirVoiceMemoryError) as refused:
        await memory.start_session()
    assert refused.value.code == "runtime.not_found"
    with pytest.raises(TypeError):
        await memory.search_memory(42)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="project_id"):
        new_memory(project_id="")


@pytest.mark.anyio
async def test_aclose_ends_the_runtime_and_can_be_repeated(new_memory: NewMemory) -> None:
    memory = new_memory()
    await memory.start_session()
    pid = memory.runtime_pid
    assert pid is not None
    await memory.aclose()
    await memory.aclose()

    assert not psutil.pid_exists(pid)
    with pytest.raises(MemoAirVoiceMemoryError):
        await memory.search_memory("hello", timeout_ms=PATIENT_MS)


@pytest.mark.anyio
async def test_an_async_with_block_that_raises_ends_the_runtime(new_memory: NewMemory) -> None:
    async def fails_in_the_middle() -> None:
        async with new_memory() as memory:
            await memory.start_session()
            raise LookupError

    with pytest.raises(LookupError):
        await fails_in_the_middle()
    assert not psutil.Process().children()


# Cancellation


@pytest.mark.anyio
async def test_the_event_loop_is_not_blocked_by_a_search(
    memory: MemoAirVoiceMemory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "memoair_voice_sync._pool.handle.UNRESPONSIVE_AFTER_S", 600.0
    )  # it must not be replaced during the test
    freeze(memory.runtime_pid)

    async def longest_stop_s() -> float:
        ticks = [time.monotonic()]

        async def tick() -> None:
            while True:
                ticks.append(time.monotonic())
                await anyio.sleep(0.005)

        async with anyio.create_task_group() as group:
            group.start_soon(tick)
            with pytest.raises(MemoAirVoiceMemoryError) as refused:
                await memory.search_memory("hello", timeout_ms=400)
            ticks.append(time.monotonic())
            group.cancel_scope.cancel()
        assert refused.value.code == "runtime.timeout"
        assert ticks[-1] - ticks[0] > 0.35
        return max(later - earlier for earlier, later in pairwise(ticks))

    stops_s = [await longest_stop_s()]
    while stops_s[-1] >= 0.15 and len(stops_s) < 5:  # other work on the machine may delay some of them
        stops_s.append(await longest_stop_s())
    assert min(stops_s) < 0.15


@pytest.mark.anyio
async def test_a_cancelled_search_is_abandoned_at_once(memory: MemoAirVoiceMemory) -> None:
    pid = freeze(memory.runtime_pid)
    began_at = time.monotonic()
    with anyio.move_on_after(0.05) as scope:
        await memory.search_memory("hello", timeout_ms=60_000)
    took_s = time.monotonic() - began_at
    os.kill(pid, signal.SIGCONT)

    assert scope.cancelled_caught
    assert took_s < 10
    assert (await memory.search_memory("hello", timeout_ms=PATIENT_MS)).trace["degraded"] is False


@pytest.mark.anyio
async def test_a_search_cancelled_during_the_start_of_the_runtime_leaks_nothing(new_memory: NewMemory) -> None:
    memory = new_memory()
    with anyio.move_on_after(0.05) as scope:
        await memory.search_memory("hello", timeout_ms=PATIENT_MS)
    assert scope.cancelled_caught
    await memory.aclose()

    assert not psutil.Process().children()


@pytest.mark.anyio
async def test_a_save_cancelled_before_it_starts_is_still_made(memory: MemoAirVoiceMemory, tmp_path: Path) -> None:
    await call_in_cancelled_scope(lambda: memory.after_turn("the last words", "", "t1", timeout_s=30.0))
    assert turn_ids(tmp_path) == ["t1"]


@pytest.mark.anyio
async def test_a_save_cancelled_in_progress_is_still_made(memory: MemoAirVoiceMemory, tmp_path: Path) -> None:
    pid = freeze(memory.runtime_pid)
    await cancel_in_progress(lambda: memory.after_turn("the last words", "", "t1", timeout_s=30.0), pid)
    assert turn_ids(tmp_path) == ["t1"]


@pytest.mark.anyio
async def test_aclose_in_a_cancelled_scope_still_ends_the_session_and_the_runtime(
    new_memory: NewMemory, tmp_path: Path
) -> None:
    memory = new_memory()
    path = (await memory.start_session())["paths"]["sessionJsonl"]
    await call_in_cancelled_scope(memory.aclose)

    assert not psutil.Process().children()
    assert [json.loads(line)["type"] for line in Path(path).read_bytes().splitlines()][-1] == "session_end"


# `asyncio.wait_for`, `asyncio.timeout` and `Task.cancel` ignore the shielded scopes of anyio.


@pytest.mark.parametrize("after_steps", [1, 2, 3, 5])
def test_a_save_whose_task_is_cancelled_is_still_made(new_memory: NewMemory, tmp_path: Path, after_steps: int) -> None:
    async def call() -> None:
        async with new_memory() as memory:
            await memory.start_session()
            await cancel_task(memory.after_turn("the last words", "", "t1", timeout_s=30.0), after_steps)

    asyncio.run(call())
    assert turn_ids(tmp_path) == ["t1"]


def test_a_task_is_cancelled_only_after_its_save_is_made(new_memory: NewMemory, tmp_path: Path) -> None:
    async def call() -> None:
        async with new_memory() as memory:
            await memory.start_session()
            pid = freeze(memory.runtime_pid)

            async def save() -> str | None:
                # The loop fires its timers in order, so that the save cannot have ended before it is cancelled.
                asyncio.get_running_loop().call_later(0.25, os.kill, pid, signal.SIGCONT)
                return await memory.after_turn("the last words", "", "t1", timeout_s=30.0)

            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(save(), 0.05)
            assert turn_ids(tmp_path) == ["t1"]

    asyncio.run(call())


def test_a_search_whose_task_is_cancelled_is_abandoned_at_once(new_memory: NewMemory) -> None:
    async def call() -> float:
        async with new_memory() as memory:
            await memory.start_session()
            pid = freeze(memory.runtime_pid)
            began_at = time.monotonic()
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(memory.search_memory("hello", timeout_ms=60_000), 0.05)
            took_s = time.monotonic() - began_at
            os.kill(pid, signal.SIGCONT)
        return took_s

    assert asyncio.run(call()) < 10


def test_aclose_whose_task_is_cancelled_still_ends_the_runtime(new_memory: NewMemory) -> None:
    async def call() -> None:
        memory = new_memory()
        await memory.start_session()
        await cancel_task(memory.aclose(), 1)

    asyncio.run(call())
    eventually(lambda: not psutil.Process().children(), within_s=15.0)


# The same interface as the sync memory


def test_every_public_method_has_an_async_counterpart() -> None:
    def public(kind: type) -> set[str]:
        return {name for name in dir(kind) if not name.startswith("_")}

    assert {AWAITED.get(name, name) for name in public(MemoAirVoiceMemorySync)} == public(MemoAirVoiceMemory)


@pytest.mark.parametrize(("sync_name", "async_name"), AWAITED.items())
def test_async_methods_have_the_signature_and_docstring_of_the_sync_methods(sync_name: str, async_name: str) -> None:
    method, async_method = getattr(MemoAirVoiceMemorySync, sync_name), getattr(MemoAirVoiceMemory, async_name)

    assert inspect.iscoroutinefunction(async_method)
    assert inspect.signature(async_method) == inspect.signature(method)
    assert inspect.getdoc(async_method) == inspect.getdoc(method)
    assert inspect.getdoc(async_method)


def test_the_async_tool_has_the_signature_and_docstring_of_the_sync_tool() -> None:
    assert inspect.iscoroutinefunction(MemoryTool.__call__)
    assert inspect.signature(MemoryTool.__call__) == inspect.signature(MemoryToolSync.__call__)
    assert inspect.getdoc(MemoryTool.__call__) == inspect.getdoc(MemoryToolSync.__call__)
    assert inspect.signature(MemoryTool.schema) == inspect.signature(MemoryToolSync.schema)


@pytest.mark.parametrize(
    "name", ["search_memory_tool", "to_openai_function", "to_livekit_tool", "to_pipecat_tool", "to_langchain_tool"]
)
def test_sync_methods_of_the_async_memory_have_the_same_parameters(name: str) -> None:
    method, async_method = getattr(MemoAirVoiceMemorySync, name), getattr(MemoAirVoiceMemory, name)
    assert not inspect.iscoroutinefunction(async_method)
    assert inspect.signature(async_method).parameters == inspect.signature(method).parameters


def test_the_constructors_have_the_same_parameters() -> None:
    parameters = inspect.signature(MemoAirVoiceMemory).parameters
    assert parameters == inspect.signature(MemoAirVoiceMemorySync).parameters
    assert "project_id" in parameters
