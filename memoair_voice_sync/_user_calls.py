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
from memoair_protocol.defaults import SEARCH_TIMEOUT_MS
from memoair_protocol.enums import RecallOrigin
from memoair_protocol.identifiers import identifier_problem
from memoair_voice_sync._after_fork import register_after_fork
from memoair_voice_sync._cloud.api import CloudApi
from memoair_voice_sync._degraded import DegradedSearches
from memoair_voice_sync._diagnostics import log
from memoair_voice_sync._loopback.prefetch import PREFETCH_TIMEOUT_S, PrefetchCache, PrefetchedResult, SearchArguments
from memoair_voice_sync._loopback.search_options import SearchOptions
from memoair_voice_sync._loopback.user_runtime_client import UserRuntimeClient
from memoair_voice_sync._pool.handle import RuntimeHandle
from memoair_voice_sync._pool.pool import RuntimePool
from memoair_voice_sync._recall.mode import check_origin
from memoair_voice_sync._recall.observer import RecallObserver
from memoair_voice_sync._tools.tool import DEFAULT_INTENT
from memoair_voice_sync._turns.outbox import TurnOutbox
from memoair_voice_sync._turns.pending_recall import add_pending_turns
from memoair_voice_sync._turns.redaction import Redaction
from memoair_voice_sync._turns.spool import TurnSpool
from memoair_voice_sync._turns.turn import Turn
from memoair_voice_sync._turns.unsaved_turn import UnsavedTurn
from memoair_voice_sync._turns.user import User
from memoair_voice_sync._whole_calls import WholeCalls
from memoair_voice_sync.errors import MemoAirVoiceMemoryError
from memoair_voice_sync.results import SearchResult

_SAVE_TIMEOUT_S = 1.0
# The first attempt in the background has this share of it: the caller may be one whose log stays blocked.
_FIRST_RETRY_SHARE = 0.25
_ERASE_TIMEOUT_S = 15.0
# Saving a turn again after one of these is useless, so the application gets the error.
_PERMANENT_ERRORS = frozenset(
    ["runtime.bad_request", "runtime.unauthorized", "runtime.payload_too_large", "runtime.identity_mismatch"]
)


