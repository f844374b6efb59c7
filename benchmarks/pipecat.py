"""Overhead of memory in a Pipecat pipeline: on a turn, on any other frame, and on the event loop of many calls.

Two pipelines, one with and one without memory, alternate in the same process. A turn is timed from the caller's words
in the pipeline to the request to the language model; other frames only pass through. Then many pipelines run at once,
each a call with a turn every half second, and each step of the event loop is timed: by the clock, and by the processor
time of its thread, which a busy machine does not lengthen.
"""

import sys

sys.path.append(sys.path.pop(0))  # otherwise `import pipecat` would find this file

import argparse
import asyncio
import gc
import json
import logging
import statistics
import tempfile
import time
from asyncio.events import Handle
from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

from loguru import logger
from pipecat.frames.frames import (
    EndFrame,
    Frame,
    InputAudioRawFrame,
    LLMContextFrame,
    LLMFullResponseEndFrame,
    LLMFullResponseStartFrame,
    LLMMessagesAppendFrame,
    LLMTextFrame,
)
from pipecat.pipeline.pipeline import Pipeline
from pipecat.pipeline.worker import PipelineWorker
from pipecat.processors.aggregators.llm_context import LLMContext
from pipecat.processors.aggregators.llm_response_universal import LLMContextAggregatorPair, LLMUserAggregatorParams
from pipecat.processors.frame_processor import FrameDirection, FrameProcessor
from pipecat.services.llm_service import LLMService
from pipecat.turns.user_turn_strategies import ExternalUserTurnStrategies
from pipecat.workers.runner import WorkerRunner
from rich.console import Console
from rich.table import Table
from workload import Speech, write_documents

from memoair_voice import MemoAirVoiceClient

sys.path.insert(0, str(Path(__file__).parents[1] / "integrations" / "pipecat"))

from memoair_pipecat import MemoAirMemoryProcessor

_PORTS = (22_000, 23_999)
_TIMEOUT_S = 30.0
_LONG_STEP_MS = 10.0
_PAUSE_S = 0.05


