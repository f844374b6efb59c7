"""The client's methods for whole calls: prepare one, end one, import one that is over."""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import memoair_voice_sync._arguments as check
from memoair_protocol.defaults import ORG_ONLY_USER
from memoair_voice_sync._cloud.calls import CloudCalls
from memoair_voice_sync._diagnostics import log
from memoair_voice_sync._pool.handle import RuntimeHandle
from memoair_voice_sync._prompts.calls import PromptCalls
from memoair_voice_sync._turns.redaction import Redaction
from memoair_voice_sync._turns.turn import PastCall
from memoair_voice_sync._turns.user import User
from memoair_voice_sync.errors import MemoAirVoiceMemoryError
from memoair_voice_sync.results import IndexLoadResult, Prompt

_LOAD_TIMEOUT_S = 15.0
_END_TIMEOUT_S = 5.0
# A call that is entered waits so long for its runtime, and of that so long for the cloud: the caller is on the line.
_OPEN_TIMEOUT_S, _OPEN_PULL_TIMEOUT_S = 5.0, 1.0
_CLOSE_CALL_TIMEOUT_S = 2.0


class WholeCalls(CloudCalls, PromptCalls):
    """The client's methods that begin and end calls. Any thread may call them."""

    _redaction: Redaction

    def load_index(
        self,
        *,
        user: Mapping[str, Any] | None = None,
        user_id: str | None = None,
        timeout_s: float = _LOAD_TIMEOUT_S,
        session_id: str | None = None,
        prompt: Prompt | None = None,
    ) -> IndexLoadResult:
        """Prepare a user's memory, for example while the phone rings.

        Starts the user's runtime, opens the session and loads what is stored. Afterwards
        ``search_memory("", lanes=["profile"])`` returns who the user is, so that the agent can greet them by name. With
        a cloud, this also waits up to three seconds for what the cloud knows of the user; without an answer by then,
        the memory is what this machine knows.

        Args:
            user: The user who calls, ``{"id", "name", "metadata"}``. Optional if the client has a user.
            user_id: The user's id, as an alternative to ``user``.
            timeout_s: The time that this may take, in seconds.
            session_id: The id of the call, which begins here or goes on (see `search_memory`).
            prompt: The prompt that the agent has in this call, as `prompt` returns it. Its version and label are stored
                with the call.

        Returns:
            The session and the versions of what was loaded.

        Raises:
            MemoAirVoiceMemoryError: If the memory is not ready within ``timeout_s``. What was started goes on, and
                the next call continues from there.
        """
        caller, session_id = self._resolve_user(user, user_id), check.optional_identifier("session_id", session_id)
        deadline = time.monotonic() + check.seconds("timeout_s", timeout_s)
        about_prompt = self._prompt_metadata(prompt, {})
        with self._acquire_handle(caller) as handle:
            self._runtime_client.describe_session(handle, session_id, about_prompt)
            return self._runtime_client.load(handle, caller, deadline, session_id=session_id)

    def end_call(
        self,
        *,
        user: Mapping[str, Any] | None = None,
        user_id: str | None = None,
        session_id: str | None = None,
        reason: str = "completed",
        timeout_s: float = _END_TIMEOUT_S,
    ) -> None:
        """End a call, so that the cloud learns from it at once. Ending it again has no effect.

        For webhooks, which hold no `session`. A turn that arrives later is kept in the call, which stays ended; a
        search with its id opens the call again.

        Args:
            user: The user who called, ``{"id", "name", "metadata"}``. Optional if the client has a user.
            user_id: The user's id, as an alternative to ``user``.
            session_id: The id of the call. None is the call of this client that has no id; the user's next turn or
                search without an id then begins another one.
            reason: Why the call ended; it is stored with the call.
            timeout_s: The time that this may take, in seconds.

        Raises:
            MemoAirVoiceMemoryError: If the end is not on the disk within ``timeout_s``. Without an end, the cloud
                learns from the call ten minutes after its last turn.
        """
        caller, session_id = self._resolve_user(user, user_id), check.optional_identifier("session_id", session_id)
        reason, deadline = (
            self._redaction.redact_reason(check.text("reason", reason)),
            time.monotonic() + check.seconds("timeout_s", timeout_s),
        )
        with self._acquire_handle(caller) as handle:
            self._runtime_client.end(handle, session_id, reason, deadline, starts_runtime=session_id is not None)

    def import_call(
        self,
        session_id: str,
        turns: Sequence[Mapping[str, Any]],
        *,
        user: Mapping[str, Any] | None = None,
        user_id: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        timeout_s: float = 60.0,
    ) -> list[str]:
        """Save a call that is over, for example from a transcript.

        A turn that is already stored in this session is not saved again, so a call can be imported in parts and
        repeatedly. A known ``turn_id`` with other words corrects the turn.

        Args:
            session_id: The id of the call.
            turns: The turns in order, each a dict with ``turn_id``, ``user_text``, ``assistant_text`` and optionally
                ``tool_calls`` and ``metadata``; ``metadata["occurredAt"]`` is the time of the turn in ISO 8601.
            user: The user who called, ``{"id", "name", "metadata"}``. Optional if the client has a user.
            user_id: The user's id, as an alternative to ``user``.
            metadata: A JSON object that is stored with the session.
            timeout_s: The time that this may take, in seconds.

        Returns:
            The ids of the events of the turns, without those from before an erasure of the user, which are not saved.

        Raises:
            MemoAirVoiceMemoryError: If not all turns are on the disk within ``timeout_s``. Importing the call again
                saves the rest.
        """
        caller, call = self._require_user(user, user_id), PastCall.parse(session_id, turns, metadata)
        caller, call = self._redaction.redact_user(caller), self._redaction.redact_past_call(call, caller.id)
        deadline = time.monotonic() + check.seconds("timeout_s", timeout_s)
        with self._acquire_handle(caller) as handle:
            return self._runtime_client.import_call(handle, caller, call, deadline)

    def _resolve_user(self, user: Mapping[str, Any] | None, user_id: str | None) -> User:
        return self._redaction.redact_user(super()._resolve_user(user, user_id))

    def _open_call(self, handle: RuntimeHandle, caller: User, session_id: str) -> None:
        """Open a call and wait until its memory is loaded; if it is not in time, the call goes on without waiting."""
        deadline = time.monotonic() + _OPEN_TIMEOUT_S
        try:
            self._runtime_client.load(
                handle, caller, deadline, session_id=session_id, pull_timeout_s=_OPEN_PULL_TIMEOUT_S
            )
        except MemoAirVoiceMemoryError as error:
            if error.code.startswith("pool."):
                raise
            log.warning("a call begins without its memory: action=open_failed code=%s", error.code)

    def _close_call(self, handle: RuntimeHandle, session_id: str) -> None:
        """End a call and unpin the user's runtime."""
        deadline = time.monotonic() + _CLOSE_CALL_TIMEOUT_S
        try:
            self._runtime_client.end(handle, session_id, "completed", deadline, starts_runtime=False)
        except MemoAirVoiceMemoryError as error:
            if error.code != "pool.closed":  # the client has ended all calls
                log.warning("a call could not be ended: action=end_failed code=%s", error.code)
        finally:
            self._pool.release(handle, pins=True)

    @contextmanager
    def _acquire_handle(self, caller: User) -> Iterator[RuntimeHandle]:
        handle = self._pool.acquire(self._pool_key(caller))
        try:
            yield handle
        finally:
            self._pool.release(handle)

    def _pool_key(self, caller: User) -> str:
        if caller.id == ORG_ONLY_USER and not self._org_only:
            raise ValueError(f"{ORG_ONLY_USER} is reserved for the organization's documents and cannot be a user id")
        return ORG_ONLY_USER if self._org_only else caller.id
