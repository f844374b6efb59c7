"""The client's calls for one user: search, save, load, import and erase."""

import threading
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime, timezone
from functools import partial
from typing import Any

import attrs

import memoair_voice_sync._arguments as check
from memoair_voice_sync._after_fork import register_after_fork
from memoair_voice_sync._cloud import CloudApi
from memoair_voice_sync._cloud_calls import CloudCalls
from memoair_voice_sync._errors import MemoAirVoiceMemoryError
from memoair_voice_sync._handle import RuntimeHandle
from memoair_voice_sync._log import log
from memoair_voice_sync._memory import DEFAULT_TIMEOUT_MS
from memoair_voice_sync._outbox import TurnOutbox, UnsavedTurn
from memoair_voice_sync._past_call import PastCall
from memoair_voice_sync._pool import RuntimePool
from memoair_voice_sync._prefetch import (
    PREFETCH_TIMEOUT_S,
    PrefetchCache,
    PrefetchedResult,
    SearchArguments,
    memory_version,
)
from memoair_voice_sync._redaction import Redaction
from memoair_voice_sync._results import IndexLoadResult, SearchResult, degraded_result
from memoair_voice_sync._spec import ORG_ONLY_USER
from memoair_voice_sync._tool import DEFAULT_INTENT
from memoair_voice_sync._turn import validate_turn
from memoair_voice_sync._user import User
from memoair_voice_sync._user_runtime_client import UserRuntimeClient

_SAVE_TIMEOUT_S = 1.0
_LOAD_TIMEOUT_S = 15.0
_ERASE_TIMEOUT_S = 15.0
# After these there is no use in saving a turn again, and whoever calls must hear of it.
_PERMANENT_ERRORS = frozenset(
    ["runtime.bad_request", "runtime.unauthorized", "runtime.payload_too_large", "runtime.identity_mismatch"]
)


