"""``memoair mcp``: the memory of one caller as a server of the Model Context Protocol, over stdin and stdout.

command (options) -> server (stdio, signals, logs) -> tools (names, schemas, arguments, results) -> the client
"""

from enum import IntEnum


class McpExit(IntEnum):
    """Exit codes."""

    DONE = 0  # end of input, or a signal
    FAILED = 1  # the client has closed the output, or the MCP library is not installed
    USAGE = 2
