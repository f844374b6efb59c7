"""The end of runtimes: each is flushed and ended in the background, and nothing is left when the pool is closed."""

import threading
import time
from collections import deque
from collections.abc import Callable
from collections.abc import Set as AbstractSet

import attrs

from memoair_protocol.starvation import is_starved
from memoair_protocol.threads import ThreadUnavailableError, start_thread
from memoair_voice_sync._diagnostics import log
from memoair_voice_sync._loopback.transport import RuntimeUnreachableError, encode_body
from memoair_voice_sync._pool.handle import RuntimeHandle
from memoair_voice_sync._processes.started_runtime import StartedRuntime
from memoair_voice_sync.errors import MemoAirVoiceMemoryError

_END_SESSION_TIMEOUT_S = 2.0
_PORT_POLL_INTERVAL_S = 0.02
# The fork server reports an exit code a moment after the end of the runtime, which its socket shows at once.
_EXIT_CODE_TIMEOUT_S, _EXIT_CODE_POLL_INTERVAL_S = 0.2, 0.01
# How long to try to end a runtime while this process has no descriptor to look at it with.
_STARVED_TIMEOUT_S, _STARVED_INTERVAL_S = 30.0, 0.2


@attrs.frozen
class _Retiree:
    """A runtime to end, in ``drain_s`` at most. The sessions of the handle, if there is one, end before it."""

    runtime: StartedRuntime
    drain_s: float
    handle: RuntimeHandle | None


