"""The tool with the OpenAI client: its types, its parsing, and a model server on loopback."""

import asyncio
import json
from collections.abc import Callable
from enum import Enum
from typing import Any

import pytest
from adapters.model_server import ANSWER, ModelServer
from adapters.realtime_server import serve_realtime_model
from openai import AsyncOpenAI, OpenAI, pydantic_function_tool
from openai.types.chat import ChatCompletionFunctionToolParam
from openai.types.realtime import RealtimeFunctionToolParam
from openai.types.responses import FunctionToolParam
from pydantic import BaseModel, TypeAdapter
from support.clients import PATIENT_MS

from memoair_voice import MemoAirVoiceMemory
from memoair_voice_sync import MemoAirVoiceMemorySync

INTENTS = ["answer_current_user", "summarise_recent", "earlier_in_call", "fallback"]


@pytest.fixture
def memory(new_memory: Callable[..., Any]) -> MemoAirVoiceMemorySync:
    return new_memory()


@pytest.fixture(params=[MemoAirVoiceMemorySync, MemoAirVoiceMemory], ids=["sync", "async"])
def idle_memory(request: pytest.FixtureRequest) -> Any:
    """Return a memory of each class that only builds schemas and starts no runtime."""
    return request.param(project_id="proj_acme", user_id="caller_42", runtime_url="http://127.0.0.1:0")


@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize(
    ("api", "param_type"), [("chat", ChatCompletionFunctionToolParam), ("responses", FunctionToolParam)]
)
def test_a_schema_matches_the_type_of_the_openai_library(
    idle_memory: Any, api: Any, param_type: Any, strict: bool
) -> None:
    schema = idle_memory.to_openai_function(api, strict=strict)
    assert TypeAdapter(param_type).validate_python(schema) == schema, (
        "validation drops keys that the type does not know"
    )
    assert idle_memory.search_memory_tool().schema(api, strict=strict) == schema


def test_the_default_schema_is_for_chat_completions(idle_memory: Any) -> None:
    schema = idle_memory.to_openai_function()
    assert schema == idle_memory.search_memory_tool().schema() == idle_memory.to_openai_function(api="chat")
    assert set(schema) == {"type", "function"}
    assert schema["type"] == "function"
    function = schema["function"]
    assert set(function) == {"name", "description", "parameters"}
    assert function["name"] == "search_memory"
    assert "caller" in function["description"]
    parameters = function["parameters"]
    assert (parameters["type"], parameters["required"]) == ("object", ["query"])
    assert {name: property_["type"] for name, property_ in parameters["properties"].items()} == {
        "query": "string",
        "intent": "string",
    }
    assert parameters["properties"]["intent"]["enum"] == INTENTS


def test_the_responses_schema_is_flat_and_states_strict(idle_memory: Any) -> None:
    function = idle_memory.to_openai_function()["function"]
    assert idle_memory.to_openai_function(api="responses") == {"type": "function", **function, "strict": False}
    strict = idle_memory.to_openai_function(api="responses", strict=True)
    assert strict["strict"] is True
    assert strict["parameters"]["required"] == ["query", "intent"]


def test_the_realtime_schema_is_flat_and_has_no_strict(idle_memory: Any) -> None:
    schema = idle_memory.to_openai_function("realtime")
    assert schema == {"type": "function", **idle_memory.to_openai_function()["function"]}
    assert set(schema) == {"type", "name", "description", "parameters"}
    assert TypeAdapter(RealtimeFunctionToolParam).validate_python(schema) == schema
    assert idle_memory.search_memory_tool().schema("realtime") == schema
    for create in (idle_memory.to_openai_function, idle_memory.search_memory_tool().schema):
        with pytest.raises(ValueError, match=r"^strict is not available in the Realtime API$"):
            create("realtime", strict=True)


def test_a_strict_schema_equals_the_one_that_the_openai_library_builds(idle_memory: Any) -> None:
    Intent = Enum("Intent", {name: name for name in INTENTS})  # type: ignore[misc]  # noqa: N806

    class SearchMemory(BaseModel):
        query: str
        intent: Intent  # type: ignore[valid-type]

    openai_function: Any = pydantic_function_tool(SearchMemory)["function"]
    own_function = idle_memory.to_openai_function(strict=True)["function"]
    assert own_function["strict"] is openai_function["strict"] is True
    for name in ("type", "required", "additionalProperties"):
        assert own_function["parameters"][name] == openai_function["parameters"][name]


