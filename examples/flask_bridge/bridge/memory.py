"""The memory of one worker process. If it fails, the call continues without memory."""

import atexit
import logging
import os
import threading
import time
from collections.abc import Sequence
from datetime import datetime, timezone
from typing import Any

from bridge.outcomes import Outcome, count_recall
from bridge.settings import BridgeSettings
from bridge.turns import CallTurn
from memoair_voice_sync import MemoAirVoiceClientSync, MemoAirVoiceMemoryError

log = logging.getLogger("bridge")

# With these errors, sending the turns again would not help.
_PERMANENT_CODES = ("runtime.bad_request", "runtime.payload_too_large")
_WARM_UP_TIMEOUT_S = 1.0
_END_TIMEOUT_S = 5.0
# The first search of a process starts everything that searches need, which takes half a second. That is worth waiting
# for, once.
_FIRST_RECALL_TIMEOUT_MS = 2_000
_RETRY_PAUSE_S = 0.01
_MAX_QUERY_CHARS = 2_000  # of a longer query, the end is used


class BridgeMemory:
    """One client for all callers of this process. Safe to use from any thread.

    An unknown caller has no id: with None as ``caller``, nothing is recalled.
    """

    def __init__(self, settings: BridgeSettings) -> None:
        self._settings = settings
        self._client_lock = threading.Lock()
        self._process_client: tuple[int, MemoAirVoiceClientSync] | None = None  # with the id of its process
        self._has_searched = False

    def warm_up(self, caller: str | None, call_id: str | None) -> None:
        """Begin a call, and load the caller's memory while the phone rings."""
        if caller is None:
            return
        try:
            self._get_client().load_index(user={"id": caller}, timeout_s=_WARM_UP_TIMEOUT_S, session_id=call_id)
        except MemoAirVoiceMemoryError as error:
            log.warning("a caller's memory is not loaded yet: code=%s", error.code)

    def recall(
        self,
        caller: str | None,
        query: str,
        *,
        call_id: str | None,
        lanes: Sequence[str] | None = None,
        turn_id: str | None = None,
        origin: str = "tool",
    ) -> str:
        """Return what is known about the query, within the deadline. Return "" if the memory fails.

        Args:
            caller: The caller's id.
            query: What the caller has said.
            call_id: The platform's id of the call.
            lanes: The lanes to search; all by default.
            turn_id: The id with which the turn will be saved, if it is known: for the recall trace.
            origin: Who asks: ``tool`` if the platform's model does, ``hook`` if the bridge does by itself.
        """
        if caller is None or not query.strip():
            return ""
        timeout_ms = self._settings.recall_timeout_ms
        if not self._has_searched:
            timeout_ms = max(timeout_ms, _FIRST_RECALL_TIMEOUT_MS)
        try:
            found = self._get_client().search_memory(
                query[-_MAX_QUERY_CHARS:],
                user={"id": caller},
                timeout_ms=timeout_ms,
                lanes=lanes,
                session_id=call_id,
                turn_id=turn_id,
                origin=origin,
            )
        except MemoAirVoiceMemoryError as error:
            log.warning("answered without memory: code=%s", error.code)
            count_recall("failed")
            return ""
        finally:
            self._has_searched = True
        if found.trace["degraded"]:
            log.warning("answered with part of the memory: code=%s", found.trace.get("error", {}).get("code", "late"))
            count_recall("partial")
        else:
            count_recall("found" if found.contextText else "empty")
        return found.contextText

    def save_report(
        self, caller: str, platform: str, call_id: str, turns: Sequence[CallTurn], *, timeout_s: float
    ) -> Outcome:
        """Save turns of a call that is over, each once, even if they were saved during the call or are sent again.

        Returns:
            ``KEPT``; ``UNAVAILABLE`` if the platform should send the turns again; ``REFUSED`` if that would not help;
            ``ERASED`` if the caller was erased since.
        """
        deadline = time.monotonic() + timeout_s
        while True:
            try:
                event_ids = self._get_client().import_call(
                    call_id,
                    [_to_fields(turn) for turn in turns],
                    user={"id": caller},
                    metadata={"source": platform},
                    timeout_s=max(0.001, deadline - time.monotonic()),
                )
            except MemoAirVoiceMemoryError as error:
                # Otherwise retry at once: the runtime may have ended with the worker that started it.
                if (
                    error.code in _PERMANENT_CODES
                    or error.code.startswith("pool.")
                    or time.monotonic() + _RETRY_PAUSE_S > deadline
                ):
                    log.warning("turns were not saved: turns=%s code=%s", len(turns), error.code)
                    return Outcome.REFUSED if error.code in _PERMANENT_CODES else Outcome.UNAVAILABLE
                time.sleep(_RETRY_PAUSE_S)
                continue
            return Outcome.KEPT if event_ids else Outcome.ERASED

    def save_turn(self, caller: str, platform: str, call_id: str, turn: CallTurn) -> Outcome:
        """Save a turn of a call in progress, once: before this returns, or in the background if that takes too long.

        Returns:
            ``KEPT``, ``DEFERRED``, ``REFUSED``, ``ERASED`` or ``LOST``.
        """
        deadline = time.monotonic() + self._settings.save_timeout_ms / 1e3
        try:
            event_id = self._get_client().save_response(user={"id": caller}, session_id=call_id, **_to_fields(turn))
        except MemoAirVoiceMemoryError as error:
            log.warning("a turn was not saved: code=%s", error.code)
            return Outcome.REFUSED if error.code in _PERMANENT_CODES else Outcome.LOST
        remaining_s = deadline - time.monotonic()
        if event_id is None and remaining_s > 0:
            # No runtime took the turn within a second. It is in the outbox on the disk, and the client goes on trying.
            # Wait until it is in the memory, too. A turn that is saved twice with the same id is there once.
            outcome = self.save_report(caller, platform, call_id, [turn], timeout_s=remaining_s)
            return Outcome.DEFERRED if outcome is Outcome.UNAVAILABLE else outcome
        return Outcome.KEPT if event_id is not None else Outcome.DEFERRED

    def end_call(self, caller: str | None, call_id: str, reason: str) -> None:
        """End a call, so that learning begins. Ending it again has no effect."""
        if caller is None:
            return
        try:
            self._get_client().end_call(
                user={"id": caller}, session_id=call_id, reason=reason, timeout_s=_END_TIMEOUT_S
            )
        except MemoAirVoiceMemoryError as error:
            log.warning("a call could not be ended: code=%s", error.code)

    def close(self) -> None:
        """Save pending turns and stop the runtimes.

        This happens automatically when the process ends. Calling it again does no harm.
        """
        atexit.unregister(self.close)
        with self._client_lock:
            process_client, self._process_client = self._process_client, None
        if process_client is not None and process_client[0] == os.getpid():
            process_client[1].close()

    def _get_client(self) -> MemoAirVoiceClientSync:
        """Return the client, created on first use: in the worker, after gunicorn has forked it."""
        with self._client_lock:
            if self._process_client is None or self._process_client[0] != os.getpid():
                client = MemoAirVoiceClientSync(
                    api_key=self._settings.api_key,
                    project_id=self._settings.project_id,
                    agent_id=self._settings.agent_id,
                    cloud_base_url=self._settings.cloud_base_url,
                    storage_root=self._settings.storage_root,
                    runtime_port_range=self._settings.port_range,
                    max_concurrent_users=self._settings.max_concurrent_users,
                )
                atexit.register(self.close)
                self._process_client = os.getpid(), client
            return self._process_client[1]


def _to_fields(turn: CallTurn) -> dict[str, Any]:
    return {
        "turn_id": turn.id,
        "user_text": turn.user_text,
        "assistant_text": turn.assistant_text,
        "tool_calls": [dict(tool_call) for tool_call in turn.tool_calls],
        "metadata": {"occurredAt": (turn.at or datetime.now(timezone.utc)).isoformat(), **turn.metadata},
    }
