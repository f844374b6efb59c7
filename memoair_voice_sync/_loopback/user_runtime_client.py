"""The client's calls to one user's runtime. The session is opened as needed, also after it has ended."""

import itertools
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

import attrs

from memoair_protocol.defaults import ORG_ONLY_USER
from memoair_voice_sync._diagnostics import log
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
_POLL_INTERVAL_S = 0.005
# How long to wait for what the cloud knows of a user from other machines.
_FIRST_PULL_TIMEOUT_S = 3.0
_versions = itertools.count(1)


@attrs.define(eq=False)
class _UserMemory:
    """What the calls know of the memory behind one handle."""

    open_lock: threading.Lock = attrs.field(factory=threading.Lock)  # held while a thread opens the session
    opened_user: Mapping[str, Any] | None = None  # the user fields with which the session was opened last
    version: int = 0  # changes whenever this client has changed the memory

    @contextmanager
    def bumping_version(self) -> Iterator[None]:
        """Bump the version after a call that may change the memory, even if its reply is lost."""
        try:
            yield
        finally:
            self.version = next(_versions)  # unique, so that concurrent changes cannot mask each other


class UserRuntimeClient:
    """Calls to the runtimes of one pool. Safe to use from any thread."""

    def __init__(self, project_id: str, *, org_only: bool) -> None:
        self._project_id = project_id
        self._org_only = org_only
        # Nothing in a value refers to its handle, so that the entry of a user who was evicted goes away.
        self._memories: WeakKeyDictionary[RuntimeHandle, _UserMemory] = WeakKeyDictionary()

    def memory_version(self, handle: RuntimeHandle) -> object:
        """Return what, besides its arguments, the result of a search depends on, as far as this client knows."""
        return handle, handle.session_id, self._memory(handle).version

    def search(self, handle: RuntimeHandle, arguments: SearchArguments, deadline: float) -> SearchResult:
        """Search the user's memory by the deadline (monotonic seconds)."""
        user, query, options = arguments.user, arguments.query, arguments.options
        result = self._retry_with_reopen(handle, user, deadline, lambda client: client.search(query, options, deadline))
        # A search needs no open session, and opening one takes the disk some milliseconds.
        memory = self._memory(handle)
        if not memory.open_lock.locked() and self._needs_open(memory, user):
            threading.Thread(target=self._open_quietly, args=(handle, user), name="memoair-open", daemon=True).start()
        return result

    def save(
        self, handle: RuntimeHandle, user: User, turn: Turn, deadline: float, *, session_id: str | None = None
    ) -> str | None:
        """Save a turn and return the id of its event; ``session_id`` is its session if not the current one."""
        with self._memory(handle).bumping_version():
            if session_id is not None and session_id != handle.session_id:
                return self._save_to_session(session_id, handle, user, turn, deadline)
            self._open(handle, user, deadline)
            return self._retry_with_reopen(handle, user, deadline, lambda client: client.after_turn(turn, deadline))

    def _save_to_session(
        self, session_id: str, handle: RuntimeHandle, user: User, turn: Turn, deadline: float
    ) -> str | None:
        """Save a turn to an earlier session, which may have it already: a turn id counts once per session."""
        client = self._client(handle, session_id)
        try:
            return client.after_turn(turn, deadline)
        except MemoAirVoiceMemoryError as error:
            if error.code != "runtime.session_not_found":
                raise
        client.start_session({"user": self._session_user(self._memory(handle), user)}, deadline)
        event_id = client.after_turn(turn, deadline)
        client.end_session("closed", deadline)
        return event_id

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
                    if error.code != "runtime.session_not_found":
                        raise
                    # Another thread imports another part of this call and has ended the session after its last turn.
                else:
                    break
            client.end_session("imported", deadline)
        return [event_id for event_id in event_ids if event_id is not None]

    def load(self, handle: RuntimeHandle, user: User, deadline: float) -> IndexLoadResult:
        """Open the session and wait until everything on the disk is loaded.

        Also waits a limited time until the cloud has sent what it knows of the user, or has failed.
        """
        client = self._client(handle)
        bootstrap = self._open(handle, user, deadline, force=True)["bootstrap"]
        pull_deadline = min(deadline, time.monotonic() + _FIRST_PULL_TIMEOUT_S)
        health = client.health(deadline)
        has_waited = False
        while _is_loading(health, waits_for_pull=time.monotonic() < pull_deadline) and time.monotonic() < deadline:
            has_waited = True
            time.sleep(_POLL_INTERVAL_S)
            health = client.health(deadline)
        if has_waited:
            bootstrap = self._open(handle, user, deadline, force=True)["bootstrap"]
        lanes: dict[str, str] = health.get("lanes", {})
        return IndexLoadResult(
            session_id=handle.session_id,
            profile_version=bootstrap.get("profileVersion"),
            permanent_manifest_version=bootstrap.get("permanentManifestVersion"),
            org_manifest_version=bootstrap.get("orgManifestVersion"),
            scopes_loaded=[name for name, state in lanes.items() if state == "ready"],
        )

    def pull(self, handle: RuntimeHandle, scopes: Sequence[str], deadline: float) -> bool:
        """Let the runtime pull from the cloud now; return whether what the cloud has can be searched."""
        with self._memory(handle).bumping_version():
            return self._client(handle).pull(scopes, deadline)

    def erase(self, handle: RuntimeHandle, erased_at: str | None, deadline: float) -> dict[str, int]:
        """Erase the user on this machine and return what was removed, as `RuntimeClient.erase` does."""
        with self._memory(handle).bumping_version():
            return self._client(handle).erase(erased_at, deadline)

    def _open(self, handle: RuntimeHandle, user: User, deadline: float, *, force: bool = False) -> dict[str, Any]:
        """Open the session if it is not open, or not with these user fields; return the reply, if any."""
        memory = self._memory(handle)
        if not force and not self._needs_open(memory, user):
            return {}
        handle.ensure_running(deadline)  # before the lock: all calls that wait for a start get the reason if it fails
        if not memory.open_lock.acquire(timeout=max(0.001, deadline - time.monotonic())):
            raise MemoAirVoiceMemoryError("runtime.timeout", "the session is still being opened")
        try:
            if not force and not self._needs_open(memory, user):  # another thread has opened it
                return {}
            session_user = self._session_user(memory, user)
            with memory.bumping_version():
                reply = self._client(handle).start_session({"user": session_user}, deadline)
            memory.opened_user = session_user
            handle.mark_opened()
            return reply
        finally:
            memory.open_lock.release()

    def _open_quietly(self, handle: RuntimeHandle, user: User) -> None:
        try:
            self._open(handle, user, time.monotonic() + _OPEN_TIMEOUT_S)
        except MemoAirVoiceMemoryError as error:
            # The next search or turn tries again.
            log.warning("a session could not be opened: action=open_failed code=%s", error.code)

    def _needs_open(self, memory: _UserMemory, user: User) -> bool:
        """Return whether the session is not open yet, or was opened with other user fields."""
        return memory.opened_user != self._session_user(memory, user)

    def _session_user(self, memory: _UserMemory, user: User) -> dict[str, Any]:
        """Return the user fields for the session. Fields that are omitted now keep their earlier values."""
        fields = {"id": ORG_ONLY_USER} if self._org_only else user.fields  # org_only stores nothing about users
        return {**(memory.opened_user or {}), **fields}

    def _retry_with_reopen(
        self, handle: RuntimeHandle, user: User, deadline: float, call: Callable[[RuntimeClient], R]
    ) -> R:
        """Make a call; if another client has ended the session, open it again and repeat the call."""
        client = self._client(handle)
        try:
            return call(client)
        except MemoAirVoiceMemoryError as error:
            if error.code != "runtime.session_not_found":
                raise
        self._open(handle, user, deadline, force=True)
        return call(client)

    def _memory(self, handle: RuntimeHandle) -> _UserMemory:
        return self._memories.get(handle) or self._memories.setdefault(handle, _UserMemory())

    def _client(self, handle: RuntimeHandle, session_id: str | None = None) -> RuntimeClient:
        """Return a client for a session, or for the current one, which may be another after each start."""
        return RuntimeClient(
            handle,
            self._project_id,
            handle.user_id,
            lambda: handle.session_id if session_id is None else session_id,
            org_only=self._org_only,
        )


def _is_loading(health: Mapping[str, Any], *, waits_for_pull: bool) -> bool:
    """Return whether a runtime is still loading from the disk or, with ``waits_for_pull``, from the cloud."""
    sync = health.get("sync", {})
    state = sync.get("state")
    is_pulling = state == "connecting" or (state == "ok" and not sync.get("hasPulled"))
    return "loading" in health.get("lanes", {}).values() or (waits_for_pull and is_pulling)
