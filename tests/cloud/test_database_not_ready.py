"""Start while the database does not respond yet: wait with a line per try, and end with one sentence."""

import json
import logging
import signal
import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
from support.commands import free_port, memoair, start_process

from memoair_cloud.serving import open_services
from memoair_cloud.settings import CloudSettings
from memoair_cloud.starting import StartError

_STARTING_UP = ("57P03", "the database system is starting up")
_ENCRYPTION_REQUESTS = (80877103, 80877104)


class RecoveringServer:
    """Stands before a PostgreSQL server. It rejects connections as one that starts up, for a number of times."""

    def __init__(self, url: str, rejections: int) -> None:
        self._url = urlsplit(url)
        self.rejections = rejections
        self.connections = 0
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self._sockets: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def close(self) -> None:
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for connection in self._sockets:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(30)
        for connection in self._sockets:
            connection.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                self.connections += 1
                self._sockets.append(client)
                if self.connections <= self.rejections:
                    self._reject(client)
                else:
                    self._forward(client)

    def _reject(self, client: socket.socket) -> None:
        with suppress(OSError):
            while struct.unpack("!ii", client.recv(8, socket.MSG_WAITALL))[1] in _ENCRYPTION_REQUESTS:
                client.sendall(b"N")
            fields = {"S": "FATAL", "V": "FATAL", "C": _STARTING_UP[0], "M": _STARTING_UP[1]}
            content = b"".join(key.encode() + value.encode() + b"\0" for key, value in fields.items()) + b"\0"
            client.sendall(b"E" + struct.pack("!i", len(content) + 4) + content)
            client.shutdown(socket.SHUT_RDWR)

    def _forward(self, client: socket.socket) -> None:
        folder = parse_qs(self._url.query).get("host", [""])[0]
        if folder:
            server = socket.socket(socket.AF_UNIX)
            server.connect(f"{folder}/.s.PGSQL.{self._url.port or 5432}")
        else:
            server = socket.create_connection((self._url.hostname, self._url.port or 5432))
        self._sockets.append(server)
        for source, target in ((client, server), (server, client)):
            self._threads.append(threading.Thread(target=_pump, args=(source, target)))
            self._threads[-1].start()


def _pump(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while block := source.recv(1 << 16):
            target.sendall(block)
        target.shutdown(socket.SHUT_WR)


@contextmanager
def recovering(url: str, rejections: int) -> Iterator[tuple[RecoveringServer, str]]:
    """Yield a server that starts up, and its URL."""
    with closing(RecoveringServer(url, rejections)) as server:
        parts = urlsplit(url)
        user = parts.username or "postgres"
        password = f":{parts.password}" if parts.password else ""
        yield server, f"postgresql+psycopg://{user}{password}@127.0.0.1:{server.port}{parts.path}"


def unreachable_url() -> str:
    return f"postgresql://nobody:s3cret@127.0.0.1:{free_port()}/memoair"


def test_a_server_waits_for_a_database_that_starts_up(
    postgres_url: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with recovering(postgres_url, rejections=2) as (server, url):
        settings = CloudSettings(database_url=url, blob_url=tmp_path.as_uri())
        with caplog.at_level(logging.WARNING), open_services(settings) as services, services.engine.connect():
            assert server.connections > 2
    waits = [record for record in caplog.records if getattr(record, "action", "") == "database_wait"]
    assert len(waits) == 2
    assert all(_STARTING_UP[1] in record.fields["reason"] for record in waits)  # type: ignore[attr-defined]


def test_a_server_does_not_wait_for_ever(postgres_url: str, tmp_path: Path) -> None:
    with recovering(postgres_url, rejections=1_000) as (server, url):
        settings = CloudSettings(database_url=url, blob_url=tmp_path.as_uri(), database_wait_s=0.7)
        with pytest.raises(StartError) as raised, open_services(settings):
            pass
        assert server.connections == 3  # at once, after half a second, and at the end
    assert str(raised.value).startswith("the database did not respond within 0.7 s: ")
    assert str(raised.value).endswith(_STARTING_UP[1])


def test_a_database_that_is_not_there_is_one_sentence_and_an_exit_code(tmp_path: Path) -> None:
    environ = {"MEMOAIR_CLOUD_DATABASE_WAIT_S": "0.2", "MEMOAIR_CLOUD_DATABASE_URL": unreachable_url()}
    with start_process("cloud", "serve", home=tmp_path, **environ) as process:
        _, err = process.communicate(timeout=120)
    assert process.returncode == 1
    *lines, sentence = err.strip().splitlines()
    assert sentence.startswith("the database did not respond within 0.2 s: ")
    assert {json.loads(line)["action"] for line in lines if '"action"' in line} == {"database_wait"}
    assert "Traceback" not in err
    assert "s3cret" not in err


def test_a_worker_that_waits_ends_when_it_is_asked_to(tmp_path: Path) -> None:
    environ = {"MEMOAIR_CLOUD_DATABASE_WAIT_S": "3600", "MEMOAIR_CLOUD_DATABASE_URL": unreachable_url()}
    with start_process("cloud", "worker", home=tmp_path, **environ) as process:
        assert process.stderr is not None
        while "database_wait" not in process.stderr.readline():
            assert process.poll() is None
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0


@pytest.mark.parametrize("arguments", [("init",), ("keys",), ("revoke", "key_x"), ("key", "create"), ("restored",)])
def test_commands_wait_with_a_line_for_each_try(arguments: tuple[str, ...]) -> None:
    url = unreachable_url()
    result = memoair("cloud", *arguments, "--database-url", url, code=1, MEMOAIR_CLOUD_DATABASE_WAIT_S="0.2")
    first, *others, last = result.err.splitlines()
    assert all(line.startswith("waiting for the database: ") for line in (first, *others))
    assert last.startswith("the database did not respond within 0.2 s: ")
    assert "s3cret" not in result.err


def test_what_no_wait_can_help_is_reported_at_once(postgres_url: str, tmp_path: Path) -> None:
    (tmp_path / "text.db").write_text("This is no database." * 100)
    (tmp_path / "file").touch()
    parts = urlsplit(postgres_url)
    unknown = parts._replace(scheme="postgresql", path="/no_such_database").geturl()
    began_at = time.monotonic()
    for url, reason in (
        (f"sqlite:///{tmp_path / 'text.db'}", "file is not a database"),
        (f"sqlite:///{tmp_path / 'file' / 'cloud.db'}", "cannot be used: File exists"),
        (unknown, "does not exist"),
    ):
        result = memoair("cloud", "init", "--database-url", url, code=1, MEMOAIR_CLOUD_DATABASE_WAIT_S="3600")
        assert len(result.err.splitlines()) == 1
        assert reason in result.err
    assert time.monotonic() - began_at < 60


def test_a_blob_store_that_cannot_be_used_is_one_sentence(tmp_path: Path) -> None:
    settings = CloudSettings(database_url=f"sqlite:///{tmp_path / 'cloud.db'}", blob_url="nosuchstore://bucket")
    with pytest.raises(StartError, match="the settings cannot be used"), open_services(settings):
        pass
