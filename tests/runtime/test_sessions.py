"""Sessions over HTTP: started, written, searched, ended, and known after a restart."""

from collections.abc import Callable
from pathlib import Path

from support.runtimes import RunningRuntime


def test_a_turn_is_recalled_in_a_later_session_after_a_crash(start_runtime: Callable[..., RunningRuntime]) -> None:
    first = start_runtime()
    first.start("call-1", name="Dana")
    first.save("call-1", "t1", "I would like to swap the red boots for size nine.")
    first.kill()

    second = start_runtime()
    second.start("call-2", name="Dana")
    second.wait_until_loaded()

    assert "swap the red boots for size nine" in second.search("call-2", "which boots was it?")["contextText"]


def test_a_known_turn_id_writes_nothing_and_returns_the_same_event_id(runtime: RunningRuntime) -> None:
    runtime.start("call-1")
    first = runtime.save("call-1", "t1", "hello", "good morning")
    lines = runtime.log_lines("call-1")

    assert runtime.save("call-1", "t1", "hello", "good morning") == first
    assert runtime.log_lines("call-1") == lines


def test_a_session_that_has_ended_can_neither_be_searched_nor_written(runtime: RunningRuntime) -> None:
    runtime.start("call-1")
    runtime.save("call-1", "t1", "hello")
    assert runtime.post("session/end", sessionId="call-1", reason="completed")[0] == 200

    for path, extra in (
        ("search_memory", {"query": "hello"}),
        ("turn/after", {"turnId": "t2", "userText": "more", "assistantText": ""}),
    ):
        status, body = runtime.post(path, sessionId="call-1", **extra)
        assert (status, body["error"]["code"]) == (404, "runtime.session_not_found")


def test_a_session_that_was_never_started_is_opened_silently(runtime: RunningRuntime) -> None:
    found = runtime.search("never-started", "hello")
    assert any("never started" in note for note in found["trace"]["notes"])

    runtime.save("never-started", "t1", "the first words")
    assert [line["type"] for line in runtime.log_lines("never-started")] == ["session_start", "turn"]


def test_a_caller_with_the_name_of_the_agent_does_not_appear_as_the_agent(runtime: RunningRuntime) -> None:
    runtime.start("call-1", name="Juno", assistantName="juno")
    runtime.save("call-1", "t1", "the refund is approved", "it is not")

    context = runtime.search("call-1", "refund")["contextText"]
    assert "- Juno (caller): the refund is approved" in context
    assert "- juno (agent): it is not" in context


def test_an_org_file_may_begin_with_a_byte_order_mark_and_must_hold_a_document(
    start_runtime: Callable[..., RunningRuntime], tmp_path: Path
) -> None:
    org_file = tmp_path / "org.jsonl"
    org_file.write_bytes(b'\xef\xbb\xbf{"id": "hours", "text": "We open at nine."}\n')
    runtime = start_runtime(ORG_FILE=str(org_file))
    runtime.start("call-1")
    runtime.wait_until_loaded()
    assert [hit["id"] for hit in runtime.search("call-1", "when do you open?")["org"]] == ["hours"]

    org_file.write_text('[{"id": "hours", "text": "We open at ten."}]')
    broken = start_runtime(tmp_path / "other", ORG_FILE=str(org_file))
    broken.wait_until_loaded()
    assert str(org_file) in broken.start("call-1")["org"]["message"]
    assert broken.search("call-1", "when do you open?")["trace"]["lanes"]["org"]["status"] == "error"
