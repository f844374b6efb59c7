"""Recall traces of a runtime: written behind the answers, bounded, and sent behind the turns."""

import stat
import threading
from pathlib import Path
from typing import Any

import filelock
import pytest
from support.devices import Device, device
from support.runtimes import PROJECT, USER, RunningRuntime
from support.scripted_cloud import ScriptedCloud, error_body, hangs, responds_with
from support.waiting import eventually

from memoair_protocol.enums import TraceMode
from memoair_runtime import trace_recorder
from memoair_runtime.storage import trace_file
from memoair_runtime.storage.trace_file import TraceFile
from memoair_runtime.storage.user_folder import UserFolder

pytestmark = pytest.mark.usefixtures("short_pauses")

SAID = "My parcel with the zanzibarplum jam is late."


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "storage"


def asked(runtime: Device, session_id: str = "now", **options: Any) -> Any:
    """Have a call in which something was said, and ask about it."""
    runtime.start(session_id, name="Dana")
    runtime.save("t1", SAID, "It is in Leeds.", session_id)
    return runtime.search("Where is the zanzibarplum?", session_id, **options)


def written(runtime: Device, count: int = 1) -> list[dict[str, Any]]:
    eventually(lambda: len(runtime.traces()) >= count)
    return runtime.traces()


def test_a_search_leaves_a_trace_with_ids_and_numbers(root: Path) -> None:
    with device(None, root) as runtime:
        found = asked(runtime)
        event_id = runtime.save("t2", "Thank you.", "", "now")
        [trace] = written(runtime)

    assert trace["sessionId"] == "now"
    assert (trace["turnId"], trace["turnEventId"]) == ("t2", event_id)
    assert (trace["mode"], trace["origin"], trace["intent"]) == ("ids", "api", "answer_current_user")
    assert trace["totalMs"] == found["trace"]["totalMs"]
    assert trace["deadlineMs"] == 5_000
    assert trace["degraded"] is False
    assert trace["contextChars"] == len(found["contextText"])
    assert isinstance(trace["versions"]["memory"], int)
    lane = trace["lanes"]["working"]
    assert (lane["status"], lane["hits"]) == ("ok", 1)
    [hit] = lane["items"]
    assert hit["id"] == found["working"][0]["id"]
    assert hit["score"] == found["working"][0]["score"]
    assert hit["inContext"] is True
    assert hit["terms"]["meaning"] > 0
    assert sum(trace["lanes"][name]["chars"] for name in trace["lanes"]) == len(found["contextText"]) - 2 * (
        sum(bool(lane["chars"]) for lane in trace["lanes"].values()) - 1
    ) - 3 * (sum(bool(lane["chars"]) for lane in trace["lanes"].values()) - 1)
    assert "zanzibarplum" not in str(trace)
    assert "Dana" not in str(trace)


def test_a_trace_file_is_readable_by_its_owner_alone(root: Path) -> None:
    with device(None, root) as runtime:
        asked(runtime)
        runtime.end()
        written(runtime)
        [file] = runtime.folder.path.glob("recall_traces*")
        assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_a_hit_in_the_context_differs_from_one_that_the_budget_cut(root: Path) -> None:
    long = "The zanzibarplum jam, jar number {}, " + "was ordered together with some other jars of fruit " * 12
    with device(None, root) as runtime:
        runtime.start("then")
        for number in range(30):
            runtime.save(f"t{number}", long.format(number), "", "then")
        runtime.end("then")
        found = runtime.search("zanzibarplum", "now", topK={"permanent": 30})
        runtime.end("now")
        [trace] = written(runtime)
    items = trace["lanes"]["permanent"]["items"]
    assert len(items) == len(found["permanent"])
    cut = {item["id"] for item in items if not item["inContext"]}
    assert cut == {hit["id"] for hit in found["permanent"] if hit["text"][30:70] not in found["contextText"]} != set()


def test_a_named_turn_gets_its_own_searches_and_no_others(root: Path) -> None:
    with device(None, root) as runtime:
        asked(runtime, turnId="t3", recallTrace={"id": "third", "origin": "hook"})
        runtime.search("jam", "now", recallTrace={"id": "next", "origin": "tool"})
        runtime.search("jam", "other", recallTrace={"id": "elsewhere", "origin": "from a later version"})
        runtime.save("t1", "That was corrected.", "It is in Leeds.")  # answered before
        second = runtime.save("t2", "Thank you.")
        third = runtime.save("t3", "Bye.")
        runtime.end("now")
        runtime.end("other")
        by_id = {trace["traceId"]: trace for trace in written(runtime, 3)}
    turns = {name: (trace.get("turnId"), trace.get("turnEventId")) for name, trace in by_id.items()}
    assert turns == {"third": ("t3", third), "next": ("t2", second), "elsewhere": (None, None)}
    assert {name: trace["origin"] for name, trace in by_id.items()} == {
        "third": "hook",
        "next": "tool",
        "elsewhere": "api",
    }


