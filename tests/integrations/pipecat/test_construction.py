"""How the processor is made: of a client, of an identity, of the environment; and what can't be."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from memoair_pipecat import MemoAirMemoryProcessor
from support.clients import AGENT, API_KEY, client_arguments
from support.pipecat_calls import Call, until
from support.runtimes import PROJECT

from memoair_voice import MemoAirVoiceClient, MemoAirVoiceClientSync

Kept = Callable[..., list[tuple[str, str]]]

IDENTITY = {"api_key": API_KEY, "project_id": PROJECT, "agent_id": AGENT}


def own_arguments(storage_root: Path) -> dict[str, Any]:
    """What a client of its own needs in a test, without the identity."""
    return {name: value for name, value in client_arguments(storage_root).items() if name not in IDENTITY}


async def call_with(memory: MemoAirMemoryProcessor) -> None:
    before = asyncio.all_tasks()
    async with Call(memory) as call:
        await call.ask("Hello?")
    await until(lambda: asyncio.all_tasks() <= before)


@pytest.mark.anyio
async def test_a_client_of_its_own_ends_with_the_pipeline(
    storage_root: Path, nothing_left_behind: None, kept: Kept
) -> None:
    memory = MemoAirMemoryProcessor(user_id="ada", **client_arguments(storage_root))
    await call_with(memory)
    assert kept() == [("Hello?", "Yes.")]
    await memory.cleanup()  # again, which is no harm


@pytest.mark.anyio
async def test_a_client_that_is_given_goes_on(client: MemoAirVoiceClient, kept: Kept) -> None:
    await call_with(MemoAirMemoryProcessor(client=client, user={"id": "ada", "name": "Ada"}))
    assert (await client.search_memory("Hello?", user_id="ada", timeout_ms=10_000)).trace["degraded"] is False
    assert kept() == [("Hello?", "Yes.")]


@pytest.mark.anyio
async def test_an_identity_object_says_who_it_is(storage_root: Path, nothing_left_behind: None, kept: Kept) -> None:
    agent = SimpleNamespace(**IDENTITY, user_id="ada", cloud_base_url=None, org_only=False)
    arguments = own_arguments(storage_root)
    del arguments["cloud_base_url"]  # else a test would look for the world's
    await call_with(MemoAirMemoryProcessor(agent=agent, **arguments))
    await call_with(MemoAirMemoryProcessor(agent=agent, user_id="bob", **arguments))
    assert kept("ada") == kept("bob") == [("Hello?", "Yes.")]


@pytest.mark.anyio
async def test_the_environment_says_who_it_is(
    storage_root: Path, nothing_left_behind: None, kept: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    environ = {f"MEMOAIR_{name.upper()}": value for name, value in IDENTITY.items()}
    environ |= {"MEMOAIR_USER_ID": "ada", "MEMOAIR_BASE_URL": "", "MEMOAIR_ORG_ONLY": "no"}
    arguments = own_arguments(storage_root)
    del arguments["cloud_base_url"]
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    await call_with(MemoAirMemoryProcessor.from_env(**arguments))
    await call_with(MemoAirMemoryProcessor.from_env({**environ, "MEMOAIR_USER_ID": "eve"}, **arguments))
    await call_with(MemoAirMemoryProcessor.from_env(user={"id": "bob"}, **arguments))
    assert kept("ada") == kept("eve") == kept("bob") == [("Hello?", "Yes.")]


@pytest.mark.anyio
async def test_where_only_documents_are_searched_nobody_is_named_and_nothing_is_kept(
    storage_root: Path, nothing_left_behind: None, tmp_path: Path
) -> None:
    documents = tmp_path / "documents.jsonl"
    documents.write_text('{"id": "returns", "text": "Boots go back within thirty days."}\n')
    arguments = client_arguments(storage_root, org_only=True, org_file=str(documents))
    async with Call(MemoAirMemoryProcessor(timeout_ms=10_000, **arguments)) as call:
        await call.ask("When do boots go back?")
    assert "thirty days" in str(call.llm.shown[0])
    assert not list(storage_root.rglob("session.jsonl"))


@pytest.mark.anyio
async def test_a_runtime_that_is_not_there_costs_the_memory_and_not_the_call(
    storage_root: Path, nothing_left_behind: None, kept: Kept, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    arguments = client_arguments(storage_root, runtime_binary=str(tmp_path / "no-runtime"))
    async with Call(MemoAirMemoryProcessor(user_id="ada", flush_timeout_s=1.0, **arguments)) as call:
        await call.ask("My parrot is blue.")
    assert call.heard == ["Yes."]
    assert kept() == []
    assert "code=runtime.not_found" in caplog.text
    assert "parrot" not in caplog.text


# What can't be


@pytest.mark.parametrize(
    ("arguments", "error", "says"),
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
def test_what_cannot_be_is_told_at_once(arguments: dict[str, Any], error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=says):
        MemoAirMemoryProcessor(**arguments)


def test_a_client_comes_with_nothing_that_it_was_made_of(client: MemoAirVoiceClient, storage_root: Path) -> None:
    with pytest.raises(ValueError, match="storage_root cannot be combined with client="):
        MemoAirMemoryProcessor(client=client, user_id="ada", storage_root=str(storage_root))
    sync = MemoAirVoiceClientSync(**client_arguments(storage_root))
    with pytest.raises(TypeError, match="MemoAirVoiceClient, not MemoAirVoiceClientSync"):
        MemoAirMemoryProcessor(client=sync, user_id="ada")  # type: ignore[arg-type]
    sync.close()


def test_the_environment_is_checked() -> None:
    with pytest.raises(ValueError, match="MEMOAIR_ORG_ONLY must be 1 or 0"):
        MemoAirMemoryProcessor.from_env({"MEMOAIR_ORG_ONLY": "maybe"})
    with pytest.raises(ValueError, match="user_id is required"):
        MemoAirMemoryProcessor.from_env({})
