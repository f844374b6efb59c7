"""Connections: reused for further requests, bounded in number, fast, and none can block another."""

import json
import select
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import psutil
import pytest
from support.runtimes import RawConnection, RunningRuntime
from support.timing import least
from support.waiting import eventually

from memoair_runtime.recall.watchdog import STALL_S

HEALTH = b"GET /v1/runtime/health HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
MAX_CONNECTIONS = 64
# Clients drop connections that were idle for this long. A server that closes them earlier makes requests fail.
CLIENT_IDLE_S = 5.0


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningRuntime]:
    with closing(RunningRuntime(tmp_path_factory.mktemp("connections"))) as runtime:
        runtime.wait_until_loaded()
        yield runtime


def post(path: str, **body: object) -> bytes:
    content = json.dumps(body).encode()
    head = f"POST /v1/runtime/{path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {len(content)}\r\n\r\n"
    return head.encode() + content


def search(session: str) -> bytes:
    return post("search_memory", sessionId=session, query="boots")


def ask_health(connection: RawConnection) -> None:
    connection.send(HEALTH)
    assert connection.read_reply().status == 200


def test_one_connection_serves_many_requests(shared: RunningRuntime) -> None:
    with shared.reconnecting_client() as ask:
        for number in range(200):
            turn = post("turn/after", sessionId="call-1", turnId=f"t{number % 20}", userText="a", assistantText="b")
            for request in (HEALTH, search("call-1"), turn):
                reply = ask(request)
                assert reply.status == 200
                took_ms = json.loads(reply.body).get("trace", {"totalMs": 0})["totalMs"]
                assert reply.headers["connection"] == "keep-alive" or took_ms >= STALL_S * 1e3, (
                    "closed without a stuck search"
                )


def test_an_error_that_does_not_affect_framing_keeps_the_connection_open(shared: RunningRuntime) -> None:
    with shared.connect() as connection:
        for request, status in (
            (post("search_memory", query=5), 400),
            (post("nowhere"), 404),
            (post("health"), 405),
            (post("turn/after", sessionId="c", turnId="t", userText="a", assistantText="b", userId="other"), 409),
        ):
            connection.send(request)
            reply = connection.read_reply()
            assert (reply.status, reply.headers["connection"]) == (status, "keep-alive")
        ask_health(connection)