class Retirement:
    """The runtimes of a pool that are being ended, and what a start must know of them. Safe to use from any thread.

    A runtime that is given to `retire` is ended, also if the process cannot start a thread at that moment.

    Args:
        project_id: The project of the runtimes.
        exit_code: Returns the exit code of a runtime that has died, or None if it is not known.
        has_waiting: Called without a lock when a runtime waits for a thread: `start_waiting` is to be called soon.
    """

    def __init__(
        self, project_id: str, exit_code: Callable[[StartedRuntime], int | None], has_waiting: Callable[[], None]
    ) -> None:
        self._project_id = project_id
        self._exit_code = exit_code
        self._has_waiting = has_waiting
        self.reset_after_fork()

    def reset_after_fork(self) -> None:
        """Drop everything in the child of a fork: the runtimes belong to the parent."""
        # A lock of its own: a handle drops its runtime under the handle's lock, and the pool reads handles under that
        # of the pool.
        self._condition = threading.Condition()
        self._retirees: list[_Retiree] = []  # that have not ended
        self._waiting: deque[_Retiree] = deque()  # of these, the ones that no thread ends yet
        self._hung_pids: set[int] = set()  # runtimes of other clients that hang; only their owners may end them
        self._starts_in_progress = 0

    def __len__(self) -> int:
        """Return the number of runtimes that are being ended."""
        return len(self._retirees)

    @property
    def is_waiting(self) -> bool:
        """Whether a runtime waits for a thread that ends it."""
        return bool(self._waiting)

    @property
    def retiring_pids(self) -> frozenset[int]:
        """The process ids of the runtimes that are being ended."""
        with self._condition:
            return frozenset(each.runtime.pid for each in self._retirees if each.runtime.pid is not None)

    @property
    def excluded_pids(self) -> frozenset[int]:
        """The process ids of the runtimes that no user may get: they are being ended, or hang."""
        return self.retiring_pids | self._hung_pids

    def retire(self, runtime: StartedRuntime, drain_s: float, handle: RuntimeHandle | None = None) -> None:
        """End a runtime in the background, and before it the open sessions of the handle, if given. Never waits."""
        retiree = _Retiree(runtime, drain_s, handle)
        with self._condition:
            self._retirees.append(retiree)
            self._waiting.append(retiree)
            if not runtime.is_ours and not drain_s and runtime.pid is not None:
                self._hung_pids.add(runtime.pid)
        if not self.start_waiting():
            log.warning("a runtime is ended later: the process can start no more threads: action=retire_deferred")
            self._has_waiting()

    def start_waiting(self) -> bool:
        """Start to end the runtimes that no thread ends yet; return False if some still wait for a thread."""
        while True:
            with self._condition:
                if not self._waiting:
                    return True
                retiree = self._waiting.popleft()
            try:
                start_thread(self._end, args=[retiree], name="memoair-retire")
            except ThreadUnavailableError:
                with self._condition:
                    self._waiting.appendleft(retiree)
                return False

    def start_began(self) -> None:
        """Count a start of a runtime: `wait_until_done` waits for it."""
        with self._condition:
            self._starts_in_progress += 1

    def start_finished(self) -> None:
        """End the count of a start, whether it succeeded or failed."""
        with self._condition:
            self._starts_in_progress -= 1
            self._condition.notify_all()

    def wait_for_port(self, retiring_pids: AbstractSet[int], deadline: float) -> bool:
        """Wait a moment for a port; return whether one may be free after the last attempt.

        ``retiring_pids`` are the runtimes that were being ended before the attempt: one of them may have had the port,
        and may have released it since.
        """
        if time.monotonic() > deadline:
            return False
        now_retiring = self.retiring_pids
        if retiring_pids <= now_retiring:
            if not now_retiring:
                return False
            with self._condition:
                self._condition.wait(_PORT_POLL_INTERVAL_S)
        return True

    def wait_until_done(self, timeout_s: float) -> bool:
        """Wait until every runtime has ended and no start goes on; return False after the timeout."""
        deadline = time.monotonic() + timeout_s
        while not self.start_waiting():  # without a thread, the runtimes are ended one after the other
            with self._condition:
                waiting = [self._waiting.popleft()] if self._waiting else []
            for retiree in waiting:
                self._end(attrs.evolve(retiree, drain_s=min(retiree.drain_s, max(0.0, deadline - time.monotonic()))))
        with self._condition:
            return self._condition.wait_for(
                lambda: not self._retirees and not self._starts_in_progress, max(0.0, deadline - time.monotonic())
            )

    def _end(self, retiree: _Retiree) -> None:
        runtime = retiree.runtime
        try:
            if retiree.handle is not None:
                self._end_sessions_and_flush(runtime, retiree.handle)
            elif not runtime.is_alive():
                self._log_death(runtime)
            _end_runtime(runtime, retiree.drain_s)
        except Exception as error:  # noqa: BLE001 - the next one must be ended in any case
            log.warning("a runtime could not be ended: action=retire_failed error=%s", type(error).__name__)
        finally:
            with self._condition:
                self._retirees = [each for each in self._retirees if each.runtime is not runtime]
                self._condition.notify_all()

    def _end_sessions_and_flush(self, runtime: StartedRuntime, handle: RuntimeHandle) -> None:
        """End the open sessions and flush the runtime. The turns are on the disk even if this fails."""
        session_ids = handle.sessions_to_end(runtime)
        if not session_ids:
            return
        identity = {"workspaceId": self._project_id, "userId": handle.user_id}
        deadline = time.monotonic() + _END_SESSION_TIMEOUT_S
        try:
            for session_id in session_ids:
                body = encode_body({**identity, "sessionId": session_id, "reason": "closed"})
                runtime.transport.call("POST", "/v1/runtime/session/end", body, deadline)
            body = encode_body({**identity, "deadlineMs": _END_SESSION_TIMEOUT_S * 1e3})
            runtime.transport.call("POST", "/v1/runtime/sync/flush", body, deadline)
        except (RuntimeUnreachableError, MemoAirVoiceMemoryError) as error:
            log.warning("a session could not be ended: action=end_failed error=%s", type(error).__name__)

    def _log_death(self, runtime: StartedRuntime) -> None:
        """Log that a runtime has died by itself, with its exit code."""
        if not runtime.is_ours:  # its client has stopped it, or the client itself has ended
            log.info(
                "another client's runtime has ended, and the next call starts one: action=shared_runtime_ended pid=%s",
                runtime.pid,
            )
            return
        deadline = time.monotonic() + _EXIT_CODE_TIMEOUT_S
        while (exit_code := self._exit_code(runtime)) is None and time.monotonic() < deadline:
            time.sleep(_EXIT_CODE_POLL_INTERVAL_S)
        known = "unknown" if exit_code is None else exit_code
        log.warning("a runtime has died: action=runtime_died pid=%s exit_code=%s", runtime.pid, known)


def _end_runtime(runtime: StartedRuntime, drain_s: float) -> None:
    """End a runtime; try again while this process is out of descriptors or memory."""
    give_up_at = time.monotonic() + _STARVED_TIMEOUT_S
    while True:
        try:
            runtime.end(drain_s if runtime.is_alive() else 0)
            return
        except OSError as error:
            if not is_starved(error) or time.monotonic() > give_up_at:
                raise
        time.sleep(_STARVED_INTERVAL_S)
