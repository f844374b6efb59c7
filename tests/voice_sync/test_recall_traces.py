"""Recall traces, the hook and spans of the clients, over real runtimes."""

import logging
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support.clients import PATIENT_MS, NewClient, frozen, pid_of
from support.runtimes import USER
from support.spans import traces_in
from support.waiting import eventually

from memoair_protocol import telemetry
from memoair_voice_sync import MemoAirVoiceAgent, MemoAirVoiceMemorySync, RecallRecord

DANA = {"id": USER, "name": "Dana"}
SAID = "My parcel with the zanzibarplum jam is late."


@pytest.fixture(autouse=True)
def no_lingering(monkeypatch: pytest.MonkeyPatch) -> None:
    """End idle threads at once, since tests wait for their end."""
    monkeypatch.setattr("memoair_voice_sync._recall.observer._LINGER_S", 0.0)
    monkeypatch.setattr("memoair_voice_sync._loopback.prefetch.LINGER_S", 0.0)
    monkeypatch.delenv("MEMOAIR_RECALL_TRACES", raising=False)


def ask(client: Any, query: str = "Where is the zanzibarplum?", **options: Any) -> Any:
    return client.search_memory(query, user=DANA, timeout_ms=PATIENT_MS, **options)


def say(client: Any, text: str) -> None:
    """Save a turn, when the runtime is there."""
    client.load_index(user=DANA)
    assert client.save_response(user=DANA, user_text=text, assistant_text="", turn_id="t1")


def answer(client: Any, turn_id: str = "t2") -> None:
    client.save_response(user=DANA, user_text="Thanks.", assistant_text="", turn_id=turn_id)


def test_a_search_leaves_a_trace_of_the_turn_that_follows_it(new_client: NewClient, storage_root: Path) -> None:
    client = new_client()
    say(client, SAID)
    ask(client)
    ask(client, turn_id="t3", origin="hook")
    client.search_memory_tool(user=DANA)("jam")
    answer(client)
    answer(client, "t3")
    by_origin = {
        trace["origin"]: trace
        for trace in eventually(lambda: len(traces_in(storage_root)) == 3 and traces_in(storage_root))
    }
    assert {origin: trace["turnId"] for origin, trace in by_origin.items()} == {"api": "t2", "hook": "t3", "tool": "t2"}
    assert "zanzibarplum" not in str(by_origin)
    assert by_origin["api"]["lanes"]["working"]["hits"] == 1


@pytest.mark.parametrize(
    ("argument", "environment", "expected"),
    [("off", "ids", 0), (None, "off", 0), ("ids", "off", 1), (None, None, 1), (None, "", 1)],
)
def test_the_argument_comes_before_the_environment(
    new_client: NewClient,
    storage_root: Path,
    monkeypatch: pytest.MonkeyPatch,
    argument: str | None,
    environment: str | None,
    expected: int,
) -> None:
    if environment is not None:
        monkeypatch.setenv("MEMOAIR_RECALL_TRACES", environment)
    client = new_client(recall_traces=argument)
    ask(client)
    answer(client)
    client.close()
    assert len(traces_in(storage_root)) == expected


def test_an_unknown_mode_is_an_error_that_names_it(new_client: NewClient, monkeypatch: pytest.MonkeyPatch) -> None:
    identity: dict[str, Any] = {"api_key": "k", "project_id": "p", "agent_id": "a"}
    with pytest.raises(ValueError, match="recall_traces must be one of off, ids, text, not 'words'"):
        new_client(recall_traces="words")
    with pytest.raises(ValueError, match="recall_traces must be one of"):
        MemoAirVoiceMemorySync(project_id="p", user_id="u", recall_traces="words")
    with pytest.raises(ValueError, match="recall_traces must be one of"):
        MemoAirVoiceAgent(**identity, recall_traces="words")
    monkeypatch.setenv("MEMOAIR_RECALL_TRACES", "words")
    with pytest.raises(ValueError, match="MEMOAIR_RECALL_TRACES must be one of off, ids, text, not 'words'"):
        new_client()
    assert MemoAirVoiceAgent(**identity, recall_traces="text").client()._observer.mode == "text"
    with pytest.raises(TypeError, match="on_recall"):
        new_client(recall_traces="ids", on_recall="print")
    with pytest.raises(ValueError, match="origin must be one of"):
        ask(new_client(recall_traces="ids"), origin="nobody")