def main() -> int:
    """Run the benchmark and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--documents", type=int, default=10_000, help="documents of the organization (%(default)s)")
    parser.add_argument("--items", type=int, default=200, help="turns of earlier calls (%(default)s)")
    parser.add_argument("--turns", type=int, default=200, help="turns with and without memory (%(default)s)")
    parser.add_argument("--frames", type=int, default=5_000, help="other frames with and without memory (%(default)s)")
    parser.add_argument("--calls", type=int, default=32, help="concurrent calls (%(default)s)")
    parser.add_argument(
        "--seconds", type=float, default=10, help="duration of the calls, with and without memory (%(default)s)"
    )
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    arguments = parser.parse_args()
    logger.remove()  # Pipecat logs every frame, and printing is not measured
    logging.disable(logging.INFO)
    with tempfile.TemporaryDirectory(prefix="memoair-pipecat-") as folder:
        result = asyncio.run(_measure(Path(folder), arguments))
    if arguments.json:
        print(json.dumps(result))
    else:
        _print(result)
    return 0


async def _measure(folder: Path, arguments: argparse.Namespace) -> dict[str, float]:
    speech, org_file = Speech(), folder / "org.jsonl"
    write_documents(org_file, speech, arguments.documents)
    client = MemoAirVoiceClient(
        api_key="memoair_pk_bench",
        project_id="proj_bench",
        agent_id="agent_bench",
        cloud_base_url=None,
        storage_root=str(folder / "storage"),
        org_file=str(org_file),
        runtime_port_range=_PORTS,
        max_concurrent_users=arguments.calls + 1,
    )
    async with client:
        await client.load_index(user_id="caller", timeout_s=120)  # indexes the documents for all users
        for number in range(arguments.items):
            words = {"user_text": speech.sentence(15), "assistant_text": speech.sentence(15)}
            await client.save_response(user_id="caller", turn_id=f"{number}", **words)
        return {
            **await _measure_turns(client, speech, arguments.turns),
            **await _measure_frames(client, arguments.frames),
            **await _measure_many_calls(client, speech, arguments.calls, arguments.seconds),
        }


async def _measure_turns(client: MemoAirVoiceClient, speech: Speech, count: int) -> dict[str, float]:
    """Measure turns with memory, turns without, and searches alone, alternately."""
    times: dict[bool, list[float]] = {True: [], False: []}
    searches: list[float] = []
    async with _PipelineCall(_make_processor(client, "caller")) as with_memory, _PipelineCall(None) as without:
        for number in range(count + 20):
            words = speech.sentence(8)
            for call in (with_memory, without):
                await asyncio.sleep(_PAUSE_S)  # no caller speaks again before the previous turn is saved
                took_ms = await call.say(words)
                if number >= 20:
                    times[call is with_memory].append(took_ms)
            await asyncio.sleep(_PAUSE_S)
            began_at = time.perf_counter()
            await client.search_memory(words, user_id="caller", timeout_ms=2_000)
            if number >= 20:
                searches.append((time.perf_counter() - began_at) * 1e3)
        recalled = with_memory.llm.recalled
    assert recalled > count * 0.9, f"only {recalled} of {count} turns recalled anything"
    return {
        "turnMs": statistics.median(times[True]),
        "turnP99Ms": _p99(times[True]),
        "bareTurnMs": statistics.median(times[False]),
        "bareTurnP99Ms": _p99(times[False]),
        "searchMs": statistics.median(searches),
        "searchP99Ms": _p99(searches),
        "addedMs": statistics.median(times[True]) - statistics.median(times[False]),
        "addedP99Ms": _p99(times[True]) - _p99(times[False]),
    }


async def _measure_frames(client: MemoAirVoiceClient, count: int) -> dict[str, float]:
    """Measure how long an audio frame takes to the model, with memory and without."""
    times: dict[bool, list[float]] = {True: [], False: []}
    async with _PipelineCall(_make_processor(client, "caller")) as with_memory, _PipelineCall(None) as without:
        for _ in range(count):
            for call in (with_memory, without):
                times[call is with_memory].append(await call.send_audio())
    return {"frameUs": statistics.median(times[True]) * 1e3, "bareFrameUs": statistics.median(times[False]) * 1e3}


async def _measure_many_calls(
    client: MemoAirVoiceClient, speech: Speech, count: int, seconds: float
) -> dict[str, float]:
    """Measure the steps of an event loop that many calls share, with memory and without."""
    result: dict[str, float] = {"calls": count}
    for name, has_memory in (("bare", False), ("memory", True)):
        async with AsyncExitStack() as stack:
            calls = [
                await stack.enter_async_context(
                    _PipelineCall(_make_processor(client, f"caller-{number}") if has_memory else None)
                )
                for number in range(count)
            ]
            if has_memory:
                for number in range(count):
                    await client.load_index(user_id=f"caller-{number}", timeout_s=60)
            gc.collect()
            gc.freeze()  # otherwise the longest step would be a collection over everything that Pipecat has imported
            with _time_steps() as steps:
                until = time.monotonic() + seconds
                times = await asyncio.gather(
                    *(_run_call(call, speech, at / count / 2, until) for at, call in enumerate(calls))
                )
        wall, processor = [step[0] for step in steps], [step[1] for step in steps]
        turns = [time_ms for call_times in times for time_ms in call_times]
        result |= {
            f"{name}ManyTurns": len(turns),
            f"{name}ManyTurnMs": statistics.median(turns),
            f"{name}ManyTurnP99Ms": _p99(turns),
            f"{name}StepMaxMs": max(wall),
            f"{name}StepMaxCpuMs": max(processor),
            f"{name}LongSteps": sum(time_ms > _LONG_STEP_MS for time_ms in wall),
            f"{name}LongStepsCpu": sum(time_ms > _LONG_STEP_MS for time_ms in processor),
        }
    return result


async def _run_call(call: "_PipelineCall", speech: Speech, first_s: float, until: float) -> list[float]:
    times = []
    await asyncio.sleep(first_s)
    while time.monotonic() < until:
        times.append(await call.say(speech.sentence(8)))
        await asyncio.sleep(0.5)
    return times


@contextmanager
def _time_steps() -> Iterator[list[tuple[float, float]]]:
    """Time each step of the event loop, in milliseconds of the clock and of the thread's processor time."""
    steps: list[tuple[float, float]] = []
    run = Handle._run  # type: ignore[attr-defined] # noqa: SLF001 - the loop has no public hook

    def timed(handle: Handle) -> None:
        began_at, used = time.perf_counter(), time.thread_time()
        run(handle)
        steps.append(((time.perf_counter() - began_at) * 1e3, (time.thread_time() - used) * 1e3))

    Handle._run = timed  # type: ignore[attr-defined] # noqa: SLF001
    try:
        yield steps
    finally:
        Handle._run = run  # type: ignore[attr-defined] # noqa: SLF001


