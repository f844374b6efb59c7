"""Overhead of memory on a turn in LiveKit, compared with the same session without it; and 32 calls in one process.

The caller, the language model and the audio output are the fakes of the tests, which take no time; the session is
LiveKit's own. A turn is timed from the end of the caller's speech (or from `generate_reply`, if the caller types) until
the language model is asked. For the calls in one process, the callbacks of the event loop are timed in processor time
of its thread, which other processes do not affect.
"""

import argparse
import asyncio
import gc
import json
import math
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
# This file has the framework's name, so its folder must not be on the import path.
sys.path[0] = str(ROOT / "benchmarks" / "..")
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "integrations" / "livekit")]

from livekit.agents import Agent  # noqa: E402
from memoair_livekit import MemoAirLiveKitAgent  # noqa: E402
from support.livekit_calls import LiveKitCall, open_call, wait_until  # noqa: E402

from memoair_voice_sync import MemoAirVoiceClientSync  # noqa: E402

IDENTITY: dict[str, Any] = {"api_key": "bench", "project_id": "bench", "agent_id": "bench", "cloud_base_url": None}
PORTS = (21_000, 21_199)
THINGS = ("boots", "parcel", "invoice", "scarf", "umbrella", "ticket", "coat", "lamp")
COLORS = ("red", "blue", "green", "white", "black")

# LiveKit's default is at least 0.5 s.
ENDPOINTING_S = 0.1
# Between two turns: a turn is saved and indexed in the background, which takes some milliseconds.
PAUSE_S = 0.3
Turn = Callable[[LiveKitCall, str], Awaitable[float]]


def main() -> int:
    """Run the benchmark and print the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--turns", type=int, default=50, help="turns of each kind, with memory and without")
    parser.add_argument("--remembered", type=int, default=500, help="turns of earlier calls")
    parser.add_argument("--calls", type=int, default=32, help="concurrent calls in this process")
    parser.add_argument("--seconds", type=float, default=8.0, help="duration of the calls")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="memoair-livekit-") as folder:
        import_earlier_turns(folder, arguments.remembered)
        print(json.dumps(asyncio.run(measure_turns(folder, arguments.turns)), indent=1))
        print(json.dumps(asyncio.run(measure_many_calls(folder, arguments.calls, arguments.seconds)), indent=1))
    return 0


def make_sentence(number: int) -> str:
    """Return something that a caller may say."""
    return f"Where is my {COLORS[number % 5]} {THINGS[number % 8]} number {number}?"


def import_earlier_turns(folder: str, turns: int) -> None:
    """Import turns of an earlier call."""
    with MemoAirVoiceClientSync(**IDENTITY, storage_root=folder, runtime_port_range=PORTS) as client:
        spoken = [
            {"user_text": make_sentence(n), "assistant_text": f"It left on day {n}.", "turn_id": f"t{n}"}
            for n in range(turns)
        ]
        client.import_call("earlier", spoken, user={"id": "caller_0"})


def make_agent(folder: str, user_id: str) -> MemoAirLiveKitAgent:
    """Return an agent with memory."""
    return MemoAirLiveKitAgent(
        **IDENTITY, user_id=user_id, storage_root=folder, runtime_port_range=PORTS, instructions="Be kind."
    )


# One call


async def speak(call: LiveKitCall, text: str) -> float:
    """Say a turn; the last words are recognized a moment before the end of the turn is detected."""
    call.say_part(text)
    await asyncio.sleep(ENDPOINTING_S)
    began_at = time.perf_counter()
    call.end_turn()
    return began_at


async def type_text(call: LiveKitCall, text: str) -> float:
    """Type a turn."""
    began_at = time.perf_counter()
    call.session.generate_reply(user_input=text)
    return began_at


async def measure_turns(folder: str, turns: int) -> dict[str, Any]:
    """Measure turns with and without memory alternately, so that other load on the machine affects both."""
    result: dict[str, Any] = {}
    agent = make_agent(folder, "caller_0")
    async with open_call(agent) as remembering, open_call(Agent(instructions="Be kind.")) as plain:
        await agent.on_enter()
        for name, turn in (("spoken", speak), ("typed", type_text)):
            with_ms, without_ms = [], []
            for number in range(turns):
                with_ms.append(await measure_turn_ms(remembering, turn, number))
                without_ms.append(await measure_turn_ms(plain, turn, number))
            result[name] = {
                "with_memory_ms": summarize(with_ms),
                "without_ms": summarize(without_ms),
                "added_ms_median": round(statistics.median(with_ms) - statistics.median(without_ms), 2),
            }
        client = agent._memoair_memory._reference.client  # type: ignore[union-attr]  # noqa: SLF001 - search only
        searches_ms = []
        for number in range(turns):
            began_at = time.perf_counter()
            await client.search_memory(make_sentence(number), user={"id": "caller_0"})
            searches_ms.append((time.perf_counter() - began_at) * 1e3)
            await asyncio.sleep(PAUSE_S)
        result["search_alone_ms"] = summarize(searches_ms)
        result["requests_with_memory"] = sum("<memory>" in request[-2][1] for request in remembering.llm.requests)
    await agent.on_exit()
    agent = make_agent(folder, "caller_0")
    async with open_call(agent, preemptive=True) as early, open_call(Agent(instructions=""), preemptive=True) as plain:
        await agent.on_enter()
        result["early"] = {"with_memory": await measure_early_answers(early, turns // 4)}
        result["early"]["without"] = await measure_early_answers(plain, turns // 4)
    await agent.on_exit()
    return result


async def measure_turn_ms(call: LiveKitCall, turn: Turn, number: int) -> float:
    """Return the milliseconds from the end of the caller's turn until the language model is asked."""
    asked, answered = len(call.llm.requested_at), len(call.items("assistant"))
    began_at = await turn(call, make_sentence(number))
    await wait_until(lambda: len(call.items("assistant")) > answered)
    await asyncio.sleep(PAUSE_S)
    return (call.llm.requested_at[asked] - began_at) * 1e3


