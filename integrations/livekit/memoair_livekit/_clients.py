"""The memory clients of this process: calls with the same arguments share one, and the last call closes it.

LiveKit runs each call in its own process, but a worker may also serve many calls in one process (threads, tests, a load
test). Each client has a fork server process, from which it forks the runtimes of its users. Sharing the client avoids
one such process per call.
"""

import os
import threading
from collections.abc import Hashable, Mapping
from typing import Any, Protocol

from memoair_voice import MemoAirVoiceClient

_clients_lock = threading.Lock()
_clients: "dict[Hashable, _CountedClient]" = {}


class _CountedClient:
    def __init__(self, client: MemoAirVoiceClient) -> None:
        self.client = client
        self.reference_count = 0


class ClientReference(Protocol):
    """A client that a call uses, and releases at its end."""

    client: MemoAirVoiceClient

    async def aclose(self) -> None:
        """Release the client. Calling it again does no harm."""


class GivenClient:
    """A client of the application, which closes it itself."""

    def __init__(self, client: MemoAirVoiceClient) -> None:
        self.client = client

    async def aclose(self) -> None:
        """Do nothing."""


def client_key(arguments: Mapping[str, Any]) -> Hashable:
    """Return a value that is equal for calls that share a client."""
    return tuple(sorted((name, repr(value)) for name, value in arguments.items()))


class SharedClient:
    """A reference to the client that all calls with the same arguments share. Safe to use from any thread."""

    def __init__(self, arguments: Mapping[str, Any]) -> None:
        """Create the client or take the existing one. Starts nothing; raises what the client's constructor raises."""
        self._key = client_key(arguments)
        with _clients_lock:
            counted = _clients.get(self._key)
            if counted is None:
                counted = _clients[self._key] = _CountedClient(MemoAirVoiceClient(**arguments))
            counted.reference_count += 1
        self.client = counted.client
        self._counted: _CountedClient | None = counted

    async def aclose(self) -> None:
        """Release the client, and close it if this was the last reference. Calling it again does no harm."""
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
    """Start without clients in a forked child: the open ones belong to the parent."""
    global _clients_lock
    _clients_lock = threading.Lock()
    _clients.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_reset_after_fork)