class _InstantModel(LLMService[Any]):
    """A language model that answers at once, and records when it is asked."""

    def __init__(self) -> None:
        super().__init__()
        self.reached = asyncio.Event()
        self.recalled = 0

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        await super().process_frame(frame, direction)
        if isinstance(frame, InputAudioRawFrame):
            self.reached.set()
        elif isinstance(frame, LLMContextFrame):
            self.reached.set()
            messages = frame.context.get_messages()
            self.recalled += any("<memory>" in str(message) for message in messages)
            await self.push_frame(LLMFullResponseStartFrame())
            await self.push_frame(LLMTextFrame("Thirty days."))
            await self.push_frame(LLMFullResponseEndFrame())
        else:
            await self.push_frame(frame, direction)


class _PipelineCall:
    """A call through its own pipeline."""

    def __init__(self, memory: FrameProcessor | None) -> None:
        turns = LLMUserAggregatorParams(user_turn_strategies=ExternalUserTurnStrategies())
        user, assistant = LLMContextAggregatorPair(
            LLMContext([{"role": "system", "content": "You sell boots."}]), user_params=turns
        )
        self.llm = _InstantModel()
        self._answered = asyncio.Event()
        assistant.add_event_handler("on_assistant_turn_stopped", lambda *_: self._answered.set())
        steps = [user, memory, self.llm, assistant]
        self._worker = PipelineWorker(
            Pipeline([step for step in steps if step is not None]), cancel_on_idle_timeout=False, enable_rtvi=False
        )
        self._started = asyncio.Event()
        self._worker.add_event_handler("on_pipeline_started", lambda *_: self._started.set())

    async def __aenter__(self) -> "_PipelineCall":  # noqa: PYI034 - private
        runner = WorkerRunner(handle_sigint=False)
        await runner.add_workers(self._worker)
        self._running = asyncio.create_task(runner.run())
        await asyncio.wait_for(self._started.wait(), _TIMEOUT_S)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._worker.queue_frame(EndFrame())
        await asyncio.wait_for(self._running, _TIMEOUT_S)

    async def say(self, words: str) -> float:
        """Say something, wait for the answer, and return the milliseconds until the model was asked."""
        self._answered.clear()
        message = LLMMessagesAppendFrame([{"role": "user", "content": words}], run_llm=True)
        took_ms = await self._time_until_reached(message)
        await asyncio.wait_for(self._answered.wait(), _TIMEOUT_S)
        return took_ms

    async def send_audio(self) -> float:
        """Send an audio frame, and return the milliseconds until it reached the model."""
        return await self._time_until_reached(InputAudioRawFrame(b"\0" * 640, 16_000, 1))

    async def _time_until_reached(self, frame: Frame) -> float:
        self.llm.reached.clear()
        began_at = time.perf_counter()
        await self._worker.queue_frame(frame)
        await self.llm.reached.wait()
        return (time.perf_counter() - began_at) * 1e3


def _make_processor(client: MemoAirVoiceClient, user_id: str) -> MemoAirMemoryProcessor:
    return MemoAirMemoryProcessor(client=client, user_id=user_id, timeout_ms=2_000)


def _p99(times: list[float]) -> float:
    return sorted(times)[int(len(times) * 0.99)]


def _print(result: dict[str, float]) -> None:
    table = Table("", "with memory", "without", "added")
    rows = (("turn, median ms", "turnMs", "bareTurnMs"), ("turn, p99 ms", "turnP99Ms", "bareTurnP99Ms"))
    for title, name, bare in (*rows, ("another frame, median \u00b5s", "frameUs", "bareFrameUs")):
        table.add_row(title, f"{result[name]:.2f}", f"{result[bare]:.2f}", f"{result[name] - result[bare]:.2f}")
    table.add_row(
        "of which the client's search, median and p99 ms",
        "",
        "",
        f"{result['searchMs']:.2f}, {result['searchP99Ms']:.2f}",
    )
    for title, name in (
        ("turns", "ManyTurns"),
        ("turn, median ms", "ManyTurnMs"),
        ("turn, p99 ms", "ManyTurnP99Ms"),
        ("longest step of the loop, ms", "StepMaxMs"),
        ("... by processor time, ms", "StepMaxCpuMs"),
        ("steps over 10 ms", "LongSteps"),
        ("... by processor time", "LongStepsCpu"),
    ):
        values = result[f"memory{name}"], result[f"bare{name}"]
        table.add_row(f"{result['calls']} calls at once: {title}", *(f"{value:.2f}" for value in values), "")
    Console().print(table)


if __name__ == "__main__":
    sys.exit(main())
