"""Requests whose body does not arrive, with two values of a header, or that try to write a line of the log."""

import io
import json
import logging
import socket
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from http.client import HTTPConnection, HTTPResponse
from typing import Any
from urllib.parse import urlsplit

import pytest
from support.clouds import Client, running
from support.waiting import eventually

from memoair_cloud.logs import JsonLines

TIMEOUT_S = 1.0


@pytest.fixture(scope="module")
def impatient(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    """Run a server that waits only shortly for a body; yield a client of it."""
    folder = tmp_path_factory.mktemp("impatient")
    with running(f"sqlite:///{folder / 'cloud.db'}", folder, body_timeout_s=TIMEOUT_S) as cloud:
        yield cloud.tenant()


@contextmanager
def sending(client: Client, method: str, path: str, *headers: tuple[str, str]) -> Iterator[tuple[socket.socket, Any]]:
    """Send the head of a request; yield the socket, and a function that reads the response."""
    address = urlsplit(client.url)
    with closing(HTTPConnection(str(address.hostname), address.port, timeout=30)) as connection:
        connection.putrequest(method, path)
        for name, value in headers:
            connection.putheader(name, value)
        connection.endheaders()
        assert connection.sock is not None

        def read() -> tuple[int, Any, HTTPResponse]:
            response = connection.getresponse()
            return response.status, json.loads(response.read()), response

        yield connection.sock, read


def identity(client: Client) -> tuple[tuple[str, str], ...]:
    names = {f"X-{name.title()}-Id": value for name, value in client.identity.items()}
    return (("Authorization", f"Bearer {client.key}"), *names.items())


@pytest.mark.parametrize(
    ("path", "content_type"),
    [
        ("/v1/projects", "application/json"),
        ("/v1/voice-sdk/events", "application/json"),
        ("/v1/voice-sdk/index/faq/uploads/x/files", "multipart/form-data; boundary=b"),
        ("/dashboard/sign-in", "application/x-www-form-urlencoded"),
    ],
)
@pytest.mark.parametrize("begins", [True, False])
def test_a_body_that_does_not_come_is_a_408_in_the_envelope(
    impatient: Client, path: str, content_type: str, begins: bool
) -> None:
    headers = (*identity(impatient), ("Content-Type", content_type), ("Content-Length", "1000"))
    with sending(impatient, "POST", path, *headers) as (connection, read):
        if begins:
            connection.sendall(b"--b\r\nContent-Disposition" if "multipart" in content_type else b'{"name')
        status, body, response = read()
    assert (status, body["error"]["code"], body["error"]["details"]) == (408, "cloud.timeout", {"timeoutS": TIMEOUT_S})
    assert response.headers["connection"] == "close"
    assert response.headers["x-request-id"]


def test_a_body_that_trickles_in_is_a_408(impatient: Client) -> None:
    headers = (*identity(impatient), ("Content-Length", "1000"))
    began_at = time.monotonic()
    with sending(impatient, "POST", "/v1/projects", *headers) as (connection, read):
        connection.settimeout(0.1)
        for _ in range(300):  # until the server answers, long before the body is complete
            connection.sendall(b" ")
            try:
                if connection.recv(1, socket.MSG_PEEK):
                    break
            except TimeoutError:
                continue
        connection.settimeout(30)
        assert read()[0] == 408
    assert time.monotonic() - began_at < 25


def test_a_body_in_parts_is_read(impatient: Client) -> None:
    content = json.dumps({"name": "Later", "slug": "later"}).encode()
    headers = (*identity(impatient), ("Content-Length", str(len(content))))
    with sending(impatient, "POST", "/v1/projects", *headers) as (connection, read):
        for start in range(0, len(content), 12):
            connection.sendall(content[start : start + 12])
        assert read()[0] == 201


@pytest.mark.parametrize(
    ("name", "value", "status", "code"),
    [
        ("Authorization", "Bearer memoair_pk_other", 401, "cloud.unauthorized"),
        ("X-Project-Id", "proj_other", 422, "cloud.invalid"),
        ("X-Agent-Id", "agent_other", 422, "cloud.invalid"),
        ("X-User-Id", "other", 422, "cloud.invalid"),
        ("Content-Type", "text/plain", 422, "cloud.invalid"),
        ("Content-Encoding", "gzip", 422, "cloud.invalid"),
        ("X-Request-Id", "zzz", 422, "cloud.invalid"),
    ],
)
@pytest.mark.parametrize("is_first", [True, False])
def test_two_values_of_a_header_are_refused(
    impatient: Client, name: str, value: str, status: int, code: str, is_first: bool
) -> None:
    valid = dict(identity(impatient)).get(name, "application/json" if name == "Content-Type" else "identity")
    others = [header for header in identity(impatient) if header[0] != name]
    both = [(name, valid), (name.lower(), value)]
    headers = [*others, *(reversed(both) if is_first else both), ("Content-Length", "0")]
    with sending(impatient, "GET", "/v1/voice-sdk/users", *headers) as (_, read):
        answered, body, _ = read()
    assert (answered, body["error"]["code"]) == (status, code)
    assert value not in json.dumps(body)


def test_two_lengths_of_a_body_are_refused(impatient: Client) -> None:
    content = b'{"name": "Two", "slug": "two"}'
    lengths = (str(len(content)), "2")
    for first, second in (lengths, reversed(lengths)):
        headers = [*identity(impatient), ("Content-Length", first), ("Content-Length", second)]
        with sending(impatient, "POST", "/v1/projects", *headers) as (connection, _):
            connection.sendall(content)
            answer = connection.recv(4_096)
        assert answer.split()[1] in (b"400", b"422"), answer
    assert "two" not in [project["slug"] for project in impatient.ok("GET", "/v1/projects")["projects"]]


def test_no_request_writes_a_line_of_the_log(impatient: Client) -> None:
    output = io.StringIO()
    handler = logging.StreamHandler(output)
    handler.setFormatter(JsonLines())
    root = logging.getLogger()
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    forged = '%0a{"action":"forged"}%1b[31m'
    try:
        for path in (f"/{forged}", f"/v1/voice-sdk/users/{forged}", f"/v1/projects?q={forged}", "/readyz"):
            with sending(
                impatient, "GET", path, *identity(impatient), ("X-Request-Id", forged), ("User-Agent", forged)
            ) as (
                _,
                read,
            ):
                read()
        address = urlsplit(impatient.url)
        for head in (
            b"GET /\x1b[31mforged HTTP/1.1\r\nHost: x\r\n\r\n",
            b"GET / HTTP/1.1\r\nX: forged\r\n\x0b: 1\r\n\r\n",
        ):
            with socket.create_connection((str(address.hostname), int(address.port or 0)), timeout=30) as connection:
                connection.sendall(head)
                assert b"forged" not in connection.recv(4_096)
        eventually(lambda: '"route": "/readyz"' in output.getvalue())
    finally:
        root.removeHandler(handler)
        root.setLevel(level)
    lines = output.getvalue().splitlines()
    assert all(isinstance(json.loads(line), dict) for line in lines)
    assert "forged" not in output.getvalue()
    assert not [character for character in output.getvalue() if character < " " and character != "\n"]
