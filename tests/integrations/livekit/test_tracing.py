"""What is seen of the recalls of a LiveKit call: traces on the disk, and spans within LiveKit's own."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.livekit_calls import open_call
from support.spans import exporting_spans, spans_named, traces_in
from support.waiting import eventually, wait_until

from memoair_voice import RecallRecord

telemetry = pytest.importorskip("livekit.agents.telemetry")  # LiveKit has it since 1.2
pytestmark = pytest.mark.anyio


@pytest.fixture
def spans(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Export the spans of a provider that LiveKit alone knows, as applications set it."""
    from opentelemetry import trace

    with exporting_spans(monkeypatch) as exporter:
        before = trace.get_tracer_provider()
        telemetry.set_tracer_provider(before)
        monkeypatch.setattr(trace, "_TRACER_PROVIDER", None)
        yield exporter
        telemetry.set_tracer_provider(trace.NoOpTracerProvider())


async def test_recalls_for_messages_leave_traces_of_their_turns(
    new_agent: Any, storage_root: Path, saved_payloads: Any
) -> None:
    records: list[RecallRecord] = []
    agent = new_agent(on_recall=records.append)
    async with open_call(agent) as call:
        await call.type_text("My boots are red.")
        await call.type_text("Which colour are my boots?")
    await agent.on_exit()
    traces = eventually(lambda: len(traces_in(storage_root)) >= 2 and traces_in(storage_root))
    # The briefing at the start searches neither this call nor the documents.
    recalls = [trace for trace in traces if trace["lanes"]["org"]["status"] == "ok"]
    assert [trace["turnId"] for trace in recalls] == [turn["turnId"] for turn in saved_payloads()]
    assert {trace["origin"] for trace in recalls} == {"hook"}
    eventually(lambda: len(records) == len(traces))


async def test_early_recalls_leave_traces_of_turns_of_the_call(
    new_agent: Any, storage_root: Path, saved_payloads: Any
) -> None:
    agent = new_agent()
    async with open_call(agent) as call:
        await call.say("My boots are red.")
        await call.say("Which colour are my boots?")
    await agent.on_exit()
    traces = eventually(lambda: len(traces_in(storage_root)) >= 2 and traces_in(storage_root))
    recalls = [trace for trace in traces if trace["lanes"]["org"]["status"] == "ok"]
    assert len(recalls) == 2
    assert {trace["turnId"] for trace in recalls} <= {turn["turnId"] for turn in saved_payloads()}


async def test_a_recall_is_a_span_within_the_session(new_agent: Any, spans: Any) -> None:
    agent = new_agent()
    async with open_call(agent) as call:
        await call.say("My boots are red.")
    await agent.on_exit()
    await wait_until(lambda: spans_named(spans, "agent_session") and spans_named(spans, "search_memory"))
    session = spans_named(spans, "agent_session")[0]
    searches = [span for span in spans_named(spans, "search_memory") if span.attributes["memoair.origin"] == "hook"]
    by_id = {span.context.span_id: span for span in spans.get_finished_spans()}
    assert {span.context.trace_id for span in searches} == {session.context.trace_id}
    parents = {by_id[span.parent.span_id].name for span in searches if span.parent is not None}
    assert parents, "a recall stands within what LiveKit was doing"
    ours = [dict(span.attributes) for span in spans.get_finished_spans() if span.name in ("search_memory",)]
    assert "boots" not in str(ours)
