"""The tool in LangChain and LangGraph: a graph whose model calls it."""

import asyncio
import time
from collections.abc import Callable
from typing import Any

import pytest
from adapters.conftest import longest_stop_s, pause
from adapters.model_server import ARGUMENTS, SPOKEN
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
    """LangChain's fake, which is offered tools as a real model is."""

    offered: list[Any] = []

    def bind_tools(self, tools: Any, **_: Any) -> Any:
        self.offered += [convert_to_openai_tool(tool) for tool in tools]
        return self


def graph(model: ToolCallingModel, tool: StructuredTool) -> Any:
    """An agent: the model, its tools, and back to it."""
    bound = model.bind_tools([tool])

    def speak(state: MessagesState) -> dict[str, Any]:
        return {"messages": [bound.invoke(state["messages"])]}

    drawn = StateGraph(MessagesState)
    drawn.add_node("model", speak)
    drawn.add_node("tools", ToolNode([tool]))
    drawn.set_entry_point("model")
    drawn.add_conditional_edges("model", tools_condition)
    drawn.add_edge("tools", "model")
    return drawn.compile()


def test_langchain_has_a_structured_tool_with_name_description_and_all_intents(talk: Any) -> None:
    tool = talk.to_langchain_tool()
    ours = talk.to_openai_function()["function"]

    assert isinstance(tool, StructuredTool)
    assert (tool.name, tool.description) == ("search_memory", ours["description"])
    theirs = convert_to_openai_tool(tool)["function"]
    assert (theirs["name"], theirs["description"]) == ("search_memory", ours["description"])
    assert theirs["parameters"]["required"] == ["query"]
    for name, each in ours["parameters"]["properties"].items():
        assert theirs["parameters"]["properties"][name]["description"] == each["description"]
    assert theirs["parameters"]["properties"]["intent"]["enum"] == INTENTS


@pytest.mark.parametrize("is_awaited", [False, True])
def test_in_a_graph_the_model_calls_the_tool_and_is_told_what_was_found(talk: Any, is_awaited: bool) -> None:
    model = ToolCallingModel(responses=[AIMessage("", tool_calls=[CALL]), AIMessage(SPOKEN)], offered=[])
    agent = graph(model, talk.to_langchain_tool(search_memory_timeout_ms=PATIENT_MS))
    asked = {"messages": [HumanMessage("What colour are my boots?")]}
    messages = (asyncio.run(agent.ainvoke(asked)) if is_awaited else agent.invoke(asked))["messages"]

    assert [type(each) for each in messages] == [HumanMessage, AIMessage, ToolMessage, AIMessage]
    assert (messages[2].name, messages[2].status) == ("search_memory", "success")
    assert "the boots are red" in messages[2].content
    assert messages[3].content == SPOKEN
    assert [each["function"]["name"] for each in model.offered] == ["search_memory"]


def test_a_model_need_not_name_an_intent(talk: Any) -> None:
    tool = talk.to_langchain_tool(search_memory_timeout_ms=PATIENT_MS)
    assert "the boots are red" in tool.invoke({"query": "boots"})
    assert "the boots are red" in asyncio.run(tool.ainvoke({"query": "boots"}))


@pytest.mark.parametrize("arguments", [{}, {"query": None}, {"query": "boots", "intent": "gossip"}], ids=str)
def test_a_model_that_asks_wrongly_is_told_so_and_the_memory_is_not_asked(
    new_talk: Callable[..., Any], arguments: dict[str, Any]
) -> None:
    talk = new_talk()
    talk.search_memory = None
    tool = talk.to_langchain_tool()
    with pytest.raises((ValidationError, ToolException)):
        tool.invoke(arguments)
    model = ToolCallingModel(
        responses=[AIMessage("", tool_calls=[{**CALL, "args": arguments}]), AIMessage(SPOKEN)], offered=[]
    )
    result = graph(model, tool).invoke({"messages": [HumanMessage("Hi.")]})["messages"][2]
    assert result.status == "error"


def test_a_memory_that_fails_does_not_fail_the_turn(talk: Any) -> None:
    tool = talk.to_langchain_tool()
    getattr(talk, "_sync", talk).close()
    assert tool.invoke({"query": "boots"}) == ""
    assert asyncio.run(tool.ainvoke({"query": "boots"})) == ""


def test_the_event_loop_goes_on_while_the_tool_searches(new_talk: Callable[..., Any]) -> None:
    memory = new_talk()
    pause(memory, lambda: time.sleep(0.5))
    tool = memory.to_langchain_tool(search_memory_timeout_ms=PATIENT_MS)
    assert tool.coroutine is not None, "else it would run in threads that it shares with strangers"

    async def search() -> None:
        assert "the boots are red" in await tool.ainvoke(ARGUMENTS)

    assert least(lambda: asyncio.run(longest_stop_s(search)), 0.4) < 0.4, "the loop stood still"
