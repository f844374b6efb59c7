"""The async client: the main flows of the sync client in brief, and cancellation."""

import asyncio
import inspect
import os
import signal
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import anyio
import psutil
import pytest
from support.clients import clients_over, logged, turn_ids
from support.runtimes import freeze
from voice.cancellation import call_in_cancelled_scope, cancel_in_progress, cancel_task

from memoair_voice import (
    MemoAirVoiceClient,
    MemoAirVoiceClientSync,
    MemoAirVoiceMemoryError,
    VoiceSession,
    VoiceSessionSync,
)

NewClient = Callable[..., MemoAirVoiceClient]

PATIENT_MS = 10_000
LAST_TURN: dict[str, Any] = {"user_text": "the last words", "assistant_text": "", "turn_id": "t1"}

AWAITED = {
    MemoAirVoiceClientSync: (
        MemoAirVoiceClient,
        [
            "search_memory",
            "prefetch",
            "save_response",
            "load_index",
            "end_call",
            "import_call",
            "warm_up",
            "stats",
            "close",
            "create_index",
            "list_indexes",
            "get_index",
            "delete_index",
            "delete_document",
            "forget_user",
            "list_memories",
            "update_memory",
            "delete_memory",
            "memory_history",
            "export_user",
            "hold_user",
            "lift_hold",
            "list_holds",
            "prompt",
            "report_outcome",
        ],
    ),
    VoiceSessionSync: (VoiceSession, ["open", "search_memory", "prefetch", "save_response", "close"]),
}
# Methods that make a tool are not coroutines.
TOOLS = {"search_memory_tool", "to_openai_function", "to_livekit_tool", "to_pipecat_tool", "to_langchain_tool"}
ASYNC_METHODS = [(kind, async_type, name) for kind, (async_type, names) in AWAITED.items() for name in names]


@pytest.fixture
def new_client(storage_root: Path, no_process_left: None, patient_saves: None) -> Iterator[NewClient]:
    """Make clients over one storage root; close what a test leaves open."""
    with clients_over(storage_root, MemoAirVoiceClient) as make:
        yield make


def pids(client: MemoAirVoiceClient) -> list[int]:
    return [each["pid"] for each in client._sync.stats()["runtimes"] if each["pid"] is not None]


async def in_use(client: MemoAirVoiceClient) -> int:
    return sum(each["in_use"] for each in (await client.stats())["runtimes"])


async def freeze_runtime(client: MemoAirVoiceClient) -> int:
    """Start the runtime of the only user and freeze it."""
    await client.load_index(user_id="ada")
    [pid] = await anyio.to_thread.run_sync(pids, client)
    return freeze(pid)


# Main flows


@pytest.mark.anyio
async def test_users_are_served_and_remembered(new_client: NewClient, storage_root: Path) -> None:
    async with new_client() as client:
        for caller, colour in (("ada", "red"), ("bob", "blue")):
            loaded = await client.load_index(user={"id": caller, "name": caller.title()})
            assert loaded.scopes_loaded
            user_text = f"The boots are {colour}."
            assert await client.save_response(user={"id": caller}, user_text=user_text, assistant_text="Noted.")
        found = await client.search_memory("the boots", user={"id": "ada"}, timeout_ms=PATIENT_MS)
        stats = await client.stats()
    assert "red" in found.contextText
    assert "blue" not in found.contextText
    assert [each["user_id"] for each in stats["runtimes"]] == ["bob", "ada"]
    assert not psutil.Process().children()

    async with new_client() as client:
        await client.load_index(user_id="bob")
        found = await client.search_memory("the boots", user_id="bob", timeout_ms=PATIENT_MS)
        assert [hit["lane"] for hit in found.permanent] == ["permanent"]
        assert "blue" in found.contextText
    assert [event["type"] for event in logged(storage_root, "ada")] == ["session_start", "turn", "session_end"]


@pytest.mark.anyio
async def test_a_session_pins_a_runtime(new_client: NewClient, storage_root: Path) -> None:
    client = new_client()
    await client.load_index(user_id="ada")
    session = await client.session(user={"id": "ada", "name": "Dana"})
    async with session as entered:
        assert await in_use(client) == 1
        assert await entered.save_response(user_text="The boots are red.", assistant_text="Noted.", turn_id="t1")
        assert "red" in (await entered.search_memory("the boots", timeout_ms=PATIENT_MS)).contextText
    await session.aclose()

    assert await in_use(client) == 0
    assert turn_ids(storage_root, "ada") == ["t1"]
    await client.aclose()


