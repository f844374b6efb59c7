"""The client's calls to one user's runtime. The session is opened as needed, also after it has ended."""

import itertools
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

import attrs

from memoair_protocol.defaults import ORG_ONLY_USER
from memoair_protocol.threads import ThreadUnavailableError, start_thread
from memoair_voice_sync._diagnostics import RejectionLog, log
from memoair_voice_sync._loopback.prefetch import SearchArguments
from memoair_voice_sync._loopback.runtime_client import RuntimeClient
from memoair_voice_sync._pool.handle import RuntimeHandle
from memoair_voice_sync._turns.turn import PastCall, Turn
from memoair_voice_sync._turns.user import User
from memoair_voice_sync.errors import MemoAirVoiceMemoryError
from memoair_voice_sync.results import IndexLoadResult, SearchResult

R = TypeVar("R")

# The time to open the session in the background, after a search.
_OPEN_TIMEOUT_S = 5.0
# A runtime that hangs must not lose what became of the search, and hooks must not wait for it for long.
_AMEND_TIMEOUT_S = 3.0
_POLL_INTERVAL_S = 0.005
# How long to wait for what the cloud knows of a user from other machines.
_FIRST_PULL_TIMEOUT_S = 3.0
# A handle has one session at a time for most users. A user with more than this many open calls is a test or a mistake.
_MAX_SESSIONS = 64
_ENDED = "runtime.session_not_found"
_versions = itertools.count(1)


@attrs.define(eq=False)
class _SessionState:
    """What the calls know of one session (call)."""

    opened_user: Mapping[str, Any] | None = None  # the user fields with which it was opened last
    metadata: Mapping[str, Any] = attrs.field(factory=dict)
    ends_with_handle: bool = False
    has_ended: bool = False  # ended by this client, and not opened again since


@attrs.define(eq=False)
class _UserMemory:
    """What the calls know of the memory behind one handle."""

    open_lock: threading.Lock = attrs.field(factory=threading.Lock)  # held while a thread opens or ends a session
    version: int = 0  # changes whenever this client has changed the memory
    _sessions: dict[str | None, _SessionState] = attrs.field(factory=dict)  # by id; None is the handle's own session

    def session(self, session_id: str | None) -> _SessionState:
        """Return the state of a session. Only the latest ones are kept; one that is unknown is opened again."""
        state = self._sessions.get(session_id)
        if state is None:
            if len(self._sessions) >= _MAX_SESSIONS:
                candidates = [key for key, kept in list(self._sessions.items()) if not kept.ends_with_handle]
                for key in candidates[:1]:
                    self._sessions.pop(key, None)
            state = self._sessions.setdefault(session_id, _SessionState())
        return state

    @contextmanager
    def bumping_version(self) -> Iterator[None]:
        """Bump the version after a call that may change the memory, even if its reply is lost."""
        try:
            yield
        finally:
            self.version = next(_versions)  # unique, so that concurrent changes cannot mask each other

    @contextmanager
    def locking_sessions(self, deadline: float) -> Iterator[None]:
        """Let no other thread open or end a session within the block."""
        if not self.open_lock.acquire(timeout=max(0.001, deadline - time.monotonic())):
            raise MemoAirVoiceMemoryError("runtime.timeout", "the session is still being opened")
        try:
            yield
        finally:
            self.open_lock.release()


