"""The memory of one worker process. It never fails a call: without it, an answer is an answer without memory."""

import atexit
import logging
import os
import threading
import time
from collections.abc import Sequence
from datetime import datetime, timezone

from bridge.settings import BridgeSettings
from bridge.turns import CallTurn
from memoair_voice_sync import MemoAirVoiceClientSync, MemoAirVoiceMemoryError

log = logging.getLogger("bridge")

# To be told these turns again would not help.
_PERMANENT_CODES = ("runtime.bad_request", "runtime.payload_too_large")
_WARM_UP_TIMEOUT_S = 1.0
# The first search of a process finds nothing running, and starts all that searches need: half a second, for which it is
# worth to wait, once.
_FIRST_RECALL_TIMEOUT_MS = 2_000
_RETRY_PAUSE_S = 0.01
_MAX_QUERY_CHARS = 2_000  # characters; of a longer one, its end asks


class BridgeMemory:
    """One client for all callers of this process. Safe to use from any thread."""

    def __init__(self, settings: BridgeSettings) -> None:
        self._settings = settings
        self._client_lock = threading.Lock()
        self._process_client: tuple[int, MemoAirVoiceClientSync] | None = None  # and in which process
        self._has_searched = False

    def warm_up(self, caller: str | None) -> None:
        """Make a caller's memory ready, while the phone rings."""
        if caller is None:
            return
        try:
            self._get_client().load_index(user={"id": caller}, timeout_s=_WARM_UP_TIMEOUT_S)
        except MemoAirVoiceMemoryError as error:
            log.warning("a caller's memory is not ready yet: code=%s", error.code)

    def recall(self, caller: str | None, query: str) -> str:
        """What is known that matters for the question, within the deadline; nothing where the memory fails."""
        if caller is None or not query.strip():
            return ""
        timeout_ms = self._settings.recall_timeout_ms
        if not self._has_searched:
            timeout_ms = max(timeout_ms, _FIRST_RECALL_TIMEOUT_MS)
        try:
            found = self._get_client().search_memory(
                query[-_MAX_QUERY_CHARS:], user={"id": caller}, timeout_ms=timeout_ms
            )
        except MemoAirVoiceMemoryError as error:
            log.warning("answered without memory: code=%s", error.code)
            return ""
        finally:
            self._has_searched = True
        if found.trace["degraded"]:
            log.warning("answered with a part of the memory: code=%s", found.trace.get("error", {}).get("code", "late"))
        return found.contextText

    def save(
        self, caller: str | None, platform: str, call_id: str, turns: Sequence[CallTurn], *, timeout_s: float
    ) -> bool:
        """Keep turns under the platform's own id of their call, each once, whoever tells of it how often and where.

        That id is why this is `import_call` and not `save_response`, whose call is this process's: a turn that is told
        again to another worker, or after a restart, is known only in the call in which it was kept. False: it is worth
        being told again.
        """
        if caller is None or not turns:
            return True
        payloads = [
            {
                "turn_id": turn.id,
                "user_text": turn.user_text,
                "assistant_text": turn.assistant_text,
                "metadata": {"occurredAt": (turn.at or datetime.now(timezone.utc)).isoformat()},
            }
            for turn in turns
        ]
        deadline = time.monotonic() + timeout_s
        while True:
            try:
                self._get_client().import_call(
                    call_id,
                    payloads,
                    user={"id": caller},
                    metadata={"source": platform},
                    timeout_s=max(0.001, deadline - time.monotonic()),
                )
            except MemoAirVoiceMemoryError as error:
                # Worth another try at once: the runtime ended with the worker whose it was; or another turn of the same
                # call came at the same moment, and ended the call under ours.
                if (
                    error.code in _PERMANENT_CODES
                    or error.code.startswith("pool.")
                    or time.monotonic() + _RETRY_PAUSE_S > deadline
                ):
                    log.warning("turns were not kept: turns=%s code=%s", len(turns), error.code)
                    return error.code in _PERMANENT_CODES
                time.sleep(_RETRY_PAUSE_S)
                continue
            return True

    def save_later(self, caller: str | None, turn: CallTurn) -> None:
        """Have a turn kept in the background that could not be kept now. Should it have been, it is there twice: better
        than not at all.
        """
        if caller is None:
            return
        try:
            self._get_client().save_response(
                user={"id": caller}, turn_id=turn.id, user_text=turn.user_text, assistant_text=turn.assistant_text
            )
        except MemoAirVoiceMemoryError as error:
            log.error("a turn is lost: code=%s", error.code)

    def close(self) -> None:
        """Save what waits, and end the runtimes; done by itself when the process ends. Twice is no harm."""
        atexit.unregister(self.close)
        with self._client_lock:
            process_client, self._process_client = self._process_client, None
        if process_client is not None and process_client[0] == os.getpid():
            process_client[1].close()

    def _get_client(self) -> MemoAirVoiceClientSync:
        """The client, made at the first need: in the worker, after gunicorn has forked it."""
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
