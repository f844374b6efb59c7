"""What the transports share: the server over the tools, its log, and its end."""

import logging
import os
import signal
import sys
from collections.abc import Callable, Sequence
from importlib.metadata import version
from typing import Any, NoReturn

import anyio
from anyio import to_thread
from mcp.server.lowlevel.server import Server
from mcp_types import CallToolRequestParams, CallToolResult, ListToolsResult, PaginatedRequestParams

from memoair_cli.mcp.tools import INSTRUCTIONS, MemoryTools
from memoair_protocol.log_lines import OneLineFormatter
from memoair_protocol.threads import ThreadUnavailableError, start_thread

# How soon a signal handler tries again to start a thread.
_SIGNAL_RETRY_S = 0.2


def make_server(tools: MemoryTools) -> "Server[Any]":
    """Return a server over the tools, which load the memory from now on."""

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

    # Not on the event loop, so that the end of the input need not wait for it.
    try:
        start_thread(tools.warm_up, name="memoair-mcp-warm")
    except ThreadUnavailableError:
        tools.skip_warm_up()
    return Server(
        "memoair",
        version=version("memoair-voice"),
        instructions=INSTRUCTIONS,
        on_list_tools=list_tools,
        on_call_tool=call_tool,
    )


class _WithoutExceptionTexts(OneLineFormatter):
    """Formats an exception as its type. Its message and its traceback may quote a caller."""

    def formatException(self, ei: Any) -> str:  # noqa: N802 - the name of the standard library
        """Return the name of the exception's type."""
        return str(ei[0].__name__)


def log_to_stderr(*loggers: str) -> None:
    """Log our own warnings and those of ``loggers``. Those of the MCP library may quote callers.

    Its errors reach the client anyway.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_WithoutExceptionTexts("memoair mcp: %(levelname)s: %(message)s"))
    for name in ("memoair_voice", *loggers):
        logging.getLogger(name).addHandler(handler)
    library = logging.getLogger("mcp")
    library.addHandler(logging.NullHandler())
    library.propagate = False


def on_stop_signal(callback: Callable[[], None]) -> None:
    """Call ``callback`` in the main thread at each signal to stop."""
    for name in ("SIGTERM", "SIGINT", "SIGHUP"):  # Windows has only the first two
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), lambda *_: callback())


def start_at_signal(target: Callable[..., object], *, name: str, args: Sequence[object] = ()) -> None:
    """Start a thread from a signal handler. If that fails, try again until it succeeds.

    The interrupted main thread may hold a lock that the work needs, so that it cannot be done in the handler.
    """
    try:
        start_thread(target, name=name, args=args, daemon=False)
    except ThreadUnavailableError:
        if hasattr(signal, "setitimer"):  # not on Windows
            signal.signal(signal.SIGALRM, lambda *_: start_at_signal(target, name=name, args=args))
            signal.setitimer(signal.ITIMER_REAL, _SIGNAL_RETRY_S)


def close_and_exit(tools: MemoryTools, code: int) -> NoReturn:
    """Close the tools and exit, even if threads still wait for input or for a cloud that does not reply."""
    tools.close()
    sys.stderr.flush()
    os._exit(code)
