"""A user's place in the pool, with whichever runtime serves the user at the moment."""

import threading
import time
import uuid
from collections.abc import Callable
from enum import Enum
from typing import Any

from memoair_protocol.threads import ThreadUnavailableError, start_thread
from memoair_voice_sync._closing import closed_error
from memoair_voice_sync._diagnostics import log
from memoair_voice_sync._loopback.transport import RuntimeTransport
from memoair_voice_sync._processes.started_runtime import DRAIN_TIMEOUT_S, StartedRuntime
from memoair_voice_sync.errors import MemoAirVoiceMemoryError

# A runtime that accepts calls and has answered none of them for this long hangs, and is replaced.
UNRESPONSIVE_AFTER_S = 5.0
# For this long after a start that failed, calls get its error, and no other start is tried.
_START_RETRY_PAUSE_S = 0.5


class HandleState(Enum):
    """The state of a handle."""

    IDLE = "idle"  # no runtime: none was started yet, or it is gone
    STARTING = "starting"  # a runtime is being started
    RUNNING = "running"  # a runtime is running, as far as is known
    ENDED = "ended"  # evicted or closed; starts no more runtimes


# The states that may follow each state. A runtime that has died, does not answer, or is over its memory limit leads
# back to idle, and the next call starts another one.
_TRANSITIONS = {
    HandleState.IDLE: {HandleState.STARTING, HandleState.ENDED},
    HandleState.STARTING: {HandleState.RUNNING, HandleState.IDLE, HandleState.ENDED},
    HandleState.RUNNING: {HandleState.IDLE, HandleState.ENDED},
    HandleState.ENDED: set[HandleState](),
}