def test_a_search_after_its_turn_was_saved_belongs_to_it(root: Path) -> None:
    with device(None, root) as runtime:
        event_id = runtime.save("t1", SAID)
        runtime.search("jam", "now", turnId="t1")
        [trace] = written(runtime)
    assert trace["turnEventId"] == event_id


def test_a_trace_names_the_prompt_of_its_call_as_it_was_then(root: Path) -> None:
    with device(None, root) as runtime:
        runtime.search("jam", "now", recallTrace={"id": "before"})  # a client opens the call behind its first search
        runtime.start("now", prompt={"version": 3, "label": "production"})
        runtime.search("jam", "now", recallTrace={"id": "first"})
        runtime.start("now", prompt={"version": 4})  # handed over to an agent with another prompt
        runtime.start("now", name="Dana")  # a client that does not know the prompt
        runtime.search("jam", "now", recallTrace={"id": "second"})
        runtime.start("other", prompt="what an application has put there")
        runtime.search("jam", "other", recallTrace={"id": "other"})
        runtime.end("now")
        runtime.end("other")
        versions = {trace["traceId"]: trace.get("promptVersion") for trace in written(runtime, 4)}
    assert versions == {"before": 4, "first": 3, "second": 4, "other": None}
    with device(None, root) as runtime:  # a runtime that takes over knows it from the log
        runtime.start("now", name="Dana")
        runtime.search("jam", "now", recallTrace={"id": "third"})
        runtime.end("now")
        assert written(runtime, 5)[-1]["promptVersion"] == 4


def test_the_mode_is_the_requests_then_the_environments_then_the_projects(cloud: ScriptedCloud, root: Path) -> None:
    cloud.trace_mode = "off"
    with device(cloud, root) as runtime:
        runtime.search("one", "now")
        runtime.search("two", "now", recallTrace={"id": "explicit", "mode": "ids"})
        runtime.end("now")
        assert [trace["traceId"] for trace in written(runtime)] == ["explicit"]
    with device(cloud, root / "environment", recall_traces=TraceMode.IDS) as runtime:
        runtime.search("one", "now")
        runtime.search("two", "now", recallTrace={"mode": "off"})
        runtime.search("three", "now")
        runtime.end("now")
        assert len(written(runtime, 2)) == 2


def test_what_was_recorded_before_the_project_said_off_is_dropped(cloud: ScriptedCloud, root: Path) -> None:
    cloud.trace_mode = "off"
    cloud.behave("bootstrap", responds_with(503, error_body("cloud.unavailable")))
    with device(cloud, root, waits_for_pull=False) as runtime:
        asked(runtime)
        runtime.pull()
        runtime.end("now")
        runtime.flush()
        eventually(lambda: not runtime.service._traces._pending)
        assert runtime.traces() == []


def test_words_come_from_the_client_and_only_in_the_mode_text(root: Path) -> None:
    words = {"query": "Where is [name]?", "contextText": "- [name]: jam"}
    with device(None, root) as runtime:
        found = asked(runtime, recallTrace={"id": "text", "mode": "text"})
        assert found["trace"]["recallTrace"] == {"mode": "text"}, "the client is asked for them"
        assert "recallTrace" not in runtime.search("jam", "now", recallTrace={"id": "ids"})["trace"]
        assert runtime.amend_trace("text", **words) == {"status": "ok"}
        assert runtime.amend_trace("ids", **words) == {"status": "ok"}
        assert runtime.amend_trace("never", **words) == {"status": "unknown"}
        runtime.save("t2", "Thank you.")
        by_id = {trace["traceId"]: trace for trace in written(runtime, 2)}
    assert {name: by_id["text"][name] for name in words} == words
    assert not set(words) & set(by_id["ids"])


def test_words_that_arrive_before_the_search_is_noted_are_not_lost(root: Path) -> None:
    words = {"query": "Where is the jam?", "contextText": "## working"}
    with device(None, root) as runtime:
        assert runtime.amend_trace("early", **words) == {"status": "unknown"}
        asked(runtime, recallTrace={"id": "early", "mode": "text"})
        runtime.save("t2", "Thanks.", session_id="now")
        [trace] = written(runtime)
    assert trace["query"] == "Where is the jam?"


