"""The server on stdin and stdout: stdout is the protocol's, whatever anybody wants to say goes to stderr."""

import logging
import os
import signal
import sys
import threading
from contextlib import redirect_stdout
from importlib.metadata import version
from typing import Any, NoReturn

import anyio
from anyio import to_thread
from mcp.server.lowlevel.server import Server
from mcp.server.stdio import stdio_server
from mcp_types import CallToolRequestParams, CallToolResult, ListToolsResult, PaginatedRequestParams

from memoair_cli.mcp.exit_codes import McpExit
from memoair_cli.mcp.tools import INSTRUCTIONS, MemoryTools

if sys.version_info < (3, 11):
    from exceptiongroup import BaseExceptionGroup


def serve(tools: MemoryTools) -> NoReturn:
    """Serve until the input ends, close the tools, and end the process."""
    _log_to_stderr()
    _exit_on_signals(tools)
    code = McpExit.DONE
    try:
        anyio.run(_serve, tools)
    except BaseExceptionGroup as group:
        others = group.split(OSError)[1]
        if others is not None:
            tools.close()
            raise
        code = McpExit.FAILED  # nobody reads what we write
    _close_and_exit(tools, code)


async def _serve(tools: MemoryTools) -> None:
    async def list_tools(_: Any, __: PaginatedRequestParams | None) -> ListToolsResult:
        return ListToolsResult(tools=tools.list_tools())

    async def call_tool(_: Any, asked: CallToolRequestParams) -> CallToolResult:
        prepared = tools.prepare_call(asked.name, asked.arguments)
        if isinstance(prepared, CallToolResult):
            return prepared
        run_call, changes_data = prepared
        # A search that is cancelled is given up; what changes something is done to its end.
        with anyio.CancelScope(shield=changes_data):
            return await to_thread.run_sync(run_call, abandon_on_cancel=not changes_data)
        raise AssertionError("a scope of our own is never cancelled")

    server = Server(
        "memoair",
        version=version("memoair-voice"),
        instructions=INSTRUCTIONS,
        on_list_tools=list_tools,
        on_call_tool=call_tool,
    )
    # Beside the event loop, which need not wait for it when the input ends.
    threading.Thread(target=tools.warm_up, name="memoair-mcp-warm", daemon=True).start()
    # The transport lets the descriptor point to stderr meanwhile. What is printed must go there at once, and not wait
    # in a buffer until it points to the protocol again.
    async with stdio_server() as (read, write):
        with redirect_stdout(sys.stderr):
            await _run_server(server, tools, read, write)


async def _run_server(server: "Server[Any]", tools: MemoryTools, read: Any, write: Any) -> None:
    try:
        await server.run(read, write, server.create_initialization_options())
    except anyio.get_cancelled_exc_class():  # by the transport, whose output is closed while its input is not
        with anyio.CancelScope(shield=True):
            await to_thread.run_sync(_close_and_exit, tools, McpExit.FAILED)
        raise


def _log_to_stderr() -> None:
    """Let our warnings be seen; the library's own may quote what is said, and its errors reach the client anyway."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("memoair mcp: %(levelname)s: %(message)s"))
    logging.getLogger("memoair_voice").addHandler(handler)
    library = logging.getLogger("mcp")
    library.addHandler(logging.NullHandler())
    library.propagate = False


def _exit_on_signals(tools: MemoryTools) -> None:
    """End at once, and in order, where we are told to."""

    def on_signal(*_: object) -> None:
        threading.Thread(target=_close_and_exit, args=(tools, McpExit.DONE), name="memoair-mcp-end").start()

    for name in ("SIGTERM", "SIGINT", "SIGHUP"):  # Windows has the first two
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), on_signal)


def _close_and_exit(tools: MemoryTools, code: int) -> NoReturn:
    """End the talk and this process, whatever its threads wait for: for our input, or for a cloud that is silent."""
    tools.close()
    sys.stderr.flush()
    os._exit(code)