@pytest.mark.anyio
async def test_many_users_are_served_at_once(new_client: NewClient, storage_root: Path) -> None:
    client = new_client()

    async def talk(caller: str) -> None:
        await client.load_index(user_id=caller)
        for number in range(5):
            turn = {"user_text": f"{caller} says {number}", "assistant_text": "", "turn_id": f"t{number}"}
            assert await client.save_response(user_id=caller, **turn)  # type: ignore[arg-type]
            found = await client.search_memory(f"what says {caller}?", user_id=caller, timeout_ms=PATIENT_MS)
            assert f"{caller} says {number}" in found.contextText

    async with anyio.create_task_group() as group:
        for caller in ("ada", "bob", "cyd"):
            group.start_soon(talk, caller)
    for caller in ("ada", "bob", "cyd"):
        assert turn_ids(storage_root, caller) == [f"t{number}" for number in range(5)]
    await client.aclose()


@pytest.mark.anyio
async def test_errors_are_raised_unchanged(new_client: NewClient) -> None:
    client = new_client(max_concurrent_users=1)
    with pytest.raises(ValueError, match="user"):
        await client.search_memory("hello")
    with pytest.raises(ValueError, match="different users"):
        await client.session(user={"id": "ada"}, user_id="bob")
    async with await client.session(user_id="ada"):
        with pytest.raises(MemoAirVoiceMemoryError) as refused:
            await client.session(user_id="bob")
        assert refused.value.code == "pool.exhausted"
    await client.aclose()
    await client.aclose()
    with pytest.raises(MemoAirVoiceMemoryError) as refused:
        await client.search_memory("hello", user_id="ada")
    assert refused.value.code == "pool.closed"
    with pytest.raises(ValueError, match="api_key"):
        new_client(api_key="")


# The event loop is not blocked


@pytest.mark.anyio
async def test_the_event_loop_is_not_blocked_by_a_first_user(new_client: NewClient) -> None:
    async def longest_stop_s() -> float:
        client, ticks = new_client(), [time.monotonic()]

        async def tick() -> None:
            while True:
                ticks.append(time.monotonic())
                await anyio.sleep(0.005)

        async with anyio.create_task_group() as group:
            group.start_soon(tick)
            async with await client.session(user_id="ada") as session:
                await session.search_memory("hello", timeout_ms=PATIENT_MS)
            await client.aclose()
            ticks.append(time.monotonic())
            group.cancel_scope.cancel()
        assert len(ticks) > 10
        return max(later - earlier for earlier, later in pairwise(ticks))

    stops_s = [await longest_stop_s()]
    while stops_s[-1] >= 0.15 and len(stops_s) < 5:  # other work on the machine may delay some of them
        stops_s.append(await longest_stop_s())
    assert min(stops_s) < 0.15


# Cancellation


@pytest.mark.anyio
async def test_a_cancelled_search_is_abandoned_at_once_and_releases_its_place(new_client: NewClient) -> None:
    client = new_client(max_concurrent_users=1)
    pid = await freeze_runtime(client)
    began_at = time.monotonic()
    with anyio.move_on_after(0.05) as scope:
        await client.search_memory("hello", user_id="ada", timeout_ms=4_000)
    assert scope.cancelled_caught
    assert time.monotonic() - began_at < 2
    assert await in_use(client) == 1, "its timeout has not passed yet"
    while await in_use(client):
        assert time.monotonic() - began_at < 30
        await anyio.sleep(0.01)
    os.kill(pid, signal.SIGCONT)

    assert (await client.search_memory("hello", user_id="ada", timeout_ms=PATIENT_MS)).trace["degraded"] is False
    await client.load_index(user_id="bob")  # the place is free
    await client.aclose()


@pytest.mark.anyio
async def test_searches_cancelled_during_the_start_of_the_runtime_leak_nothing(new_client: NewClient) -> None:
    client = new_client()
    for number in range(5):
        with anyio.move_on_after(0.01) as scope:
            await client.search_memory("hello", user_id="ada", timeout_ms=PATIENT_MS)
        # If the machine stalls for half a second, a later search may find the runtime ready, and return.
        assert scope.cancelled_caught or number
    await client.load_index(user_id="ada")
    while await in_use(client):
        await anyio.sleep(0.01)
    await client.aclose()
    assert not psutil.Process().children()


@pytest.mark.anyio
async def test_a_save_cancelled_before_it_starts_is_still_made(new_client: NewClient, storage_root: Path) -> None:
    client = new_client()
    await client.load_index(user_id="ada")
    await call_in_cancelled_scope(lambda: client.save_response(user_id="ada", **LAST_TURN))
    assert turn_ids(storage_root, "ada") == ["t1"]
    await client.aclose()


