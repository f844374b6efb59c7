"""Constructing the processor: from a client, an identity object or the environment; invalid arguments."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from memoair_pipecat import MemoAirMemoryProcessor
from support.clients import AGENT, API_KEY, client_arguments
from support.pipecat_calls import PipecatCall
from support.runtimes import PROJECT
from support.waiting import wait_until

from memoair_voice import MemoAirVoiceClient, MemoAirVoiceClientSync

ReadTurns = Callable[..., list[tuple[str, str]]]

IDENTITY = {"api_key": API_KEY, "project_id": PROJECT, "agent_id": AGENT}


def arguments_without_identity(storage_root: Path) -> dict[str, Any]:
    """Return the arguments of a client without the identity."""
    return {name: value for name, value in client_arguments(storage_root).items() if name not in IDENTITY}


async def run_call(memory: MemoAirMemoryProcessor) -> None:
    before = asyncio.all_tasks()
    async with PipecatCall(memory) as call:
        await call.say_and_wait("Hello?")
    await wait_until(lambda: asyncio.all_tasks() <= before)


@pytest.mark.anyio
async def test_a_client_that_the_processor_creates_is_closed_with_the_pipeline(
    storage_root: Path, nothing_left_behind: None, saved_turns: ReadTurns
) -> None:
    memory = MemoAirMemoryProcessor(user_id="ada", **client_arguments(storage_root))
    await run_call(memory)
    assert saved_turns() == [("Hello?", "Yes.")]
    await memory.cleanup()  # a second cleanup has no effect


@pytest.mark.anyio
async def test_a_client_that_is_passed_in_stays_open(client: MemoAirVoiceClient, saved_turns: ReadTurns) -> None:
    await run_call(MemoAirMemoryProcessor(client=client, user={"id": "ada", "name": "Ada"}))
    assert (await client.search_memory("Hello?", user_id="ada", timeout_ms=10_000)).trace["degraded"] is False
    assert saved_turns() == [("Hello?", "Yes.")]


@pytest.mark.anyio
async def test_an_identity_object_provides_the_identity(
    storage_root: Path, nothing_left_behind: None, saved_turns: ReadTurns
) -> None:
    agent = SimpleNamespace(**IDENTITY, user_id="ada", cloud_base_url=None, org_only=False)
    arguments = arguments_without_identity(storage_root)
    del arguments["cloud_base_url"]  # else the public cloud would be called
    await run_call(MemoAirMemoryProcessor(agent=agent, **arguments))
    await run_call(MemoAirMemoryProcessor(agent=agent, user_id="bob", **arguments))
    assert saved_turns("ada") == saved_turns("bob") == [("Hello?", "Yes.")]


@pytest.mark.anyio
async def test_from_env_reads_the_identity(
    storage_root: Path, nothing_left_behind: None, saved_turns: ReadTurns, monkeypatch: pytest.MonkeyPatch
) -> None:
    environ = {f"MEMOAIR_{name.upper()}": value for name, value in IDENTITY.items()}
    environ |= {"MEMOAIR_USER_ID": "ada", "MEMOAIR_BASE_URL": "", "MEMOAIR_ORG_ONLY": "no"}
    arguments = arguments_without_identity(storage_root)
    del arguments["cloud_base_url"]
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    await run_call(MemoAirMemoryProcessor.from_env(**arguments))
    await run_call(MemoAirMemoryProcessor.from_env({**environ, "MEMOAIR_USER_ID": "eve"}, **arguments))
    await run_call(MemoAirMemoryProcessor.from_env(user={"id": "bob"}, **arguments))
    assert saved_turns("ada") == saved_turns("eve") == saved_turns("bob") == [("Hello?", "Yes.")]


@pytest.mark.anyio
async def test_an_org_only_processor_needs_no_user_and_saves_nothing(
    storage_root: Path, nothing_left_behind: None, tmp_path: Path
) -> None:
    documents = tmp_path / "documents.jsonl"
    documents.write_text('{"id": "returns", "text": "Boots go back within thirty days."}\n')
    arguments = client_arguments(storage_root, org_only=True, org_file=str(documents))
    async with PipecatCall(MemoAirMemoryProcessor(timeout_ms=10_000, **arguments)) as call:
        await call.say_and_wait("When do boots go back?")
    assert "thirty days" in str(call.llm.requests[0])
    assert not list(storage_root.rglob("session.jsonl"))


@pytest.mark.anyio
async def test_a_missing_runtime_disables_the_memory_and_not_the_call(
    storage_root: Path,
    nothing_left_behind: None,
    saved_turns: ReadTurns,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    arguments = client_arguments(storage_root, runtime_binary=str(tmp_path / "no-runtime"))
    async with PipecatCall(MemoAirMemoryProcessor(user_id="ada", flush_timeout_s=1.0, **arguments)) as call:
        await call.say_and_wait("My parrot is blue.")
    assert call.heard_texts == ["Yes."]
    assert saved_turns() == []
    assert "code=runtime.not_found" in caplog.text
    assert "parrot" not in caplog.text


# Invalid arguments


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({}, ValueError, "user_id is required"),
        (
            {"user_id": "ada"},
            ValueError,
            "missing api_key, project_id, agent_id: pass them as arguments, or pass a client=",
        ),
        ({"user_id": "ada", "api_key": "k", "agent_id": "a"}, ValueError, "missing project_id: pass"),
        ({"user": "ada"}, TypeError, "user must be a dict"),
        ({"user": {"id": 7}}, TypeError, 'user\\["id"\\] must be a str'),
        ({"user": {"name": "Ada"}}, ValueError, "user_id is required"),
        ({"user": {"id": "ada"}, "user_id": "bob"}, ValueError, "different users"),
        ({"user_id": "ada", "timeout_ms": 0}, ValueError, "timeout_ms must be positive"),
        ({"user_id": "ada", "timeout_ms": "fast"}, TypeError, "timeout_ms must be a number"),
        ({"user_id": "ada", "flush_timeout_s": float("nan")}, ValueError, "flush_timeout_s must be positive"),
        (
            {"user_id": "ada", "agent": object()},
            TypeError,
            "agent must have the attributes api_key, project_id, agent_id",
        ),
        ({"user_id": "ada", "agent": SimpleNamespace(**IDENTITY), "api_key": "k"}, ValueError, "api_key"),
        ({"user_id": "ada", **IDENTITY, "api_key": "k\u00e9y"}, ValueError, "api_key contains a character"),
        ({"user_id": "ada", **IDENTITY, "no_such_thing": 1}, TypeError, "no_such_thing"),
        ({"user_id": "ada", **IDENTITY, "cloud_base_url": "ftp://x"}, ValueError, "cloud_base_url"),
    ],
)
def test_invalid_arguments_raise_at_construction(
    arguments: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        MemoAirMemoryProcessor(**arguments)


def test_a_client_cannot_be_combined_with_client_arguments(client: MemoAirVoiceClient, storage_root: Path) -> None:
    with pytest.raises(ValueError, match="storage_root cannot be combined with client="):
        MemoAirMemoryProcessor(client=client, user_id="ada", storage_root=str(storage_root))
    sync = MemoAirVoiceClientSync(**client_arguments(storage_root))
    with pytest.raises(TypeError, match="MemoAirVoiceClient, not MemoAirVoiceClientSync"):
        MemoAirMemoryProcessor(client=sync, user_id="ada")  # type: ignore[arg-type]
    sync.close()


def test_from_env_validates_the_environment() -> None:
    with pytest.raises(ValueError, match="MEMOAIR_ORG_ONLY must be 1 or 0"):
        MemoAirMemoryProcessor.from_env({"MEMOAIR_ORG_ONLY": "maybe"})
    with pytest.raises(ValueError, match="user_id is required"):
        MemoAirMemoryProcessor.from_env({})
