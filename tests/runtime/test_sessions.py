"""Sessions over HTTP: started, written, searched, ended, and known again after a restart."""

from collections.abc import Callable

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


def test_a_turn_id_that_is_known_writes_nothing_and_gives_the_same_event_id(runtime: RunningRuntime) -> None:
    runtime.start("call-1")
    first = runtime.save("call-1", "t1", "hello", "good morning")
    lines = runtime.log_lines("call-1")

    assert runtime.save("call-1", "t1", "other words", "for the same turn") == first
    assert runtime.log_lines("call-1") == lines


def test_a_session_that_has_ended_is_neither_searched_nor_written(runtime: RunningRuntime) -> None:
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