class UserRuntimeClient:
    """Calls to the runtimes of one pool. Safe to use from any thread.

    ``session_id`` names the session (call) that a call belongs to. None is the session of the handle, which lasts as
    long as the user has a place in the pool.
    """

    def __init__(self, project_id: str, *, org_only: bool) -> None:
        self._project_id = project_id
        self._org_only = org_only
        self._rejections = RejectionLog()
        # Nothing in a value refers to its handle, so that the entry of a user who was evicted goes away.
        self._memories: WeakKeyDictionary[RuntimeHandle, _UserMemory] = WeakKeyDictionary()

    def memory_version(self, handle: RuntimeHandle) -> object:
        """Return what, besides its arguments, the result of a search depends on, as far as this client knows."""
        return handle, handle.session_id, self._memory(handle).version

    def own_session(self, handle: RuntimeHandle, session_id: str, metadata: Mapping[str, Any]) -> None:
        """End a session with its handle at the latest, and open it with this metadata."""
        state = self._memory(handle).session(session_id)
        state.metadata, state.ends_with_handle = metadata, True

    def describe_session(self, handle: RuntimeHandle, session_id: str | None, metadata: Mapping[str, Any]) -> None:
        """Add to the metadata with which a session is opened from now on."""
        if metadata:
            state = self._memory(handle).session(session_id)
            state.metadata = {**state.metadata, **metadata}

    def search(self, handle: RuntimeHandle, arguments: SearchArguments, deadline: float) -> SearchResult:
        """Search the user's memory by the deadline (monotonic seconds)."""
        user, session_id, query, options = arguments.user, arguments.session_id, arguments.query, arguments.options
        client = self._client(handle, session_id)
        result = self._retry_with_reopen(
            handle, user, session_id, deadline, lambda: client.search(query, options, deadline, arguments.trace)
        )
        # A search needs no open session, and opening one takes the disk some milliseconds.
        memory = self._memory(handle)
        state = memory.session(session_id)
        if not memory.open_lock.locked() and not state.has_ended and self._needs_open(state, user):
            with suppress(ThreadUnavailableError):  # the next search or turn opens it
                start_thread(self._open_quietly, name="memoair-open", args=(handle, user, session_id))
        return result

    def amend_trace(self, handle: RuntimeHandle, body: Mapping[str, Any]) -> None:
        """Tell a runtime, if it still runs, more about a search that it has answered."""
        if handle.runtime is not None:
            self._client(handle).amend_trace(body, time.monotonic() + _AMEND_TIMEOUT_S)

    def save(
        self, handle: RuntimeHandle, user: User, turn: Turn, deadline: float, *, session_id: str | None = None
    ) -> str | None:
        """Save a turn and return the id of its event."""
        [event_id] = self.save_all(handle, user, [turn], deadline, session_id=session_id)
        return event_id

    def save_all(
        self,
        handle: RuntimeHandle,
        user: User,
        turns: Sequence[Turn],
        deadline: float,
        *,
        session_id: str | None = None,
    ) -> list[str | None]:
        """Save turns of one session, in order, and return the ids of their events."""
        with self._memory(handle).bumping_version():
            if session_id is not None and session_id != handle.session_id:
                return self._save_to_session(session_id, handle, user, turns, deadline)
            self._open(handle, user, None, deadline)
            client = self._client(handle)
            return self._retry_with_reopen(handle, user, None, deadline, lambda: client.after_turns(turns, deadline))

    def _save_to_session(
        self, session_id: str, handle: RuntimeHandle, user: User, turns: Sequence[Turn], deadline: float
    ) -> list[str | None]:
        """Save turns to a session that has a name of its own. If it has ended, it stays so, with these turns in it."""
        memory, client = self._memory(handle), self._client(handle, session_id)
        try:
            self._open(handle, user, session_id, deadline, reopens=False)
        except MemoAirVoiceMemoryError as error:
            _raise_unless_ended(error)
        try:  # a turn that the session has already is acknowledged, also after its end
            return client.after_turns(turns, deadline)
        except MemoAirVoiceMemoryError as error:
            _raise_unless_ended(error)
        with memory.locking_sessions(deadline):
            while True:
                state = memory.session(session_id)
                client.start_session({**state.metadata, "user": self._session_user(state, user)}, deadline)
                try:  # another client has ended it again
                    event_ids = client.after_turns(turns, deadline)
                    break
                except MemoAirVoiceMemoryError as error:
                    _raise_unless_ended(error)
            client.end_session("closed", deadline)
        return event_ids

    def end(
        self,
        handle: RuntimeHandle,
        session_id: str | None,
        reason: str,
        deadline: float,
        *,
        starts_runtime: bool = True,
    ) -> None:
        """End a session, so that the cloud learns from it. The next call without a session id begins another one.

        Without ``starts_runtime``, do nothing if nothing of the session has reached a runtime.
        """
        memory = self._memory(handle)
        state = memory.session(session_id)
        with memory.locking_sessions(deadline):
            if starts_runtime or state.opened_user is not None or handle.runtime is not None:
                self._client(handle, session_id).end_session(reason, deadline)
            handle.mark_ended(handle.resolve_session(session_id))
            state.opened_user, state.has_ended = None, session_id is not None
            if session_id is None:
                state.metadata = {}  # of the call that ends
                handle.renew_session()
            memory.version = next(_versions)

    def import_call(self, handle: RuntimeHandle, user: User, call: PastCall, deadline: float) -> list[str]:
        """Save the turns of a call that is over, in order, and return the ids of their events."""
        client = self._client(handle, call.session_id)
        event_ids: list[str | None] = []
        with self._memory(handle).bumping_version():
            while True:
                client.start_session({**call.metadata, "user": user.fields}, deadline)
                try:
                    for turn in call.turns[len(event_ids) :]:
                        event_ids += [client.after_turn(turn, deadline)]
                except MemoAirVoiceMemoryError as error:
                    _raise_unless_ended(error)
                    # Another thread imports another part of this call and has ended the session after its last turn.
                else:
                    break
            client.end_session("imported", deadline)
        return [event_id for event_id in event_ids if event_id is not None]

    def load(
        self,
        handle: RuntimeHandle,
        user: User,
        deadline: float,
        *,
        session_id: str | None = None,
        pull_timeout_s: float | None = None,
    ) -> IndexLoadResult:
        """Open the session and wait until everything on the disk is loaded.

        Also waits, for three seconds or ``pull_timeout_s`` at most, until the cloud has sent what it knows of the user,
        or has failed.
        """
        client = self._client(handle, session_id)
        bootstrap = self._open(handle, user, session_id, deadline, force=True)["bootstrap"]
        pull_timeout_s = _FIRST_PULL_TIMEOUT_S if pull_timeout_s is None else pull_timeout_s
        pull_deadline = min(deadline, time.monotonic() + pull_timeout_s)
        health = client.health(deadline)
        has_waited = False
        if session_id is not None and _has_pulled(health) and time.monotonic() < pull_deadline:
            # The runtime may have pulled before another machine began this call.
            has_waited = self.pull(handle, ["profile", "permanent"], pull_deadline)
        while _is_loading(health, waits_for_pull=time.monotonic() < pull_deadline) and time.monotonic() < deadline:
            has_waited = True
            time.sleep(_POLL_INTERVAL_S)
            health = client.health(deadline)
        if has_waited:
            bootstrap = self._open(handle, user, session_id, deadline, force=True)["bootstrap"]
        lanes: dict[str, str] = health.get("lanes", {})
        self._rejections.report(health.get("sync", {}).get("rejection"))
        return IndexLoadResult(
            session_id=handle.resolve_session(session_id),
            profile_version=bootstrap.get("profileVersion"),
            permanent_manifest_version=bootstrap.get("permanentManifestVersion"),
            org_manifest_version=bootstrap.get("orgManifestVersion"),
            scopes_loaded=[name for name, state in lanes.items() if state == "ready"],
        )

    def pull(self, handle: RuntimeHandle, scopes: Sequence[str], deadline: float) -> bool:
        """Let the runtime pull from the cloud now; return whether what the cloud has can be searched."""
        with self._memory(handle).bumping_version():
            return self._client(handle).pull(scopes, deadline)

    def erase(self, handle: RuntimeHandle, receipt: Mapping[str, Any], deadline: float) -> dict[str, int]:
        """Erase the user on this machine and return what was removed, as `RuntimeClient.erase` does."""
        with self._memory(handle).bumping_version():
            return self._client(handle).erase(receipt, deadline)

    def _open(
        self,
        handle: RuntimeHandle,
        user: User,
        session_id: str | None,
        deadline: float,
        *,
        force: bool = False,
        reopens: bool = True,
    ) -> dict[str, Any]:
        """Open the session if it is not open, or not with these user fields; return the reply, if any."""
        memory = self._memory(handle)
        state = memory.session(session_id)
        if not force and not self._needs_open(state, user):
            return {}
        handle.ensure_running(deadline)  # before the lock: all calls that wait for a start get the reason if it fails
        with memory.locking_sessions(deadline):
            if not force and not self._needs_open(state, user):  # another thread has opened it
                return {}
            if state.has_ended and not reopens:
                raise MemoAirVoiceMemoryError(_ENDED, "the session has ended")
            session_user = self._session_user(state, user)
            with memory.bumping_version():
                metadata = {**state.metadata, "user": session_user}
                is_shared = session_id is not None and not state.ends_with_handle
                client = self._client(handle, session_id)
                reply = client.start_session(metadata, deadline, reopens=reopens, is_shared=is_shared)
            state.opened_user, state.has_ended = session_user, False
            if session_id is None or state.ends_with_handle:
                handle.mark_opened(handle.resolve_session(session_id))
            return reply

    def _open_quietly(self, handle: RuntimeHandle, user: User, session_id: str | None) -> None:
        try:
            self._open(handle, user, session_id, time.monotonic() + _OPEN_TIMEOUT_S, reopens=session_id is None)
        except MemoAirVoiceMemoryError as error:
            if error.code != _ENDED:  # the call may have ended since the search that began this
                # The next search or turn tries again.
                log.warning("a session could not be opened: action=open_failed code=%s", error.code)

    def _needs_open(self, state: _SessionState, user: User) -> bool:
        """Return whether the session is not open yet, or was opened with other user fields."""
        return state.opened_user != self._session_user(state, user)

    def _session_user(self, state: _SessionState, user: User) -> dict[str, Any]:
        """Return the user fields for the session. Fields that are omitted now keep their earlier values."""
        fields = {"id": ORG_ONLY_USER} if self._org_only else user.fields  # org_only stores nothing about users
        return {**(state.opened_user or {}), **fields}

    def _retry_with_reopen(
        self, handle: RuntimeHandle, user: User, session_id: str | None, deadline: float, call: Callable[[], R]
    ) -> R:
        """Make a call; if its session has ended, open it again and repeat the call."""
        try:
            return call()
        except MemoAirVoiceMemoryError as error:
            _raise_unless_ended(error)
        self._open(handle, user, session_id, deadline, force=True)
        return call()

    def _memory(self, handle: RuntimeHandle) -> _UserMemory:
        return self._memories.get(handle) or self._memories.setdefault(handle, _UserMemory())

    def _client(self, handle: RuntimeHandle, session_id: str | None = None) -> RuntimeClient:
        """Return a client for a session, or for the current one, which may be another after each start."""
        return RuntimeClient(
            handle,
            self._project_id,
            handle.user_id,
            lambda: handle.resolve_session(session_id),
            org_only=self._org_only,
            rejections=self._rejections,
        )


def _raise_unless_ended(error: MemoAirVoiceMemoryError) -> None:
    """Raise an error again, unless it says that the session has ended."""
    if error.code != _ENDED:
        raise error


def _has_pulled(health: Mapping[str, Any]) -> bool:
    return bool(health.get("sync", {}).get("hasPulled"))


def _is_loading(health: Mapping[str, Any], *, waits_for_pull: bool) -> bool:
    """Return whether a runtime is still loading from the disk or, with ``waits_for_pull``, from the cloud."""
    sync = health.get("sync", {})
    state = sync.get("state")
    is_pulling = state == "connecting" or (state == "ok" and not sync.get("hasPulled"))
    return "loading" in health.get("lanes", {}).values() or (waits_for_pull and is_pulling)
