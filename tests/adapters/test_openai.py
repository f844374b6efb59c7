"""The tool as the OpenAI client takes it: its own types, its own client, a model's server on loopback."""

import asyncio
import json
from collections.abc import Callable
from enum import Enum
from typing import Any

import pytest
from adapters.model_server import SPOKEN, ModelServer
from openai import AsyncOpenAI, OpenAI, pydantic_function_tool
from openai.types.chat import ChatCompletionFunctionToolParam
from openai.types.responses import FunctionToolParam
from pydantic import BaseModel, TypeAdapter
from support.clients import PATIENT_MS

from memoair_voice import MemoAirVoiceMemory
from memoair_voice_sync import MemoAirVoiceMemorySync

INTENTS = ["answer_current_user", "summarise_recent", "earlier_in_call", "fallback"]


@pytest.fixture
def memory(new_talk: Callable[..., Any]) -> MemoAirVoiceMemorySync:
    return new_talk()


@pytest.fixture(params=[MemoAirVoiceMemorySync, MemoAirVoiceMemory], ids=["sync", "async"])
def quiet(request: pytest.FixtureRequest) -> Any:
    """A memory of each class that is asked for its schema only, and starts nothing."""
    return request.param(project_id="proj_acme", user_id="caller_42", runtime_url="http://127.0.0.1:0")


@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize(
    ("api", "shape"), [("chat", ChatCompletionFunctionToolParam), ("responses", FunctionToolParam)]
)
def test_a_schema_is_of_the_type_that_the_library_documents(quiet: Any, api: Any, shape: Any, strict: bool) -> None:
    schema = quiet.to_openai_function(api, strict=strict)
    assert TypeAdapter(shape).validate_python(schema) == schema, "a key that the type does not know would be lost"
    assert quiet.search_memory_tool().schema(api, strict=strict) == schema


def test_a_schema_is_for_chat_completions_unless_another_api_is_named(quiet: Any) -> None:
    schema = quiet.to_openai_function()
    assert schema == quiet.search_memory_tool().schema() == quiet.to_openai_function(api="chat")
    assert set(schema) == {"type", "function"}
    assert schema["type"] == "function"
    function = schema["function"]
    assert set(function) == {"name", "description", "parameters"}
    assert function["name"] == "search_memory"
    assert "caller" in function["description"]
    parameters = function["parameters"]
    assert (parameters["type"], parameters["required"]) == ("object", ["query"])
    assert {name: each["type"] for name, each in parameters["properties"].items()} == {
        "query": "string",
        "intent": "string",
    }
    assert parameters["properties"]["intent"]["enum"] == INTENTS


def test_responses_take_the_same_function_flat_and_are_told_whether_it_is_strict(quiet: Any) -> None:
    function = quiet.to_openai_function()["function"]
    assert quiet.to_openai_function(api="responses") == {"type": "function", **function, "strict": False}
    strict = quiet.to_openai_function(api="responses", strict=True)
    assert strict["strict"] is True
    assert strict["parameters"]["required"] == ["query", "intent"]


def test_a_strict_schema_is_what_the_library_itself_makes_of_such_a_tool(quiet: Any) -> None:
    Intent = Enum("Intent", {name: name for name in INTENTS})  # type: ignore[misc]  # noqa: N806

    class SearchMemory(BaseModel):
        query: str
        intent: Intent  # type: ignore[valid-type]

    theirs: Any = pydantic_function_tool(SearchMemory)["function"]
    ours = quiet.to_openai_function(strict=True)["function"]
    assert ours["strict"] is theirs["strict"] is True
    for name in ("type", "required", "additionalProperties"):
        assert ours["parameters"][name] == theirs["parameters"][name]


@pytest.mark.parametrize("api", ["completions", "", None, 7, "Chat"])
def test_an_api_that_is_not_known_is_refused_by_name(quiet: Any, api: Any) -> None:
    for ask in (quiet.to_openai_function, quiet.search_memory_tool().schema):
        with pytest.raises(ValueError, match=r"^api must be one of chat, responses$"):
            ask(api)
        with pytest.raises(TypeError, match=r"^strict must be True or False, not str$"):
            ask(strict="yes")


def test_a_schema_that_one_user_changes_is_not_the_next_ones(quiet: Any) -> None:
    quiet.to_openai_function()["function"]["parameters"]["properties"]["intent"]["enum"].clear()
    assert quiet.to_openai_function()["function"]["parameters"]["properties"]["intent"]["enum"] == INTENTS


@pytest.mark.parametrize("strict", [False, True])
def test_a_chat_model_calls_the_tool_and_is_told_what_was_found(
    memory: MemoAirVoiceMemorySync, model_server: ModelServer, strict: bool
) -> None:
    tool = memory.search_memory_tool(search_memory_timeout_ms=PATIENT_MS)
    messages: list[Any] = [{"role": "user", "content": "Which colour?"}]
    with OpenAI(api_key="none", base_url=model_server.url, max_retries=0) as client:
        # The library's parse() takes strict tools only, and checks them.
        ask = client.chat.completions.parse if strict else client.chat.completions.create
        told: Any = ask(model="m", messages=messages, tools=[tool.schema(strict=strict)])
        [call] = told.choices[0].message.tool_calls
        assert call.function.name == tool.name
        found = tool(**json.loads(call.function.arguments))
        messages += [
            told.choices[0].message.model_dump(exclude_none=True, exclude={"parsed"}),
            {"role": "tool", "tool_call_id": call.id, "content": found},
        ]
        said: Any = ask(model="m", messages=messages, tools=[tool.schema(strict=strict)])

    assert said.choices[0].message.content == SPOKEN
    assert model_server.asked[0]["tools"] == [memory.to_openai_function(strict=strict)]
    assert "the boots are red" in model_server.asked[1]["messages"][-1]["content"]


def test_a_model_of_responses_calls_the_tool_and_is_told_what_was_found(
    new_talk: Callable[..., Any], model_server: ModelServer
) -> None:
    memory = new_talk(MemoAirVoiceMemory)
    tool = memory.search_memory_tool(search_memory_timeout_ms=PATIENT_MS)

    async def talk() -> Any:
        async with AsyncOpenAI(api_key="none", base_url=model_server.url, max_retries=0) as client:
            said: list[Any] = [{"role": "user", "content": "Which colour?"}]
            told = await client.responses.create(model="m", input=said, tools=[tool.schema("responses")])
            [call] = told.output
            found = await tool(**json.loads(call.arguments))
            said += [call.model_dump(exclude_none=True)]
            said += [{"type": "function_call_output", "call_id": call.call_id, "output": found}]
            return await client.responses.create(model="m", input=said, tools=[tool.schema("responses")])

    assert asyncio.run(talk()).output_text == SPOKEN
    assert model_server.asked[0]["tools"][0]["name"] == "search_memory"
    assert "the boots are red" in model_server.asked[1]["input"][-1]["output"]
