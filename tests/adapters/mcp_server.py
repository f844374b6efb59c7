"""``memoair mcp`` in another process, and the MCP library's own client for it."""

import subprocess
import tempfile
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, TypeVar

import anyio
import httpx2
from mcp import Client, StdioServerParameters, stdio_client
from mcp.client.streamable_http import streamable_http_client
from support.commands import MEMOAIR, environment
from support.runtimes import PROJECT
from support.waiting import PATIENCE, eventually

T = TypeVar("T")


def storage(home: Path) -> Path:
    return home / "storage"


class McpServer:
    """``memoair mcp`` for one user over a storage root, started as a program starts it."""

    def __init__(self, home: Path, user: str, *arguments: str | Path, **environ: str) -> None:
        command = ("mcp", "--storage", home / "storage", "--timeout-ms", "10000", *arguments)
        variables = {"MEMOAIR_PROJECT_ID": PROJECT, "MEMOAIR_USER_ID": user, "PYTHONPATH": PATIENCE, **environ}
        self.arguments = list(map(str, command))
        self.environ = environment(home, **variables)

    @property
    def parameters(self) -> StdioServerParameters:
        return StdioServerParameters(command=MEMOAIR[0], args=[*MEMOAIR[1:], *self.arguments], env=self.environ)

    def run_client(self, call_tools: Callable[[Client], Awaitable[T]], *, mode: Any = "auto") -> tuple[T, str]:
        """Connect a client, await ``call_tools`` with it, and return the result and the server's log."""

        async def run() -> T:
            parameters = StdioServerParameters(
                command=MEMOAIR[0], args=[*MEMOAIR[1:], *self.arguments], env=self.environ
            )
            async with Client(stdio_client(parameters, errlog=errors), mode=mode) as client:
                return await call_tools(client)

        with tempfile.TemporaryFile("w+") as errors:
            result = anyio.run(run)
            errors.seek(0)
            return result, errors.read()

    @contextmanager
    def serve_http(self, *arguments: str) -> Iterator["HttpServer"]:
        """Serve over HTTP at a free port, until the end of the block or until the test stops it."""
        command = [*MEMOAIR, *self.arguments, "--http", "--port", "0", *arguments]
        with (
            tempfile.TemporaryFile("w+") as errors,
            subprocess.Popen(command, env=self.environ, stdin=subprocess.DEVNULL, stderr=errors) as process,
        ):
            try:
                yield HttpServer(process, errors)
            finally:
                process.terminate()
                process.wait(60)

    def call_tool(self, name: str, **arguments: Any) -> str:
        """Return the text of a tool call that must succeed."""
        result, logged = self.run_client(lambda client: client.call_tool(name, arguments))
        assert (result.is_error, logged) == (False, ""), result
        return str(result.content[0].text)


class HttpServer:
    """``memoair mcp --http`` that listens."""

    def __init__(self, process: "subprocess.Popen[bytes]", errors: IO[str]) -> None:
        self.process = process
        self._errors = errors
        lines = eventually(self._read_first_line, within_s=60.0)
        self.url = lines.split()[-1]

    def _read_first_line(self) -> str | None:
        assert self.process.poll() is None, self.log()
        line, complete, _ = self.log().partition("\n")
        return line if complete else None

    def log(self) -> str:
        """Return what the server has written to stderr."""
        self._errors.seek(0)
        return self._errors.read()

    def run_client(self, call_tools: Callable[[Client], Awaitable[T]], token: str, *, mode: Any = "auto") -> T:
        """Connect a client that shows a token, await ``call_tools`` with it, and return the result."""

        async def run() -> T:
            async with (
                httpx2.AsyncClient(headers={"Authorization": f"Bearer {token}"}, timeout=60.0) as http,
                Client(streamable_http_client(self.url, http_client=http), mode=mode) as client,
            ):
                return await call_tools(client)

        return anyio.run(run)