@pytest.mark.anyio
async def test_a_save_cancelled_in_progress_is_still_made(new_client: NewClient, storage_root: Path) -> None:
    client = new_client()
    pid = await freeze_runtime(client)
    await cancel_in_progress(lambda: client.save_response(user_id="ada", **LAST_TURN), pid)
    assert turn_ids(storage_root, "ada") == ["t1"]
    assert await in_use(client) == 0
    await client.aclose()


@pytest.mark.anyio
async def test_aclose_in_a_cancelled_scope_still_ends_the_session_and_all_processes(
    new_client: NewClient, storage_root: Path
) -> None:
    client = new_client()
    await client.load_index(user_id="ada")
    await call_in_cancelled_scope(client.aclose)
    assert not psutil.Process().children()
    assert logged(storage_root, "ada")[-1]["type"] == "session_end"


# `asyncio.wait_for`, `asyncio.timeout` and `Task.cancel` ignore the shielded scopes of anyio.


@pytest.mark.parametrize("after_steps", [1, 3])
def test_a_save_whose_task_is_cancelled_is_still_made(
    new_client: NewClient, storage_root: Path, after_steps: int
) -> None:
    async def call() -> None:
        async with new_client() as client:
            await client.load_index(user_id="ada")
            await cancel_task(client.save_response(user_id="ada", **LAST_TURN), after_steps)

    asyncio.run(call())
    assert turn_ids(storage_root, "ada") == ["t1"]


def test_a_client_works_in_successive_event_loops(new_client: NewClient) -> None:
    client = new_client()

    async def call() -> str:
        await client.load_index(user_id="ada")
        return (await client.search_memory("the boots", user_id="ada", timeout_ms=PATIENT_MS)).contextText

    async def say() -> None:
        await client.save_response(user_id="ada", user_text="The boots are red.", assistant_text="")

    asyncio.run(call())
    asyncio.run(say())
    assert "red" in asyncio.run(call())
    asyncio.run(client.aclose())


# The same interface as the sync client


@pytest.mark.parametrize(("kind", "async_type"), [(kind, async_type) for kind, (async_type, _) in AWAITED.items()])
def test_every_public_method_has_an_async_counterpart(kind: type, async_type: type) -> None:
    def public(each: type) -> set[str]:
        names = (name for name in dir(each) if not name.startswith("_"))
        return {name for name in names if not isinstance(getattr(each, name), property)}

    assert {"aclose" if name == "close" else name for name in public(kind)} == public(async_type)
    assert public(kind) - {"session", "session_id"} - TOOLS == {name for each, _, name in ASYNC_METHODS if each is kind}


@pytest.mark.parametrize(("kind", "async_type", "name"), ASYNC_METHODS)
def test_async_methods_have_the_signature_and_docstring_of_the_sync_methods(
    kind: type, async_type: type, name: str
) -> None:
    method, async_method = getattr(kind, name), getattr(async_type, "aclose" if name == "close" else name)

    assert inspect.iscoroutinefunction(async_method)
    assert inspect.signature(async_method) == inspect.signature(method)
    assert inspect.getdoc(async_method) == inspect.getdoc(method)
    assert inspect.getdoc(async_method)


@pytest.mark.parametrize(
    ("kind", "async_type", "name"),
    [
        (kind, async_type, name)
        for kind, (async_type, _) in AWAITED.items()
        for name in sorted(TOOLS)
        if hasattr(kind, name)
    ],
)
def test_tool_methods_are_sync_and_have_the_same_parameters(kind: type, async_type: type, name: str) -> None:
    method, async_method = (
        [(each.name, each.kind, each.default) for each in inspect.signature(getattr(each, name)).parameters.values()]
        for each in (kind, async_type)
    )
    assert method == async_method
    assert not inspect.iscoroutinefunction(getattr(async_type, name))


def test_session_has_the_same_parameters() -> None:
    def taken(method: Callable[..., object]) -> list[tuple[str, object, object]]:
        return [(each.name, each.kind, each.default) for each in inspect.signature(method).parameters.values()]

    assert inspect.iscoroutinefunction(MemoAirVoiceClient.session)
    assert taken(MemoAirVoiceClient.session) == taken(MemoAirVoiceClientSync.session)
    assert inspect.getdoc(MemoAirVoiceClient.session)


def test_the_constructors_have_the_same_parameters() -> None:
    parameters = inspect.signature(MemoAirVoiceClient).parameters
    assert parameters == inspect.signature(MemoAirVoiceClientSync).parameters
    assert "runtime_idle_ttl_s" in parameters
