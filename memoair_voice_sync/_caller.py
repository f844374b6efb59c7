"""What the client asks of one caller's runtime: the call opened, asked, told, and opened again where it had ended."""

import time
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from memoair_voice_sync._errors import MemoAirVoiceMemoryError
from memoair_voice_sync._handle import RuntimeHandle
from memoair_voice_sync._log import log
from memoair_voice_sync._memory import MemoAirVoiceMemorySync
from memoair_voice_sync._results import IndexLoadResult, SearchResult
from memoair_voice_sync._user import User

R = TypeVar("R")

# Of the time that a search has, so much may be spent on noting who calls.
_OPENING_SHARE = 0.5
_LOOK_S = 0.005


class CallerCalls:
    """Calls over the handles of one pool. Safe to use from any thread."""

    def __init__(self, project_id: str, *, org_only: bool) -> None:
        self._project_id = project_id
        self._org_only = org_only

    def search(
        self, handle: RuntimeHandle, user: User, query: str, options: Mapping[str, Any], deadline: float
    ) -> SearchResult:
        """Recall what matters, by the deadline (monotonic seconds)."""

        def ask(memory: MemoAirVoiceMemorySync) -> SearchResult:
            return memory.search_memory(query, timeout_ms=_left_s(deadline) * 1e3, **options)

        try:
            self._open(handle, user, time.monotonic() + _OPENING_SHARE * _left_s(deadline))
        except MemoAirVoiceMemoryError as error:
            if error.code.startswith("pool."):
                raise
            # Recall needs no opened call; who calls is noted with the next one.
            log.warning("a call could not be opened: action=open_failed code=%s", error.code)
        return self._reopening(handle, user, deadline, ask)

    def save(self, handle: RuntimeHandle, user: User, turn: Mapping[str, Any], deadline: float) -> str | None:
        """Keep a turn, and return its event's id."""
        self._open(handle, user, deadline)
        return self._reopening(
            handle, user, deadline, lambda memory: memory.after_turn(**turn, timeout_s=_left_s(deadline))
        )

    def load(self, handle: RuntimeHandle, user: User, deadline: float) -> IndexLoadResult:
        """Open the call, and wait until everything that is kept has been read."""
        bootstrap = self._open(handle, user, deadline, again=True)["bootstrap"]
        while True:
            lanes = handle.ensure_running(deadline).health(deadline).get("lanes", {})
            if "loading" not in lanes.values() or time.monotonic() > deadline:
                break
            time.sleep(_LOOK_S)
        return IndexLoadResult(
            session_id=handle.session_id,
            profile_version=bootstrap.get("profileVersion"),
            permanent_manifest_version=bootstrap.get("permanentManifestVersion"),
            org_manifest_version=bootstrap.get("orgManifestVersion"),
            scopes_loaded=[name for name, state in lanes.items() if state == "ready"],
        )

    def _open(self, handle: RuntimeHandle, user: User, deadline: float, *, again: bool = False) -> dict[str, Any]:
        """Open the call, where it is not, or where who calls is told anew; return the runtime's reply, if any."""
        known = handle.opened_with
        told = {**known, **user.fields} if known else dict(user.fields)
        if told == known and not again:
            return {}
        handle.ensure_running(deadline)  # only then the call's id is known
        if not handle.opening.acquire(timeout=_left_s(deadline)):
            raise MemoAirVoiceMemoryError("runtime.timeout", "the call is still being opened")
        try:
            if told == handle.opened_with and not again:  # by another thread
                return {}
            reply = self._memory(handle).start_session({"user": told}, timeout_s=_left_s(deadline))
            handle.opened_with = told
            return reply
        finally:
            handle.opening.release()

    def _reopening(
        self, handle: RuntimeHandle, user: User, deadline: float, call: Callable[[MemoAirVoiceMemorySync], R]
    ) -> R:
        """Make a call; where another client has ended it meanwhile, open it again."""
        handle.ensure_running(deadline)
        try:
            return call(self._memory(handle))
        except MemoAirVoiceMemoryError as error:
            if error.code != "runtime.session_not_found":
                raise
        self._open(handle, user, deadline, again=True)
        return call(self._memory(handle))

    def _memory(self, handle: RuntimeHandle) -> MemoAirVoiceMemorySync:
        memory: MemoAirVoiceMemorySync | None = handle.memory
        if memory is None or memory.session_id != handle.session_id:
            memory = handle.memory = MemoAirVoiceMemorySync(
                project_id=self._project_id,
                user_id=handle.user_id,
                session_id=handle.session_id,
                runtime_manager=handle,
                org_only=self._org_only,
            )
        return memory


def _left_s(deadline: float) -> float:
    return max(0.001, deadline - time.monotonic())
