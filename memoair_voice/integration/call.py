"""One call of a user: opened in the background, ended once, with an id under which its turns are saved."""

import asyncio
import logging
import uuid
from collections.abc import Mapping
from typing import Any
from weakref import WeakSet

from memoair_voice import MemoAirVoiceClient, MemoAirVoiceMemoryError, VoiceSession

# The state of a runtime whose identity the cloud rejects, in `stats`.
_REFUSED = "refused"
# The states in which it has reached the cloud, or has none.
_SETTLED = {"ok", "off"}
# How long to wait before each look at the states.
_PAUSES_S = (0.0, 0.5, 2.0)
_UNAUTHORIZED = (401, 403)
_NOT_FOUND = 404
# The clients of which it is known whether the cloud accepts them: their identity does not change.
_known_clients: "WeakSet[MemoAirVoiceClient]" = WeakSet()


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

    async def open(self) -> None:
        """Open the call, and wait for the memory as long as a session does.

        Raises:
            MemoAirVoiceMemoryError: The pool has no room, or is closed.
        """
        session = self._client.session(user=self._user, session_id=self.session_id, metadata=self._metadata)
        self._session_task = asyncio.ensure_future(session)
        # A cancelled wait must not lose the session, which pins a runtime.
        await (await asyncio.shield(self._session_task)).open()

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


async def report_rejected_identity(client: MemoAirVoiceClient, log: logging.Logger) -> None:
    """Log an error once for each client whose key, project or agent the cloud rejects, and say which of them it is.

    It takes some seconds at most, until the runtimes have reached the cloud. Run it in the background.

    Args:
        client: The client, after a call was opened. Without a rejection, this asks only the runtimes.
        log: Where to log.
    """
    for pause_s in _PAUSES_S:
        await asyncio.sleep(pause_s)
        if client in _known_clients:
            return
        states = {runtime.get("sync") for runtime in (await client.stats())["runtimes"]}
        if _REFUSED in states and client not in _known_clients:
            _known_clients.add(client)
            await _report(client, log)
        elif states and states <= _SETTLED:
            _known_clients.add(client)


async def _report(client: MemoAirVoiceClient, log: logging.Logger) -> None:
    try:
        await client.list_indexes()
    except MemoAirVoiceMemoryError as error:
        rejected = "identity"
        if error.status_code in _UNAUTHORIZED:
            rejected = "api_key"
        elif error.status_code == _NOT_FOUND:
            rejected = "agent_id" if "agent" in error.message else "project_id"
        message = "the cloud rejects the %s, so nothing is sent to it or received: action=identity_rejected code=%s"
        log.error(message, rejected, error.code)
