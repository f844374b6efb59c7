"""Error messages of requests to a cloud, and credentials that are never sent."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from cli.imports import cloud_environment
from support.clouds import Client
from support.commands import memoair

from memoair_protocol.cloud_http import CloudHttp
from memoair_protocol.cloud_replies import CloudUnreachableError


@contextmanager
def server_that_sends(content: bytes) -> Iterator[int]:
    """Serve these bytes to every client and close the connection."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def run() -> None:
            with suppress(OSError):
                while True:
                    connection, _ = server.accept()
                    with connection:
                        connection.recv(65_536)
                        connection.sendall(content)

        thread = threading.Thread(target=run)
        thread.start()
        try:
            yield server.getsockname()[1]
        finally:
            server.shutdown(socket.SHUT_RDWR)
            thread.join()


def unreachable_message(url: str, **environ: str) -> str:
    cloud = CloudHttp(url, "memoair_pk_secret")
    try:
        with pytest.raises(CloudUnreachableError) as caught:
            cloud.request("GET", "/healthz")
    finally:
        cloud.close()
    assert "memoair_pk_secret" not in str(caught.value)
    return str(caught.value)


def test_connection_failures_have_plain_messages(monkeypatch: pytest.MonkeyPatch) -> None:
    assert unreachable_message("http://127.0.0.1:9").endswith("nothing listens there")
    assert unreachable_message("http://no-such-host.invalid").endswith("its host name cannot be resolved")
    assert unreachable_message("127.0.0.1:9").endswith("its address must begin with https:// or http://")
    assert unreachable_message("http://:x").endswith("its address is invalid")
    with server_that_sends(b"") as port:
        assert unreachable_message(f"http://127.0.0.1:{port}").endswith("it closed the connection")
    with server_that_sends(b"HTTP/1.1 200 OK\r\n\r\n") as port:
        assert "TLS failed" in unreachable_message(f"https://127.0.0.1:{port}")
    monkeypatch.setenv("HTTP_PROXY", "http://user:word@127.0.0.1:9")
    message = unreachable_message("http://cloud.example")
    assert "the proxy (HTTPS_PROXY, HTTP_PROXY) rejects the connection" in message
    assert "word" not in message


def test_netrc_does_not_replace_the_key(client: Client, home: Path) -> None:
    (home / ".netrc").write_text("machine 127.0.0.1 login somebody password else\n")
    assert memoair("project", "create", "Second", **cloud_environment(client)).out.startswith("proj_second")


@pytest.mark.parametrize("key", ["memoair_pk_ä", "memoair pk", "memoair_pk\x01"])
def test_an_invalid_key_is_reported_without_the_key(key: str) -> None:
    done = memoair("project", "create", "Acme", code=1, MEMOAIR_API_KEY=key)
    assert done.err == "MEMOAIR_API_KEY has a character that is invalid in keys\n"


def test_a_line_feed_after_the_key_is_ignored(client: Client) -> None:
    environ = cloud_environment(client)
    environ["MEMOAIR_API_KEY"] += "\n"
    assert memoair("project", "create", "Second", **environ).out.startswith("proj_second")


def test_the_error_of_the_cloud_is_shown(client: Client) -> None:
    done = memoair("project", "create", "Acme", code=1, **cloud_environment(client))
    assert f"the cloud at {client.url} rejected the request: cloud.conflict: " in done.err
