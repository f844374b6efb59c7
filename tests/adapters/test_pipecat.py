"""The tool in Pipecat: a pipeline with Pipecat's own OpenAI service, whose model calls the tool."""

import asyncio
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from adapters.conftest import delay_searches, measure_loop_stall_s
from adapters.model_server import ANSWER, ARGUMENTS, ModelServer
from support.clients import PATIENT_MS
from support.timing import least

if sys.version_info < (3, 11):
    pytest.skip("Pipecat 1.14 needs Python 3.11", allow_module_level=True)

with warnings.catch_warnings():  # import warnings of Pipecat and its dependencies
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


def call_handler(tool: dict[str, Any], arguments: dict[str, Any]) -> list[Any]:
    """Call a handler as Pipecat does for a model; return the results that it passes to the callback."""
    results: list[Any] = []

    async def result_callback(result: Any, *, properties: Any = None) -> None:
        results.append(result)

    async def handle() -> None:
        context: Any = LLMContext()
        unused: Any = None
        params = FunctionCallParams("search_memory", "call_1", arguments, unused, unused, context, result_callback)
        assert await tool["handler"](params) is None

    asyncio.run(handle())
    return results


def test_the_pipecat_tool_has_name_schema_and_handler(memory: Any) -> None:
    tool = memory.to_pipecat_tool()
    openai_function = memory.to_openai_function()["function"]

    assert set(tool) == {"name", "schema", "handler"}
    assert isinstance(tool["schema"], FunctionSchema)
    assert tool["name"] == tool["schema"].name == "search_memory"
    assert tool["schema"].description == openai_function["description"]
    assert tool["schema"].properties["intent"]["enum"] == INTENTS
    assert tool["schema"].required == ["query"]


def test_pipecats_adapters_accept_the_schema(memory: Any) -> None:
    tools = ToolsSchema(standard_tools=[memory.to_pipecat_tool()["schema"]])
    openai_function = memory.to_openai_function()["function"]

    [openai] = OpenAILLMAdapter().to_provider_tools_format(tools)
    assert openai["type"] == "function"
    assert openai["function"]["name"] == "search_memory"
    for name in ("type", "properties", "required"):
        assert openai["function"]["parameters"][name] == openai_function["parameters"][name]
    [flat] = OpenAIResponsesLLMAdapter().to_provider_tools_format(tools)
    assert flat["name"] == "search_memory"
    assert flat["parameters"]["properties"] == openai_function["parameters"]["properties"]


class _AnswerCollector(FrameProcessor):
    """Collects the model's answer, and reports when it has begun."""

    def __init__(self) -> None:
        super().__init__()
        self.answer = ""
        self.answered = asyncio.Event()

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        await super().process_frame(frame, direction)
        if isinstance(frame, LLMTextFrame):
            self.answer += frame.text
            self.answered.set()
        await self.push_frame(frame, direction)


async def converse(url: str, tool: dict[str, Any]) -> str:
    """Ask a model on a server about boots, with the tool; return its answer."""
    service = OpenAILLMService(api_key="none", base_url=url, settings=OpenAILLMService.Settings(model="m"))
    service.register_function(tool["name"], tool["handler"])
    messages: Any = [{"role": "user", "content": "What colour are my boots?"}]
    context = LLMContext(messages, tools=ToolsSchema(standard_tools=[tool["schema"]]))
    aggregators, collector = LLMContextAggregatorPair(context), _AnswerCollector()
    pipeline = Pipeline([aggregators.user(), service, collector, aggregators.assistant()])
    worker = PipelineWorker(pipeline, cancel_on_idle_timeout=False, enable_rtvi=False)
    runner = WorkerRunner(handle_sigint=False)
    await runner.add_workers(worker)
    running = asyncio.create_task(runner.run())
    await worker.queue_frame(LLMRunFrame())
    await asyncio.wait_for(collector.answered.wait(), 100)
    await worker.queue_frame(EndFrame())
    await running
    await service._client.close()  # Pipecat does not close it
    return collector.answer


