"""The recall of a turn: what it waits for, and what is left after a search that fails."""

import asyncio
import logging
from collections.abc import Callable
from typing import Any

import pytest
from memoair_pipecat import MemoAirMemoryProcessor
from memoair_pipecat._context import UserMessageTracker
from memoair_pipecat._recall import TurnRecall
from pipecat.frames.frames import LLMMessagesAppendFrame, TextFrame
from pipecat.processors.aggregators.llm_context import LLMContext
from support.pipecat_calls import PipecatCall, ScriptedLLM
from support.waiting import wait_until

from memoair_voice import MemoAirVoiceClient, SearchResult

pytestmark = pytest.mark.anyio
log = logging.getLogger("test")


def make_result(text: str) -> SearchResult:
    return SearchResult(contextText=text, profile=None, working=[], permanent=[], org=[], sources=[], trace={})


def make_context(*texts: str) -> LLMContext:
    return LLMContext([{"role": "user", "content": text} for text in texts])


async def test_a_caller_who_speaks_at_once_waits_for_their_memory() -> None:
    order: list[str] = []
    may_load = asyncio.Event()

    async def load() -> None:
        await may_load.wait()
        order.append("loaded")

    async def search(query: str, *_: object) -> SearchResult:
        order.append(f"searched {query}")
        return make_result("## permanent\n- Caller: Red.")

    recall, context = TurnRecall(search, 60_000, log), make_context("Boots?")
    recall.wait_for(asyncio.create_task(load()))
    update = asyncio.create_task(recall.update(context, UserMessageTracker(), is_speculative=False))
    for _ in range(20):  # the search would begin at the first of them
        await asyncio.sleep(0)
    assert order == []
    may_load.set()
    await update
    assert order == ["loaded", "searched Boots?"]
    assert recall.insert(context) is not context


async def test_a_search_that_fails_leaves_nothing_of_the_turn_before_it_and_is_not_repeated() -> None:
    queries: list[str] = []

    async def search(query: str, *_: object) -> SearchResult:
        queries.append(query)
        if len(queries) > 1:
            raise RuntimeError("the client is closed")
        return make_result("## permanent\n- Caller: My boots are red.")

    recall, tracker = TurnRecall(search, 1_000, log), UserMessageTracker()
    await recall.update(make_context("Boots?"), tracker, is_speculative=False)
    later = LLMContext(
        [
            {"role": "user", "content": "Boots?"},
            {"role": "assistant", "content": "Red."},
            {"role": "user", "content": "And my hat?"},
        ]
    )
    for _ in range(2):  # the second time it comes with the results of a tool
        await recall.update(later, tracker, is_speculative=False)
        assert recall.insert(later) is later
    assert queries == ["Boots?", "And my hat?"]


async def test_for_a_model_that_reads_no_context_nothing_is_searched(
    client: MemoAirVoiceClient, monkeypatch: pytest.MonkeyPatch, saved_turns: Callable[[], list[tuple[str, str]]]
) -> None:
    from integrations.pipecat.test_realtime import RealtimeLLM

    searches: list[Any] = []

    async def search(*arguments: Any, **_: Any) -> SearchResult:
        searches.append(arguments)
        return make_result("## permanent\n- Caller: Red.")

    monkeypatch.setattr(MemoAirVoiceClient, "search_memory", search)
    await client.load_index(user_id="ada")
    llm: ScriptedLLM = RealtimeLLM([])
    async with PipecatCall(MemoAirMemoryProcessor(client=client, user_id="ada"), llm=llm) as call:
        await call.queue_frames(TextFrame("Boots?"))
        await wait_until(lambda: call.heard_texts)
        before = len(call.llm.contexts)
        typed = {"role": "user", "content": "Which color are my boots?"}  # an unanswered question in the context
        await call.queue_frames(LLMMessagesAppendFrame(messages=[typed], run_llm=True))
        await wait_until(lambda: len(call.llm.contexts) > before)
    assert call.llm.contexts[-1].get_messages()[-1] == typed
    assert searches == []
    assert ("Boots?", "You said: Boots?") in saved_turns()