def test_a_connection_is_closed_when_the_client_asks_for_it(shared: RunningRuntime) -> None:
    with shared.connect() as connection:
        connection.send(HEALTH.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
        reply = connection.read_reply()
        assert (reply.status, reply.headers["connection"]) == (200, "close")
        assert connection.is_closed_by_peer()


def test_a_reply_is_sent_in_one_write_without_the_delay_of_a_delayed_ack(
    shared: RunningRuntime,
) -> None:
    is_whole = []
    shared.save("call-2", "t1", "I would like to swap the red boots.")

    def median_s() -> float:
        took_s = []
        with ExitStack() as stack:
            connection = stack.enter_context(shared.connect())
            for request in (HEALTH, search("call-3")) * 25:
                began_at = time.monotonic()
                connection.send(request)
                received = connection.socket.recv(1 << 20)
                took_s.append(time.monotonic() - began_at)
                head, _, body = received.partition(b"\r\n\r\n")
                length = next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
                is_whole.append(len(body) == int(length.partition(b":")[2]))
                if b"\r\nConnection: close" in head:  # after a search that was delayed
                    connection = stack.enter_context(shared.connect())
        return statistics.median(took_s)

    assert least(median_s, 0.02) < 0.02
    assert all(is_whole)


def test_a_request_that_arrives_byte_by_byte_is_answered(shared: RunningRuntime) -> None:
    request = search("call-1")
    with shared.connect() as connection:
        for number in range(len(request)):
            connection.send(request[number : number + 1])
        assert connection.read_reply().status == 200


def test_clients_that_stall_during_a_request_do_not_block_others(shared: RunningRuntime) -> None:
    request = post("turn/after", sessionId="call-1", turnId="slow", userText="slow", assistantText="")
    with ExitStack() as stack:
        for length in (1, 10, 30, 60, len(request) - 40, len(request) - 1) * 5:
            stack.enter_context(shared.connect()).send(request[:length])
        last = stack.enter_context(shared.connect())
        last.send(request[:-1])

        with shared.reconnecting_client() as ask:
            began_at = time.monotonic()
            for _ in range(20):
                assert ask(HEALTH).status == 200
                assert ask(search("call-1")).status == 200
            # The stalled connections are closed after 10 s.
            assert time.monotonic() - began_at < 5.0

        last.send(request[-1:])
        assert last.read_reply().status == 200


def test_a_client_that_does_not_read_its_replies_does_not_block_others(shared: RunningRuntime) -> None:
    with shared.connect() as unread, shared.connect() as other:
        flood = request_flooder(unread)

        def is_stuck_without_blocking_others() -> bool:
            flood()
            before = unread.read_queues()
            for _ in range(20):
                ask_health(other)
            # The server neither reads more requests nor gets rid of its replies.
            return before.unread > 0 and before.unsent > 0 and before == unread.read_queues()

        eventually(is_stuck_without_blocking_others)


def request_flooder(connection: RawConnection) -> Callable[[], None]:
    """Return a function that sends requests over a connection, without reading, until its buffers are full."""
    # A request for metrics is short and its reply is long; a delayed search would close the connection.
    request = rest = HEALTH.replace(b"/health", b"/metrics") * 100

    def flood() -> None:
        nonlocal rest
        while select.select([], [connection.socket], [], 0.05)[1]:
            rest = rest[connection.socket.send(rest) :] or request  # it may send only a part

    return flood


def test_closed_connections_leave_no_descriptor_and_no_thread(
    start_runtime_alone: Callable[[], RunningRuntime],
) -> None:
    runtime = start_runtime_alone()
    runtime.health()
    runtime.wait_until_loaded()
    process = psutil.Process(runtime.process.pid)
    descriptors, threads = process.num_fds(), process.num_threads()
    for _ in range(4):
        with ExitStack() as stack:
            for number in range(40):
                connection = stack.enter_context(runtime.connect())
                connection.send(HEALTH if number % 2 else b"GET /v1/run")
    eventually(lambda: process.num_fds() <= descriptors)
    eventually(lambda: process.num_threads() <= threads)
    assert runtime.health()["status"] == "ok"


@pytest.fixture
def start_runtime_alone(tmp_path: Path) -> Iterator[Callable[[], RunningRuntime]]:
    """Like `start_runtime`, for a process of its own beside the module's."""
    with ExitStack() as stack:
        yield lambda: stack.enter_context(closing(RunningRuntime(tmp_path)))


def test_idle_connections_outlive_their_clients_and_then_free_a_slot(
    start_runtime_alone: Callable[[], RunningRuntime],
) -> None:
    """With idle connections in all slots, none is closed while its client may still use it.

    After that the 65th connection is served, the one that was idle longest is closed, and the others stay open.
    """
    runtime = start_runtime_alone()
    with ExitStack() as stack:
        idle_since = time.monotonic()  # no connection is idle for longer
        held = [stack.enter_context(runtime.connect()) for _ in range(MAX_CONNECTIONS)]
        for connection in held:
            ask_health(connection)
        newcomer = stack.enter_context(runtime.connect())
        newcomer.send(HEALTH)
        for connection in held[1:]:
            sockets = [open_connection.socket for open_connection in held]
            assert not select.select(sockets, [], [], 0)[0]
            ask_health(connection)

        wait_s = CLIENT_IDLE_S - (time.monotonic() - idle_since)
        closed, _, _ = select.select([connection.socket for connection in (*held, newcomer)], [], [], wait_s)
        has_waited = time.monotonic() - idle_since >= CLIENT_IDLE_S  # a busy machine may wake up later
        assert has_waited or not closed, "the server closed a connection, or accepted one too many, too early"

        ready, _, _ = select.select([newcomer.socket], [], [], 15.0)  # otherwise the others idle for 75 s
        assert ready, "the new connection must be served once the others have been idle long enough"
        assert newcomer.read_reply().status == 200
        gone = [connection for connection in held if select.select([connection.socket], [], [], 0)[0]]
        assert gone == [held[0]]
        assert gone[0].is_closed_by_peer()
        ask_health(held[1])


def test_a_freed_slot_is_used_immediately(start_runtime_alone: Callable[[], RunningRuntime]) -> None:
    runtime = start_runtime_alone()
    with ExitStack() as stack:
        held = [stack.enter_context(runtime.connect()) for _ in range(MAX_CONNECTIONS)]
        for connection in held:
            ask_health(connection)
        newcomer = stack.enter_context(runtime.connect())
        newcomer.send(HEALTH)
        assert not select.select([newcomer.socket], [], [], 0.2)[0], "no slot is free"

        held[10].close()

        assert select.select([newcomer.socket], [], [], 3.0)[0], (
            "it must be served before the 5.5 s for which others may idle"
        )
        assert newcomer.read_reply().status == 200
