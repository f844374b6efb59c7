"""One caller's place in the pool: the runtime that serves him, whichever it is at the moment."""

import itertools
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from enum import Enum
from typing import Any

from memoair_voice_sync._errors import MemoAirVoiceMemoryError
from memoair_voice_sync._log import log
from memoair_voice_sync._process import UNRESPONSIVE_AFTER_S
from memoair_voice_sync._runtimes import DRAIN_TIMEOUT_S, StartedRuntime
from memoair_voice_sync._transport import RuntimeTransport

CLIENT_CLOSED = "the client has been closed"
_STARTING = "the runtime is still starting"
_versions = itertools.count(1)
# After a start that came to nothing, calls are told so for this long before another one is tried.
_START_RETRY_PAUSE_S = 0.5


class HandleState(Enum):
    """Where a handle stands."""

    IDLE = "idle"  # nothing runs: nothing was started yet, or what was is gone
    STARTING = "starting"  # a runtime is being started
    RUNNING = "running"  # one runs, as far as we know
    ENDED = "ended"  # evicted or closed; starts no more


# Each state with those that may follow it. A runtime that has died, that does not answer, or that is over its ceiling
# leads back to idle, and the next call starts another one.
_TRANSITIONS = {
    HandleState.IDLE: {HandleState.STARTING, HandleState.ENDED},
    HandleState.STARTING: {HandleState.RUNNING, HandleState.IDLE, HandleState.ENDED},
    HandleState.RUNNING: {HandleState.IDLE, HandleState.ENDED},
    HandleState.ENDED: set[HandleState](),
}


