"""Connections without a key, and wrong keys: however many there are, those with a valid key are answered."""

import asyncio
import json
import resource
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import NamedTuple

import pytest
import uvicorn
from sqlalchemy import event
from starlette.types import Receive, Scope, Send
from support.clouds import Client, RunningCloud, running
from support.commands import free_port, is_ready, run_in_background, run_process, serve_arguments
from support.floods import flooding
from support.waiting import eventually
from uvicorn.server import ServerState

from memoair_cloud.assets.files import asset_url
from memoair_cloud.http.connection_gate import ConnectionGate
from memoair_cloud.http.guarded_protocol import GuardedProtocol

HEAD = b"GET /v1/projects HTTP/1.1\r\nHost: cloud\r\n"
LARGE_FILE = asset_url("vendored/swagger-ui-dist/swagger-ui.css")
FLOODS = {
    "half of a head": HEAD,
    "a head without its body": HEAD.replace(b"GET /v1/projects", b"POST /dashboard/sign-in")
    + b"Content-Type: application/x-www-form-urlencoded\r\nContent-Length: 99\r\n\r\nkey=",
    "no key, kept open": HEAD + b"\r\n",
    "the rest of a rejected body": HEAD.replace(b"GET", b"POST") + b"Content-Length: 99\r\n\r\n{",
    "responses that are not read": (HEAD.replace(b"/v1/projects", LARGE_FILE.encode()) + b"\r\n") * 8,
}
# A request takes a few milliseconds, and took 100 s and more. The machine may be busy with other tests.
DEADLINE_S = 30.0


class SmallCloud(NamedTuple):
    """A server that may have only 256 descriptors."""

    port: int
    client: Client
    log: Path


