"""One call of a user: opened in the background, ended once, with an id under which its turns are saved."""

import asyncio
import logging
import uuid
from collections.abc import Mapping
from typing import Any

from memoair_voice import MemoAirVoiceClient, Prompt, VoiceSession
from memoair_voice.integration.errors import log_failures

log = logging.getLogger("memoair_voice")

# How long a call waits for its prompt before it is opened: as long as a cloud that answers takes. The first turn needs
# the memory, and a prompt that comes later is recorded then.
_PROMPT_WAIT_S = 0.3


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
        self._record_task: asyncio.Task[None] | None = None
        self._has_recorded = False

    async def open(self, prompt: "Prompt | asyncio.Task[Prompt | None] | None" = None) -> None:
        """Open the call, and wait for the memory as long as a session does.

        Args:
            prompt: The prompt that the agent has in the call, or the task that fetches it; None if it has none. If the
                task takes longer than a moment, the call is opened without it, and it is recorded when it is there.

        Raises:
            MemoAirVoiceMemoryError: The pool has no room, or is closed.
        """
        fetching = prompt if isinstance(prompt, asyncio.Future) else None
        known = None if isinstance(prompt, asyncio.Future) else prompt
        if fetching is not None:
            await asyncio.wait([fetching], timeout=_PROMPT_WAIT_S)
            known = _fetched(fetching)
        session = self._client.session(
            user=self._user, session_id=self.session_id, metadata=self._metadata, prompt=known
        )
        self._session_task = asyncio.ensure_future(session)
        if fetching is not None and not fetching.done():
            self._record_task = asyncio.create_task(self._record_later(fetching, self._session_task))
        # A cancelled wait must not lose the session, which pins a runtime.
        await (await asyncio.shield(self._session_task)).open()

    async def record_prompt(self, prompt: Prompt) -> None:
        """Record that an agent with another prompt has taken over the call.

        Raises:
            MemoAirVoiceMemoryError: The runtime does not take it in time.
        """
        self._has_recorded = True
        await self._client.load_index(user=self._user, session_id=self.session_id, prompt=prompt)

    async def _record_later(
        self, fetching: "asyncio.Task[Prompt | None]", opening: "asyncio.Task[VoiceSession]"
    ) -> None:
        """Record the prompt once it is there, unless another agent has taken over by then."""
        await asyncio.wait([fetching, opening])
        is_open = not opening.cancelled() and opening.exception() is None
        if is_open and not self._has_recorded and (prompt := _fetched(fetching)) is not None:
            with log_failures(log, "prompt_unrecorded"):
                await self.record_prompt(prompt)

    async def end(self, *, has_turns: bool) -> None:
        """End the call, so that the cloud learns from it at once. Ending it again has no effect.

        Args:
            has_turns: Whether something was saved: then the call is ended even if it could not be opened.

        Raises:
            MemoAirVoiceMemoryError: The end is not on the disk in time.
        """
        if self._record_task is not None:
            await asyncio.wait([self._record_task])
        task, self._session_task = self._session_task, None
        if task is not None:
            await asyncio.wait([task])
        if task is not None and not task.cancelled() and task.exception() is None:
            await task.result().aclose()
        elif has_turns:
            await self._client.end_call(user=self._user, session_id=self.session_id)


def _fetched(fetching: "asyncio.Task[Prompt | None]") -> Prompt | None:
    """Return what a task has fetched; None if it has not ended, or has failed."""
    if not fetching.done() or fetching.cancelled() or fetching.exception() is not None:
        return None
    return fetching.result()
