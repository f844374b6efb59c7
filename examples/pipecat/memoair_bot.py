"""A Pipecat bot with memory that works by typing: each line of the input is a turn of the caller.

It uses any server with OpenAI's API: set OPENAI_API_KEY, or OPENAI_BASE_URL for a server of your own. The memory needs
no key, no cloud and no network. The second run remembers the first. For a voice bot, add the parts that hear and speak
to the pipeline:

    Pipeline([transport.input(), stt, user, memory, llm, tts, transport.output(), assistant])
"""

import asyncio
import os
import sys

from memoair_pipecat import MemoAirMemoryProcessor
from pipecat.frames.frames import EndFrame, LLMMessagesAppendFrame
from pipecat.pipeline.pipeline import Pipeline
from pipecat.pipeline.worker import PipelineWorker
from pipecat.processors.aggregators.llm_context import LLMContext
from pipecat.processors.aggregators.llm_response_universal import AssistantTurnStoppedMessage, LLMContextAggregatorPair
from pipecat.services.openai.llm import OpenAILLMService
from pipecat.workers.runner import WorkerRunner

# Used where the environment sets nothing else: a project on this machine only, and a fixed caller.
DEFAULTS = {
    "MEMOAIR_API_KEY": "memoair_pk_local",
    "MEMOAIR_PROJECT_ID": "proj_acme",
    "MEMOAIR_AGENT_ID": "agent_returns",
    "MEMOAIR_USER_ID": "caller_42",
    "MEMOAIR_BASE_URL": "",
}


async def main() -> None:
    """Answer each line of the input until it ends."""
    context = LLMContext([{"role": "system", "content": "You are Juno, and sell boots. Answer in one sentence."}])
    user, assistant = LLMContextAggregatorPair(context)
    llm = OpenAILLMService(
        api_key=os.environ.get("OPENAI_API_KEY", "none"),
        base_url=os.environ.get("OPENAI_BASE_URL"),
        settings=OpenAILLMService.Settings(model=os.environ.get("OPENAI_MODEL", "gpt-4.1-mini")),
    )
    memory = MemoAirMemoryProcessor.from_env({**DEFAULTS, **os.environ}, timeout_ms=5_000)  # someone who types can wait
    worker = PipelineWorker(Pipeline([user, memory, llm, assistant]))

    answer_shown = asyncio.Event()

    @assistant.event_handler("on_assistant_turn_stopped")
    async def show(_: object, message: AssistantTurnStoppedMessage) -> None:
        print("Juno:", message.content, flush=True)
        answer_shown.set()

    async def converse() -> None:
        while line := await asyncio.to_thread(sys.stdin.readline):
            answer_shown.clear()
            said = {"role": "user", "content": line.strip()}
            await worker.queue_frame(LLMMessagesAppendFrame(messages=[said], run_llm=True))
            await answer_shown.wait()
        await worker.queue_frame(EndFrame())  # the remaining turns are saved before run() returns

    runner = WorkerRunner()
    await runner.add_workers(worker)
    await asyncio.gather(runner.run(), converse())


if __name__ == "__main__":
    asyncio.run(main())
