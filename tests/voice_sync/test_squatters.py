"""A program that took the port of a runtime gets neither the token nor a word, whatever it answers."""

import json
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path

import pytest
import urllib3
from support.runtimes import PROJECT, USER, RunningRuntime

from memoair_protocol.errors import MemoAirVoiceMemoryError
from memoair_voice_sync import MemoAirVoiceMemorySync
from memoair_voice_sync._loopback.proven_connection import ALLOW_UNPROVEN_VARIABLE
from memoair_voice_sync._loopback.transport import ConnectionBrokenError, RuntimeTransport

TOKEN = "a-token-of-this-test-only"
WORDS = "my account number is twelve"
TURN = json.dumps({"userText": WORDS}).encode()
Respond = Callable[[bytes], bytes]


def respond_with(headers: str = "", project: str = PROJECT, user: str = USER) -> Respond:
    """Answer everything as the health of the right runtime, with these headers."""
    body = json.dumps({"status": "ok", "workspaceId": project, "userId": user, "localEventId": "e"}).encode()
    head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n{headers}\r\n"
    return lambda _: head.encode() + body


class Squatter:
    """A program that listens on a port, answers, and keeps what it hears."""

    def __init__(self, respond: Respond, port: int = 0) -> None:
        self.heard = b""
        self._respond = respond
        self._listener = socket.create_server(("127.0.0.1", port))
        self._listener.settimeout(0.05)
        self.port = int(self._listener.getsockname()[1])
        self._ends = threading.Event()
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def close(self) -> None:
        """Stop."""
        self._ends.set()
        for thread in self._threads:
            thread.join()

    def _accept(self) -> None:
        with self._listener:
            while not self._ends.is_set():
                with suppress(TimeoutError):
                    connection, _ = self._listener.accept()
                    self._threads.append(threading.Thread(target=self._serve, args=(connection,)))
                    self._threads[-1].start()

    def _serve(self, connection: socket.socket) -> None:
        with connection:
            connection.settimeout(0.05)
            while not self._ends.is_set():
                try:
                    received = connection.recv(1 << 16)
                except TimeoutError:
                    continue
                except OSError:
                    return
                if not received:
                    return
                self.heard += received
                with suppress(OSError):
                    connection.sendall(self._respond(received))


@contextmanager
def squatting(respond: Respond, port: int = 0) -> Iterator[Squatter]:
    with closing(Squatter(respond, port)) as squatter:
        yield squatter