async def measure_early_answers(call: LiveKitCall, turns: int) -> dict[str, Any]:
    """Measure how long a confirmed turn waited for the memory, and how many preemptive answers were discarded."""
    for number in range(turns):
        asked, answered = len(call.llm.requests), len(call.items("assistant"))
        call.start_turn(make_sentence(number))
        await wait_until(lambda asked=asked: len(call.llm.requests) > asked)  # type: ignore[misc]
        call.end_turn(make_sentence(number))
        await wait_until(lambda answered=answered: len(call.items("assistant")) > answered)  # type: ignore[misc]
    waits = [message.metrics["on_user_turn_completed_delay"] * 1e3 for message in call.items("user")]
    return {"hook_ms": summarize(waits), "thrown_away": len(call.llm.requests) - turns, "of": turns}


# Many calls


async def measure_many_calls(folder: str, calls: int, seconds: float) -> dict[str, Any]:
    """Measure the callbacks of an event loop that serves many calls, with memory and without."""
    result: dict[str, Any] = {"calls": calls}
    for name in ("without", "with_memory"):
        agents: list[Agent] = [
            make_agent(folder, f"caller_{number}") if name == "with_memory" else Agent(instructions="Be kind.")
            for number in range(calls)
        ]
        async with AsyncExitStack() as stack:
            gc.collect()
            gc.disable()  # LiveKit's own objects make a collection take 0.1 s, with memory or without
            with time_callbacks() as starting_ms:
                active_calls = [await stack.enter_async_context(open_call(agent)) for agent in agents]
                await asyncio.gather(*(agent.on_enter() for agent in agents))
            with time_callbacks() as times_ms:
                until = time.monotonic() + seconds
                turns = await asyncio.gather(
                    *(run_call(call, number, until) for number, call in enumerate(active_calls))
                )
        with time_callbacks() as ending_ms:
            await asyncio.gather(*(agent.on_exit() for agent in agents))
        gc.enable()
        result[name] = {
            "turns": sum(turns),
            "starting_ms": summarize(starting_ms),
            "talking_ms": summarize(times_ms),
            "ending_ms": summarize(ending_ms),
        }
    return result


async def run_call(call: LiveKitCall, number: int, until: float) -> int:
    """Say something a few times a second; return the number of turns."""
    turns = 0
    while time.monotonic() < until:
        await call.say(make_sentence(number + turns))
        turns += 1
        await asyncio.sleep(0.3 + 0.01 * (number % 7))
    return turns


@contextmanager
def time_callbacks() -> Iterator[list[float]]:
    """Record the processor time of each callback of the event loop, in milliseconds."""
    times_ms: list[float] = []
    handle: Any = asyncio.Handle
    run = handle._run  # noqa: SLF001 - asyncio's debug mode reports elapsed time only

    def timed(self: Any) -> None:
        began_at = time.thread_time()
        run(self)
        times_ms.append((time.thread_time() - began_at) * 1e3)

    handle._run = timed  # noqa: SLF001
    try:
        yield times_ms
    finally:
        handle._run = run  # noqa: SLF001


def summarize(times_ms: list[float]) -> dict[str, float]:
    """Return the median, the 99th percentile and the maximum."""
    ordered = sorted(times_ms)
    p99 = ordered[min(len(ordered) - 1, math.ceil(len(ordered) * 0.99) - 1)]
    return {"median": round(statistics.median(ordered), 3), "p99": round(p99, 2), "max": round(ordered[-1], 2)}


if __name__ == "__main__":
    raise SystemExit(main())
