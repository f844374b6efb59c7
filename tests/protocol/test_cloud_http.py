"""Requests to a cloud or a registry: what the environment decides, what is never sent, and how a request ends.

The SDK, the runtime, the command line and the pull of runtimes behave alike.
"""

import json
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import pytest
import trustme
from support.file_server import FileServer, hang, redirect_to, respond, send_slowly
from support.loopback_server import LoopbackHandler

from memoair_protocol import cloud_http
from memoair_protocol.cloud_http import CloudHttp
from memoair_protocol.cloud_replies import CloudReply, CloudUnreachableError
from memoair_protocol.errors import MemoAirVoiceMemoryError
from memoair_runtime.sync.errors import CloudError
from memoair_runtime.sync.transport import CloudTransport
from memoair_runtime_store.cancel_token import CancelToken
from memoair_runtime_store.downloader import Downloader
from memoair_runtime_store.errors import RuntimeStoreError
from memoair_voice_sync._cloud.api import CloudApi

KEY = "memoair_pk_secret"
PATH, BOOTSTRAP = "/v1/voice-sdk/index/list", "/v1/voice-sdk/bootstrap"
BUNDLES = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE", "SSL_CERT_DIR")

pytestmark = pytest.mark.usefixtures("nothing_left_behind")


def ask_as_sdk(url: str) -> None:
    with closing(CloudApi(url, KEY, "project", "agent")) as cloud:
        cloud.list_indexes()


def ask_as_runtime(url: str) -> None:
    with closing(CloudTransport(url, KEY, "project", None, "ada")) as cloud:
        cloud.fetch_bootstrap(None, time.monotonic() + 30.0)


def ask_as_command_line(url: str) -> None:
    with closing(CloudHttp(url, KEY)) as cloud:
        cloud.request("GET", PATH)


def ask_as_pull(url: str) -> None:
    with closing(Downloader(CancelToken(30.0))) as downloader:
        downloader.read(f"{url}{PATH}", 1_000)


Ask = Callable[[str], None]
every_client = pytest.mark.parametrize("ask", [ask_as_sdk, ask_as_runtime, ask_as_command_line, ask_as_pull])


def failure_of(ask: Ask, url: str) -> str:
    with pytest.raises((MemoAirVoiceMemoryError, CloudError, CloudUnreachableError, RuntimeStoreError)) as raised:
        ask(url)
    return str(raised.value)


def serve(server: FileServer) -> FileServer:
    server.files[PATH] = b'{"indexes": []}'
    versions = ("profileVersion", "permanentManifestVersion", "orgManifestVersion", "forgottenVersion")
    server.files[BOOTSTRAP] = json.dumps({**dict.fromkeys(versions, 0), "syncToken": "1"}).encode()
    return server


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[FileServer]:
    """A server, and an environment that names no certificates and no proxies."""
    for name in (*BUNDLES, *(f"{scheme}_PROXY" for scheme in ("HTTP", "HTTPS", "ALL", "NO"))):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    with FileServer() as running:
        yield serve(running)


@pytest.fixture
def tls_server(server: FileServer, authority: trustme.CA) -> Iterator[FileServer]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    with FileServer(context) as running:
        yield serve(running)


@every_client
@pytest.mark.parametrize("variable", ["REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE"])
def test_a_bundle_of_the_environment_is_trusted(
    tls_server: FileServer,
    authority: trustme.CA,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    ask: Ask,
    variable: str,
) -> None:
    assert "TLS failed" in failure_of(ask, tls_server.url)
    assert tls_server.requests == []
    authority.cert_pem.write_to_path(str(tmp_path / "authority.pem"))
    monkeypatch.setenv(variable, str(tmp_path / "authority.pem"))
    ask(tls_server.url)


@every_client
def test_a_bundle_that_cannot_be_read_is_named(
    tls_server: FileServer, server: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ask: Ask
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "nowhere.pem"))
    assert "SSL_CERT_FILE) cannot be read: No such file or directory" in failure_of(ask, tls_server.url)
    ask(server.url)  # needs none


@every_client
def test_this_machine_is_reached_without_a_proxy_and_without_netrc(
    server: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ask: Ask
) -> None:
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login somebody password else\n")
    (tmp_path / "netrc").chmod(0o600)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:1")
    ask(server.url)
    [request] = server.requests
    assert request.headers.get("authorization") == (None if ask is ask_as_pull else f"Bearer {KEY}")


@pytest.mark.parametrize("ask", [ask_as_sdk, ask_as_runtime, ask_as_command_line])
def test_a_remote_server_is_asked_through_the_proxy_unless_it_is_excepted(
    server: FileServer, monkeypatch: pytest.MonkeyPatch, ask: Ask
) -> None:
    monkeypatch.setenv("HTTP_PROXY", server.url)
    for path in (PATH, BOOTSTRAP):
        server.files[f"http://cloud.invalid{path}"] = server.files[path]
    ask("http://cloud.invalid")
    assert len(server.requests) == 1
    monkeypatch.setenv("NO_PROXY", "cloud.invalid")
    monkeypatch.setattr(cloud_http, "_INITIAL_BACKOFF_S", 0.0)
    monkeypatch.setattr(cloud_http, "_MAX_BACKOFF_S", 0.0)
    assert failure_of(ask, "http://cloud.invalid").endswith("its host name cannot be resolved")
    assert len(server.requests) == 1


@pytest.mark.parametrize("ask", [ask_as_sdk, ask_as_runtime])
def test_a_redirect_is_not_followed(server: FileServer, ask: Ask) -> None:
    server.responders[PATH] = server.responders[BOOTSTRAP] = redirect_to("/elsewhere")
    assert "302" in failure_of(ask, server.url)
    assert len(server.requests) == 1