@pytest.mark.parametrize("api", ["completions", "", None, 7, "Chat"])
def test_an_unknown_api_is_rejected_and_the_error_names_the_choices(idle_memory: Any, api: Any) -> None:
    for create in (idle_memory.to_openai_function, idle_memory.search_memory_tool().schema):
        with pytest.raises(ValueError, match=r"^api must be one of chat, responses, realtime$"):
            create(api)
        with pytest.raises(TypeError, match=r"^strict must be True or False, not str$"):
            create(strict="yes")


def test_changing_a_returned_schema_does_not_change_the_next_one(idle_memory: Any) -> None:
    idle_memory.to_openai_function()["function"]["parameters"]["properties"]["intent"]["enum"].clear()
    assert idle_memory.to_openai_function()["function"]["parameters"]["properties"]["intent"]["enum"] == INTENTS


@pytest.mark.parametrize("strict", [False, True])
def test_a_chat_model_calls_the_tool_and_gets_the_result(
    memory: MemoAirVoiceMemorySync, model_server: ModelServer, strict: bool
) -> None:
    tool = memory.search_memory_tool(search_memory_timeout_ms=PATIENT_MS)
    messages: list[Any] = [{"role": "user", "content": "Which colour?"}]
    with OpenAI(api_key="none", base_url=f"{model_server.url}/v1", max_retries=0) as client:
        # The library's parse() accepts and validates strict tools only.
        create = client.chat.completions.parse if strict else client.chat.completions.create
        response: Any = create(model="m", messages=messages, tools=[tool.schema(strict=strict)])
        [call] = response.choices[0].message.tool_calls
        assert call.function.name == tool.name
        found = tool(**json.loads(call.function.arguments))
        messages += [
            response.choices[0].message.model_dump(exclude_none=True, exclude={"parsed"}),
            {"role": "tool", "tool_call_id": call.id, "content": found},
        ]
        answer: Any = create(model="m", messages=messages, tools=[tool.schema(strict=strict)])

    assert answer.choices[0].message.content == ANSWER
    assert model_server.requests[0]["tools"] == [memory.to_openai_function(strict=strict)]
    assert "the boots are red" in model_server.requests[1]["messages"][-1]["content"]


def test_a_responses_model_calls_the_tool_and_gets_the_result(
    new_memory: Callable[..., Any], model_server: ModelServer
) -> None:
    memory = new_memory(MemoAirVoiceMemory)
    tool = memory.search_memory_tool(search_memory_timeout_ms=PATIENT_MS)

    async def converse() -> Any:
        async with AsyncOpenAI(api_key="none", base_url=f"{model_server.url}/v1", max_retries=0) as client:
            messages: list[Any] = [{"role": "user", "content": "Which colour?"}]
            response = await client.responses.create(model="m", input=messages, tools=[tool.schema("responses")])
            [call] = response.output
            found = await tool(**json.loads(call.arguments))
            messages += [call.model_dump(exclude_none=True)]
            messages += [{"type": "function_call_output", "call_id": call.call_id, "output": found}]
            return await client.responses.create(model="m", input=messages, tools=[tool.schema("responses")])

    assert asyncio.run(converse()).output_text == ANSWER
    assert model_server.requests[0]["tools"][0]["name"] == "search_memory"
    assert "the boots are red" in model_server.requests[1]["input"][-1]["output"]


def test_a_realtime_model_calls_the_tool_and_gets_the_result(new_memory: Callable[..., Any]) -> None:
    tool = new_memory(MemoAirVoiceMemory).search_memory_tool(search_memory_timeout_ms=PATIENT_MS)

    async def converse() -> tuple[list[str], list[dict[str, Any]]]:
        events = []
        async with (
            serve_realtime_model() as (url, received),
            AsyncOpenAI(api_key="none", base_url=url) as client,
            client.realtime.connect(model="m") as connection,
        ):
            await connection.session.update(session={"type": "realtime", "tools": [tool.schema("realtime")]})
            async for event in connection:
                events.append(event.type)
                if event.type == "session.updated":
                    await connection.response.create()
                elif event.type == "response.function_call_arguments.done":
                    found = await tool(**json.loads(event.arguments))
                    output: Any = {"type": "function_call_output", "call_id": event.call_id, "output": found}
                    await connection.conversation.item.create(item=output)
                    await connection.response.create()
                else:
                    break
        return events, received

    events, received = asyncio.run(converse())
    assert events == ["session.updated", "response.function_call_arguments.done", "response.output_text.done"]
    [output] = [event["item"]["output"] for event in received if event["type"] == "conversation.item.create"]
    assert "the boots are red" in output
