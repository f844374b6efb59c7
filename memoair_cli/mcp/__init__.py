"""``memoair mcp``: one caller's memory as a server of the Model Context Protocol, over stdin and stdout.

command (options) -> serving (stdio, signals, logs) -> tools (names, schemas, arguments, answers) -> the client
"""
