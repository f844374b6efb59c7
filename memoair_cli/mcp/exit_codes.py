"""What ``memoair mcp`` ends with."""

from enum import IntEnum


class McpExit(IntEnum):
    """Exit codes."""

    DONE = 0  # the input has ended, or a signal has told us to
    FAILED = 1  # nobody reads what we write, or the library is missing
    USAGE = 2
