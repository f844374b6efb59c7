"""Requests whose body does not arrive, that have two tokens, or that try to write a line of the log."""

import json
import logging
import socket
import time
from collections.abc import Callable, Iterator
from http import HTTPStatus
from typing import Any

import pytest

from memoair_protocol.log_lines import OneLineFormatter
from memoair_runtime.errors import UnknownPathError
from memoair_runtime.http import server as server_module
from memoair_runtime.http.server import LoopbackServer
from memoair_runtime.main import open_listener
from memoair_runtime.metrics import RuntimeMetrics

PATH = "/v1/runtime/known"
TOKEN = "the-token"


class FakeRoutes:
    """One route, which fails, and any path that ends like it."""

    def find(self, method: str, path: str) -> Any:
        if not path.endswith(PATH):
            raise UnknownPathError("unknown path")

        class Failing:
            status = HTTPStatus.OK
            is_public = False

            def handle(self, content: bytes, reply: Callable[[Any], None]) -> None:
                if content == b"fail":
                    raise ZeroDivisionError
                reply({})

        return Failing()

    def metric_label(self, path: str) -> str:
        return path if path == PATH else "unknown"


@pytest.fixture
def port(nothing_left_behind: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    monkeypatch.setattr(server_module, "READ_TIMEOUT_S", 0.5)
    listener = open_listener("127.0.0.1", 0)
    server = LoopbackServer(listener, FakeRoutes(), RuntimeMetrics(), TOKEN)  # type: ignore[arg-type]
    server.start()
    yield int(listener.getsockname()[1])
    server.drain(time.monotonic() + 5)


def exchange(port: int, *lines: str, body: bytes = b"", length: int | None = None) -> tuple[int, dict[str, Any]]:
    """Send a request and return the status and the body of the reply, after which the server must close."""
    length = len(body) if length is None else length
    head = "\r\n".join([*lines, "Host: localhost", f"Content-Length: {length}", "", ""]).encode("latin-1")
    with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
        connection.sendall(head + body)
        with connection.makefile("rb") as stream:
            status = int(stream.readline().split()[1])
            size = 0
            while (line := stream.readline()) not in (b"\r\n", b""):
                if line.lower().startswith(b"content-length:"):
                    size = int(line.partition(b":")[2])
            content = json.loads(stream.read(size))
            if length > len(body):
                assert stream.read() == b""
    return status, content


AUTHORIZATION = f"Authorization: Bearer {TOKEN}"


@pytest.mark.parametrize("body", [b"", b'{"sessionId": "ca'])
def test_a_body_that_does_not_come_is_a_408_in_the_envelope(port: int, body: bytes) -> None:
    status, reply = exchange(port, f"POST {PATH} HTTP/1.1", AUTHORIZATION, body=body, length=100)
    assert (status, reply["error"]["code"]) == (408, "runtime.bad_request")


def test_two_tokens_are_refused(port: int) -> None:
    other = "Authorization: Bearer another"
    assert exchange(port, f"POST {PATH} HTTP/1.1", AUTHORIZATION)[0] == 200
    for both in ((AUTHORIZATION, other), (other, AUTHORIZATION), (AUTHORIZATION, AUTHORIZATION)):
        status, reply = exchange(port, f"POST {PATH} HTTP/1.1", *both)
        assert (status, reply["error"]["code"]) == (401, "runtime.unauthorized")


def test_a_path_as_it_was_sent_is_not_in_the_log(port: int, caplog: pytest.LogCaptureFixture) -> None:
    path = "/\x1b[31maction=forged" + PATH
    status, reply = exchange(port, f"POST {path} HTTP/1.1", AUTHORIZATION, body=b"fail")
    assert (status, reply["error"]["code"]) == (500, "runtime.internal")
    (record,) = [record for record in caplog.records if record.name.startswith("memoair_runtime")]
    assert "action=request_failed path=unknown error=" in record.getMessage()
    assert "forged" not in caplog.text


def test_a_message_from_outside_does_not_begin_another_line_of_the_log() -> None:
    why = "no\n2026-03-02 ERROR x action=forged\r\x1b[31m\u2028\x85ä"
    record = logging.LogRecord("x", logging.WARNING, "", 0, "action=sync_retrying why=%s", (why,), None)
    line = OneLineFormatter("%(levelname)s %(message)s").format(record)
    assert line.splitlines() == [line]
    assert not [character for character in line if character < " "]
    assert line.endswith("ä")
