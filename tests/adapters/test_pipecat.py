"""The tool in Pipecat: a pipeline with Pipecat's own OpenAI service, whose model calls it."""

import asyncio
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from adapters.conftest import longest_stop_s, pause
from adapters.model_server import ARGUMENTS, SPOKEN, ModelServer
from support.clients import PATIENT_MS
from support.timing import least

if sys.version_info < (3, 11):
    pytest.skip("Pipecat 1.14 needs Python 3.11", allow_module_level=True)

with warnings.catch_warnings():  # what Pipecat and its dependencies warn of when they are imported is not ours
    warnings.simplefilter("ignore")
    from pipecat.adapters.llm.schemas.function_schema import FunctionSchema
    from pipecat.adapters.llm.schemas.tools_schema import ToolsSchema
    from pipecat.adapters.llm.services.open_ai_adapter import OpenAILLMAdapter
    from pipecat.adapters.llm.services.open_ai_responses_adapter import OpenAIResponsesLLMAdapter
    from pipecat.frames.frames import EndFrame, Frame, LLMRunFrame, LLMTextFrame
    from pipecat.pipeline.pipeline import Pipeline
    from pipecat.pipeline.worker import PipelineWorker
    from pipecat.processors.aggregators.llm_context import LLMContext
    from pipecat.processors.aggregators.llm_response_universal import LLMContextAggregatorPair
    from pipecat.processors.frame_processor import FrameDirection, FrameProcessor
    from pipecat.services.llm_service import FunctionCallParams
    from pipecat.services.openai.llm import OpenAILLMService
    from pipecat.workers.runner import WorkerRunner

INTENTS = ["answer_current_user", "summarise_recent", "earlier_in_call", "fallback"]


def call(tool: dict[str, Any], arguments: dict[str, Any]) -> list[Any]:
    """Call a handler as Pipecat does for a model, and return what it calls back with."""
    results: list[Any] = []

    async def called_back(result: Any, *, properties: Any = None) -> None:
        results.append(result)

    async def handle() -> None:
        context: Any = LLMContext()
        nobody: Any = None
        params = FunctionCallParams("search_memory", "call_1", arguments, nobody, nobody, context, called_back)
        assert await tool["handler"](params) is None

    asyncio.run(handle())
    return results


def test_pipecat_is_given_name_schema_and_handler(talk: Any) -> None:
    tool = talk.to_pipecat_tool()
    ours = talk.to_openai_function()["function"]

    assert set(tool) == {"name", "schema", "handler"}
    assert isinstance(tool["schema"], FunctionSchema)
    assert tool["name"] == tool["schema"].name == "search_memory"
    assert tool["schema"].description == ours["description"]
    assert tool["schema"].properties["intent"]["enum"] == INTENTS
    assert tool["schema"].required == ["query"]


def test_the_schema_goes_through_pipecats_adapters(talk: Any) -> None:
    tools = ToolsSchema(standard_tools=[talk.to_pipecat_tool()["schema"]])
    ours = talk.to_openai_function()["function"]

    [openai] = OpenAILLMAdapter().to_provider_tools_format(tools)
    assert openai["type"] == "function"
    assert openai["function"]["name"] == "search_memory"
    for name in ("type", "properties", "required"):
        assert openai["function"]["parameters"][name] == ours["parameters"][name]
    [flat] = OpenAIResponsesLLMAdapter().to_provider_tools_format(tools)
    assert flat["name"] == "search_memory"
    assert flat["parameters"]["properties"] == ours["parameters"]["properties"]


class _Ear(FrameProcessor):
    """Hears what the model says, and ends the pipeline after it."""

    def __init__(self) -> None:
        super().__init__()
        self.heard = ""
        self.has_heard = asyncio.Event()

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        await super().process_frame(frame, direction)
        if isinstance(frame, LLMTextFrame):
            self.heard += frame.text
            self.has_heard.set()
        await self.push_frame(frame, direction)


