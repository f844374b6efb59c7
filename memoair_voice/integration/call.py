"""One call of a user: opened in the background, ended once, with an id under which its turns are saved."""

import asyncio
import uuid
from collections.abc import Mapping
from typing import Any

from memoair_voice import MemoAirVoiceClient, Prompt, VoiceSession


class NamedCall:
    """A call of a user, whose runtime is not evicted while the call is open. Use it only in one event loop.

    Attributes:
        session_id: The id of the call, to be passed with each search and turn.
    """

    def __init__(
        self,
        client: MemoAirVoiceClient,
        user: Mapping[str, Any],
        *,
        session_id: str | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> None:
        """Name a call. Starts nothing.

        Args:
            client: The client.
            user: The caller, ``{"id", "name", "metadata"}``.
            session_id: The id of the call; None makes a new one.
            metadata: A JSON object that is stored with the call.
        """
        self.session_id = session_id or uuid.uuid4().hex
        self._client = client
        self._user = user
        self._metadata = metadata
        self._session_task: asyncio.Task[VoiceSession] | None = None

    async def open(self, prompt: Prompt | None = None) -> None:
        """Open the call, and wait for the memory as long as a session does.

        Args:
            prompt: The prompt that the agent has in the call; None if it has none.

        Raises:
            MemoAirVoiceMemoryError: The pool has no room, or is closed.
        """
        session = self._client.session(
            user=self._user, session_id=self.session_id, metadata=self._metadata, prompt=prompt
        )
        self._session_task = asyncio.ensure_future(session)
        # A cancelled wait must not lose the session, which pins a runtime.
        await (await asyncio.shield(self._session_task)).open()

    async def record_prompt(self, prompt: Prompt) -> None:
        """Record that an agent with another prompt has taken over the call.

        Raises:
            MemoAirVoiceMemoryError: The runtime does not take it in time.
        """
        await self._client.load_index(user=self._user, session_id=self.session_id, prompt=prompt)

    async def end(self, *, has_turns: bool) -> None:
        """End the call, so that the cloud learns from it at once. Ending it again has no effect.

        Args:
            has_turns: Whether something was saved: then the call is ended even if it could not be opened.

        Raises:
            MemoAirVoiceMemoryError: The end is not on the disk in time.
        """
        task, self._session_task = self._session_task, None
        if task is not None:
            await asyncio.wait([task])
        if task is not None and not task.cancelled() and task.exception() is None:
            await task.result().aclose()
        elif has_turns:
            await self._client.end_call(user=self._user, session_id=self.session_id)