class RuntimeHandle:
    """A user's place in a `RuntimePool`, with the runtime that serves the user.

    The runtime is started on first use, and again when it has died; the handle stays the same for as long as the user
    has a place in the pool. Safe to use from any thread.
    """

    def __init__(
        self,
        user_id: str,
        launch: Callable[["RuntimeHandle"], StartedRuntime],
        start_status: Callable[[], str],
        start_finished: Callable[[], None],
        retire: Callable[[StartedRuntime, float], None],
    ) -> None:
        """Create an idle handle.

        Args:
            user_id: The user.
            launch: Starts a runtime; may take long.
            start_status: Returns what a start waits for, in words.
            start_finished: Called when a start is over, whether it succeeded or failed.
            retire: Ends a runtime in the background, within a time in seconds.
        """
        self._user_id = user_id
        self._session_id = uuid.uuid4().hex
        self._restarts = 0
        self._open_sessions: set[str] = set()
        self._launch = launch
        self._start_status = start_status
        self._start_finished = start_finished
        self._retire = retire
        self._state_changed = threading.Condition()
        self._state = HandleState.IDLE
        self._runtime: StartedRuntime | None = None
        self._start_error: MemoAirVoiceMemoryError | None = None  # of the last start
        self._paused_until = 0.0
        self._unresponsive_since: float | None = None  # when the first of the calls without an answer timed out
        self._has_answered = False  # the current runtime has answered a call

    def __repr__(self) -> str:
        return f"<RuntimeHandle {self._state.value} pid={self.pid}>"

    @property
    def user_id(self) -> str:
        """The user."""
        return self._user_id

    @property
    def session_id(self) -> str:
        """The session (the call). If another client's runtime serves the user, its session."""
        return self._session_id

    @property
    def restarts(self) -> int:
        """How many runtimes of this client were dropped because they died or did not answer."""
        return self._restarts

    def resolve_session(self, session_id: str | None) -> str:
        """Return the id of the session that a call belongs to: its own name, or else this handle's session."""
        return self._session_id if session_id is None else session_id

    def sessions_to_end(self, runtime: StartedRuntime) -> list[str]:
        """Return the sessions that end with this handle, whose runtime it was.

        The session of the handle is that of the runtime: another client's runtime goes on with it.
        """
        open_sessions = list(self._open_sessions)
        return [session_id for session_id in open_sessions if runtime.is_ours or session_id != self._session_id]

    def renew_session(self) -> None:
        """Begin another session (call) with the next request, because this one has ended."""
        with self._state_changed:
            self._session_id = uuid.uuid4().hex

    def is_starting(self) -> bool:
        """Return whether the runtime is still to be started, or has not answered a call yet."""
        return not self._has_answered

    @property
    def state(self) -> HandleState:
        """The state of the handle."""
        return self._state

    @property
    def runtime(self) -> StartedRuntime | None:
        """The runtime that is running, as far as is known, or None."""
        return self._runtime

    @property
    def pid(self) -> int | None:
        """The process id of the runtime, or None if no runtime is running."""
        runtime = self._runtime
        return None if runtime is None else runtime.pid

    def ensure_running(self, deadline: float) -> RuntimeTransport:
        """Return the transport to a running runtime; start one if needed.

        Args:
            deadline: When to give up, in monotonic seconds.

        Returns:
            The transport. The runtime may die at any moment; see `mark_unreachable`.

        Raises:
            MemoAirVoiceMemoryError: ``runtime.timeout`` at the deadline (the start goes on, and the next call continues
                from there), ``pool.closed``, or the error of the start.
        """
        with self._state_changed:
            while True:
                if self._state is HandleState.ENDED:
                    raise closed_error()
                if self._state is HandleState.RUNNING and self._is_unresponsive():
                    log.warning("a runtime does not answer and is replaced: action=runtime_hung pid=%s", self.pid)
                    self._drop_runtime(drain_s=0)
                if self._state is HandleState.RUNNING and self._runtime is not None:
                    return self._runtime.transport
                if self._state is HandleState.IDLE and (
                    self._start_error is None or time.monotonic() > self._paused_until
                ):
                    self._start_in_background()
                remaining_s = deadline - time.monotonic()
                if remaining_s <= 0 or not self._state_changed.wait_for(
                    lambda: self._state is not HandleState.STARTING, remaining_s
                ):
                    raise MemoAirVoiceMemoryError("runtime.timeout", self._start_status())
                if self._state is HandleState.IDLE and self._start_error is not None:
                    raise _copy_error(self._start_error)

    def mark_unreachable(self, transport: RuntimeTransport) -> None:
        """Drop a runtime that refused a connection or is shutting down: the next call starts another."""
        with self._state_changed:
            if self._is_current(transport):
                self._drop_runtime()

    def mark_timed_out(self, transport: RuntimeTransport) -> None:
        """Record that the runtime did not answer a call in time. After a while without answers it is replaced."""
        if self._unresponsive_since is None and self._is_current(transport):
            self._unresponsive_since = time.monotonic()

    def mark_responsive(self, transport: RuntimeTransport) -> None:
        """Record that the runtime answered a call."""
        if self._is_current(transport):
            self._unresponsive_since = None
            self._has_answered = True

    def mark_opened(self, session_id: str) -> None:
        """Record that a session was opened that is to be ended with this handle at the latest."""
        self._open_sessions.add(session_id)

    def mark_ended(self, session_id: str) -> None:
        """Record that a session was ended."""
        self._open_sessions.discard(session_id)

    def drop_dead_runtime(self) -> bool:
        """Drop the runtime if it has died; return whether it had."""
        with self._state_changed:
            runtime = self._runtime
            has_died = self._state is HandleState.RUNNING and runtime is not None and not runtime.is_alive()
            if has_died:
                self._drop_runtime()
            return has_died

    def replace(self, runtime: StartedRuntime) -> None:
        """Drop a running runtime if it is still the current one: the next call starts another."""
        with self._state_changed:
            if self._state is HandleState.RUNNING and self._runtime is runtime:
                self._drop_runtime()

    def end(self) -> StartedRuntime | None:
        """Start no more runtimes, and return the current one, which the pool then ends."""
        with self._state_changed:
            if self._state is HandleState.ENDED:
                return None
            runtime, self._runtime = self._runtime, None
            self._transition(HandleState.ENDED)
            return runtime

    def stop(self, timeout_s: float) -> None:
        """Do nothing: the pool ends the handle."""

    def reset_after_fork(self) -> None:
        """Drop the runtime in the child of a fork: it belongs to the parent."""
        self._state_changed = threading.Condition()
        runtime, self._runtime = self._runtime, None
        self._state = HandleState.ENDED
        if runtime is not None:
            runtime.reset_after_fork()

    def _start_in_background(self) -> None:
        """Begin a start, whose thread waits for the lock of the caller. Without a thread, the start has failed."""
        try:
            start_thread(self._run_start, name="memoair-start")
        except ThreadUnavailableError as error:
            self._start_error = MemoAirVoiceMemoryError("runtime.start_failed", f"no runtime can be started: {error}")
            self._paused_until = time.monotonic() + _START_RETRY_PAUSE_S
            return
        self._transition(HandleState.STARTING)
        self._start_error = None

    def _run_start(self) -> None:
        try:
            self._launch_runtime()
        finally:
            self._start_finished()

    def _launch_runtime(self) -> None:
        runtime: StartedRuntime | None = None
        start_error: MemoAirVoiceMemoryError | None = None
        try:
            runtime = self._launch(self)
        except MemoAirVoiceMemoryError as error:
            start_error = error
        except Exception as error:  # noqa: BLE001 - calls that wait must get the error, whatever it is
            start_error = MemoAirVoiceMemoryError(
                "runtime.start_failed", f"the runtime could not be started: {type(error).__name__}: {error}"
            )
        with self._state_changed:
            if self._state is HandleState.ENDED:  # evicted or closed during the start
                if runtime is not None:
                    self._retire(runtime, DRAIN_TIMEOUT_S)
                return
            if start_error is not None and not start_error.code.startswith("pool."):
                self._paused_until = time.monotonic() + _START_RETRY_PAUSE_S
            self._runtime, self._start_error, self._unresponsive_since = runtime, start_error, None
            if runtime is not None and runtime.session_id is not None:
                self._session_id = runtime.session_id
            self._transition(HandleState.IDLE if runtime is None else HandleState.RUNNING)

    def _drop_runtime(self, drain_s: float = DRAIN_TIMEOUT_S) -> None:
        runtime, self._runtime = self._runtime, None
        self._unresponsive_since, self._has_answered = None, False
        self._restarts += runtime is None or runtime.is_ours  # the end of a shared one is its client's business
        self._transition(HandleState.IDLE)
        if runtime is not None:
            self._retire(runtime, drain_s)

    def _transition(self, to: HandleState) -> None:
        if to not in _TRANSITIONS[self._state]:
            raise RuntimeError(f"invalid transition of a handle: {self._state.value} to {to.value}")
        self._state = to
        self._state_changed.notify_all()

    def _is_current(self, transport: RuntimeTransport) -> bool:
        """Return whether the transport leads to the current runtime, and not to an earlier one."""
        runtime = self._runtime
        return runtime is not None and runtime.transport is transport

    def _is_unresponsive(self) -> bool:
        since = self._unresponsive_since
        return since is not None and time.monotonic() - since > UNRESPONSIVE_AFTER_S


def _copy_error(error: MemoAirVoiceMemoryError) -> MemoAirVoiceMemoryError:
    """Copy an error for another thread: one object raised twice would collect both tracebacks."""
    details: dict[str, Any] = dict(error.details)
    return MemoAirVoiceMemoryError(error.code, error.message, error.status_code, details)