def relay_to(port: int) -> Respond:
    """Pass everything on to another port, and its reply back."""

    def respond(request: bytes) -> bytes:
        with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
            connection.sendall(request)
            received = connection.recv(1 << 16)
            head, _, body = received.partition(b"\r\n\r\n")
            [length] = [line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
            while len(body) < int(length.partition(b":")[2]):
                body += connection.recv(1 << 16)
            return head + b"\r\n\r\n" + body

    return respond


@pytest.fixture(scope="module")
def runtime(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningRuntime]:
    with closing(RunningRuntime(tmp_path_factory.mktemp("squatters"), TOKEN=TOKEN)) as started:
        yield started


def deadline() -> float:
    return time.monotonic() + 10.0


@pytest.mark.parametrize(
    "headers",
    ["", f"MemoAir-Proof: {'0' * 64}\r\n", "MemoAir-Proof: wrong-token\r\n", "Connection: close\r\n"],
    ids=["no proof", "a forged proof", "another token", "no proof, and closed"],
)
@pytest.mark.parametrize("has_pool", [False, True])
def test_a_squatter_is_sent_neither_the_token_nor_a_word(headers: str, has_pool: bool) -> None:
    with squatting(respond_with(headers)) as squatter, ExitStack() as stack:
        pool = stack.enter_context(urllib3.HTTPConnectionPool("127.0.0.1", squatter.port)) if has_pool else None
        memory = MemoAirVoiceMemorySync(
            project_id=PROJECT,
            user_id=USER,
            auto_start_runtime=False,
            runtime_url=f"http://127.0.0.1:{squatter.port}",
            runtime_token=TOKEN,
            client=pool,
        )
        with memory, pytest.raises(MemoAirVoiceMemoryError) as raised:
            memory.after_turn(WORDS, "", turn_id="t1", timeout_s=10.0)
    if "wrong-token" in headers:
        assert raised.value.code == "runtime.unauthorized"
    else:
        assert raised.value.code == "runtime.identity_mismatch"
        assert ALLOW_UNPROVEN_VARIABLE in raised.value.message
    assert squatter.heard.startswith(b"GET /v1/runtime/health")
    assert TOKEN.encode() not in squatter.heard
    assert b"account" not in squatter.heard


def test_a_relay_to_the_real_runtime_proves_nothing(runtime: RunningRuntime) -> None:
    with squatting(relay_to(runtime.port)) as relay:
        with closing(RuntimeTransport("127.0.0.1", relay.port, TOKEN)) as transport:
            with pytest.raises(MemoAirVoiceMemoryError) as raised:
                transport.call("POST", "/v1/runtime/turn/after", TURN, deadline())
            assert raised.value.code == "runtime.unauthorized"
        with closing(RuntimeTransport("127.0.0.1", relay.port, None)) as without_token:
            without_token.verify_identity(PROJECT, USER, deadline())  # the relay works
    assert TOKEN.encode() not in relay.heard
    assert b"account" not in relay.heard


def test_the_next_connection_is_proven_as_well(tmp_path: Path) -> None:
    with (
        closing(RunningRuntime(tmp_path, TOKEN=TOKEN)) as runtime,
        closing(RuntimeTransport("127.0.0.1", runtime.port, TOKEN)) as transport,
    ):
        transport.verify_identity(PROJECT, USER, deadline())
        runtime.kill()
        runtime.http.close()
        with squatting(respond_with(), runtime.port) as squatter, pytest.raises(ConnectionBrokenError):
            transport.call("POST", "/v1/runtime/turn/after", TURN, deadline())
    assert squatter.heard.startswith(b"GET /v1/runtime/health")
    assert b"account" not in squatter.heard
    assert TOKEN.encode() not in squatter.heard


def test_a_runtime_does_not_prove_itself_to_others(runtime: RunningRuntime) -> None:
    for challenge in ("", "nonsense", f"{'0' * 32} {'0' * 64}"):
        head = f"GET /v1/runtime/health HTTP/1.1\r\nHost: 127.0.0.1\r\nMemoAir-Challenge: {challenge}\r\n\r\n"
        reply = runtime.exchange(head.encode())
        assert reply.status == 200
        assert reply.headers.get("memoair-proof") in (None, "wrong-token")


def test_an_open_connection_costs_no_further_proof(runtime: RunningRuntime) -> None:
    with closing(RuntimeTransport("127.0.0.1", runtime.port, TOKEN)) as transport:
        transport.verify_identity(PROJECT, USER, deadline())
        before = requests_of_health(runtime)
        body = json.dumps({"sessionId": "s", "query": "boots", "workspaceId": PROJECT, "userId": USER}).encode()
        for _ in range(5):
            transport.call("POST", "/v1/runtime/search_memory", body, deadline())
        assert requests_of_health(runtime) == before


def requests_of_health(runtime: RunningRuntime) -> str:
    text = runtime.http.request("GET", "/v1/runtime/metrics", headers={"Authorization": f"Bearer {TOKEN}"}).data
    return next(line for line in text.decode().splitlines() if "health" in line and "_total" in line)


def test_a_runtime_without_proof_is_used_where_the_setting_allows_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ALLOW_UNPROVEN_VARIABLE, "1")
    with squatting(respond_with()) as older, closing(RuntimeTransport("127.0.0.1", older.port, TOKEN)) as transport:
        transport.verify_identity(PROJECT, USER, deadline())
        assert transport.call("POST", "/v1/runtime/turn/after", TURN, deadline())["localEventId"] == "e"


def test_a_runtime_without_a_token_is_named_once_in_the_log(
    runtime: RunningRuntime, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(2):
        with closing(RuntimeTransport("127.0.0.1", runtime.port, None)) as transport:
            transport.verify_identity(PROJECT, USER, deadline())
    assert caplog.text.count("runtime_without_token") == 1


OLDER_RUNTIME = f"""
import http.server

class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = b'{{"status": "ok", "workspaceId": "{PROJECT}", "userId": "{USER}", "localEventId": "e"}}'
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_POST = do_GET

server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
print(server.server_port, flush=True)
server.serve_forever()
"""


def test_an_older_runtime_that_was_started_here_needs_no_proof() -> None:
    """It ends each connection after its reply, as well."""
    with subprocess.Popen(
        [sys.executable, "-c", OLDER_RUNTIME], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as older:
        assert older.stdout is not None
        try:
            with closing(RuntimeTransport("127.0.0.1", int(older.stdout.readline()), TOKEN)) as transport:
                transport.verify_identity(PROJECT, USER, deadline())
                assert transport.call("POST", "/v1/runtime/turn/after", TURN, deadline())["localEventId"] == "e"
        finally:
            older.kill()