async def converse(url: str, tool: dict[str, Any]) -> str:
    """Let a model on a server speak with a caller who asks for his boots, and return what it says."""
    service = OpenAILLMService(api_key="none", base_url=url, settings=OpenAILLMService.Settings(model="m"))
    service.register_function(tool["name"], tool["handler"])
    asked: Any = [{"role": "user", "content": "What colour are my boots?"}]
    context = LLMContext(asked, tools=ToolsSchema(standard_tools=[tool["schema"]]))
    aggregators, ear = LLMContextAggregatorPair(context), _Ear()
    pipeline = Pipeline([aggregators.user(), service, ear, aggregators.assistant()])
    worker = PipelineWorker(pipeline, cancel_on_idle_timeout=False, enable_rtvi=False)
    runner = WorkerRunner(handle_sigint=False)
    await runner.add_workers(worker)
    running = asyncio.create_task(runner.run())
    await worker.queue_frame(LLMRunFrame())
    await asyncio.wait_for(ear.has_heard.wait(), 100)
    await worker.queue_frame(EndFrame())
    await running
    await service._client.close()  # Pipecat leaves it open
    return ear.heard


def test_in_a_pipeline_the_model_calls_the_tool_and_is_told_what_was_found(
    talk: Any, model_server: ModelServer
) -> None:
    tool = talk.to_pipecat_tool(search_memory_timeout_ms=PATIENT_MS)
    assert asyncio.run(converse(model_server.url, tool)) == SPOKEN

    [first, second] = model_server.asked
    assert first["tools"][0]["function"]["name"] == "search_memory"
    [result] = [each for each in second["messages"] if each["role"] == "tool"]
    assert "the boots are red" in result["content"]


def test_the_handler_calls_back_once_with_what_was_found(talk: Any) -> None:
    [found] = call(talk.to_pipecat_tool(search_memory_timeout_ms=PATIENT_MS), ARGUMENTS)
    assert "the boots are red" in found


@pytest.mark.parametrize("arguments", [{}, {"query": None, "intent": None}, {"query": 42, "intent": ["x"]}], ids=str)
def test_what_a_model_writes_is_searched_for_or_nothing_is_and_the_handler_still_calls_back(
    talk: Any, arguments: dict[str, Any]
) -> None:
    [found] = call(talk.to_pipecat_tool(search_memory_timeout_ms=PATIENT_MS), arguments)
    assert isinstance(found, str)


@pytest.mark.parametrize("arguments", [{"query": "boots"}, {}], ids=str)
def test_a_memory_that_fails_does_not_fail_the_turn(talk: Any, arguments: dict[str, Any]) -> None:
    tool = talk.to_pipecat_tool()
    getattr(talk, "_sync", talk).close()
    assert call(tool, arguments) == [""]


def test_the_event_loop_goes_on_while_the_handler_searches(new_talk: Callable[..., Any]) -> None:
    memory = new_talk()
    pause(memory, lambda: time.sleep(0.5))
    handler = memory.to_pipecat_tool(search_memory_timeout_ms=PATIENT_MS)["handler"]
    results: list[str] = []

    async def called_back(result: str, *, properties: Any = None) -> None:
        results.append(result)

    async def search() -> None:
        nobody: Any = None
        params = FunctionCallParams("search_memory", "call_1", ARGUMENTS, nobody, nobody, LLMContext(), called_back)
        await handler(params)

    assert least(lambda: asyncio.run(longest_stop_s(search)), 0.4) < 0.4, "the loop stood still"
    assert results
    assert all("the boots are red" in result for result in results)


def test_a_pipecat_that_has_not_moved_its_schemas_yet_is_served(
    new_talk: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, "pipecat.adapters.schemas.function_schema", raising=False)
    with pytest.warns(DeprecationWarning, match="1.14.0"):  # that the old place is an old one
        import pipecat.adapters.schemas.function_schema
    monkeypatch.setitem(sys.modules, "pipecat.adapters.llm.schemas.function_schema", None)
    tool = new_talk().to_pipecat_tool()
    assert isinstance(tool["schema"], pipecat.adapters.schemas.function_schema.FunctionSchema)


def test_the_code_that_the_documents_show_works(new_talk: Callable[..., Any]) -> None:
    page = (Path(__file__).parents[2] / "docs" / "tools.md").read_text(encoding="utf-8")
    section = page.partition("## Pipecat")[2].partition("## ")[0]
    shown = [line[4:] for line in section.splitlines() if line.startswith("    ")]
    llm = OpenAILLMService(api_key="none", settings=OpenAILLMService.Settings(model="m"))
    names: dict[str, Any] = {"memory": new_talk(), "llm": llm, "messages": []}
    exec("\n".join(shown), {"LLMContext": LLMContext, "ToolsSchema": ToolsSchema}, names)

    assert llm.has_function("search_memory")
    assert [tool.name for tool in names["context"].tools.standard_tools] == ["search_memory"]
    asyncio.run(llm._client.close())
