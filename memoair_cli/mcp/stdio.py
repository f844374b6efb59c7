"""The MCP server on stdin and stdout. Stdout belongs to the protocol; everything else is written to stderr."""

import sys
from contextlib import redirect_stdout
from typing import Any, NoReturn

import anyio
from anyio import to_thread
from mcp.server.lowlevel.server import Server
from mcp.server.stdio import stdio_server

from memoair_cli.mcp import McpExit
from memoair_cli.mcp.server import close_and_exit, log_to_stderr, make_server, on_stop_signal, start_at_signal
from memoair_cli.mcp.tools import MemoryTools

if sys.version_info < (3, 11):
    from exceptiongroup import BaseExceptionGroup


def serve(tools: MemoryTools) -> NoReturn:
    """Serve until the input ends or a signal arrives, then close the tools and exit."""
    log_to_stderr()
    # In a thread: the interrupted main thread may hold a lock that closing needs.
    on_stop_signal(lambda: start_at_signal(close_and_exit, name="memoair-mcp-end", args=(tools, McpExit.DONE)))
    code = McpExit.DONE
    try:
        anyio.run(_serve, tools)
    except BaseExceptionGroup as group:
        others = group.split(OSError)[1]
        if others is not None:
            tools.close()
            raise
        code = McpExit.FAILED  # the client does not read the output
    close_and_exit(tools, code)


async def _serve(tools: MemoryTools) -> None:
    server = make_server(tools)
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
            await to_thread.run_sync(close_and_exit, tools, McpExit.FAILED)
        raise
