"""Who an agent is, whose client is awaited."""

from typing import Any

import memoair_voice_sync
from memoair_voice._client import MemoAirVoiceClient


class MemoAirVoiceAgent(memoair_voice_sync.MemoAirVoiceAgent):
    """`memoair_voice_sync.MemoAirVoiceAgent`, whose `client` is for asyncio and trio."""

    def client(self, **options: Any) -> MemoAirVoiceClient:  # type: ignore[override]  # the twin, awaited
        """Make a client of this agent; ``options`` are the constructor's others, such as ``storage_root``.

        Where the agent has a ``user_id``, the client serves that caller, and no call needs to name him.
        """
        return MemoAirVoiceClient(**self._client_arguments(options))
