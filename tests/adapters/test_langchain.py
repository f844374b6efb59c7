"""The tool in LangChain and LangGraph, including a graph whose model calls it."""

import asyncio
import time
from collections.abc import Callable
from typing import Any

import pytest
from adapters.conftest import delay_searches, measure_loop_stall_s
from adapters.model_server import ANSWER, ARGUMENTS
from langchain_core.language_models import FakeMessagesListChatModel
from langchain_core.messages import AIMessage, HumanMessage, ToolMessage
from langchain_core.tools import StructuredTool, ToolException
from langchain_core.utils.function_calling import convert_to_openai_tool
from langgraph.graph import MessagesState, StateGraph
from langgraph.prebuilt import ToolNode, tools_condition
from pydantic import ValidationError
from support.clients import PATIENT_MS
from support.timing import least

INTENTS = ["answer_current_user", "summarise_recent", "earlier_in_call", "fallback"]
CALL = {"name": "search_memory", "args": ARGUMENTS, "id": "call_1", "type": "tool_call"}


class ToolCallingModel(FakeMessagesListChatModel):
    """LangChain's fake model, which also records the tools that it is offered."""

    offered: list[Any] = []

    def bind_tools(self, tools: Any, **_: Any) -> Any:
        self.offered += [convert_to_openai_tool(tool) for tool in tools]
        return self


def build_graph(model: ToolCallingModel, tool: StructuredTool) -> Any:
    """Return an agent: the model, its tools, and an edge back to the model."""
    bound = model.bind_tools([tool])

    def call_model(state: MessagesState) -> dict[str, Any]:
        return {"messages": [bound.invoke(state["messages"])]}

    graph = StateGraph(MessagesState)
    graph.add_node("model", call_model)
    graph.add_node("tools", ToolNode([tool]))
    graph.set_entry_point("model")
    graph.add_conditional_edges("model", tools_condition)
    graph.add_edge("tools", "model")
    return graph.compile()


def test_the_langchain_tool_has_name_description_and_all_intents(memory: Any) -> None:
    tool = memory.to_langchain_tool()
    openai_function = memory.to_openai_function()["function"]

    assert isinstance(tool, StructuredTool)
    assert (tool.name, tool.description) == ("search_memory", openai_function["description"])
    langchain_function = convert_to_openai_tool(tool)["function"]
    assert (langchain_function["name"], langchain_function["description"]) == (
        "search_memory",
        openai_function["description"],
    )
    assert langchain_function["parameters"]["required"] == ["query"]
    for name, property_ in openai_function["parameters"]["properties"].items():
        assert langchain_function["parameters"]["properties"][name]["description"] == property_["description"]
    assert langchain_function["parameters"]["properties"]["intent"]["enum"] == INTENTS


@pytest.mark.parametrize("is_awaited", [False, True])
def test_in_a_graph_the_model_calls_the_tool_and_gets_the_result(memory: Any, is_awaited: bool) -> None:
    model = ToolCallingModel(responses=[AIMessage("", tool_calls=[CALL]), AIMessage(ANSWER)], offered=[])
    agent = build_graph(model, memory.to_langchain_tool(search_memory_timeout_ms=PATIENT_MS))
    inputs = {"messages": [HumanMessage("What colour are my boots?")]}
    messages = (asyncio.run(agent.ainvoke(inputs)) if is_awaited else agent.invoke(inputs))["messages"]

    assert [type(message) for message in messages] == [HumanMessage, AIMessage, ToolMessage, AIMessage]
    assert (messages[2].name, messages[2].status) == ("search_memory", "success")
    assert "the boots are red" in messages[2].content
    assert messages[3].content == ANSWER
    assert [tool["function"]["name"] for tool in model.offered] == ["search_memory"]


def test_the_intent_is_optional(memory: Any) -> None:
    tool = memory.to_langchain_tool(search_memory_timeout_ms=PATIENT_MS)
    assert "the boots are red" in tool.invoke({"query": "boots"})
    assert "the boots are red" in asyncio.run(tool.ainvoke({"query": "boots"}))


@pytest.mark.parametrize("arguments", [{}, {"query": None}, {"query": "boots", "intent": "gossip"}], ids=str)
def test_invalid_arguments_return_an_error_without_a_search(
    new_memory: Callable[..., Any], arguments: dict[str, Any]
) -> None:
    memory = new_memory()
    memory.search_memory = None
    tool = memory.to_langchain_tool()
    with pytest.raises((ValidationError, ToolException)):
        tool.invoke(arguments)
    model = ToolCallingModel(
        responses=[AIMessage("", tool_calls=[{**CALL, "args": arguments}]), AIMessage(ANSWER)], offered=[]
    )
    result = build_graph(model, tool).invoke({"messages": [HumanMessage("Hi.")]})["messages"][2]
    assert result.status == "error"


def test_a_failing_memory_does_not_fail_the_turn(memory: Any) -> None:
    tool = memory.to_langchain_tool()
    getattr(memory, "_sync", memory).close()
    assert tool.invoke({"query": "boots"}) == ""
    assert asyncio.run(tool.ainvoke({"query": "boots"})) == ""


def test_the_event_loop_keeps_running_during_a_search(new_memory: Callable[..., Any]) -> None:
    memory = new_memory()
    delay_searches(memory, lambda: time.sleep(0.5))
    tool = memory.to_langchain_tool(search_memory_timeout_ms=PATIENT_MS)
    assert tool.coroutine is not None, "without a coroutine it would run in a thread pool shared with other code"

    async def search() -> None:
        assert "the boots are red" in await tool.ainvoke(ARGUMENTS)

    assert least(lambda: asyncio.run(measure_loop_stall_s(search)), 0.4) < 0.4, "the event loop stalled"
