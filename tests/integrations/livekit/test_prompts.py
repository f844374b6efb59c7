"""Agents whose instructions are a prompt of the cloud: known at once, soon, later, or not at all."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from livekit.agents import Agent, llm
from memoair_livekit import MemoAirLiveKitAgent
from memoair_livekit._instructions import insert_instructions
from support.clients import AGENT, API_KEY, logged
from support.livekit_calls import LiveKitCall, open_call
from support.livekit_speech import FakeRealtimeModel, open_speech_call
from support.prompt_server import PromptServer
from support.runtimes import PROJECT
from support.waiting import wait_until

from memoair_voice import MemoAirVoiceClientSync

pytestmark = pytest.mark.anyio

PRODUCTION = {"instructions": None, "prompt_label": "production", "prompt_values": {"shop": "us"}}


@pytest.fixture
def cloud(nothing_left_behind: None) -> Iterator[PromptServer]:
    with PromptServer() as server:
        server.push("You help callers of {{shop}}.", "production")
        yield server


@pytest.fixture
def know_prompt(cloud: PromptServer, storage_root: Path) -> Callable[[], None]:
    """Return a function that fetches the prompt to this machine."""

    def know() -> None:
        identity = {"api_key": API_KEY, "project_id": PROJECT, "agent_id": AGENT, "cloud_base_url": cloud.url}
        with MemoAirVoiceClientSync(storage_root=str(storage_root), **identity) as client:
            client.prompt(shop="us", timeout_ms=30_000)

    return know


def instructions_of(request: list[tuple[str, str]]) -> list[str]:
    """Return the system messages of a request to the model, without what was recalled."""
    return [text for role, text in request if role == "system" and "<memory>" not in text]


def recorded(storage_root: Path) -> list[Any]:
    return [event["payload"]["metadata"].get("prompt") for event in logged(storage_root, "ada", "session_start")]


class Greeter(MemoAirLiveKitAgent):
    """An agent that greets as soon as it enters, with a node of its own."""

    async def on_enter(self) -> None:
        await self.session.generate_reply(instructions="Greet.")

    def llm_node(self, *arguments: Any) -> Any:
        return Agent.default.llm_node(self, *arguments)


async def test_a_greeting_has_the_prompt_of_the_first_call_on_a_machine(
    new_agent: Any, cloud: PromptServer, storage_root: Path
) -> None:
    agent = new_agent(Greeter, **PRODUCTION, cloud_base_url=cloud.url)
    assert agent.instructions == ""
    async with open_call(agent) as call:
        await wait_until(lambda: len(call.items("assistant")) == 1)
        request = await call.say("Hello.")
    await agent.on_exit()
    assert "You help callers of us." in instructions_of(call.llm.requests[0])[0]
    assert instructions_of(request) == ["You help callers of us."]
    assert recorded(storage_root) == [{"version": 1, "label": "production"}]


async def test_a_prompt_that_is_known_is_there_before_the_session(
    new_agent: Any, cloud: PromptServer, know_prompt: Callable[[], None], storage_root: Path
) -> None:
    know_prompt()
    cloud.close()
    agent = new_agent(**PRODUCTION, cloud_base_url=cloud.url)
    assert agent.instructions == "You help callers of us."
    async with open_call(agent) as call:
        assert instructions_of(await call.type_text("Hello.")) == ["You help callers of us."]
    await agent.on_exit()
    assert recorded(storage_root) == [{"version": 1, "label": "production"}]


async def test_a_typed_turn_during_the_fetch_has_the_prompt(new_agent: Any, cloud: PromptServer) -> None:
    cloud.released.clear()
    agent = new_agent(**PRODUCTION, cloud_base_url=cloud.url)
    async with open_call(agent) as call:
        reply = call.session.generate_reply(user_input="Hello.")
        await wait_until(cloud.arrived.is_set)
        assert call.llm.requests == []
        cloud.released.set()
        await reply
    await agent.on_exit()
    assert instructions_of(call.llm.requests[0]) == ["You help callers of us."]


async def test_each_agent_of_a_call_has_its_own_prompt(new_agent: Any, cloud: PromptServer, storage_root: Path) -> None:
    cloud.push("You do billing.", "billing")
    agents = [
        new_agent(**PRODUCTION, cloud_base_url=cloud.url),
        new_agent(instructions=None, prompt_label="billing", cloud_base_url=cloud.url),
    ]

    async def say(call: LiveKitCall, versions: list[int]) -> list[str]:
        await wait_until(lambda: [each["version"] for each in recorded(storage_root)] == versions)
        return instructions_of(await call.say("Hello."))

    async with open_call(agents[0]) as call:
        assert await say(call, [1]) == ["You help callers of us."]
        call.session.update_agent(agents[1])
        assert await say(call, [1, 2]) == ["You do billing."]
        call.session.update_agent(agents[0])
        assert await say(call, [1, 2, 1]) == ["You help callers of us."]
    for agent in agents:
        await agent.on_exit()


async def test_instructions_that_the_application_sets_during_the_fetch_stay(
    new_agent: Any, cloud: PromptServer
) -> None:
    cloud.released.clear()
    agent = new_agent(**PRODUCTION, cloud_base_url=cloud.url)
    async with open_call(agent) as call:
        await wait_until(cloud.arrived.is_set)
        await agent.update_instructions("Speak French.")
        cloud.released.set()
        assert instructions_of(await call.type_text("Hello.")) == ["Speak French."]
    await agent.on_exit()


async def test_instructions_that_the_application_sets_after_the_prompt_stay_after_a_handoff(
    new_agent: Any, cloud: PromptServer, storage_root: Path
) -> None:
    cloud.push("You do billing.", "billing")
    agents = [
        new_agent(**PRODUCTION, cloud_base_url=cloud.url),
        new_agent(instructions=None, prompt_label="billing", cloud_base_url=cloud.url),
    ]

    async def wait_recorded(count: int) -> None:
        await wait_until(lambda: len(recorded(storage_root)) == count)

    async with open_call(agents[0]) as call:
        await wait_recorded(1)
        assert instructions_of(await call.say("Hello.")) == ["You help callers of us."]
        await agents[0].update_instructions("Speak French.")
        for count, agent in ((2, agents[1]), (3, agents[0])):
            call.session.update_agent(agent)
            await wait_recorded(count)
        assert instructions_of(await call.say("Bonjour.")) == ["Speak French."]
    for agent in agents:
        await agent.on_exit()


async def test_a_speech_model_gets_the_prompt_and_its_briefing(new_agent: Any, cloud: PromptServer) -> None:
    model = FakeRealtimeModel()
    agent = new_agent(**PRODUCTION, cloud_base_url=cloud.url, name="Ada")
    async with open_speech_call(agent, model):
        await wait_until(lambda: "<memory>" in model.configured.instructions)
    await agent.on_exit()
    assert model.configured.instructions.startswith("You help callers of us.\n")
    assert "Name: Ada" in model.configured.instructions


async def test_a_speech_model_with_fixed_instructions_can_be_prepared(new_agent: Any, cloud: PromptServer) -> None:
    prepared = new_agent(**PRODUCTION, cloud_base_url=cloud.url, llm=FakeRealtimeModel(mutable="chat_context"))
    await prepared.prepare_memory()
    assert prepared.instructions.startswith("You help callers of us.")


def test_the_instructions_of_the_application_stay() -> None:
    def context(text: str | None) -> llm.ChatContext:
        items = [llm.ChatMessage(id="lk.agent_task.instructions", role="system", content=[text])] if text else []
        return llm.ChatContext([*items, llm.ChatMessage(role="user", content=["Hello."])])

    def texts(before: str | None) -> list[Any]:
        return [item.text_content for item in insert_instructions(context(before), "new", "old").items]  # type: ignore[union-attr]

    assert texts(None) == texts("old") == texts("new") == ["new", "Hello."]
    assert texts("changed by a tool") == ["changed by a tool", "Hello."]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"instructions": "Be kind.", "prompt_label": "production"}, "cannot be combined"),
        ({"prompt_values": {"shop": "us"}}, "prompt_values without prompt_label"),
        ({"prompt_default": "Be kind."}, "prompt_default without prompt_label"),
        ({"instructions": None, "prompt_label": "Production"}, "label must be"),
        ({"instructions": None, "prompt_label": "a", "prompt_default": "{{name}}"}, "missing for placeholders: name"),
    ],
)
def test_arguments_that_contradict_each_other_are_refused(
    agent_arguments: dict[str, Any], arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        MemoAirLiveKitAgent(**{**agent_arguments, **arguments})
