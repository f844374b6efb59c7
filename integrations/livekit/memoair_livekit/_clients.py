"""The memory clients of this process: one for all calls with the same arguments, closed with the last of them.

LiveKit gives each call a process of its own, but a worker may serve many in one (threads, tests, a load test), and each
client has a host process from which it forks its callers' runtimes.
"""

import os
import threading
from collections.abc import Hashable, Mapping
from typing import Any

from memoair_voice import MemoAirVoiceClient

_clients_lock = threading.Lock()
_clients: "dict[Hashable, _CountedClient]" = {}


class _CountedClient:
    def __init__(self, client: MemoAirVoiceClient) -> None:
        self.client = client
        self.reference_count = 0


class SharedClient:
    """A client for as long as a call needs it. Safe to use from any thread."""

    def __init__(self, arguments: Mapping[str, Any]) -> None:
        """Raises what the client's constructor raises for arguments that can't be; starts nothing."""
        self._key: Hashable = tuple(sorted((name, repr(value)) for name, value in arguments.items()))
        with _clients_lock:
            counted = _clients.get(self._key)
            if counted is None:
                counted = _clients[self._key] = _CountedClient(MemoAirVoiceClient(**arguments))
            counted.reference_count += 1
        self.client = counted.client
        self._counted: _CountedClient | None = counted

    async def aclose(self) -> None:
        """Give the client back; the last one closes it. Twice is no harm."""
        with _clients_lock:
            counted, self._counted = self._counted, None
            if counted is None:
                return
            counted.reference_count -= 1
            if counted.reference_count:
                return
            if _clients.get(self._key) is counted:
                del _clients[self._key]
        await counted.client.aclose()


def _reset_after_fork() -> None:
    """After a fork, in the child: what is open is the parent's."""
    global _clients_lock
    _clients_lock = threading.Lock()
    _clients.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_reset_after_fork)