class UserCalls(CloudCalls):
    """The client's methods that reach one user's runtime. Any thread may call them."""

    def __init__(
        self,
        cloud: CloudApi,
        pool: RuntimePool,
        runtime_client: UserRuntimeClient,
        *,
        runtimes_see_documents: bool,
        only_user: User | None,
        org_only: bool,
        redaction: Redaction,
    ) -> None:
        super().__init__(
            cloud, pool, runtime_client, runtimes_see_documents=runtimes_see_documents, only_user=only_user
        )
        self._org_only = org_only
        self._redaction = redaction
        self._outbox = TurnOutbox(self._retry_save, lambda error: error.code in _PERMANENT_ERRORS)
        self._prefetch_cache = PrefetchCache(self._run_prefetch)
        self._counter_lock = threading.Lock()
        self._degraded_searches = self._deferred_saves = 0
        register_after_fork(self, UserCalls._reset_after_fork)

    def search_memory(
        self,
        query: str,
        *,
        user: Mapping[str, Any] | None = None,
        user_id: str | None = None,
        lanes: Sequence[str] | None = None,
        intent: str = DEFAULT_INTENT,
        top_k: Mapping[str, int] | None = None,
        timeout_ms: float = DEFAULT_TIMEOUT_MS,
        filter: Mapping[str, Any] | None = None,  # noqa: A002 - the name on the wire
    ) -> SearchResult:
        """Recall what matters for ``query``, within ``timeout_ms``, whatever hangs.

        ``user`` is who calls, ``{"id", "name", "metadata"}``; ``user_id`` is another way to name his id. ``lanes``,
        ``intent``, ``top_k`` and ``filter`` as in `MemoAirVoiceMemorySync.search_memory`. A memory that fails gives an
        empty result, whose trace is ``degraded`` and says why.
        """
        started_at = time.monotonic()
        caller = self._resolve_user(user, user_id)
        timeout_s = check.seconds("timeout_ms", timeout_ms, 1e-3)
        check.text("query", query)
        arguments = SearchArguments.parse(caller, query, lanes=lanes, intent=intent, top_k=top_k, filter=filter)
        try:
            with self._acquire_handle(caller) as handle:
                prefetched = self._prefetch_cache.pop(arguments, memory_version(handle))
                return prefetched or self._runtime_client.search(
                    handle, caller, query, arguments.options, started_at + timeout_s
                )
        except MemoAirVoiceMemoryError as error:
            if error.code.startswith("pool.") or error.code == "runtime.bad_request":
                raise
            with self._counter_lock:
                self._degraded_searches += 1
            log.warning("a search came back empty: action=search_degraded code=%s", error.code)
            return degraded_result(error, lanes, timeout_ms, (time.monotonic() - started_at) * 1e3)

    def prefetch(
        self,
        query_so_far: str,
        *,
        user: Mapping[str, Any] | None = None,
        user_id: str | None = None,
        lanes: Sequence[str] | None = None,
        intent: str = DEFAULT_INTENT,
        top_k: Mapping[str, int] | None = None,
        filter: Mapping[str, Any] | None = None,  # noqa: A002 - the name on the wire
    ) -> None:
        """Recall behind the scenes what matters for what a caller has said so far, and return at once.

        `search_memory` with the same words, but for case, punctuation and spaces, and the same arguments has the answer
        at once then, if nothing was saved or changed for the caller meanwhile and no more than five seconds have gone
        by; its trace has ``prefetched``. Else it asks as ever. Of several recalls ahead for a caller the latest counts.
        None of it is kept, and one that fails is passed over.
        """
        caller = self._resolve_user(user, user_id)
        self._pool_key(caller)
        query = check.text("query_so_far", query_so_far)
        self._prefetch_cache.submit(
            SearchArguments.parse(caller, query, lanes=lanes, intent=intent, top_k=top_k, filter=filter)
        )

    def save_response(
        self,
        *,
        user_text: str,
        assistant_text: str,
        user: Mapping[str, Any] | None = None,
        user_id: str | None = None,
        turn_id: str | None = None,
        tool_calls: list[dict[str, Any]] | None = None,
        metadata: dict[str, Any] | None = None,
    ) -> str | None:
        """Keep a completed turn, and return its ``localEventId``: then it is on the disk.

        Returns None where no runtime could take it within a second: it is tried again in the background, in order, for
        as long as the client lives, which `stats` and a warning in the log tell. What can't be kept at all
        (``runtime.bad_request``, ``runtime.payload_too_large``, ``redaction.failed``, ...) is raised. A ``turn_id``
        that was kept before keeps nothing again.

        Of an answer that was interrupted, ``metadata["heard"]`` is what the caller heard, "" for nothing: that alone is
        recalled and learned from; ``assistant_text``, as it was meant, is kept beside it.
        """
        caller = self._resolve_user(user, user_id)
        fields: dict[str, Any] = {"turn_id": uuid.uuid4().hex if turn_id is None else turn_id, "tool_calls": tool_calls}
        fields |= {"user_text": user_text, "assistant_text": assistant_text, "metadata": metadata}
        turn, session_id = self._redaction.redact_turn(validate_turn(fields)), None
        if not self._outbox.has_pending(caller):
            try:
                with self._acquire_handle(caller) as handle:
                    session_id = handle.session_id
                    return self._runtime_client.save(handle, caller, turn, time.monotonic() + _SAVE_TIMEOUT_S)
            except MemoAirVoiceMemoryError as error:
                if error.code.startswith("pool.") or error.code in _PERMANENT_ERRORS:
                    raise
                log.warning("a turn will be saved again: action=save_deferred code=%s", error.code)
        with self._counter_lock:
            self._deferred_saves += 1
        turn["metadata"].setdefault("occurredAt", datetime.now(timezone.utc).isoformat())
        self._outbox.put(UnsavedTurn(caller, turn, session_id))
        return None

    def load_index(
        self, *, user: Mapping[str, Any] | None = None, user_id: str | None = None, timeout_s: float = _LOAD_TIMEOUT_S
    ) -> IndexLoadResult:
        """Make a caller's memory ready, as when the phone rings: start his runtime, open the call, read what is kept.

        ``search_memory("", lanes=["profile"])`` tells then who he is, so that he can be greeted by name.
        Where there is a cloud, what it knows of him is waited for, up to three seconds; without an answer by then he is
        remembered as this machine knows him. Raises `MemoAirVoiceMemoryError` where that can't be done in
        ``timeout_s``.
        """
        caller = self._resolve_user(user, user_id)
        deadline = time.monotonic() + check.seconds("timeout_s", timeout_s)
        with self._acquire_handle(caller) as handle:
            return self._runtime_client.load(handle, caller, deadline)

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
        """Keep a call that is over, as from a transcript, under its own ``session_id``; return the ids of its events.

        ``turns`` hold what `save_response` takes; ``occurredAt`` in a turn's ``metadata`` is when it was spoken. One
        whose ``turn_id`` is known in this call keeps nothing again: a call may be imported in parts, and again. Raises
        `MemoAirVoiceMemoryError` where not all of it is on the disk within ``timeout_s``.
        """
        caller, call = self._resolve_user(user, user_id), PastCall.parse(session_id, turns, metadata)
        call = attrs.evolve(call, turns=[self._redaction.redact_turn(turn) for turn in call.turns])
        deadline = time.monotonic() + check.seconds("timeout_s", timeout_s)
        with self._acquire_handle(caller) as handle:
            return self._runtime_client.import_call(handle, caller, call, deadline)

    def forget_user(
        self, *, user: Mapping[str, Any] | None = None, user_id: str | None = None, timeout_s: float = _ERASE_TIMEOUT_S
    ) -> dict[str, Any]:
        """Forget a caller: in the cloud, where there is one, then on this machine; other machines follow by themselves.

        Returns ``{"user_id", "removed": {"cloud", "local"}}``, each with what was removed, None where nobody was asked.
        A call of his that is under way goes on, and begins anew. Raises `MemoAirVoiceMemoryError` where either fails;
        to do it again is no harm.
        """
        caller = self._resolve_user(user, user_id)
        phase_timeout_s = check.seconds("timeout_s", timeout_s)
        had_pending = self._discard_pending(caller)
        receipt = self._cloud.forget_user(caller.id) if self._cloud.is_configured else {}
        removed = None
        if not self._org_only:  # else nothing of him is kept here
            with self._acquire_handle(caller) as handle:
                erase = partial(self._runtime_client.erase, handle, receipt.get("forgottenAt"))
                removed = erase(time.monotonic() + phase_timeout_s)
                # A turn that was given up may have been on its way to the runtime, and be kept behind that.
                removed_later = (
                    erase(time.monotonic() + phase_timeout_s) if self._discard_pending(caller) or had_pending else {}
                )
                removed = {kind: count + removed_later.get(kind, 0) for kind, count in removed.items()}
        self._discard_pending(caller)
        return {"user_id": caller.id, "removed": {"cloud": receipt.get("removed"), "local": removed}}

    @contextmanager
    def _acquire_handle(self, caller: User) -> Iterator[RuntimeHandle]:
        handle = self._pool.acquire(self._pool_key(caller))
        try:
            yield handle
        finally:
            self._pool.release(handle)

    def _pool_key(self, caller: User) -> str:
        if caller.id == ORG_ONLY_USER and not self._org_only:
            raise ValueError(f"{ORG_ONLY_USER} is no caller: the runtime for the organisation's documents is called so")
        return ORG_ONLY_USER if self._org_only else caller.id

    def _run_prefetch(self, arguments: SearchArguments) -> PrefetchedResult:
        deadline = time.monotonic() + PREFETCH_TIMEOUT_S
        with self._acquire_handle(arguments.user) as handle:
            version = memory_version(handle)  # before: what changes meanwhile may be missing in the answer
            return PrefetchedResult(
                version,
                self._runtime_client.search(handle, arguments.user, arguments.query, arguments.options, deadline),
            )

    def _discard_pending(self, caller: User) -> bool:
        """What waits or is there for a caller goes when he is forgotten; tells whether turns were to be saved."""
        self._prefetch_cache.discard(caller)
        return self._outbox.discard(caller)

    def _retry_save(self, unsaved: UnsavedTurn) -> None:
        with self._acquire_handle(unsaved.user) as handle:
            deadline = time.monotonic() + _SAVE_TIMEOUT_S
            self._runtime_client.save(handle, unsaved.user, unsaved.turn, deadline, session_id=unsaved.session_id)

    def _reset_after_fork(self) -> None:
        self._outbox.reset_after_fork()
        self._prefetch_cache.reset_after_fork()
        self._cloud.reset_after_fork()
        self._counter_lock = threading.Lock()