def test_a_prefetch_leaves_a_trace_only_if_it_is_used(root: Path) -> None:
    with device(None, root) as runtime:
        asked(runtime, recallTrace={"id": "used", "held": True})
        runtime.search("jam", "now", recallTrace={"id": "unused", "held": True})
        assert runtime.amend_trace("used", prefetched=True, turnId="t2") == {"status": "ok"}
        runtime.save("t2", "Thank you.")
        runtime.end("now")
        [trace] = written(runtime)
    assert (trace["traceId"], trace["prefetched"], trace["turnId"]) == ("used", True, "t2")


def test_a_search_that_failed_at_the_client_is_recorded_with_what_the_client_knows(root: Path) -> None:
    failed = {
        "sessionId": "now",
        "occurredAt": "2026-03-02T09:30:00Z",
        "intent": "answer_current_user",
        "totalMs": 250.5,
        "deadlineMs": 250,
        "code": "runtime.timeout",
        "lanes": {"org": "late", "working": "late"},
        "recallTrace": {"id": "lost", "origin": "hook"},
    }
    with device(None, root) as runtime:
        asked(runtime, recallTrace={"id": "too late"})
        assert runtime.amend_trace("lost", turnId="t2", failed=failed) == {"status": "ok"}
        assert runtime.amend_trace("too late", failed=failed) == {"status": "ok"}
        runtime.search("jam", "now", recallTrace={"id": "lost"})  # answered after the client has given up
        off = {**failed, "recallTrace": {"mode": "off"}}
        assert runtime.amend_trace("off", failed=off) == {"status": "unknown"}
        event_id = runtime.save("t2", "Thank you.")
        by_id = {trace["traceId"]: trace for trace in written(runtime, 2)}
    assert set(by_id) == {"lost", "too late"}
    assert by_id["lost"]["lanes"] == {"org": {"status": "late"}, "working": {"status": "late"}}
    assert (by_id["lost"]["turnEventId"], by_id["lost"]["totalMs"], by_id["lost"]["origin"]) == (
        event_id,
        250.5,
        "hook",
    )
    assert by_id["too late"]["degraded"] is True
    assert by_id["too late"]["lanes"]["working"]["status"] == "ok", "the runtime had found it"


def test_a_burst_is_thinned_out_and_counted(root: Path) -> None:
    with device(None, root) as runtime:
        runtime.start("now")
        for _ in range(trace_recorder.MAX_BURST + 150):
            runtime.search("jam", "now", lanes=["working"])
        runtime.end("now")
        runtime.flush()
        eventually(lambda: not runtime.service._traces._pending)
        kept, dropped = len(runtime.traces()), runtime.service.metrics.traces_dropped._value.get()
    assert trace_recorder.MAX_BURST <= kept < trace_recorder.MAX_BURST + 150
    assert kept + dropped == trace_recorder.MAX_BURST + 150


def test_the_files_of_a_user_are_bounded(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trace_file, "MAX_FILE_BYTES", 1_000)
    root.mkdir()
    file = TraceFile(root / "recall_traces.jsonl")
    for number in range(100):
        file.append([b"%02d" % number + b"x" * 98])
    sizes = [path.stat().st_size for path in root.iterdir()]
    assert sum(sizes) <= 2_200
    taken = file.take()
    assert taken == sorted(taken)
    assert file.take() == taken, "until they are sent"
    file.append([b"new"])
    file.finish()
    assert file.take()[-1] == b"new"
    file.finish()
    assert file.take() == []