def test_words_of_traces_go_through_redact(new_client: NewClient, storage_root: Path) -> None:
    client = new_client(recall_traces="text", redact=lambda text: text.replace("zanzibarplum", "[fruit]"))
    say(client, SAID)
    ask(client)
    answer(client)
    [trace] = eventually(lambda: traces_in(storage_root))
    assert trace["query"] == "Where is the [fruit]?"
    assert "[fruit] jam" in trace["contextText"]
    assert "zanzibarplum" not in str(trace)


def test_what_a_failing_redact_has_not_seen_is_not_kept(new_client: NewClient, storage_root: Path) -> None:
    def fail(text: str) -> str:
        raise RuntimeError(text)

    client = new_client(recall_traces="text", redact=fail)
    ask(client)
    client.end_call(user=DANA)
    client.close()
    assert [set(trace) & {"query", "contextText"} for trace in traces_in(storage_root)] == [set()]


def test_a_prefetch_that_is_used_leaves_one_trace(new_client: NewClient, storage_root: Path) -> None:
    client = new_client()
    ask(client, "jam")
    answer(client, "t1")
    client.prefetch("where is the jam", user=DANA)
    eventually(lambda: client._prefetch_cache._entries)
    found = ask(client, "Where is the jam?", turn_id="t2")
    assert "prefetched" in found.trace
    answer(client, "t2")
    traces = eventually(lambda: len(traces_in(storage_root)) == 2 and traces_in(storage_root))
    assert [(trace["turnId"], trace.get("prefetched")) for trace in traces] == [("t1", None), ("t2", True)]


def test_the_hook_gets_a_record_without_words_behind_the_answer(new_client: NewClient, storage_root: Path) -> None:
    release, records = threading.Event(), list[RecallRecord]()

    def observe(record: RecallRecord) -> None:
        release.wait(30)
        records.append(record)

    client = new_client(on_recall=observe)
    say(client, SAID)
    found = ask(client, turn_id="t2")  # does not wait for the hook
    assert records == []
    release.set()
    [record] = eventually(lambda: records)
    assert (record.user_id, record.turn_id, record.origin, record.intent) == (USER, "t2", "api", "answer_current_user")
    assert record.session_id == client.stats()["runtimes"][0]["session_id"]
    assert record.total_ms >= found.trace["totalMs"]
    assert (record.degraded, record.error_code, record.prefetched) == (False, None, False)
    assert record.lanes == found.trace["lanes"]
    assert [hit["id"] for hit in record.hits] == [hit["id"] for hit in found.working]
    assert record.context_chars == len(found.contextText)
    assert "zanzibarplum" not in str(record)
    answer(client)
    eventually(lambda: [trace["traceId"] for trace in traces_in(storage_root)] == [record.trace_id])


def test_the_hook_hears_of_searches_that_failed(new_client: NewClient) -> None:
    records: list[RecallRecord] = []
    client = new_client(on_recall=records.append, runtime_binary="/bin/false")
    assert client.search_memory("jam", user=DANA, timeout_ms=300).trace["degraded"]
    [record] = eventually(lambda: records)
    assert record.degraded
    assert record.error_code
    assert record.error_code.startswith("runtime.")


def test_a_search_that_no_runtime_answered_in_time_leaves_a_trace_as_well(
    new_client: NewClient, storage_root: Path
) -> None:
    client = new_client()
    say(client, SAID)
    with frozen(pid_of(client, USER)):
        assert client.search_memory("zanzibarplum", user=DANA, timeout_ms=200).trace["degraded"]
    answer(client)
    client.end_call(user=DANA)
    [trace] = eventually(lambda: traces_in(storage_root))
    assert trace["degraded"] is True
    assert "runtime.timeout" in trace["notes"][-1]
    assert "zanzibarplum" not in str(trace)


def test_an_error_in_the_hook_is_logged_once_and_without_words(
    new_client: NewClient, caplog: pytest.LogCaptureFixture
) -> None:
    calls: list[RecallRecord] = []

    def fail(record: RecallRecord) -> None:
        calls.append(record)
        raise RuntimeError(SAID)

    client = new_client(on_recall=fail)
    with caplog.at_level(logging.ERROR, "memoair_voice"):
        for _ in range(3):
            ask(client)
        eventually(lambda: len(calls) == 3)
        eventually(lambda: "recall_hook_failed" in caplog.text)
    assert caplog.text.count("recall_hook_failed") == 1
    assert "zanzibarplum" not in caplog.text


