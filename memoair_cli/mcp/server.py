"""The MCP server on stdin and stdout. Stdout belongs to the protocol; everything else is written to stderr."""

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

from memoair_cli.mcp import McpExit
from memoair_cli.mcp.tools import INSTRUCTIONS, MemoryTools

if sys.version_info < (3, 11):
    from exceptiongroup import BaseExceptionGroup


def serve(tools: MemoryTools) -> NoReturn:
    """Serve until the input ends, then close the tools and exit."""
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
        code = McpExit.FAILED  # the client does not read the output
    _close_and_exit(tools, code)


async def _serve(tools: MemoryTools) -> None:
    async def list_tools(_: Any, __: PaginatedRequestParams | None) -> ListToolsResult:
        return ListToolsResult(tools=tools.list_tools())

    async def call_tool(_: Any, asked: CallToolRequestParams) -> CallToolResult:
        prepared = tools.prepare_call(asked.name, asked.arguments)
        if isinstance(prepared, CallToolResult):
            return prepared
        run_call, changes_data = prepared
        # A cancelled search is abandoned. A call that changes data is completed.
        with anyio.CancelScope(shield=changes_data):
            return await to_thread.run_sync(run_call, abandon_on_cancel=not changes_data)
        raise AssertionError("this scope is never cancelled")

    server = Server(
        "memoair",
        version=version("memoair-voice"),
        instructions=INSTRUCTIONS,
        on_list_tools=list_tools,
        on_call_tool=call_tool,
    )
    # Not on the event loop, so that the end of the input need not wait for it.
    threading.Thread(target=tools.warm_up, name="memoair-mcp-warm", daemon=True).start()
    # While the transport runs, file descriptor 1 points to stderr. Whatever is printed must be written immediately:
    # in a buffer, it could stay until the descriptor points to the protocol again.
    async with stdio_server() as (read, write):
        with redirect_stdout(sys.stderr):
            await _run_server(server, tools, read, write)


async def _run_server(server: "Server[Any]", tools: MemoryTools, read: Any, write: Any) -> None:
    try:
        await server.run(read, write, server.create_initialization_options())
    except anyio.get_cancelled_exc_class():  # the transport cancels when its output is closed but its input is not
        with anyio.CancelScope(shield=True):
            await to_thread.run_sync(_close_and_exit, tools, McpExit.FAILED)
        raise


def _log_to_stderr() -> None:
    """Log our own warnings. Those of the library may quote callers, and its errors reach the client anyway."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("memoair mcp: %(levelname)s: %(message)s"))
    logging.getLogger("memoair_voice").addHandler(handler)
    library = logging.getLogger("mcp")
    library.addHandler(logging.NullHandler())
    library.propagate = False


def _exit_on_signals(tools: MemoryTools) -> None:
    """Close the tools and exit immediately on a signal."""

    def on_signal(*_: object) -> None:
        threading.Thread(target=_close_and_exit, args=(tools, McpExit.DONE), name="memoair-mcp-end").start()

    for name in ("SIGTERM", "SIGINT", "SIGHUP"):  # Windows has only the first two
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), on_signal)


def _close_and_exit(tools: MemoryTools, code: int) -> NoReturn:
    """Close the tools and exit, even if threads still wait for input or for a cloud that does not reply."""
    tools.close()
    sys.stderr.flush()
    os._exit(code)
