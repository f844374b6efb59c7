"""The examples at the documented paths, each in a real session on loopback."""

import importlib.util
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from memoair_livekit import MemoAirLiveKitAgent
from support.livekit_calls import FakeAudioOutput, ScriptedLLM, ScriptedSTT, new_session, open_call
from support.waiting import wait_until

pytestmark = pytest.mark.anyio

EXAMPLES = Path(__file__).parents[3] / "examples" / "livekit" / "voice_agents"


@pytest.fixture
def example_environment(monkeypatch: pytest.MonkeyPatch, agent_arguments: dict[str, Any]) -> None:
    """Set the environment variables that the examples read."""
    for name in ("api_key", "project_id", "agent_id"):
        monkeypatch.setenv(f"MEMOAIR_{name.upper()}", agent_arguments[name])
    monkeypatch.setenv("MEMOAIR_BASE_URL", "")


def load_example(name: str) -> ModuleType:
    """Return the module of an example, which is in no package."""
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


async def test_the_drop_in_example(
    example_environment: None, agent_arguments: dict[str, Any], saved_payloads: Any, nothing_left_behind: None
) -> None:
    options = {name: agent_arguments[name] for name in ("storage_root", "runtime_port_range", "search_timeout_ms")}
    for text in ("How long can I return my boots?", "How long for the boots, again?"):
        agent: MemoAirLiveKitAgent = load_example("memoair_agent").make_agent("ada", **options)
        async with open_call(agent, "In thirty days.") as call:
            request = await call.say(text)
        await agent.on_exit()

    assert "<memory>" in request[-2][1]
    assert [turn["assistantText"] for turn in saved_payloads()] == ["In thirty days.", "In thirty days."]


async def test_the_custom_agent_example(
    example_environment: None,
    agent_arguments: dict[str, Any],
    saved_payloads: Any,
    nothing_left_behind: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    module = load_example("memoair_voice_custom_agent")
    client = module.make_client(
        cloud_base_url=None,
        **{name: agent_arguments[name] for name in ("storage_root", "runtime_port_range")},
    )
    search, save = client.search_memory, client.save_response
    saved: list[str | None] = []

    async def search_without_hurry(query: str, **options: Any) -> Any:
        return await search(query, **{**options, "timeout_ms": agent_arguments["search_timeout_ms"]})

    async def record_saved_turn(**turn: Any) -> str | None:
        saved.append(await save(**turn))
        return saved[-1]

    monkeypatch.setattr(client, "search_memory", search_without_hurry)
    monkeypatch.setattr(client, "save_response", record_saved_turn)
    user = {"id": "ada", "name": "Ada"}
    await client.load_index(user=user)
    model, recognizer = ScriptedLLM("In thirty days.", "Thirty."), ScriptedSTT()
    session = new_session(model, recognizer)
    session.output.audio = FakeAudioOutput()
    await module.serve(session, module.RememberingAgent(client, user), record=False)
    recognizer.emit_turn("How long can I return my boots?")
    await wait_until(lambda: len(saved) == 1)  # a turn is on the disk shortly before a search finds it
    recognizer.emit_turn("How long for the boots, again?")
    await wait_until(lambda: len(saved_payloads()) == 2)
    await session.aclose()
    await client.aclose()

    assert "thirty days" in model.requests[1][-2][1].lower()
    assert [(turn["userText"], turn["assistantText"].strip()) for turn in saved_payloads()] == [
        ("How long can I return my boots?", "In thirty days."),
        ("How long for the boots, again?", "Thirty."),
    ]
