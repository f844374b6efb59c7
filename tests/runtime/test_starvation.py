"""A moment without descriptors or threads: the runtime waits, and afterwards everything is as before."""

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from support.calls import user_folder
from support.runtimes import PATIENT_MS, RawConnection, RunningRuntime
from support.scripted_cloud import ScriptedCloud
from support.starvation import ThreadLimit, without_descriptors
from support.waiting import eventually

HEALTH = b"GET /v1/runtime/health HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
JOBS = ("load-sessions", "load-org", "cloud-sync", "background-writer", "recall-traces", "watch", "recall")


@pytest.fixture
def limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ThreadLimit:
    limit = ThreadLimit(tmp_path / "refused-threads")
    for name, value in limit.variables.items():
        monkeypatch.setenv(name, value)
    return limit


@pytest.fixture
def connections() -> Iterator[Callable[[RunningRuntime], RawConnection]]:
    with ExitStack() as stack:
        yield lambda runtime: stack.enter_context(runtime.connect(30.0))


def ask(connection: RawConnection, path: str, **body: object) -> Any:
    content = json.dumps(body).encode()
    head = f"POST /v1/runtime/{path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {len(content)}\r\n\r\n"
    connection.send(head.encode(), content)
    reply = connection.read_reply()
    assert reply.status == 200, reply
    return json.loads(reply.body)


def health(connection: RawConnection) -> Any:
    connection.send(HEALTH)
    return json.loads(connection.read_reply().body)


def save(connection: RawConnection, turn_id: str, text: str) -> Any:
    return ask(connection, "turn/after", sessionId="call", turnId=turn_id, userText=text, assistantText="Noted.")


def search(connection: RawConnection, query: str) -> Any:
    return ask(connection, "search_memory", sessionId="call", query=query, timeoutMs=PATIENT_MS)


@pytest.mark.parametrize("shortage", ["descriptors", "threads"])
def test_connections_wait_for_descriptors_and_threads_and_are_served_then(
    start_runtime: Callable[..., RunningRuntime],
    connections: Callable[[RunningRuntime], RawConnection],
    limit: ThreadLimit,
    shortage: str,
) -> None:
    runtime = start_runtime()
    runtime.wait_until_loaded()
    runtime.save("call", "t1", "I collect stamps.")
    runtime.search("call", "What do I collect?")  # imports what a search needs
    known = connections(runtime)
    health(known)
    starved = without_descriptors(runtime.process.pid) if shortage == "descriptors" else limit.refusing()
    with starved:
        waiting = [connections(runtime) for _ in range(3)]
        for connection in waiting:
            connection.send(HEALTH)
        eventually(lambda: "action=accept_failed" in runtime.output())
        assert "stamps" in search(known, "What do I collect?")["contextText"], "open connections are served"
    for connection in waiting:
        assert connection.read_reply().status == 200
    assert runtime.output().count("action=accept_failed") == 1, "it is logged once in a while"
    assert runtime.terminate() == 0


def test_a_runtime_without_threads_for_its_jobs_answers_and_does_them_later(
    start_runtime: Callable[..., RunningRuntime],
    connections: Callable[[RunningRuntime], RawConnection],
    cloud: ScriptedCloud,
    limit: ThreadLimit,
) -> None:
    with limit.refusing(JOBS):
        runtime = start_runtime(**cloud.variables)
        connection = connections(runtime)
        assert save(connection, "t1", "I collect stamps.")["localEventId"]
        assert ask(connection, "sync/flush", deadlineMs=200)["status"] == "partial"
        found = ask(connection, "search_memory", sessionId="call", query="What do I collect?", timeoutMs=200)
        assert found["trace"]["degraded"]
        assert runtime.health()["lanes"]["permanent"] == "loading"

    runtime.wait_until_loaded()
    assert "stamps" in runtime.search("call", "What do I collect?")["contextText"]
    eventually(lambda: runtime.health()["sync"]["unsynced"] == 0)
    assert cloud.turn_texts() == ["I collect stamps."]


def test_a_runtime_without_a_thread_to_watch_its_parent_does_not_start_and_leaves_no_lease(
    storage_root: Path, start_runtime: Callable[..., RunningRuntime], limit: ThreadLimit
) -> None:
    with limit.refusing(["parent-watch"]):
        refused = start_runtime(OWNER_PIPE="stdin", SHARED="1")
        assert refused.process.wait(30.0) == 1
    assert "the process can start no more threads" in refused.output()
    assert "Traceback" not in refused.output()
    assert not user_folder(storage_root).lease.exists()
    started = start_runtime(OWNER_PIPE="stdin", SHARED="1")
    started.wait_until_loaded()


def test_what_could_not_be_read_at_the_start_is_read_later(
    start_runtime: Callable[..., RunningRuntime],
    connections: Callable[[RunningRuntime], RawConnection],
    limit: ThreadLimit,
) -> None:
    first = start_runtime()
    first.start("call")
    first.save("call", "t1", "I collect stamps.")
    assert first.terminate() == 0
    with limit.refusing(["load-sessions"]):
        runtime = start_runtime()
        connection = connections(runtime)
        assert health(connection)["lanes"]["permanent"] == "loading"
        stack = ExitStack()
        stack.enter_context(without_descriptors(runtime.process.pid))
    with stack:
        eventually(lambda: health(connection)["lanes"]["permanent"] == "error")
    eventually(lambda: health(connection)["lanes"]["permanent"] == "ready")
    assert "stamps" in runtime.search("other", "What do I collect?")["contextText"]