@contextmanager
def limited_descriptors(count: int) -> Iterator[None]:
    """Limit the descriptors of this process, and of those that it starts."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (count, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.fixture(scope="module")
def small_cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SmallCloud]:
    folder, port = tmp_path_factory.mktemp("floods"), free_port()
    url = f"sqlite:///{folder / 'cloud.db'}"
    key = json.loads(run_process("cloud", "init", "--json", "--database-url", url, home=folder))["apiKey"]
    with limited_descriptors(256):
        server = run_in_background(*serve_arguments(folder, url, port, "--no-worker"), home=folder)
        server.__enter__()
    try:
        eventually(lambda: is_ready(port), within_s=120)
        with closing(Client(f"http://127.0.0.1:{port}", key)) as client:
            yield SmallCloud(port, client, next(folder.glob("serve-*.log")))
    finally:
        server.__exit__(None, None, None)


@pytest.mark.parametrize("content", FLOODS.values(), ids=FLOODS)
def test_a_client_with_a_key_is_answered_while_others_hold_connections(small_cloud: SmallCloud, content: bytes) -> None:
    kept_open = small_cloud.client
    kept_open.ok("GET", "/v1/projects")
    with flooding(small_cloud.port, 150, content):
        for _ in range(2):
            began_at = time.monotonic()
            with closing(Client(kept_open.url, kept_open.key)) as new:
                new.ok("GET", "/v1/projects")
            kept_open.ok("GET", "/v1/projects")
            assert time.monotonic() - began_at < DEADLINE_S
    log = small_cloud.log.read_text()
    assert "Traceback" not in log
    assert "out of system resource" not in log


@contextmanager
def counting_queries(cloud: RunningCloud) -> Iterator[list[str]]:
    """Yield a list of the queries of keys, as they are made."""
    queries: list[str] = []

    def note(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        if "FROM api_keys" in statement:
            queries.append(statement)

    event.listen(cloud.services.engine, "before_cursor_execute", note)
    try:
        yield queries
    finally:
        event.remove(cloud.services.engine, "before_cursor_execute", note)


@pytest.fixture
def cloud(tmp_path: Path) -> Iterator[RunningCloud]:
    with running(f"sqlite:///{tmp_path / 'cloud.db'}", tmp_path, wrong_keys_at_once=5) as started:
        yield started


def test_one_wrong_key_is_looked_up_once(cloud: RunningCloud) -> None:
    with closing(Client(cloud.url, "memoair_pk_wrong")) as client, counting_queries(cloud) as queries:
        answers = [client.call("GET", "/v1/projects") for _ in range(30)]
    assert [answer.status for answer in answers[:5]] == [401] * 5
    throttled = [answer for answer in answers if answer.status == 429]
    assert throttled
    assert all(int(answer.headers["retry-after"]) >= 1 for answer in throttled)
    assert len(queries) == 1


def test_many_wrong_keys_are_not_looked_up_and_a_valid_key_is_admitted(cloud: RunningCloud) -> None:
    valid, clients = cloud.account(), [Client(cloud.url, f"memoair_pk_{number}") for number in range(40)]
    with counting_queries(cloud) as queries:
        statuses = [client.call("GET", "/v1/projects").status for client in clients]
    assert statuses[:5] == [401] * 5
    assert 429 in statuses
    assert len(queries) <= statuses.count(401) + 10, "besides, the list of valid keys is read now and then"
    valid.ok("GET", "/v1/projects")
    new = cloud.account()  # perhaps not in the list yet
    eventually(lambda: new.call("GET", "/v1/projects").status == 200)
    for client in clients:
        client.close()


def test_wrong_keys_of_one_address_do_not_count_for_another(tmp_path: Path) -> None:
    with (
        running(
            f"sqlite:///{tmp_path / 'cloud.db'}", tmp_path, wrong_keys_at_once=2, dashboard_proxy_addresses="127.0.0.1"
        ) as cloud,
        closing(Client(cloud.url, "memoair_pk_wrong")) as client,
    ):

        def statuses(*addresses: str) -> list[int]:
            return [client.call("GET", "/v1/projects", X_Forwarded_For=address).status for address in addresses]

        assert 429 in statuses(*["198.51.100.7, 203.0.113.9"] * 10)
        assert statuses("203.0.113.9, 198.51.100.8") == [401]
        assert 429 in statuses(*[f"2001:db8:1:2::{number}" for number in range(10)]), "one network"


def test_a_forwarded_address_counts_only_from_a_trusted_proxy(cloud: RunningCloud) -> None:
    with closing(Client(cloud.url, "memoair_pk_wrong")) as client:
        statuses = [client.call("GET", "/v1/projects", X_Forwarded_For=f"198.51.100.{n}").status for n in range(20)]
    assert 429 in statuses


async def answer_at_once(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer without reading the body."""
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"ok"})


@pytest.mark.parametrize(
    ("content", "is_closed"),
    [
        (b"", True),
        (HEAD, True),
        (HEAD + b"\r\n", False),
        (HEAD + b"\r\n" + HEAD, True),
        (HEAD.replace(b"GET", b"POST") + b"Content-Length: 9\r\n\r\n12345", True),
        (HEAD.replace(b"GET", b"POST") + b"Content-Length: 5\r\n\r\n12345", False),
    ],
    ids=["nothing", "half of a head", "idle", "half of the next head", "half of an unread body", "a whole body"],
)
def test_what_does_not_come_ends_its_connection(content: bytes, is_closed: bool) -> None:
    async def run() -> None:
        config = uvicorn.Config(answer_at_once, log_config=None, timeout_keep_alive=60)
        config.load()
        make_protocol = partial(
            GuardedProtocol,
            gate=ConnectionGate(10, 10),
            head_timeout_s=0.2,
            config=config,
            server_state=ServerState(),
            app_state={},
        )
        server = await asyncio.get_running_loop().create_server(make_protocol, "127.0.0.1", 0)
        async with server:
            reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
            writer.write(content)
            if is_closed:
                with suppress(ConnectionError):
                    await asyncio.wait_for(reader.read(), 30)
            else:
                with suppress(asyncio.TimeoutError):
                    await asyncio.wait_for(reader.read(), 1.0)
                assert not reader.at_eof()
            writer.close()

    asyncio.run(run())
