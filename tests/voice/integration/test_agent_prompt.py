"""The prompt of an agent of a framework: nothing about it raises into a call."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from support.clients import AGENT, client_arguments
from support.prompt_server import PromptServer

from memoair_voice import MemoAirVoiceClient, Prompt
from memoair_voice.integration import PromptInstructions, make_agent_prompt

pytestmark = pytest.mark.anyio

log = logging.getLogger("an_integration")
SECRET = "zanzibarplum"


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"  # as all integrations


@pytest.fixture
def cloud(nothing_left_behind: None) -> Iterator[PromptServer]:
    with PromptServer() as server:
        server.push("You help callers of {{shop}}.", "production")
        yield server


@pytest.fixture
async def client(cloud: PromptServer, storage_root: Path, anyio_backend: str) -> AsyncIterator[MemoAirVoiceClient]:
    arguments = client_arguments(storage_root, cloud_base_url=cloud.url, prompt_fresh_s=1e-6)
    async with MemoAirVoiceClient(**arguments) as client:
        yield client


def agent_prompt(values: Any = None, default: str | None = None, label: str = "production") -> PromptInstructions:
    return PromptInstructions(label, values={"shop": "us"} if values is None else values, default=default, log=log)


async def find_known(prompt: PromptInstructions, client: MemoAirVoiceClient) -> Prompt | None:
    """Find the prompt as the constructor of an agent does, which reads a file; in a thread, where tests may."""
    return await asyncio.to_thread(prompt.find_known, client)


async def test_what_is_known_is_found_without_a_request_and_then_refreshed(
    client: MemoAirVoiceClient, cloud: PromptServer
) -> None:
    prompt = agent_prompt()
    assert await find_known(prompt, client) is None
    assert cloud.requests == []
    fetched = await prompt.fetch(client)
    assert fetched is not None
    assert (fetched.text, fetched.version) == ("You help callers of us.", 1)
    cloud.push("Second of {{shop}}.", "production")
    known = await find_known(prompt, client)
    assert known is not None
    assert known.text == fetched.text
    assert len(cloud.requests) == 1

    async def fetch_second() -> bool:
        found = await prompt.fetch(client)
        return found is not None and found.text == "Second of us."

    deadline = time.monotonic() + 30
    while not await fetch_second():
        assert time.monotonic() < deadline
    assert (await find_known(prompt, client) or fetched).version == 2


async def test_without_a_prompt_there_is_the_default_text(client: MemoAirVoiceClient) -> None:
    prompt = agent_prompt(default="I am {{shop}}.", label="staging")
    by_default = Prompt("I am us.", None, "staging", AGENT, is_stale=True)
    assert await find_known(prompt, client) == by_default
    assert await prompt.fetch(client) == by_default


@pytest.mark.parametrize("default", [None, "Be careful."])
async def test_a_value_that_is_missing_is_logged_and_not_raised(
    client: MemoAirVoiceClient, caplog: pytest.LogCaptureFixture, default: str | None
) -> None:
    await agent_prompt().fetch(client)
    prompt = agent_prompt({"store": SECRET}, default)
    for found in (await find_known(prompt, client), await prompt.fetch(client)):
        assert (found and found.text) == default
    assert caplog.text.count("action=prompt_failed why=values are missing for placeholders: shop") == 2
    assert SECRET not in caplog.text


async def test_a_cloud_that_refuses_and_a_closed_client_are_logged_by_their_code(
    client: MemoAirVoiceClient, caplog: pytest.LogCaptureFixture
) -> None:
    assert await agent_prompt(label="staging").fetch(client) is None
    assert "an agent has no prompt: action=prompt_failed why=cloud.not_found" in caplog.text
    await client.aclose()
    assert await agent_prompt().fetch(client) is None
    assert "action=prompt_failed why=pool.closed" in caplog.text


async def test_the_async_client_reports_outcomes(client: MemoAirVoiceClient, cloud: PromptServer) -> None:
    await client.report_outcome("call-1", "resolved", score=1.0)
    assert cloud.outcomes[0]["outcome"] == "resolved"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("Be kind.", "production", None, None), "cannot be combined"),
        ((None, None, {"shop": "us"}, None), "prompt_values without prompt_label"),
        (("Be kind.", None, None, "Be kind."), "prompt_default without prompt_label"),
        ((None, "Production", None, None), "label must be"),
        ((None, "a", {"b": "\ud800"}, None), "the placeholder b is not valid Unicode"),
        ((None, "a", {}, "{{name}}"), "missing for placeholders: name"),
    ],
)
def test_arguments_that_contradict_each_other_are_refused(arguments: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_agent_prompt(*arguments, log)


def test_no_label_is_no_prompt() -> None:
    assert make_agent_prompt("Be kind.", None, None, None, log) is None