def test_traces_are_sent_behind_the_turns(cloud: ScriptedCloud, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cloud.keeps_traces = True
    with device(cloud, root) as runtime:
        runtime.start("now", name="Dana")
        runtime.save("t1", SAID)
        assert runtime.flush()["pending"] == 0
        monkeypatch.setattr("memoair_runtime.sync.scheduler.LINGER_S", 1.0)  # the trace is written long before that
        runtime.search("Where is the zanzibarplum?", "now")
        runtime.save("t2", "Thank you.")
        eventually(lambda: cloud.traces)
        eventually(lambda: not runtime.traces())
    [request] = cloud.requests_to("recall-traces")
    before = cloud.requests[: cloud.requests.index(request)]
    events = [event for earlier in before if earlier.path.endswith("/events") for event in earlier.body["events"]]
    assert events[-1]["payload"]["turnId"] == "t2"
    assert request.user == "caller_42"
    assert request.headers["content-encoding"] == "gzip"
    assert [trace["turnId"] for trace in cloud.traces] == ["t2"]


def test_the_last_traces_are_sent_at_the_end(cloud: ScriptedCloud, root: Path) -> None:
    cloud.keeps_traces = True
    with device(cloud, root) as runtime:
        asked(runtime)
        eventually(lambda: runtime.sync["unsynced"] == 0)
    assert [trace["sessionId"] for trace in cloud.traces] == ["now"]


def test_an_older_cloud_gets_no_traces_and_all_turns(
    cloud: ScriptedCloud, root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with device(cloud, root) as runtime:
        asked(runtime)
        runtime.save("t2", "Thank you.")
        eventually(lambda: cloud.requests_to("recall-traces"))
        runtime.search("jam", "now")
        runtime.save("t3", "Bye.")
        cloud.wait_for_turns(SAID, "Thank you.", "Bye.")
        eventually(lambda: len(runtime.traces()) == 2)
        assert runtime.sync["state"] == "ok"
    assert len(cloud.requests_to("recall-traces")) == 1
    assert not [record for record in caplog.records if record.levelname in ("WARNING", "ERROR")]


@pytest.mark.parametrize("answer", [responds_with(422, error_body("cloud.invalid")), hangs, responds_with(503)])
def test_traces_that_cannot_be_sent_never_block_the_turns(
    cloud: ScriptedCloud, root: Path, answer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("memoair_runtime.sync.push_traces.CALL_TIMEOUT_S", 0.5)
    cloud.behave("recall-traces", always=answer)
    with device(cloud, root) as runtime:
        asked(runtime)
        runtime.save("t2", "Thank you.")
        eventually(lambda: cloud.requests_to("recall-traces"))
        runtime.save("t3", "Bye.")
        cloud.wait_for_turns(SAID, "Thank you.", "Bye.")
        eventually(lambda: runtime.sync["unsynced"] == 0)
        assert runtime.sync["state"] == "ok"


def test_an_erased_user_leaves_no_traces(cloud: ScriptedCloud, root: Path) -> None:
    cloud.keeps_traces = True
    cloud.behave("recall-traces", always=responds_with(503))
    with device(cloud, root) as runtime:
        asked(runtime)
        runtime.end("now")
        written(runtime)
        runtime.search("jam", "later")  # waits in memory
        runtime.forget()
        assert runtime.traces() == []
        with filelock.FileLock(UserFolder(root, PROJECT, USER).lock("traces"), timeout=30):
            pass  # what was being sent is refused: the real cloud knows the erasure, and refuses it, too
        cloud.behave_well()
        runtime.flush()
        assert runtime.traces() == []
    assert cloud.traces == []


def test_searches_without_a_caller_leave_traces_without_a_user(cloud: ScriptedCloud, root: Path) -> None:
    cloud.keeps_traces = True
    with device(cloud, root, user_id="__org__", org_only=True) as runtime:
        runtime.search("opening hours", "lobby")
        runtime.end("lobby")
        eventually(lambda: cloud.traces)
    [request] = cloud.requests_to("recall-traces")
    assert request.user is None
    assert cloud.traces[0]["lanes"]["profile"] == {"status": "skipped"}


def test_traces_of_another_cloud_are_not_sent(cloud: ScriptedCloud, root: Path) -> None:
    cloud.keeps_traces = True
    with device(None, root) as runtime:
        asked(runtime)
        runtime.end("now")
        written(runtime)
    with device(cloud, root) as runtime:
        eventually(lambda: not runtime.traces())
    assert cloud.traces == []


def test_a_search_does_not_wait_for_the_disk(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    released = threading.Event()
    monkeypatch.setattr(TraceFile, "append", lambda *_: released.wait(30))
    with device(None, root) as runtime:
        asked(runtime)
        runtime.save("t2", "Thank you.")
        assert not runtime.search("jam", "now")["trace"]["degraded"]
        released.set()


def test_an_unknown_mode_is_an_error_that_names_it(root: Path) -> None:
    runtime = RunningRuntime(root, CLOUD_BASE_URL="")
    try:
        status, body = runtime.post("search_memory", sessionId="now", query="jam", recallTrace={"mode": "zanzibarplum"})
        assert status == 400
        assert "off, ids, text" in body["error"]["message"]
        assert "zanzibarplum" not in str(body)
    finally:
        runtime.close()
