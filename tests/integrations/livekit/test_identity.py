"""How an agent is made: as the reference says, from an identity, from the environment; what can't be is told."""

import inspect
import time
from types import SimpleNamespace
from typing import Any

import memoair_livekit
import psutil
import pytest
from livekit.agents import Agent, llm
from memoair_livekit import MemoAirLiveKitAgent
from support.livekit_calls import ScriptedLLM, calling

IDENTITY = {"api_key": "memoair_pk_test", "project_id": "proj_test", "agent_id": "agent_test", "user_id": "ada"}


def test_the_constructor_is_that_of_the_reference() -> None:
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


def test_everything_public_is_documented() -> None:
    assert memoair_livekit.__all__ == ["MemoAirLiveKitAgent"]
    hooks = ["on_enter", "on_user_turn_completed", "on_agent_response_completed", "on_exit", "llm_node", "from_env"]
    for each in (memoair_livekit, MemoAirLiveKitAgent, *(vars(MemoAirLiveKitAgent)[name] for name in hooks)):
        assert each.__doc__
    with pytest.raises(AttributeError, match="nothing"):
        _ = memoair_livekit.nothing  # type: ignore[attr-defined]


def test_what_else_is_given_goes_to_the_agent() -> None:
    context = llm.ChatContext.empty()
    context.add_message(role="user", content="Hello.")
    model = ScriptedLLM()
    agent = MemoAirLiveKitAgent(**IDENTITY, cloud_base_url=None, instructions="Be kind.", chat_ctx=context, llm=model)
    assert agent.instructions == "Be kind."
    assert [item.text_content for item in agent.chat_ctx.items if item.type == "message"] == ["Hello."]
    assert agent.llm is model
    with pytest.raises(TypeError, match="session_id"):
        MemoAirLiveKitAgent(**IDENTITY, session_id="s1")


def test_to_make_one_starts_nothing_and_takes_no_time() -> None:
    began_at = time.process_time()
    agents = [MemoAirLiveKitAgent(**IDENTITY) for _ in range(20)]
    assert time.process_time() - began_at < 0.5
    assert not psutil.Process().children()
    assert agents[0].instructions == ""


@pytest.mark.parametrize("missing", list(IDENTITY))
def test_what_is_missing_is_named(missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    rest = {name: value for name, value in IDENTITY.items() if name != missing}
    with pytest.raises(TypeError, match=missing):
        MemoAirLiveKitAgent(**rest)
    with pytest.raises(ValueError, match=missing):
        MemoAirLiveKitAgent(**rest, **{missing: ""})
    with pytest.raises(TypeError, match=missing):
        MemoAirLiveKitAgent(**rest, **{missing: 7})  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=f"MEMOAIR_{missing.upper()} must be set"):
        MemoAirLiveKitAgent.from_env(**rest)


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"search_timeout_ms": 0}, "search_timeout_ms"),
        ({"search_timeout_ms": True}, "search_timeout_ms"),
        ({"search_timeout_ms": float("nan")}, "search_timeout_ms"),
        ({"cloud_base_url": "ftp://cloud"}, "cloud_base_url"),
        ({"runtime_port_range": (9, 8)}, "runtime_port_range"),
        ({"org_file": "/nowhere/org.jsonl"}, "org_file"),
    ],
)
def test_what_can_not_be_is_told_when_the_agent_is_made(wrong: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        MemoAirLiveKitAgent(**{**IDENTITY, **wrong})


@pytest.mark.anyio
async def test_an_identity_says_whose_memory_it_is(arguments: dict[str, Any], kept: Any, new_agent: Any) -> None:
    names = ("api_key", "project_id", "agent_id")
    who = SimpleNamespace(
        **{name: arguments[name] for name in names}, user_id=None, cloud_base_url=None, org_only=False
    )
    agent = new_agent(agent=who, **dict.fromkeys(names), user_id="bob")
    async with calling(agent) as call:
        await call.says("Hello.")
    await agent.on_exit()
    assert [turn["userText"] for turn in kept("bob")] == ["Hello."]


def test_an_identity_without_a_caller_needs_one() -> None:
    who = SimpleNamespace(api_key="k", project_id="p", agent_id="a", user_id=None)
    with pytest.raises(TypeError, match="user_id"):
        MemoAirLiveKitAgent(agent=who)
    MemoAirLiveKitAgent(agent=who, user_id="ada")


@pytest.mark.anyio
async def test_the_environment_says_the_rest(
    arguments: dict[str, Any], kept: Any, monkeypatch: pytest.MonkeyPatch, nothing_left_behind: None
) -> None:
    for name in IDENTITY:
        monkeypatch.setenv(f"MEMOAIR_{name.upper()}", arguments.pop(name))
    del arguments["cloud_base_url"]
    monkeypatch.setenv("MEMOAIR_BASE_URL", "")
    agent = MemoAirLiveKitAgent.from_env(**arguments)
    async with calling(agent) as call:
        await call.says("Hello.")
    await agent.on_exit()
    assert [turn["userText"] for turn in kept()] == ["Hello."]


def test_a_flag_that_is_none_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEMOAIR_ORG_ONLY", "maybe")
    with pytest.raises(ValueError, match="MEMOAIR_ORG_ONLY"):
        MemoAirLiveKitAgent.from_env(**IDENTITY)
