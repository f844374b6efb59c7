"""The memory clients of this process: one for all calls with the same arguments, closed with the last of them.

LiveKit gives each call a process of its own, but a worker may serve many in one (threads, tests, a load test), and each
client has a host process from which it forks its callers' runtimes.
"""

import os
import threading
from collections.abc import Hashable, Mapping
from typing import Any

from memoair_voice import MemoAirVoiceClient

_changing = threading.Lock()
_shared: "dict[Hashable, _ClientUse]" = {}


class _ClientUse:
    def __init__(self, client: MemoAirVoiceClient) -> None:
        self.client = client
        self.users = 0


class SharedClient:
    """A client for as long as a call needs it. Safe to use from any thread."""

    def __init__(self, arguments: Mapping[str, Any]) -> None:
        """Raises what the client's constructor raises for arguments that can't be; starts nothing."""
        self._key: Hashable = tuple(sorted((name, repr(value)) for name, value in arguments.items()))
        with _changing:
            shared = _shared.get(self._key)
            if shared is None:
                shared = _shared[self._key] = _ClientUse(MemoAirVoiceClient(**arguments))
            shared.users += 1
        self.client = shared.client
        self._shared: _ClientUse | None = shared

    async def aclose(self) -> None:
        """Give the client back; the last one closes it. Twice is no harm."""
        with _changing:
            shared, self._shared = self._shared, None
            if shared is None:
                return
            shared.users -= 1
            if shared.users:
                return
            if _shared.get(self._key) is shared:
                del _shared[self._key]
        await shared.client.aclose()


def _forget() -> None:
    """After a fork, in the child: what is open is the parent's."""
    global _changing
    _changing = threading.Lock()
    _shared.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