class RuntimeHandle:
    """A caller's runtime in a `RuntimePool`: started at the first need, and again when it has died.

    It stays the same as long as the caller has his place in the pool, over deaths of its runtime. Safe to use from any
    thread.
    """

    def __init__(
        self,
        user_id: str,
        launch: Callable[["RuntimeHandle"], StartedRuntime],
        start_finished: Callable[[], None],
        retire: Callable[[StartedRuntime, float], None],
    ) -> None:
        """``launch`` starts a runtime, which may take long; ``settled`` is told when that start is over, well or not.
        ``retire`` ends a runtime in the background within a time.
        """
        self.user_id = user_id
        self.session_id: str = uuid.uuid4().hex  # the call; that of another client, where his runtime serves us
        self.in_use: int = 0  # how many calls are under way, and how often it is pinned; the pool counts
        self.pins: int = 0
        self.released_at: float = time.monotonic()
        self.restarts: int = 0
        self.open_lock: threading.Lock = threading.Lock()  # held by who opens the session
        self.opened_user: Mapping[str, Any] | None = None  # as whom the session was opened last
        self.start_status: str | None = None  # what a start waits for that has to be pulled before, in words
        self.version: int = 0  # another number after each change of the memory that this client has brought about
        self.memory_client: Any = None  # what whoever makes the calls keeps between them
        self._launch = launch
        self._start_finished = start_finished
        self._retire = retire
        self._state_changed = threading.Condition()
        self._state = HandleState.IDLE
        self._runtime: StartedRuntime | None = None
        self._start_error: MemoAirVoiceMemoryError | None = None  # why the last start came to nothing
        self._paused_until = 0.0
        self._unresponsive_since: float | None = (
            None  # when the first of the calls was given up that went without an answer
        )

    def __repr__(self) -> str:
        return f"<RuntimeHandle {self._state.value} pid={self.pid}>"

    @property
    def state(self) -> HandleState:
        """Where the handle stands."""
        return self._state

    @property
    def runtime(self) -> StartedRuntime | None:
        """What runs, as far as we know."""
        return self._runtime

    @property
    def pid(self) -> int | None:
        """The process id of the runtime that serves; None where none does."""
        runtime = self._runtime
        return None if runtime is None else runtime.pid

    def ensure_running(self, deadline: float) -> RuntimeTransport:
        """Return the way to a living runtime, started if need be, by the deadline (monotonic seconds).

        Raises ``runtime.timeout`` at the deadline (the start goes on, and the next call finds it further),
        ``pool.closed``, and what the start failed with.
        """
        with self._state_changed:
            while True:
                if self._state is HandleState.ENDED:
                    raise MemoAirVoiceMemoryError("pool.closed", CLIENT_CLOSED)
                if self._state is HandleState.RUNNING and self._is_unresponsive():
                    log.warning("a runtime answers nothing and is replaced: action=runtime_hung pid=%s", self.pid)
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
                    raise MemoAirVoiceMemoryError("runtime.timeout", self.start_status or _STARTING)
                if self._state is HandleState.IDLE and self._start_error is not None:
                    raise _copy_error(self._start_error)

    def mark_unreachable(self, transport: RuntimeTransport) -> None:
        """Say that the runtime did not take a connection, or is about to end: the next call starts another."""
        with self._state_changed:
            if self._is_current(transport):
                self._drop_runtime()

    def mark_timed_out(self, transport: RuntimeTransport) -> None:
        """Say that the runtime took a call and did not answer in time: in a while it will be taken to hang."""
        if self._unresponsive_since is None and self._is_current(transport):
            self._unresponsive_since = time.monotonic()

    def mark_responsive(self, transport: RuntimeTransport) -> None:
        """Say that the runtime answered a call."""
        if self._is_current(transport):
            self._unresponsive_since = None

    def bump_version(self) -> None:
        """Say that what is remembered of the caller may be another now than before."""
        self.version = next(_versions)  # one that never was: of two changes at once, neither hides the other

    def drop_dead_runtime(self) -> bool:
        """Let go of a runtime that has died; tell whether one had."""
        with self._state_changed:
            runtime = self._runtime
            has_died = self._state is HandleState.RUNNING and runtime is not None and not runtime.is_alive()
            if has_died:
                self._drop_runtime()
            return has_died

    def replace(self, runtime: StartedRuntime) -> None:
        """Let go of a runtime that lives, if it still is the one that serves: the next call starts another."""
        with self._state_changed:
            if self._state is HandleState.RUNNING and self._runtime is runtime:
                self._drop_runtime()

    def end(self) -> StartedRuntime | None:
        """Start no more, and return what runs; the caller ends it."""
        with self._state_changed:
            if self._state is HandleState.ENDED:
                return None
            runtime, self._runtime = self._runtime, None
            self._transition(HandleState.ENDED)
            return runtime

    def stop(self, timeout_s: float) -> None:
        """A handle is ended by its pool."""

    def reset_after_fork(self) -> None:
        """After a fork, in the child: the runtime is the parent's."""
        self._state_changed = threading.Condition()
        runtime, self._runtime = self._runtime, None
        self._state = HandleState.ENDED
        if runtime is not None:
            runtime.reset_after_fork()

    def _start_in_background(self) -> None:
        self._transition(HandleState.STARTING)
        self._start_error = None
        threading.Thread(target=self._run_start, name="memoair-start", daemon=True).start()

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
        except Exception as error:  # noqa: BLE001 - whoever waits must hear of it, whatever it was
            start_error = MemoAirVoiceMemoryError(
                "runtime.start_failed", f"no runtime: {type(error).__name__}: {error}"
            )
        with self._state_changed:
            if self._state is HandleState.ENDED:  # nobody wants it any more
                if runtime is not None:
                    self._retire(runtime, DRAIN_TIMEOUT_S)
                return
            if start_error is not None and not start_error.code.startswith("pool."):
                self._paused_until = time.monotonic() + _START_RETRY_PAUSE_S
            self._runtime, self._start_error, self._unresponsive_since = runtime, start_error, None
            if runtime is not None and runtime.session_id is not None:
                self.session_id = runtime.session_id
            self._transition(HandleState.IDLE if runtime is None else HandleState.RUNNING)

    def _drop_runtime(self, drain_s: float = DRAIN_TIMEOUT_S) -> None:
        runtime, self._runtime = self._runtime, None
        self._unresponsive_since = None
        self.restarts += 1
        self._transition(HandleState.IDLE)
        if runtime is not None:
            self._retire(runtime, drain_s)

    def _transition(self, to: HandleState) -> None:
        if to not in _TRANSITIONS[self._state]:
            raise RuntimeError(f"a handle that is {self._state.value} can't become {to.value}")
        self._state = to
        self._state_changed.notify_all()

    def _is_current(self, transport: RuntimeTransport) -> bool:
        """Whether this is the way to the runtime that runs, and not to one that it has succeeded."""
        runtime = self._runtime
        return runtime is not None and runtime.transport is transport

    def _is_unresponsive(self) -> bool:
        since = self._unresponsive_since
        return since is not None and time.monotonic() - since > UNRESPONSIVE_AFTER_S


def _copy_error(error: MemoAirVoiceMemoryError) -> MemoAirVoiceMemoryError:
    """The same error for another thread: one that is raised twice would gather both their stacks."""
    details: dict[str, Any] = dict(error.details)
    return MemoAirVoiceMemoryError(error.code, error.message, error.status_code, details)
