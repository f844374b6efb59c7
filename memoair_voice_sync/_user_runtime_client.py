"""What the client asks of one caller's runtime: the call opened, asked, told, and opened again where it had ended."""

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

from memoair_voice_sync._errors import MemoAirVoiceMemoryError
from memoair_voice_sync._handle import RuntimeHandle
from memoair_voice_sync._log import log
from memoair_voice_sync._memory import MemoAirVoiceMemorySync
from memoair_voice_sync._past_call import PastCall
from memoair_voice_sync._results import IndexLoadResult, SearchResult
from memoair_voice_sync._runtime_call import RETURN_MARGIN
from memoair_voice_sync._spec import ORG_ONLY_USER
from memoair_voice_sync._transport import RuntimeTransport, RuntimeUnreachableError, encode_body
from memoair_voice_sync._user import User

R = TypeVar("R")

# How long noting who calls may take, behind a search.
_OPEN_TIMEOUT_S = 5.0
_POLL_INTERVAL_S = 0.005
# How long a caller who is known from another machine is waited for.
_FIRST_PULL_TIMEOUT_S = 3.0


class UserRuntimeClient:
    """Calls over the handles of one pool. Safe to use from any thread."""

    def __init__(self, project_id: str, *, org_only: bool) -> None:
        self._project_id = project_id
        self._org_only = org_only

    def search(
        self, handle: RuntimeHandle, user: User, query: str, options: Mapping[str, Any], deadline: float
    ) -> SearchResult:
        """Recall what matters, by the deadline (monotonic seconds)."""

        def run_search(memory: MemoAirVoiceMemorySync) -> SearchResult:
            return memory.search_memory(query, timeout_ms=_remaining_s(deadline) * 1e3, **options)

        result = self._retry_with_reopen(handle, user, deadline, run_search)
        # Recall needs no opened call, and to note who calls takes the disk some milliseconds.
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
        """Keep a turn, and return its event's id; ``session_id`` is the call it belongs to, if not the present one."""
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
        """Keep a turn of a call that is over: it may have been kept there already, and counts once in one call only."""
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
        """Keep the turns of a call that is over, in their order, and return their events' ids."""
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
                    # Another part of the call is kept at the same time, and has ended the session with its last turn.
                else:
                    break
            memory.end_session("imported", timeout_s=_remaining_s(deadline))
        return [event_id for event_id in event_ids if event_id is not None]

    def load(self, handle: RuntimeHandle, user: User, deadline: float) -> IndexLoadResult:
        """Open the call, and wait until everything that is kept has been read, and for a while until the cloud has told
        what it knows of him, or can't.
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
        """Have the runtime ask the cloud now; tell whether what the cloud had can be searched."""
        body = {"scopes": list(scopes), "deadlineMs": _remaining_s(deadline) * 1e3 * (1 - RETURN_MARGIN)}
        with _bumping_version(handle):
            return bool(self._post(handle, "sync/pull", body, deadline).get("status") == "ok")

    def erase(self, handle: RuntimeHandle, erased_at: str | None, deadline: float) -> dict[str, Any]:
        """Forget the caller on this machine, who was forgotten ``at`` a moment in the cloud; return what was removed.

        Raises what the runtime says where the disk does not let go of something.
        """
        body = {
            "deadlineMs": _remaining_s(deadline) * 1e3 * (1 - RETURN_MARGIN),
            **({"forgottenAt": erased_at} if erased_at else {}),
        }
        with _bumping_version(handle):
            removed: dict[str, Any] = self._post(handle, "forget", body, deadline).get("removed", {})
        return removed

    def _health(self, handle: RuntimeHandle, deadline: float) -> dict[str, Any]:
        """How the runtime is."""
        return self._call_runtime(handle, deadline, lambda transport: transport.health(deadline))

    def _post(self, handle: RuntimeHandle, path: str, body: dict[str, Any], deadline: float) -> dict[str, Any]:
        content = encode_body({**body, "workspaceId": self._project_id, "userId": handle.user_id})
        return self._call_runtime(
            handle, deadline, lambda transport: transport.call("POST", f"/v1/runtime/{path}", content, deadline)
        )

    def _call_runtime(self, handle: RuntimeHandle, deadline: float, call: Callable[[RuntimeTransport], R]) -> R:
        """Make a call that has one effect, however often it arrives, to whichever runtime serves the caller."""
        while True:
            transport = handle.ensure_running(deadline)
            try:
                return call(transport)
            except (RuntimeUnreachableError, MemoAirVoiceMemoryError) as error:
                if isinstance(error, MemoAirVoiceMemoryError) and error.code != "runtime.draining":
                    raise
                handle.mark_unreachable(transport)

    def _open(self, handle: RuntimeHandle, user: User, deadline: float, *, force: bool = False) -> dict[str, Any]:
        """Open the call, where it is not, or where who calls is told anew; return the runtime's reply, if any."""
        if not force and not self._needs_open(handle, user):
            return {}
        handle.ensure_running(deadline)  # only then the call's id is known
        if not handle.open_lock.acquire(timeout=_remaining_s(deadline)):
            raise MemoAirVoiceMemoryError("runtime.timeout", "the call is still being opened")
        try:
            if not force and not self._needs_open(handle, user):  # another thread was faster
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
            # Who calls is noted with the next search or turn.
            log.warning("a call could not be opened: action=open_failed code=%s", error.code)

    def _needs_open(self, handle: RuntimeHandle, user: User) -> bool:
        """Whether the runtime has not been told yet who calls."""
        return handle.opened_user != self._session_user(handle, user)

    def _session_user(self, handle: RuntimeHandle, user: User) -> dict[str, Any]:
        """Who calls, as the runtime is to be told; what is left out now stays as it was told before."""
        fields = {"id": ORG_ONLY_USER} if self._org_only else user.fields  # nothing is kept of who calls
        return {**(handle.opened_user or {}), **fields}

    def _retry_with_reopen(
        self, handle: RuntimeHandle, user: User, deadline: float, call: Callable[[MemoAirVoiceMemorySync], R]
    ) -> R:
        """Make a call; where another client has ended it meanwhile, open it again."""
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
    """What is asked of the runtime here changes what it remembers, also where its answer does not arrive."""
    try:
        yield
    finally:
        handle.bump_version()


def _is_loading(health: Mapping[str, Any], *, waits_for_pull: bool) -> bool:
    """Whether a runtime is still reading, or, if that is waited for, ``pulls`` for the first time."""
    sync = health.get("sync", {})
    state = sync.get("state")
    is_pulling = state == "connecting" or (state == "ok" and not sync.get("hasPulled"))
    return "loading" in health.get("lanes", {}).values() or (waits_for_pull and is_pulling)


def _remaining_s(deadline: float) -> float:
    return max(0.001, deadline - time.monotonic())
