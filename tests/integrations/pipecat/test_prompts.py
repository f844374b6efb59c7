"""Pipelines whose model gets its instructions from the processor: given, or a prompt of the cloud."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from memoair_pipecat import MemoAirMemoryProcessor
from memoair_pipecat._context import RecalledContext, conversation_messages
from pipecat.processors.aggregators.llm_context import LLMContext
from support.clients import client_arguments, logged
from support.pipecat_calls import PipecatCall, ScriptedToolCall
from support.prompt_server import PromptServer
from support.waiting import wait_until

from memoair_voice.integration import fence_text

pytestmark = pytest.mark.anyio

INSTRUCTIONS = {"role": "system", "content": "You help callers of us."}
OWN = {"role": "system", "content": "Answer briefly."}
HELLO = {"role": "user", "content": "Hello."}


@pytest.fixture
def cloud(nothing_left_behind: None) -> Iterator[PromptServer]:
    with PromptServer() as server:
        server.push("You help callers of {{shop}}.", "production")
        yield server


async def test_the_model_gets_the_prompt_and_the_call_its_version(cloud: PromptServer, storage_root: Path) -> None:
    cloud.released.clear()
    memory = MemoAirMemoryProcessor(
        **client_arguments(storage_root, cloud_base_url=cloud.url),
        user_id="ada",
        prompt_label="production",
        prompt_values={"shop": "us"},
    )
    call = PipecatCall(memory, [ScriptedToolCall("look_up")], ["It is there."], context=LLMContext([OWN]))
    call.llm.register_function("look_up", _look_up)
    async with call:
        await call.say("Hello.")  # before the cloud has answered
        await wait_until(cloud.arrived.is_set)
        assert call.llm.requests == []
        cloud.released.set()
        await wait_until(lambda: call.heard_texts)
    first, after_tool = call.llm.requests
    assert first == [INSTRUCTIONS, OWN, HELLO]
    assert after_tool[:3] == first
    assert call.context.get_messages()[:2] == [OWN, HELLO], "the context of the application stays its own"
    [start] = logged(storage_root, "ada", "session_start")
    assert start["payload"]["metadata"] == {"framework": "pipecat", "prompt": {"version": 1, "label": "production"}}


async def _look_up(params: Any) -> None:
    await params.result_callback({"found": True})


async def test_instructions_need_no_cloud(storage_root: Path, nothing_left_behind: None) -> None:
    memory = MemoAirMemoryProcessor(
        **client_arguments(storage_root), org_only=True, instructions=INSTRUCTIONS["content"]
    )
    async with PipecatCall(memory, context=LLMContext()) as call:
        await call.say_and_wait("Hello.")
    assert call.llm.requests == [[INSTRUCTIONS, HELLO]]


def test_what_a_service_writes_back_has_no_instructions() -> None:
    conversation = LLMContext([OWN, HELLO])
    recalled = {"role": "user", "content": fence_text("- Ada")}
    view = RecalledContext(conversation, recalled, INSTRUCTIONS["content"])
    assert view.get_messages() == [INSTRUCTIONS, OWN, recalled, HELLO]
    view.set_messages([*view.get_messages(), HELLO])
    assert conversation.get_messages() == [OWN, HELLO, HELLO]
    view.set_messages([OWN])
    assert conversation.get_messages() == conversation_messages(view) == [OWN]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"instructions": "Be kind.", "prompt_label": "production"}, "cannot be combined"),
        ({"prompt_values": {"shop": "us"}}, "prompt_values without prompt_label"),
        ({"prompt_label": "Production"}, "label must be"),
    ],
)
def test_arguments_that_contradict_each_other_are_refused(
    storage_root: Path, arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        MemoAirMemoryProcessor(**client_arguments(storage_root), user_id="ada", **arguments)
