"""Constructing an agent: the documented signature, an identity object, the environment, and invalid arguments."""

import inspect
import time
from types import SimpleNamespace
from typing import Any

import memoair_livekit
import psutil
import pytest
from livekit.agents import Agent, llm
from memoair_livekit import MemoAirLiveKitAgent
from support.livekit_calls import ScriptedLLM, open_call

IDENTITY = {"api_key": "memoair_pk_test", "project_id": "proj_test", "agent_id": "agent_test", "user_id": "ada"}


def test_the_constructor_has_the_documented_signature() -> None:
    parameters = inspect.signature(MemoAirLiveKitAgent).parameters
    assert list(parameters)[:7] == [
        "api_key",
        "project_id",
        "agent_id",
        "user_id",
        "instructions",
        "search_timeout_ms",
        "cloud_base_url",
    ]
    assert parameters["instructions"].default is None
    assert parameters["search_timeout_ms"].default == 250
    assert parameters["cloud_base_url"].default == "https://backend.memoair.space"
    assert parameters["agent_kwargs"].kind is inspect.Parameter.VAR_KEYWORD
    assert issubclass(MemoAirLiveKitAgent, Agent)


def test_the_public_api_is_documented() -> None:
    assert memoair_livekit.__all__ == ["MemoAirLiveKitAgent"]
    hooks = ["on_enter", "on_user_turn_completed", "on_agent_response_completed", "on_exit", "llm_node", "from_env"]
    for documented in (memoair_livekit, MemoAirLiveKitAgent, *(vars(MemoAirLiveKitAgent)[name] for name in hooks)):
        assert documented.__doc__
    with pytest.raises(AttributeError, match="nothing"):
        _ = memoair_livekit.nothing  # type: ignore[attr-defined]


def test_other_arguments_are_passed_to_the_livekit_agent() -> None:
    context = llm.ChatContext.empty()
    context.add_message(role="user", content="Hello.")
    model = ScriptedLLM()
    agent = MemoAirLiveKitAgent(**IDENTITY, cloud_base_url=None, instructions="Be kind.", chat_ctx=context, llm=model)
    assert agent.instructions == "Be kind."
    assert [item.text_content for item in agent.chat_ctx.items if item.type == "message"] == ["Hello."]
    assert agent.llm is model
    with pytest.raises(TypeError, match="session_id"):
        MemoAirLiveKitAgent(**IDENTITY, session_id="s1")


def test_construction_is_fast_and_starts_no_process() -> None:
    began_at = time.process_time()
    agents = [MemoAirLiveKitAgent(**IDENTITY) for _ in range(20)]
    assert time.process_time() - began_at < 0.5
    assert not psutil.Process().children()
    assert agents[0].instructions == ""


@pytest.mark.parametrize("missing", list(IDENTITY))
def test_a_missing_argument_is_named(missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = {name: value for name, value in IDENTITY.items() if name != missing}
    with pytest.raises(TypeError, match=missing):
        MemoAirLiveKitAgent(**arguments)
    with pytest.raises(ValueError, match=missing):
        MemoAirLiveKitAgent(**arguments, **{missing: ""})
    with pytest.raises(TypeError, match=missing):
        MemoAirLiveKitAgent(**arguments, **{missing: 7})  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=f"MEMOAIR_{missing.upper()} must be set"):
        MemoAirLiveKitAgent.from_env(**arguments)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"search_timeout_ms": 0}, "search_timeout_ms"),
        ({"search_timeout_ms": True}, "search_timeout_ms"),
        ({"search_timeout_ms": float("nan")}, "search_timeout_ms"),
        ({"cloud_base_url": "ftp://cloud"}, "cloud_base_url"),
        ({"runtime_port_range": (9, 8)}, "runtime_port_range"),
        ({"org_file": "/nowhere/org.jsonl"}, "org_file"),
    ],
)
def test_invalid_arguments_raise_at_construction(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MemoAirLiveKitAgent(**{**IDENTITY, **arguments})


@pytest.mark.anyio
async def test_an_identity_object_provides_the_arguments(
    agent_arguments: dict[str, Any], saved_payloads: Any, new_agent: Any
) -> None:
    names = ("api_key", "project_id", "agent_id")
    identity = SimpleNamespace(
        **{name: agent_arguments[name] for name in names}, user_id=None, cloud_base_url=None, org_only=False
    )
    agent = new_agent(agent=identity, **dict.fromkeys(names), user_id="bob")
    async with open_call(agent) as call:
        await call.say("Hello.")
    await agent.on_exit()
    assert [turn["userText"] for turn in saved_payloads("bob")] == ["Hello."]


def test_an_identity_without_a_user_needs_a_user_id() -> None:
    identity = SimpleNamespace(api_key="k", project_id="p", agent_id="a", user_id=None)
    with pytest.raises(TypeError, match="user_id"):
        MemoAirLiveKitAgent(agent=identity)
    MemoAirLiveKitAgent(agent=identity, user_id="ada")


@pytest.mark.anyio
async def test_from_env_reads_the_environment(
    agent_arguments: dict[str, Any], saved_payloads: Any, monkeypatch: pytest.MonkeyPatch, nothing_left_behind: None
) -> None:
    for name in IDENTITY:
        monkeypatch.setenv(f"MEMOAIR_{name.upper()}", agent_arguments.pop(name))
    del agent_arguments["cloud_base_url"]
    monkeypatch.setenv("MEMOAIR_BASE_URL", "")
    agent = MemoAirLiveKitAgent.from_env(**agent_arguments)
    async with open_call(agent) as call:
        await call.say("Hello.")
    await agent.on_exit()
    assert [turn["userText"] for turn in saved_payloads()] == ["Hello."]


def test_an_invalid_flag_in_the_environment_is_rejected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEMOAIR_ORG_ONLY", "maybe")
    with pytest.raises(ValueError, match="MEMOAIR_ORG_ONLY"):
        MemoAirLiveKitAgent.from_env(**IDENTITY)
