"""``memoair mcp``: the memory of one caller as a server of the Model Context Protocol, over stdio or HTTP.

command (options) -> stdio, http (transports) -> server (signals, logs, end) -> tools (names, schemas, arguments,
results) -> the client
"""

from enum import IntEnum


class McpExit(IntEnum):
    """Exit codes."""

    DONE = 0  # end of input, or a signal
    FAILED = 1  # the output is closed, the address is in use, or the MCP library is not installed
    USAGE = 2
