"""Loopback ports: the range that runtimes may listen on, and who holds a port."""

import itertools
import socket
from collections.abc import Iterator

import psutil

from memoair_voice_sync.errors import MemoAirVoiceMemoryError


class PortRange:
    """The ports from ``first`` to ``last``, both included. Safe to use from any thread."""

    def __init__(self, first: int, last: int) -> None:
        self.bounds = (first, last)
        self._counter = itertools.count()

    def iter_free(self) -> Iterator[int]:
        """Yield each free port once. Another process may take one before it is used."""
        first, last = self.bounds
        count = last - first + 1
        for _ in range(count):
            port = first + next(self._counter) % count
            if _is_free(port):
                yield port

    def exhausted_error(self) -> MemoAirVoiceMemoryError:
        """Return the error for a range without a free port."""
        first, last = self.bounds
        message = f"every port from {first} to {last} is in use; widen runtime_port_range or lower max_concurrent_users"
        return MemoAirVoiceMemoryError("pool.port_exhausted", message, details={"range": [first, last]})


def find_port_owner(port: int) -> str:
    """Describe the process that listens on a loopback port, as far as the system permits."""
    try:
        for connection in psutil.net_connections(kind="tcp"):
            listens = connection.status == psutil.CONN_LISTEN and connection.laddr and connection.laddr.port == port
            if listens and connection.pid is not None:
                return f"{psutil.Process(connection.pid).name()} (pid {connection.pid})"
    except psutil.Error:
        return "another process, which this user may not inspect"
    return "another process"


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        # A port that was in use a moment ago counts as free. On Windows SO_REUSEADDR would share a port that is in use.
        probe.setsockopt(socket.SOL_SOCKET, getattr(socket, "SO_EXCLUSIVEADDRUSE", socket.SO_REUSEADDR), 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