def test_in_a_pipeline_the_model_calls_the_tool_and_gets_the_result(memory: Any, model_server: ModelServer) -> None:
    tool = memory.to_pipecat_tool(search_memory_timeout_ms=PATIENT_MS)
    assert asyncio.run(converse(f"{model_server.url}/v1", tool)) == ANSWER

    [first, second] = model_server.requests
    assert first["tools"][0]["function"]["name"] == "search_memory"
    [result] = [message for message in second["messages"] if message["role"] == "tool"]
    assert "the boots are red" in result["content"]


def test_the_handler_passes_the_result_to_the_callback_once(memory: Any) -> None:
    [found] = call_handler(memory.to_pipecat_tool(search_memory_timeout_ms=PATIENT_MS), ARGUMENTS)
    assert "the boots are red" in found


@pytest.mark.parametrize("arguments", [{}, {"query": None, "intent": None}, {"query": 42, "intent": ["x"]}], ids=str)
def test_the_handler_calls_back_even_for_invalid_arguments(memory: Any, arguments: dict[str, Any]) -> None:
    [found] = call_handler(memory.to_pipecat_tool(search_memory_timeout_ms=PATIENT_MS), arguments)
    assert isinstance(found, str)


@pytest.mark.parametrize("arguments", [{"query": "boots"}, {}], ids=str)
def test_a_failing_memory_does_not_fail_the_turn(memory: Any, arguments: dict[str, Any]) -> None:
    tool = memory.to_pipecat_tool()
    getattr(memory, "_sync", memory).close()
    assert call_handler(tool, arguments) == [""]


def test_the_event_loop_keeps_running_during_a_search(new_memory: Callable[..., Any]) -> None:
    memory = new_memory()
    delay_searches(memory, lambda: time.sleep(0.5))
    handler = memory.to_pipecat_tool(search_memory_timeout_ms=PATIENT_MS)["handler"]
    results: list[str] = []

    async def result_callback(result: str, *, properties: Any = None) -> None:
        results.append(result)

    async def search() -> None:
        unused: Any = None
        params = FunctionCallParams("search_memory", "call_1", ARGUMENTS, unused, unused, LLMContext(), result_callback)
        await handler(params)

    assert least(lambda: asyncio.run(measure_loop_stall_s(search)), 0.4) < 0.4, "the event loop stalled"
    assert results
    assert all("the boots are red" in result for result in results)


def test_an_older_pipecat_with_the_former_schema_module_works(
    new_memory: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, "pipecat.adapters.schemas.function_schema", raising=False)
    with pytest.warns(DeprecationWarning, match="1.14.0"):  # the former module is deprecated
        import pipecat.adapters.schemas.function_schema
    monkeypatch.setitem(sys.modules, "pipecat.adapters.llm.schemas.function_schema", None)
    tool = new_memory().to_pipecat_tool()
    assert isinstance(tool["schema"], pipecat.adapters.schemas.function_schema.FunctionSchema)


def test_the_code_in_the_documentation_works(new_memory: Callable[..., Any]) -> None:
    page = (Path(__file__).parents[2] / "docs" / "tools.md").read_text(encoding="utf-8")
    section = page.partition("## Pipecat")[2].partition("## ")[0]
    code_lines = [line[4:] for line in section.splitlines() if line.startswith("    ")]
    llm = OpenAILLMService(api_key="none", settings=OpenAILLMService.Settings(model="m"))
    namespace: dict[str, Any] = {"memory": new_memory(), "llm": llm, "messages": []}
    exec("\n".join(code_lines), {"LLMContext": LLMContext, "ToolsSchema": ToolsSchema}, namespace)

    assert llm.has_function("search_memory")
    assert [tool.name for tool in namespace["context"].tools.standard_tools] == ["search_memory"]
    asyncio.run(llm._client.close())