def test_a_reply_that_is_too_long_is_given_up(server: FileServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cloud_http, "MAX_REPLY_BYTES", 100_000)
    server.files[PATH] = b"[" + b" " * 200_000 + b"]"
    with (
        closing(CloudHttp(server.url, KEY)) as cloud,
        pytest.raises(CloudUnreachableError, match="its reply is too long"),
    ):
        cloud.request("GET", PATH)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("method", ["GET", "POST", "DELETE"])
@pytest.mark.parametrize("attempts", [1, 3])
def test_a_cloud_cannot_send_the_key_or_words_to_another_host(
    server: FileServer, status: int, method: str, attempts: int
) -> None:
    with FileServer() as other:
        serve(other)
        server.responders[PATH] = redirect_to(f"{other.url}{PATH}", status)
        with closing(CloudHttp(server.url, KEY, max_attempts=attempts)) as cloud:
            content = b"my boots are red" if method == "POST" else None
            assert cloud.request(method, PATH, content).status == status
        assert other.requests == []
        assert len(server.requests) == 1


def test_the_body_of_a_redirect_is_not_waited_for(server: FileServer) -> None:
    def redirect_and_hang(handler: LoopbackHandler) -> None:
        handler.reply(b"", 302, content_length=1_000_000, Location="/elsewhere")
        hang(handler)

    server.responders[PATH] = redirect_and_hang
    with closing(CloudHttp(server.url, KEY)) as cloud, cloud.open("GET", PATH) as response:
        assert response.status_code == 302


def test_credentials_in_the_url_are_not_sent(server: FileServer) -> None:
    with closing(CloudHttp(server.url.replace("//", "//somebody:word@"), KEY)) as cloud:
        assert cloud.request("GET", PATH).is_ok
        assert cloud.address == server.url
    assert server.requests[0].headers["authorization"] == f"Bearer {KEY}"


def test_a_path_is_sent_unchanged(server: FileServer) -> None:
    with closing(CloudHttp(f" {server.url}/ ", KEY)) as cloud:
        cloud.request("GET", "/users/%2E%2E/memories/.?cursor=%2F")
    assert [request.path for request in server.requests] == ["/users/%2E%2E/memories/.?cursor=%2F"]


def test_cookies_are_not_kept(server: FileServer) -> None:
    server.responders[PATH] = respond(b"{}", Set_Cookie="name=value")
    with closing(CloudHttp(server.url, KEY)) as cloud:
        cloud.request("GET", PATH)
        cloud.request("GET", PATH)
    assert "cookie" not in server.requests[1].headers


def test_a_reply_that_never_ends_is_a_timeout(server: FileServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cloud_http, "_REPLY_TIMEOUT_S", 0.2)
    server.responders[PATH] = send_slowly
    with closing(CloudHttp(server.url, KEY)) as cloud, pytest.raises(CloudUnreachableError) as raised:
        cloud.request("GET", PATH)
    assert raised.value.is_timeout


@pytest.mark.parametrize("attempts", [1, 2])
def test_no_reply_is_a_timeout_also_after_retries(server: FileServer, attempts: int) -> None:
    server.responders[PATH] = hang
    cloud = CloudHttp(server.url, KEY, read_timeout_s=0.2, max_attempts=attempts)
    with closing(cloud), pytest.raises(CloudUnreachableError, match="does not reply") as raised:
        cloud.request("GET", PATH)
    assert raised.value.is_timeout
    assert len(server.requests) == attempts


def test_a_key_that_does_not_fit_into_a_header_is_not_shown(server: FileServer) -> None:
    with closing(CloudHttp(server.url, "secret\n")) as cloud, pytest.raises(CloudUnreachableError) as raised:
        cloud.request("GET", PATH)
    assert "secret" not in str(raised.value)
    assert raised.value.__cause__ is None


@pytest.mark.parametrize(
    ("status", "content", "error", "message"),
    [
        (404, b'{"error": {"code": "cloud.not_found", "message": "no"}}', "cloud.not_found", "cloud.not_found: no"),
        (413, b'{"error": "batch_too_large", "message": "no"}', "cloud.batch_too_large", "cloud.batch_too_large: no"),
        (404, b'{"message": "no"}', None, "HTTP 404: no"),
        (502, b"<html>", None, "HTTP status 502"),
        (200, b"[]", None, "the server is not a MemoAir cloud"),
        (308, b"", None, "it redirects (HTTP status 308); use the address that it redirects to"),
        (500, b"[" * 100_000, None, "HTTP status 500"),
    ],
)
def test_the_error_of_a_reply(status: int, content: bytes, error: str | None, message: str) -> None:
    reply = CloudReply(status, {}, content)
    assert not reply.is_ok
    assert (reply.error or {}).get("code") == error
    assert reply.error_message == message


def test_a_reply_without_content_is_complete() -> None:
    assert CloudReply(204, {}, b"").is_ok
    assert not CloudReply(200, {}, b"").is_ok


def test_a_redirect_of_a_pull_does_not_get_its_credentials(server: FileServer) -> None:
    with FileServer() as other, closing(Downloader(CancelToken(30.0))) as downloader:
        other.files["/file"] = b"content"
        server.responders["/file"] = redirect_to(f"{other.url}/file")
        assert downloader.read(f"{server.url}/file", 100, authorization="Bearer token") == b"content"
        assert server.requests[0].headers["authorization"] == "Bearer token"
        assert "authorization" not in other.requests[0].headers


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


def unreachable_message(url: str) -> str:
    cloud = CloudHttp(url, KEY)
    with closing(cloud), pytest.raises(CloudUnreachableError) as caught:
        cloud.request("GET", "/healthz")
    assert KEY not in str(caught.value)
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
