"""What is seen of the recalls of a Pipecat call: traces on the disk, and spans within Pipecat's own."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from memoair_pipecat import MemoAirMemoryProcessor
from support.pipecat_calls import PipecatCall
from support.spans import exporting_spans, spans_named, traces_in
from support.waiting import eventually, wait_until

from memoair_voice import MemoAirVoiceClient

pytestmark = pytest.mark.anyio


@pytest.fixture
def spans(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    with exporting_spans(monkeypatch) as exporter:
        yield exporter


def make_processor(client: MemoAirVoiceClient) -> MemoAirMemoryProcessor:
    return MemoAirMemoryProcessor(client=client, user_id="ada", timeout_ms=10_000)


async def test_each_recall_leaves_a_trace_of_its_turn(
    client: MemoAirVoiceClient, storage_root: Path, saved_payloads: Any
) -> None:
    async with PipecatCall(make_processor(client)) as call:
        await call.say_and_wait("My boots are red.")
        await call.say_and_wait("Which colour are my boots?")
    traces = eventually(lambda: len(traces_in(storage_root)) == 2 and traces_in(storage_root))
    saved = [(turn["turnId"], turn["userText"]) for turn in saved_payloads()]
    assert [trace["turnId"] for trace in traces] == [turn_id for turn_id, _ in saved]
    assert {trace["origin"] for trace in traces} == {"hook"}


async def test_a_recall_is_a_span_of_the_turn(client: MemoAirVoiceClient, spans: Any) -> None:
    async with PipecatCall(make_processor(client), worker_options={"enable_tracing": True}) as call:
        await call.say_and_wait("My boots are red.")
    await wait_until(lambda: spans_named(spans, "search_memory") and spans_named(spans, "turn"))
    [search], [turn, *_] = spans_named(spans, "search_memory"), spans_named(spans, "turn")
    assert search.parent.span_id == turn.context.span_id
    assert search.context.trace_id == turn.context.trace_id
    assert search.attributes["memoair.origin"] == "hook"
    assert {child.parent.span_id for child in spans_named(spans, "retrieval org")} == {search.context.span_id}
    assert "boots" not in str([dict(span.attributes) for span in spans.get_finished_spans() if "memory" in span.name])
