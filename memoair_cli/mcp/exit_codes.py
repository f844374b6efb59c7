"""Exit codes of ``memoair mcp``."""

from enum import IntEnum


class McpExit(IntEnum):
    """Exit codes."""

    DONE = 0  # end of input, or a signal
    FAILED = 1  # the client has closed the output, or the MCP library is not installed
    USAGE = 2
