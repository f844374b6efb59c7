"""The examples at the paths that the reference names, each in a real session on loopback."""

import importlib.util
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from memoair_livekit import MemoAirLiveKitAgent
from support.livekit_calls import Loudspeaker, ScriptedLLM, ScriptedSTT, calling, new_session, soon

pytestmark = pytest.mark.anyio

EXAMPLES = Path(__file__).parents[3] / "examples" / "livekit" / "voice_agents"


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch, arguments: dict[str, Any]) -> None:
    """What the examples read of it."""
    for name in ("api_key", "project_id", "agent_id"):
        monkeypatch.setenv(f"MEMOAIR_{name.upper()}", arguments[name])
    monkeypatch.setenv("MEMOAIR_BASE_URL", "")


def example(name: str) -> ModuleType:
    """The module of an example, which is in no package."""
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


async def test_the_drop_in(environment: None, arguments: dict[str, Any], kept: Any, nothing_left_behind: None) -> None:
    options = {name: arguments[name] for name in ("storage_root", "runtime_port_range", "search_timeout_ms")}
    agent: MemoAirLiveKitAgent = example("memoair_agent").make_agent("ada", **options)
    async with calling(agent, "In thirty days.", "As I said, thirty days.") as call:
        await call.says("How long can I return my boots?")
        await soon(kept)
        await agent._memoair_memory.wait_drained()  # it is on the disk a moment before it is found
        request = await call.says("How long for the boots, again?")
    await agent.on_exit()

    assert "<memory>" in request[-2][1]
    assert [turn["assistantText"] for turn in kept()] == ["In thirty days.", "As I said, thirty days."]


async def test_the_custom_agent(
    environment: None,
    arguments: dict[str, Any],
    kept: Any,
    nothing_left_behind: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    module = example("memoair_voice_custom_agent")
    client = module.make_client(
        cloud_base_url=None,
        **{name: arguments[name] for name in ("storage_root", "runtime_port_range")},
    )
    search, save = client.search_memory, client.save_response
    saved: list[str | None] = []

    async def search_patiently(query: str, **options: Any) -> Any:
        return await search(query, **{**options, "timeout_ms": arguments["search_timeout_ms"]})

    async def save_and_tell(**turn: Any) -> str | None:
        saved.append(await save(**turn))
        return saved[-1]

    monkeypatch.setattr(client, "search_memory", search_patiently)
    monkeypatch.setattr(client, "save_response", save_and_tell)
    user = {"id": "ada", "name": "Ada"}
    await client.load_index(user=user)
    model, ear = ScriptedLLM("In thirty days.", "Thirty."), ScriptedSTT()
    session = new_session(model, ear)
    session.output.audio = Loudspeaker()
    await module.serve(session, module.RememberingAgent(client, user), record=False)
    ear.says("How long can I return my boots?")
    await soon(lambda: len(saved) == 1)  # it is on the disk a moment before it is found
    ear.says("How long for the boots, again?")
    await soon(lambda: len(kept()) == 2)
    await session.aclose()
    await client.aclose()

    assert "thirty days" in model.asked[1][-2][1].lower()
    assert [(turn["userText"], turn["assistantText"].strip()) for turn in kept()] == [
        ("How long can I return my boots?", "In thirty days."),
        ("How long for the boots, again?", "Thirty."),
    ]
