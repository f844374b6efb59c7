"""``memoair mcp``: the memory of one caller as a server of the Model Context Protocol, over stdin and stdout.

command (options) -> server (stdio, signals, logs) -> tools (names, schemas, arguments, results) -> the client
"""
