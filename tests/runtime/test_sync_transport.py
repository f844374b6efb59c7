"""Calls to the cloud: whom they trust, through what they go, and how long they may take."""

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
from support.scripted_cloud import KEY, ScriptedCloud, dribbles, hangs
from support.timing import fastest

from memoair_runtime.sync import transport
from memoair_runtime.sync.errors import CloudError, FailureKind
from memoair_runtime.sync.transport import CloudIdentity, CloudTransport

SOON_S = 0.4


@pytest.fixture
def ask(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., object]]:
    """Ask a cloud for its bootstrap, with whatever the environment says by then."""
    for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE", "SSL_CERT_DIR"):
        monkeypatch.delenv(name, raising=False)

    def ask(url: str, within_s: float = 30.0) -> object:
        transport.trust.cache_clear()
        with closing(CloudTransport(CloudIdentity(url, KEY, PROJECT, None, "caller"))) as cloud:
            return cloud.bootstrap(None, time.monotonic() + within_s)

    yield ask
    transport.trust.cache_clear()


@pytest.mark.parametrize("behaviour", [hangs, dribbles])
def test_a_call_is_over_by_its_deadline(
    cloud: ScriptedCloud, ask: Callable[..., object], behaviour: Callable[..., bool]
) -> None:
    cloud.behave("*", always=behaviour)

    def ask_soon() -> None:
        with pytest.raises(CloudError) as failed:
            ask(cloud.url, SOON_S)
        assert failed.value.kind is FailureKind.TRANSIENT

    assert fastest(ask_soon, 2 * SOON_S) < 2 * SOON_S
    cloud.closed.set()


def test_an_answer_without_end_is_not_read_to_its_end(
    cloud: ScriptedCloud, ask: Callable[..., object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transport, "MAX_ANSWER_BYTES", 100)
    cloud.behave("*", lambda handler: handler.send(200, b"x" * 1_000, {}) is None)
    with pytest.raises(CloudError, match="too long"):
        ask(cloud.url)


def test_nobody_there_is_told_as_such_and_names_no_key(ask: Callable[..., object]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # so that nobody else listens there
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(CloudError) as failed:
            ask(url)
    assert KEY not in failed.value.message
    assert KEY not in repr(CloudIdentity(url, KEY, PROJECT, None, None))


def test_what_netrc_has_for_the_host_does_not_take_the_place_of_the_key(
    cloud: ScriptedCloud, ask: Callable[..., object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login somebody password else\n")
    monkeypatch.setenv("NETRC", str(netrc))
    assert ask(cloud.url)


def test_a_cloud_elsewhere_is_reached_through_the_proxy_of_the_environment(
    cloud: ScriptedCloud, ask: Callable[..., object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", cloud.url)
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    cloud.behave(
        "*",
        lambda handler: (
            handler.send(*cloud.answer(handler.request_made._replace(path="/v1/voice-sdk/bootstrap"))) is None
        ),
    )
    assert ask("http://cloud.invalid")
    assert cloud.requests[0].path == "http://cloud.invalid/v1/voice-sdk/bootstrap"


# Certificates


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    """A certificate for this machine that signs itself, with its key."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("there is no openssl to make a certificate with")
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
    """The address of a door with TLS before the cloud."""
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


def test_a_cloud_whose_certificate_nobody_vouches_for_is_sent_nothing(
    cloud: ScriptedCloud, tls_url: str, ask: Callable[..., object]
) -> None:
    with pytest.raises(CloudError, match="SSLError") as failed:
        ask(tls_url)
    assert failed.value.kind is FailureKind.TRANSIENT
    assert cloud.requests == []


@pytest.mark.parametrize("name", ["REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE"])
def test_a_certificate_of_the_environments_bundle_is_trusted(
    tls_url: str, certificate: Path, ask: Callable[..., object], monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv(name, str(certificate))
    assert ask(tls_url)


def test_a_folder_of_certificates_is_trusted(
    tls_url: str, certificate: Path, ask: Callable[..., object], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    hashed = subprocess.run(
        ["openssl", "x509", "-hash", "-noout", "-in", str(certificate)], capture_output=True, check=True
    )
    (tmp_path / "certificates").mkdir()
    shutil.copy(certificate, tmp_path / "certificates" / f"{hashed.stdout.decode().strip()}.0")
    monkeypatch.setenv("SSL_CERT_DIR", str(tmp_path / "certificates"))
    assert ask(tls_url)


def test_a_bundle_that_can_not_be_read_is_told(
    cloud: ScriptedCloud, ask: Callable[..., object], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path / "nowhere.pem"))
    with pytest.raises(CloudError, match="bundle"):
        ask("https://localhost:9")