class UserCalls(WholeCalls):
    """The client's methods for the turns of a call, and for erasing a user. Any thread may call them."""

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
        observer: RecallObserver,
        spool: TurnSpool | None,
        max_saving_threads: int,
    ) -> None:
        super().__init__(
            cloud,
            pool,
            runtime_client,
            runtimes_see_documents=runtimes_see_documents,
            only_user=only_user,
            org_only=org_only,
        )
        self._redaction = redaction
        self._observer = observer
        self._outbox = TurnOutbox(
            self._retry_save,
            lambda error: error.code in _PERMANENT_ERRORS,
            spool=spool,
            max_threads=max_saving_threads,
        )
        pool.waiting_work.add(self._outbox)
        self._prefetch_cache = PrefetchCache(self._run_prefetch)
        self._counter_lock = threading.Lock()
        self._degraded = DegradedSearches()
        self._deferred_saves = 0
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
        timeout_ms: float = SEARCH_TIMEOUT_MS,
        filter: Mapping[str, Any] | None = None,  # noqa: A002 - the name on the wire
        min_confidence: float | None = None,
        say_nothing_found: bool = False,
        session_id: str | None = None,
        turn_id: str | None = None,
        origin: str = RecallOrigin.API.value,
    ) -> SearchResult:
        """Search a user's memory for what is relevant to a query, within a deadline.

        Turns of the call that still wait to be saved are among the results, each hit with ``pending``; ``working`` then
        has them even if no runtime answers.

        If the memory fails, the result is empty, and its trace is ``degraded`` and says why: while the runtime is still
        starting, its lanes are ``loading``. A lane that is late is left out and named in the trace.

        Args:
            query: What to search for, usually what the caller has just said.
            user: The user who calls, ``{"id", "name", "metadata"}``. Optional if the client has a user.
            user_id: The user's id, as an alternative to ``user``.
            lanes: The lanes to search: ``profile``, ``working``, ``permanent``, ``org``. None means all.
            intent: What the result is for: ``answer_current_user``; ``summarise_recent``, which brings the last turns
                first; ``earlier_in_call``, which brings what matches in this call and then the rest of it; or
                ``fallback``.
            top_k: The largest number of hits per lane, such as ``{"org": 2}``.
            timeout_ms: The time within which this returns, in milliseconds, whatever hangs.
            filter: A condition on the metadata of hits in the ``permanent`` and ``org`` lanes, such as
                ``{"topic": {"$in": ["returns", "shipping"]}}``.
            min_confidence: Leave out hits of less confidence, from 0 to 1, in the ``permanent`` and ``org`` lanes. None
                means none is left out.
            say_nothing_found: Whether the text says so of a lane that was searched and has found nothing.
            session_id: The id of the call, for example that of the telephone platform. A new id begins a call, which
                lasts until `end_call`; the same id goes on with it, also in another process or on another machine.
                None is the call of this client, which lasts as long as the user has a place in the pool.
            turn_id: The id that the turn will be saved with, if it is known: the search's recall trace belongs to it.
                Otherwise it belongs to the turn that is saved next.
            origin: Who asks, for the recall trace: ``api`` (the application), ``tool`` (the language model), ``hook``
                (an integration, by itself) or ``framework`` (another program).

        Returns:
            The hits of each lane, and the text composed from them for the language model.

        Raises:
            MemoAirVoiceMemoryError: ``pool.exhausted``, ``pool.port_exhausted``, ``pool.closed`` or
                ``runtime.bad_request``; no other failure raises.
        """
        started_at = time.monotonic()
        caller = self._resolve_user(user, user_id)
        timeout_s = check.seconds("timeout_ms", timeout_ms, 1e-3)
        options = SearchOptions.parse(lanes, intent, top_k, filter, min_confidence, say_nothing_found=say_nothing_found)
        session_id = check.optional_identifier("session_id", session_id)
        trace = self._observer.begin(check_origin(origin), check.optional_turn_identifier("turn_id", turn_id))
        arguments = SearchArguments(caller, check.text("query", query), options, session_id, trace)
        try:
            with self._acquire_handle(caller) as handle:
                prefetched = self._prefetch_cache.pop(arguments, self._runtime_client.memory_version(handle))
                result = prefetched or self._runtime_client.search(handle, arguments, started_at + timeout_s)
        except MemoAirVoiceMemoryError as error:
            if error.code.startswith("pool.") or error.code == "runtime.bad_request":
                self._observer.fail(trace)
                raise
            is_starting = error.code == "runtime.timeout" and handle.is_starting()
            elapsed_ms = (time.monotonic() - started_at) * 1e3
            result = self._degraded.record(error, lanes, timeout_ms, elapsed_ms, is_starting=is_starting)
        call_id = handle.resolve_session(session_id)
        if not self._org_only and self._outbox.has_pending(caller):
            pending = self._outbox.turns_of_call(caller, call_id, is_unnamed=session_id is None)
            result = add_pending_turns(result, pending, call_id, query, options.lanes, options.top_k)
        self._observer.end(
            trace,
            user_id=None if self._org_only else caller.id,
            session_id=call_id,
            query=query,
            intent=intent,
            deadline_ms=timeout_ms,
            result=result,
            amend=partial(self._runtime_client.amend_trace, handle),
        )
        return result

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
        min_confidence: float | None = None,
        say_nothing_found: bool = False,
        session_id: str | None = None,
    ) -> None:
        """Start a search in the background for what a caller has said so far, and return immediately.

        A later `search_memory` with the same arguments and the same words (case, punctuation and whitespace are
        ignored) returns this result immediately, if nothing was saved or changed for the user in between and no more
        than five seconds have passed; its trace then has ``prefetched``. Otherwise it searches as usual. Only the
        latest prefetch of a user counts. Nothing of it is stored, and a prefetch that fails is ignored.

        Args:
            query_so_far: What the caller has said so far.
            user: The user who calls, as in `search_memory`.
            user_id: The user's id, as an alternative to ``user``.
            lanes: The lanes to search, as in `search_memory`.
            intent: What the result is for, as in `search_memory`.
            top_k: The largest number of hits per lane, as in `search_memory`.
            filter: A condition on metadata, as in `search_memory`.
            min_confidence: The least confidence of a hit, as in `search_memory`.
            say_nothing_found: Whether the text says that a lane has found nothing, as in `search_memory`.
            session_id: The id of the call, as in `search_memory`.

        Raises:
            MemoAirVoiceMemoryError: ``pool.closed``.
        """
        caller = self._resolve_user(user, user_id)
        self._pool_key(caller)
        query = check.text("query_so_far", query_so_far)
        options = SearchOptions.parse(lanes, intent, top_k, filter, min_confidence, say_nothing_found=say_nothing_found)
        session_id = check.optional_identifier("session_id", session_id)
        trace = self._observer.begin(RecallOrigin.API.value, is_prefetch=True)
        self._prefetch_cache.submit(SearchArguments(caller, query, options, session_id, trace))

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
        session_id: str | None = None,
    ) -> str | None:
        """Save a completed turn; when this returns, the turn is on the disk.

        With an id, it is in the memory. If no runtime takes the turn within a second, this writes it to the outbox in
        the storage root and returns None: the turn is saved in the background, in order, by this client or, if that
        ends before, by the next one with this storage root and project. A warning in the log and `stats` tell how many
        turns wait.

        Args:
            user_text: What the caller said.
            assistant_text: What the agent answered, in full even if the caller interrupted it.
            user: The user who calls, ``{"id", "name", "metadata"}``. Optional if the client has a user.
            user_id: The user's id, as an alternative to ``user``.
            turn_id: The id of the turn within its call. The same id with the same words is not saved again; other words
                correct the turn. None makes a new id.
            tool_calls: The tools that the agent called, as JSON objects.
            metadata: A JSON object that is stored with the turn. ``heard`` is the part of an interrupted answer that
                the caller heard ("" for nothing): memory then recalls and learns from that part alone.
                ``occurredAt`` is the time of the turn in ISO 8601.
            session_id: The id of the call, as in `search_memory`. A turn of a call that has ended is kept in it.

        Returns:
            The turn's ``localEventId``, or None if the turn is on the disk and saved later or, with ``org_only``, not
            at all. Also None for a turn from before an erasure of the user, which is not saved.

        Raises:
            MemoAirVoiceMemoryError: The turn is not saved. It never can be: ``runtime.bad_request``,
                ``runtime.payload_too_large``, ``runtime.unauthorized``, ``runtime.identity_mismatch``,
                ``redaction.failed``. Save it again, with the same ``turn_id``: ``runtime.storage_unavailable`` (no
                runtime took it, and the outbox cannot be written), ``pool.outbox_full``, ``pool.exhausted``,
                ``pool.port_exhausted``. Or ``pool.closed``.
        """
        caller = self._resolve_user(user, user_id)
        fields: dict[str, Any] = {"turn_id": uuid.uuid4().hex if turn_id is None else turn_id, "tool_calls": tool_calls}
        fields |= {"user_text": user_text, "assistant_text": assistant_text, "metadata": metadata}
        call_id = pending_id = check.optional_identifier("session_id", session_id)
        turn = self._redaction.redact_turn(Turn.parse(fields), (caller.id, call_id))
        if not self._outbox.has_pending(caller) or self._outbox.catch_up(caller):
            try:
                with self._acquire_handle(caller) as handle:
                    pending_id = handle.resolve_session(call_id)
                    deadline = time.monotonic() + _SAVE_TIMEOUT_S
                    return self._runtime_client.save(handle, caller, turn, deadline, session_id=call_id)
            except MemoAirVoiceMemoryError as error:
                if error.code.startswith("pool.") or error.code in _PERMANENT_ERRORS:
                    raise
                log.warning("a turn could not be saved and will be retried: action=save_deferred code=%s", error.code)
        now = datetime.now(timezone.utc).isoformat()
        turn = attrs.evolve(turn, metadata={"occurredAt": now, **turn.metadata})
        self._outbox.put(UnsavedTurn(caller, turn, pending_id, is_named=call_id is not None))
        if self._outbox.is_waiting:
            self._pool.wake_supervisor()
        with self._counter_lock:
            self._deferred_saves += 1
        return None

    def forget_user(
        self, *, user: Mapping[str, Any] | None = None, user_id: str | None = None, timeout_s: float = _ERASE_TIMEOUT_S
    ) -> dict[str, Any]:
        """Erase all data of a user: in the cloud, if there is one, then on this machine.

        Other machines follow by themselves. A call of the user that is in progress goes on with an empty memory.

        The data on this machine is erased even if the cloud cannot be reached or fails; only a legal hold prevents it.
        An id that was accepted by an earlier version and is invalid today is accepted here: its data is on this machine
        alone.

        Args:
            user: The user to erase, ``{"id"}``. Optional if the client has a user.
            user_id: The user's id, as an alternative to ``user``.
            timeout_s: The time that erasing on this machine may take, in seconds.

        Returns:
            A dict ``{"user_id", "removed": {"cloud", "local"}, "receipt"}`` with what was removed in either place, by
                kind; None for a place that holds no users: no cloud, or ``org_only``. ``receipt`` is that of the cloud,
                which it returns again by ``receipt["digest"]``; None without a cloud.

        Raises:
            MemoAirVoiceMemoryError: If either part fails. Erasing again is safe. If the cloud fails, ``details`` has
                ``removed`` as above, and ``left``, a list with the places that still hold data: ``cloud``.
                ``cloud.legal_hold`` if a legal hold covers the user; nothing is then erased in either place.
        """
        caller = self._require_user(user, user_id, check.stored_identifier)
        phase_timeout_s = check.seconds("timeout_s", timeout_s)
        receipt, cloud_error = self._erase_in_cloud(caller)
        had_pending = self._discard_pending(caller)
        removed = None
        if not self._org_only:  # otherwise no user data is stored here
            with self._acquire_handle(caller) as handle:
                erase = partial(self._runtime_client.erase, handle, receipt)
                removed = erase(time.monotonic() + phase_timeout_s)
                # A save that timed out may have reached the runtime after the erasure and stored its turn again.
                removed_later = (
                    erase(time.monotonic() + phase_timeout_s) if self._discard_pending(caller) or had_pending else {}
                )
                removed = {kind: count + removed_later.get(kind, 0) for kind, count in removed.items()}
        self._discard_pending(caller)
        self._redaction.forget(caller.id)
        removed_by_place = {"cloud": receipt.get("removed"), "local": removed}
        if cloud_error is not None:
            details = {**cloud_error.details, "removed": removed_by_place, "left": ["cloud"]}
            message = f"{cloud_error.message}; the user was erased on this machine only, erase them again"
            raise MemoAirVoiceMemoryError(cloud_error.code, message, cloud_error.status_code, details)
        return {"user_id": caller.id, "removed": removed_by_place, "receipt": receipt or None}

    def _erase_in_cloud(self, caller: User) -> tuple[dict[str, Any], MemoAirVoiceMemoryError | None]:
        """Erase a user in the cloud; return the receipt, or the reason why the cloud may still have data.

        Before the local part: if a legal hold covers the user, pending turns must not be lost either.
        """
        if not self._cloud.is_configured or identifier_problem(caller.id):  # the cloud has never accepted such an id
            return {}, None
        try:
            return self._cloud.forget_user(caller.id), None
        except MemoAirVoiceMemoryError as error:
            if error.code == "cloud.legal_hold":
                raise
            return {}, error

    def _run_prefetch(self, arguments: SearchArguments) -> PrefetchedResult:
        deadline = time.monotonic() + PREFETCH_TIMEOUT_S
        with self._acquire_handle(arguments.user) as handle:
            # The version is read first: the result may miss what changes during the search.
            version = self._runtime_client.memory_version(handle)
            result = self._runtime_client.search(handle, arguments, deadline)
            return PrefetchedResult(version, result, arguments.trace.id if arguments.trace else None)

    def _discard_pending(self, caller: User) -> bool:
        """Discard the pending turns and prefetches of a user; return whether turns were pending."""
        self._prefetch_cache.discard(caller)
        return self._outbox.discard(caller)

    def _retry_save(self, unsaved: Sequence[UnsavedTurn]) -> None:
        head, turns = unsaved[0], [each.turn for each in unsaved]
        with self._acquire_handle(head.user) as handle:
            deadline = time.monotonic() + _SAVE_TIMEOUT_S * (1 if head.failures else _FIRST_RETRY_SHARE)
            self._runtime_client.save_all(handle, head.user, turns, deadline, session_id=head.session_id)

    @contextmanager
    def _acquire_handle(self, caller: User) -> Iterator[RuntimeHandle]:
        self._outbox.tend()  # not with the key of the pool: that is asked for in event loops, and this reads the disk
        with super()._acquire_handle(caller) as handle:
            yield handle

    def _reset_after_fork(self) -> None:
        self._outbox.reset_after_fork()
        self._prefetch_cache.reset_after_fork()
        self._cloud.reset_after_fork()
        self._degraded.reset_after_fork()
        self._observer.reset_after_fork()
        self._counter_lock = threading.Lock()
