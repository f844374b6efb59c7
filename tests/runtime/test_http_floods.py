"""Connections without the token: however many there are, the owner of the runtime is answered."""

import resource
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest
import urllib3
from support.floods import flooding
from support.runtimes import PROJECT, USER, RunningRuntime
from support.timing import fastest

from memoair_voice_sync._loopback.transport import RuntimeTransport, encode_body

TOKEN = "the-token-of-the-owner"
HEAD = b"GET /v1/runtime/health HTTP/1.1\r\nHost: 127.0.0.1\r\n"
FLOODS = {
    "half of a head": HEAD,
    "a head without its body": HEAD.replace(b"GET", b"POST") + b"Content-Length: 9\r\n\r\n",
    "health, kept open": HEAD + b"\r\n",
    "a wrong challenge": HEAD + b"MemoAir-Challenge: " + b"0" * 32 + b" " + b"0" * 64 + b"\r\n\r\n",
    "replies that are not read": (HEAD + b"\r\n") * 50,
}
# A request takes a few milliseconds, and took ten seconds and more. The machine may be busy with other tests, so the
# fastest of some requests counts.
MAX_S, DEADLINE_S = 5.0, 60.0


@pytest.fixture(scope="module")
def runtime(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningRuntime]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))  # the runtime inherits it
    try:
        started = RunningRuntime(tmp_path_factory.mktemp("floods"), TOKEN=TOKEN)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    with closing(started):
        yield started


def ask_as_owner(port: int) -> None:
    """Save a turn over a new connection, as the client does."""
    transport = RuntimeTransport("127.0.0.1", port, TOKEN)
    body = {"sessionId": "call-1", "turnId": "t1", "userText": "a", "assistantText": "b", "userId": USER}
    body["workspaceId"] = PROJECT
    try:
        transport.verify_identity(PROJECT, USER, time.monotonic() + DEADLINE_S)
        saved = transport.call("POST", "/v1/runtime/turn/after", encode_body(body), time.monotonic() + DEADLINE_S)
        assert saved["localEventId"]
    finally:
        transport.close()


@pytest.mark.parametrize("content", FLOODS.values(), ids=FLOODS)
def test_the_owner_is_answered_while_others_hold_connections(runtime: RunningRuntime, content: bytes) -> None:
    with flooding(runtime.port, 200, content):
        assert fastest(lambda: ask_as_owner(runtime.port), MAX_S) < MAX_S
    assert "accept_failed" not in runtime.output()


def test_an_open_connection_of_the_owner_stays_open(runtime: RunningRuntime) -> None:
    request = HEAD.replace(b"health", b"metrics") + f"Authorization: Bearer {TOKEN}\r\n\r\n".encode()
    with runtime.connect() as connection:
        connection.send(request)
        assert connection.read_reply().status == 200
        with flooding(runtime.port, 200, HEAD + b"\r\n"):
            connection.send(request)
            assert connection.read_reply().status == 200


def test_a_client_of_another_program_is_answered_with_the_token_alone(runtime: RunningRuntime) -> None:
    with flooding(runtime.port, 200, HEAD), urllib3.HTTPConnectionPool("127.0.0.1", runtime.port) as http:
        reply = http.request("GET", "/v1/runtime/metrics", headers={"Authorization": f"Bearer {TOKEN}"}, timeout=30)
        assert reply.status == 200


def test_a_head_has_one_second(runtime: RunningRuntime) -> None:
    with runtime.connect() as silent, runtime.connect() as slow:
        began_at = time.monotonic()
        slow.send(HEAD)
        assert silent.is_closed_by_peer()
        assert slow.is_closed_by_peer()
        assert time.monotonic() - began_at >= 0.5


def test_a_body_without_the_token_has_one_second(runtime: RunningRuntime) -> None:
    with runtime.connect(timeout_s=8.0) as slow:
        slow.send(FLOODS["a head without its body"])
        assert slow.read_reply().status == 408
        assert slow.is_closed_by_peer()
    assert "request_failed" not in runtime.output()


def test_half_open_connections_take_no_thread(runtime: RunningRuntime) -> None:
    threads = Path(f"/proc/{runtime.process.pid}/task")
    before = len(list(threads.iterdir()))
    with ExitStack() as stack:
        for _ in range(100):
            stack.enter_context(runtime.connect()).send(HEAD)
        assert runtime.health()["status"] == "ok"
        assert len(list(threads.iterdir())) <= before + 2