def test_a_hook_that_hangs_loses_records_and_nothing_else(
    new_client: NewClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("memoair_voice_sync._recall.observer._MAX_WAITING", 2)
    monkeypatch.setattr("memoair_voice_sync._recall.observer._CLOSE_TIMEOUT_S", 0.1)
    release = threading.Event()
    client = new_client(on_recall=lambda _: release.wait(30))
    for _ in range(5):
        assert not ask(client).trace["degraded"]
    assert client.stats()["dropped_recalls"] == 3
    release.set()


def test_the_raw_memory_traces_and_reports(
    new_memory: Callable[..., MemoAirVoiceMemorySync], storage_root: Path
) -> None:
    records: list[RecallRecord] = []
    memory = new_memory(recall_traces="text", on_recall=records.append, redact=lambda text: text.replace("jam", "[x]"))
    memory.start_session()
    memory.search_memory("Where is my jam?", timeout_ms=PATIENT_MS)
    memory.search_memory_tool(search_memory_timeout_ms=PATIENT_MS)("jam")
    memory.after_turn("Where is my jam?", "In Leeds.", "t1")
    traces = eventually(lambda: len(traces_in(storage_root)) == 2 and traces_in(storage_root))
    assert [(trace["query"], trace["origin"], trace["turnId"]) for trace in traces] == [
        ("Where is my [x]?", "api", "t1"),
        ("[x]", "tool", "t1"),
    ]
    eventually(lambda: [record.origin for record in records] == ["api", "tool"])
    assert records[0].session_id == memory.session_id


# OpenTelemetry


@pytest.fixture
def spans() -> Iterator[Any]:
    """Export spans to memory, by a provider of this test."""
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    token = telemetry.framework_tracer.set(provider.get_tracer("test"))
    exporter.provider = provider
    yield exporter
    telemetry.framework_tracer.reset(token)
    provider.shutdown()


def test_a_search_is_a_span_within_the_applications_own(new_client: NewClient, storage_root: Path, spans: Any) -> None:
    client = new_client()
    say(client, SAID)
    with spans.provider.get_tracer("app").start_as_current_span("turn") as turn:
        found = ask(client, turn_id="t2", origin="hook")
    answer(client)
    exported = eventually(lambda: len(spans.get_finished_spans()) == 6 and spans.get_finished_spans())
    by_name = {span.name: span for span in exported}
    search = by_name["search_memory"]

    assert search.parent.span_id == turn.get_span_context().span_id
    assert search.kind.name == "CLIENT"
    attributes = dict(search.attributes)
    assert attributes["gen_ai.operation.name"] == "search_memory"
    assert attributes["gen_ai.provider.name"] == "memoair"
    assert attributes["gen_ai.conversation.id"] == client.stats()["runtimes"][0]["session_id"]
    assert attributes["gen_ai.agent.id"] == "agent_test"
    assert attributes["gen_ai.memory.record.count"] == 1
    assert (attributes["memoair.turn_id"], attributes["memoair.origin"]) == ("t2", "hook")
    assert "zanzibarplum" not in str([dict(span.attributes) for span in exported])
    assert USER not in str([dict(span.attributes) for span in exported])
    for name, lane in found.trace["lanes"].items():
        child = by_name[f"retrieval {name}"]
        assert child.parent.span_id == search.context.span_id
        assert child.attributes["memoair.lane.status"] == lane["status"]
        assert search.start_time <= child.start_time <= child.end_time <= search.end_time
    [trace] = eventually(lambda: traces_in(storage_root))
    assert (
        trace["traceparent"]
        == f"00-{search.context.trace_id:032x}-{search.context.span_id:016x}-{search.context.trace_flags:02x}"
    )


def test_a_span_has_the_redacted_question_only_if_traces_have_it(new_client: NewClient, spans: Any) -> None:
    client = new_client(recall_traces="text", redact=lambda text: text.replace("zanzibarplum", "[fruit]"))
    ask(client)
    eventually(lambda: spans.get_finished_spans())
    [search] = [span for span in spans.get_finished_spans() if span.name == "search_memory"]
    assert search.attributes["gen_ai.memory.query.text"] == "Where is the [fruit]?"


def test_a_search_that_failed_is_a_span_with_an_error(new_client: NewClient, spans: Any) -> None:
    client = new_client(runtime_binary="/bin/false")
    client.search_memory("jam", user=DANA, timeout_ms=300)
    eventually(lambda: any(span.name == "search_memory" for span in spans.get_finished_spans()))
    [search] = [span for span in spans.get_finished_spans() if span.name == "search_memory"]
    assert search.status.status_code.name == "ERROR"
    assert search.attributes["error.type"].startswith("runtime.")


def test_opentelemetry_is_not_imported_by_the_sdk() -> None:
    code = "import sys, memoair_voice_sync, memoair_runtime.main; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert "memoair_voice_sync._recall.spans" in loaded
    assert not [module for module in loaded if module.startswith("opentelemetry")]
