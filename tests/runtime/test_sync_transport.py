"""Requests to the cloud: trusted certificates, proxies and deadlines."""

import shutil
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path

import pytest
from support.runtimes import PROJECT
from support.scripted_cloud import KEY, ScriptedCloud, hangs, sends_slowly
from support.timing import fastest

from memoair_protocol import cloud_http
from memoair_runtime.sync.errors import CloudError, FailureKind
from memoair_runtime.sync.transport import CloudTransport

SOON_S = 0.4


@pytest.fixture
def fetch(monkeypatch: pytest.MonkeyPatch) -> Callable[..., object]:
    """A function that fetches the bootstrap of a cloud with the current environment."""
    for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE", "SSL_CERT_DIR"):
        monkeypatch.delenv(name, raising=False)

    def fetch(url: str, within_s: float = 30.0) -> object:
        with closing(CloudTransport(url, KEY, PROJECT, None, "caller")) as cloud:
            return cloud.fetch_bootstrap(None, time.monotonic() + within_s)

    return fetch


@pytest.mark.parametrize("behavior", [hangs, sends_slowly])
def test_a_request_ends_by_its_deadline(
    cloud: ScriptedCloud, fetch: Callable[..., object], behavior: Callable[..., bool]
) -> None:
    cloud.behave("*", always=behavior)

    def ask_soon() -> None:
        with pytest.raises(CloudError) as failed:
            fetch(cloud.url, SOON_S)
        assert failed.value.kind is FailureKind.TRANSIENT

    assert fastest(ask_soon, 2 * SOON_S) < 2 * SOON_S
    cloud.closed.set()


def test_a_response_that_is_too_long_is_not_read(
    cloud: ScriptedCloud, fetch: Callable[..., object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cloud_http, "MAX_REPLY_BYTES", 100)
    cloud.behave("*", lambda handler: handler.send(200, b"x" * 1_000, {}) is None)
    with pytest.raises(CloudError, match="too long"):
        fetch(cloud.url)


def test_the_error_for_an_unreachable_cloud_does_not_contain_the_key(fetch: Callable[..., object]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # so that no other process listens there
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(CloudError) as failed:
            fetch(url)
    assert KEY not in failed.value.message


def test_an_entry_in_netrc_does_not_replace_the_key(
    cloud: ScriptedCloud, fetch: Callable[..., object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login somebody password else\n")
    monkeypatch.setenv("NETRC", str(netrc))
    assert fetch(cloud.url)


def test_a_remote_cloud_is_reached_through_the_proxy_of_the_environment(
    cloud: ScriptedCloud, fetch: Callable[..., object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", cloud.url)
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    cloud.behave(
        "*",
        lambda handler: handler.send(*cloud.respond(handler.received._replace(path="/v1/voice-sdk/bootstrap"))) is None,
    )
    assert fetch("http://cloud.invalid")
    assert cloud.requests[0].path == "http://cloud.invalid/v1/voice-sdk/bootstrap"


# Certificates


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    """A self-signed certificate for this machine, with its key."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("openssl is not installed")
    path = tmp_path / "cloud.pem"
    command = [
        openssl,
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:prime256v1",
        "-nodes",
        "-days",
        "2",
    ]
    names = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
    subprocess.run(
        [*command, *names, "-keyout", str(path), "-out", str(tmp_path / "cert")], check=True, capture_output=True
    )
    path.write_text(path.read_text() + (tmp_path / "cert").read_text())
    return path


@pytest.fixture
def tls_url(cloud: ScriptedCloud, certificate: Path) -> Iterator[str]:
    """The address of a TLS proxy in front of the cloud."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=_relay, args=(listener, context, cloud.port))
        thread.start()
        yield f"https://localhost:{listener.getsockname()[1]}"
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()


def _relay(listener: socket.socket, context: ssl.SSLContext, port: int) -> None:
    with suppress(OSError):
        while True:
            plain, _ = listener.accept()
            with (
                suppress(OSError),
                context.wrap_socket(plain, server_side=True) as ours,
                socket.create_connection(("127.0.0.1", port)) as theirs,
            ):
                theirs.sendall(ours.recv(1 << 16))
                ours.sendall(theirs.recv(1 << 16))
                ours.recv(1)


def test_nothing_is_sent_to_a_cloud_with_an_untrusted_certificate(
    cloud: ScriptedCloud, tls_url: str, fetch: Callable[..., object]
) -> None:
    with pytest.raises(CloudError, match="TLS failed") as failed:
        fetch(tls_url)
    assert failed.value.kind is FailureKind.TRANSIENT
    assert cloud.requests == []


@pytest.mark.parametrize("name", ["REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE"])
def test_a_certificate_in_the_bundle_of_the_environment_is_trusted(
    tls_url: str, certificate: Path, fetch: Callable[..., object], monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv(name, str(certificate))
    assert fetch(tls_url)


def test_a_folder_of_certificates_is_trusted(
    tls_url: str, certificate: Path, fetch: Callable[..., object], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    hashed = subprocess.run(
        ["openssl", "x509", "-hash", "-noout", "-in", str(certificate)], capture_output=True, check=True
    )
    (tmp_path / "certificates").mkdir()
    shutil.copy(certificate, tmp_path / "certificates" / f"{hashed.stdout.decode().strip()}.0")
    monkeypatch.setenv("SSL_CERT_DIR", str(tmp_path / "certificates"))
    assert fetch(tls_url)


def test_an_unreadable_bundle_is_reported(
    cloud: ScriptedCloud, fetch: Callable[..., object], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path / "nowhere.pem"))
    with pytest.raises(CloudError, match="bundle"):
        fetch("https://localhost:9")
