"""The client's calls to one user's runtime. The session is opened as needed, also after it has ended."""

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

from memoair_protocol.defaults import ORG_ONLY_USER
from memoair_voice_sync._diagnostics import log
from memoair_voice_sync._loopback.runtime_call import RETURN_MARGIN
from memoair_voice_sync._loopback.transport import RuntimeTransport, RuntimeUnreachableError, encode_body
from memoair_voice_sync._pool.handle import RuntimeHandle
from memoair_voice_sync._turns.past_call import PastCall
from memoair_voice_sync._turns.user import User
from memoair_voice_sync.errors import MemoAirVoiceMemoryError
from memoair_voice_sync.memory import MemoAirVoiceMemorySync
from memoair_voice_sync.results import IndexLoadResult, SearchResult

R = TypeVar("R")

# The time to open the session in the background, after a search.
_OPEN_TIMEOUT_S = 5.0
_POLL_INTERVAL_S = 0.005
# How long to wait for what the cloud knows of a user from other machines.
_FIRST_PULL_TIMEOUT_S = 3.0


class UserRuntimeClient:
    """Calls to the runtimes of one pool. Safe to use from any thread."""

    def __init__(self, project_id: str, *, org_only: bool) -> None:
        self._project_id = project_id
        self._org_only = org_only

    def search(
        self, handle: RuntimeHandle, user: User, query: str, options: Mapping[str, Any], deadline: float
    ) -> SearchResult:
        """Search the user's memory by the deadline (monotonic seconds)."""

        def run_search(memory: MemoAirVoiceMemorySync) -> SearchResult:
            return memory.search_memory(query, timeout_ms=_remaining_s(deadline) * 1e3, **options)

        result = self._retry_with_reopen(handle, user, deadline, run_search)
        # A search needs no open session, and opening one takes the disk some milliseconds.
        if not handle.open_lock.locked() and self._needs_open(handle, user):
            threading.Thread(target=self._open_quietly, args=(handle, user), name="memoair-open", daemon=True).start()
        return result

    def save(
        self,
        handle: RuntimeHandle,
        user: User,
        turn: Mapping[str, Any],
        deadline: float,
        *,
        session_id: str | None = None,
    ) -> str | None:
        """Save a turn and return the id of its event; ``session_id`` is its session if not the current one."""
        with _bumping_version(handle):
            if session_id is not None and session_id != handle.session_id:
                return self._save_to_session(session_id, handle, user, turn, deadline)
            self._open(handle, user, deadline)
            return self._retry_with_reopen(
                handle, user, deadline, lambda memory: memory.after_turn(**turn, timeout_s=_remaining_s(deadline))
            )

    def _save_to_session(
        self, session_id: str, handle: RuntimeHandle, user: User, turn: Mapping[str, Any], deadline: float
    ) -> str | None:
        """Save a turn to an earlier session, which may have it already: a turn id counts once per session."""
        memory = self._new_memory(handle, session_id)
        try:
            return memory.after_turn(**turn, timeout_s=_remaining_s(deadline))
        except MemoAirVoiceMemoryError as error:
            if error.code != "runtime.session_not_found":
                raise
        memory.start_session({"user": self._session_user(handle, user)}, timeout_s=_remaining_s(deadline))
        event_id = memory.after_turn(**turn, timeout_s=_remaining_s(deadline))
        memory.end_session("closed", timeout_s=_remaining_s(deadline))
        return event_id

    def import_call(self, handle: RuntimeHandle, user: User, call: PastCall, deadline: float) -> list[str]:
        """Save the turns of a call that is over, in order, and return the ids of their events."""
        memory = self._new_memory(handle, call.session_id)
        event_ids: list[str | None] = []
        with _bumping_version(handle):
            while True:
                memory.start_session({**call.metadata, "user": dict(user.fields)}, timeout_s=_remaining_s(deadline))
                try:
                    for turn in call.turns[len(event_ids) :]:
                        event_ids += [memory.after_turn(**turn, timeout_s=_remaining_s(deadline))]
                except MemoAirVoiceMemoryError as error:
                    if error.code != "runtime.session_not_found":
                        raise
                    # Another thread imports another part of this call and has ended the session after its last turn.
                else:
                    break
            memory.end_session("imported", timeout_s=_remaining_s(deadline))
        return [event_id for event_id in event_ids if event_id is not None]

    def load(self, handle: RuntimeHandle, user: User, deadline: float) -> IndexLoadResult:
        """Open the session and wait until everything on the disk is loaded.

        Also waits a limited time until the cloud has sent what it knows of the user, or has failed.
        """
        bootstrap = self._open(handle, user, deadline, force=True)["bootstrap"]
        pull_deadline = min(deadline, time.monotonic() + _FIRST_PULL_TIMEOUT_S)
        health = self._health(handle, deadline)
        has_waited = False
        while _is_loading(health, waits_for_pull=time.monotonic() < pull_deadline) and time.monotonic() < deadline:
            has_waited = True
            time.sleep(_POLL_INTERVAL_S)
            health = self._health(handle, deadline)
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
        body = {"scopes": list(scopes), "deadlineMs": _remaining_s(deadline) * 1e3 * (1 - RETURN_MARGIN)}
        with _bumping_version(handle):
            return bool(self._post(handle, "sync/pull", body, deadline).get("status") == "ok")

    def erase(self, handle: RuntimeHandle, erased_at: str | None, deadline: float) -> dict[str, Any]:
        """Erase the user on this machine and return what was removed.

        ``erased_at`` is the time of the erasure in the cloud. Raises the error of the runtime if the disk fails.
        """
        body = {
            "deadlineMs": _remaining_s(deadline) * 1e3 * (1 - RETURN_MARGIN),
            **({"forgottenAt": erased_at} if erased_at else {}),
        }
        with _bumping_version(handle):
            removed: dict[str, Any] = self._post(handle, "forget", body, deadline).get("removed", {})
        return removed

    def _health(self, handle: RuntimeHandle, deadline: float) -> dict[str, Any]:
        return self._call_runtime(handle, deadline, lambda transport: transport.health(deadline))

    def _post(self, handle: RuntimeHandle, path: str, body: dict[str, Any], deadline: float) -> dict[str, Any]:
        content = encode_body({**body, "workspaceId": self._project_id, "userId": handle.user_id})
        return self._call_runtime(
            handle, deadline, lambda transport: transport.call("POST", f"/v1/runtime/{path}", content, deadline)
        )

    def _call_runtime(self, handle: RuntimeHandle, deadline: float, call: Callable[[RuntimeTransport], R]) -> R:
        """Make an idempotent call to the runtime that serves the user; repeat it on the next one if that has died."""
        while True:
            transport = handle.ensure_running(deadline)
            try:
                return call(transport)
            except (RuntimeUnreachableError, MemoAirVoiceMemoryError) as error:
                if isinstance(error, MemoAirVoiceMemoryError) and error.code != "runtime.draining":
                    raise
                handle.mark_unreachable(transport)

    def _open(self, handle: RuntimeHandle, user: User, deadline: float, *, force: bool = False) -> dict[str, Any]:
        """Open the session if it is not open, or not with these user fields; return the reply, if any."""
        if not force and not self._needs_open(handle, user):
            return {}
        handle.ensure_running(deadline)  # the session id is known only then
        if not handle.open_lock.acquire(timeout=_remaining_s(deadline)):
            raise MemoAirVoiceMemoryError("runtime.timeout", "the session is still being opened")
        try:
            if not force and not self._needs_open(handle, user):  # another thread has opened it
                return {}
            session_user = self._session_user(handle, user)
            with _bumping_version(handle):
                reply = self._memory(handle).start_session({"user": session_user}, timeout_s=_remaining_s(deadline))
            handle.opened_user = session_user
            return reply
        finally:
            handle.open_lock.release()

    def _open_quietly(self, handle: RuntimeHandle, user: User) -> None:
        try:
            self._open(handle, user, time.monotonic() + _OPEN_TIMEOUT_S)
        except MemoAirVoiceMemoryError as error:
            # The next search or turn tries again.
            log.warning("a session could not be opened: action=open_failed code=%s", error.code)

    def _needs_open(self, handle: RuntimeHandle, user: User) -> bool:
        """Return whether the session is not open yet, or was opened with other user fields."""
        return handle.opened_user != self._session_user(handle, user)

    def _session_user(self, handle: RuntimeHandle, user: User) -> dict[str, Any]:
        """Return the user fields for the session. Fields that are omitted now keep their earlier values."""
        fields = {"id": ORG_ONLY_USER} if self._org_only else user.fields  # org_only stores nothing about users
        return {**(handle.opened_user or {}), **fields}

    def _retry_with_reopen(
        self, handle: RuntimeHandle, user: User, deadline: float, call: Callable[[MemoAirVoiceMemorySync], R]
    ) -> R:
        """Make a call; if another client has ended the session, open it again and repeat the call."""
        handle.ensure_running(deadline)
        try:
            return call(self._memory(handle))
        except MemoAirVoiceMemoryError as error:
            if error.code != "runtime.session_not_found":
                raise
        self._open(handle, user, deadline, force=True)
        return call(self._memory(handle))

    def _memory(self, handle: RuntimeHandle) -> MemoAirVoiceMemorySync:
        memory: MemoAirVoiceMemorySync | None = handle.memory_client
        if memory is None or memory.session_id != handle.session_id:
            memory = handle.memory_client = self._new_memory(handle, handle.session_id)
        return memory

    def _new_memory(self, handle: RuntimeHandle, session_id: str) -> MemoAirVoiceMemorySync:
        return MemoAirVoiceMemorySync(
            project_id=self._project_id,
            user_id=handle.user_id,
            session_id=session_id,
            runtime_manager=handle,
            org_only=self._org_only,
        )


@contextmanager
def _bumping_version(handle: RuntimeHandle) -> Iterator[None]:
    """Bump the memory version after a call that may change the memory, even if its reply is lost."""
    try:
        yield
    finally:
        handle.bump_version()


def _is_loading(health: Mapping[str, Any], *, waits_for_pull: bool) -> bool:
    """Return whether a runtime is still loading from the disk or, with ``waits_for_pull``, from the cloud."""
    sync = health.get("sync", {})
    state = sync.get("state")
    is_pulling = state == "connecting" or (state == "ok" and not sync.get("hasPulled"))
    return "loading" in health.get("lanes", {}).values() or (waits_for_pull and is_pulling)


def _remaining_s(deadline: float) -> float:
    return max(0.001, deadline - time.monotonic())
