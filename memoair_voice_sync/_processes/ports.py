"""The range of loopback ports that runtimes may listen on."""

import itertools
import socket
from collections.abc import Iterator

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


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        # A port that was in use a moment ago counts as free. On Windows SO_REUSEADDR would share a port that is in use.
        probe.setsockopt(socket.SOL_SOCKET, getattr(socket, "SO_EXCLUSIVEADDRUSE", socket.SO_REUSEADDR), 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
