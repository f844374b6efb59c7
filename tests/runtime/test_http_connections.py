"""Connections: kept for the next request, bounded in number, quick, and none can hold up another."""

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

from memoair_runtime.recall.watch import STALL_S

HEALTH = b"GET /v1/runtime/health HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
MOST = 64
# Clients drop what was idle for so long; a server that hangs up earlier loses them a request.
CLIENTS_KEEP_S = 5.0


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
    assert connection.reply().status == 200


def test_many_requests_go_over_one_connection(shared: RunningRuntime) -> None:
    with shared.conversation() as ask:
        for number in range(200):
            turn = post("turn/after", sessionId="call-1", turnId=f"t{number % 20}", userText="a", assistantText="b")
            for request in (HEALTH, search("call-1"), turn):
                reply = ask(request)
                assert reply.status == 200
                took_ms = json.loads(reply.body).get("trace", {"totalMs": 0})["totalMs"]
                assert reply.headers["connection"] == "keep-alive" or took_ms >= STALL_S * 1e3, "a search got stuck"


def test_a_refusal_that_leaves_the_framing_whole_keeps_the_connection(shared: RunningRuntime) -> None:
    with shared.connect() as connection:
        for request, status in (
            (post("search_memory", query=5), 400),
            (post("nowhere"), 404),
            (post("health"), 405),
            (post("turn/after", sessionId="c", turnId="t", userText="a", assistantText="b", userId="other"), 409),
        ):
            connection.send(request)
            reply = connection.reply()
            assert (reply.status, reply.headers["connection"]) == (status, "keep-alive")
        ask_health(connection)


def test_a_connection_is_closed_when_the_client_asks_for_it(shared: RunningRuntime) -> None:
    with shared.connect() as connection:
        connection.send(HEALTH.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
        reply = connection.reply()
        assert (reply.status, reply.headers["connection"]) == (200, "close")
        assert connection.ends()


def test_a_reply_comes_in_one_piece_and_without_the_forty_milliseconds_of_a_delayed_acknowledgement(
    shared: RunningRuntime,
) -> None:
    pieces = []
    shared.save("call-2", "t1", "I would like to swap the red boots.")

    def median_s() -> float:
        took_s = []
        with ExitStack() as stack:
            connection = stack.enter_context(shared.connect())
            for request in (HEALTH, search("call-3")) * 25:
                began_at = time.monotonic()
                connection.send(request)
                piece = connection.socket.recv(1 << 20)
                took_s.append(time.monotonic() - began_at)
                head, _, body = piece.partition(b"\r\n\r\n")
                length = next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
                pieces.append(len(body) == int(length.partition(b":")[2]))
                if b"\r\nConnection: close" in head:  # behind a search that was held up
                    connection = stack.enter_context(shared.connect())
        return statistics.median(took_s)

    assert least(median_s, 0.02) < 0.02
    assert all(pieces)


def test_a_request_that_comes_byte_by_byte_is_answered(shared: RunningRuntime) -> None:
    request = search("call-1")
    with shared.connect() as connection:
        for number in range(len(request)):
            connection.send(request[number : number + 1])
        assert connection.reply().status == 200


def test_clients_that_stop_in_the_middle_of_a_request_hold_up_nobody(shared: RunningRuntime) -> None:
    whole = post("turn/after", sessionId="call-1", turnId="slow", userText="slow", assistantText="")
    with ExitStack() as stack:
        for cut in (1, 10, 30, 60, len(whole) - 40, len(whole) - 1) * 5:
            stack.enter_context(shared.connect()).send(whole[:cut])
        last = stack.enter_context(shared.connect())
        last.send(whole[:-1])

        with shared.conversation() as ask:
            began_at = time.monotonic()
            for _ in range(20):
                assert ask(HEALTH).status == 200
                assert ask(search("call-1")).status == 200
            # Those that stopped are hung up on after 10 s.
            assert time.monotonic() - began_at < 5.0

        last.send(whole[-1:])
        assert last.reply().status == 200


def test_a_client_that_does_not_read_its_reply_holds_up_nobody(shared: RunningRuntime) -> None:
    with shared.connect() as deaf, shared.connect() as other:
        ask = asking_without_end(deaf)

        def is_stuck_and_holds_up_nobody() -> bool:
            ask()
            before = deaf.queues()
            for _ in range(20):
                ask_health(other)
            # It neither reads what has come nor gets rid of what it has to say.
            return before.unread > 0 and before.unsent > 0 and before == deaf.queues()

        eventually(is_stuck_and_holds_up_nobody)


def asking_without_end(connection: RawConnection) -> Callable[[], None]:
    """Return what asks and asks over a connection, without reading, until there is no more room on the way there."""
    # For little it is told much; a search, were it held up, would end the connection.
    request = rest = HEALTH.replace(b"/health", b"/metrics") * 100

    def ask() -> None:
        nonlocal rest
        while select.select([], [connection.socket], [], 0.05)[1]:
            rest = rest[connection.socket.send(rest) :] or request  # it may take a part of what it is given

    return ask


def test_connections_leave_no_descriptor_and_no_thread(start_runtime_alone: Callable[[], RunningRuntime]) -> None:
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
    """As `start_runtime`, beside the module's process."""
    with ExitStack() as stack:
        yield lambda: stack.enter_context(closing(RunningRuntime(tmp_path)))


def test_idle_connections_outlast_the_clients_patience_and_then_make_room(
    start_runtime_alone: Callable[[], RunningRuntime],
) -> None:
    """All places are taken by connections that idle: none is closed while its client may still use it.

    After that the 65th is served, the one that was idle longest goes, and those used since stay.
    """
    runtime = start_runtime_alone()
    with ExitStack() as stack:
        idle_since = time.monotonic()  # none is idle for longer
        held = [stack.enter_context(runtime.connect()) for _ in range(MOST)]
        for connection in held[:-1]:  # the last one never says a word
            ask_health(connection)
        newcomer = stack.enter_context(runtime.connect())
        newcomer.send(HEALTH)
        for connection in held[1:]:
            sockets = [each.socket for each in held]
            assert not select.select(sockets, [], [], 0)[0]
            if connection is not held[-1]:
                ask_health(connection)

        patience_s = CLIENTS_KEEP_S - (time.monotonic() - idle_since)
        closed, _, _ = select.select([each.socket for each in (*held, newcomer)], [], [], patience_s)
        has_waited = time.monotonic() - idle_since >= CLIENTS_KEEP_S  # a busy machine may wake us later than that
        assert has_waited or not closed, "the server hung up, or took one too many, before a client would have"

        ready, _, _ = select.select([newcomer.socket], [], [], 15.0)  # without that, the others idle for 75 s
        assert ready, "the newcomer is served once the others have been idle for long"
        assert newcomer.reply().status == 200
        gone = [each for each in held if select.select([each.socket], [], [], 0)[0]]
        assert gone in ([held[0]], [held[-1]])
        assert gone[0].ends()
        ask_health(held[1])


def test_a_place_that_is_freed_is_given_to_the_next_at_once(start_runtime_alone: Callable[[], RunningRuntime]) -> None:
    runtime = start_runtime_alone()
    with ExitStack() as stack:
        held = [stack.enter_context(runtime.connect()) for _ in range(MOST)]
        for connection in held:
            ask_health(connection)
        newcomer = stack.enter_context(runtime.connect())
        newcomer.send(HEALTH)
        assert not select.select([newcomer.socket], [], [], 0.2)[0], "there is no place left"

        held[10].close()

        assert select.select([newcomer.socket], [], [], 3.0)[0], "sooner than after the 5.5 s for which others may idle"
        assert newcomer.reply().status == 200
