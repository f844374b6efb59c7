"""The pool: a runtime for each of a bounded number of callers, and nothing left behind."""

import secrets
import threading
import time
from collections import OrderedDict
from typing import Any

import attrs
import psutil

from memoair_voice_sync._after_fork import register_after_fork
from memoair_voice_sync._errors import MemoAirVoiceMemoryError
from memoair_voice_sync._handle import CLIENT_CLOSED, HandleState, RuntimeHandle
from memoair_voice_sync._launchers import launcher_for
from memoair_voice_sync._log import log
from memoair_voice_sync._ports import PortRange
from memoair_voice_sync._process import START_TIMEOUT_S
from memoair_voice_sync._runtime_resolver import RuntimeResolver
from memoair_voice_sync._runtimes import DRAIN_TIMEOUT_S, StartedRuntime
from memoair_voice_sync._spec import ORG_ONLY_USER, RuntimeSpec
from memoair_voice_sync._supervisor import Supervisor
from memoair_voice_sync._sync_health import UNKNOWN, sync_stats
from memoair_voice_sync._transport import RuntimeUnreachableError, encode_body

_END_SESSION_TIMEOUT_S = 2.0
_PORT_POLL_INTERVAL_S = 0.02
_PULL_POLL_INTERVAL_S = 0.02


class RuntimePool:
    """A runtime process for each caller that is being served, at most ``max_concurrent_users`` of them.

    A caller who comes when all places are taken gets the one that was used longest ago; who had it is flushed and
    stopped in the background. Runtimes that nobody has used for ``runtime_idle_ttl_s`` are stopped as well. Safe to use
    from any thread; after a fork, the child begins with an empty pool.
    """

    def __init__(
        self,
        spec: RuntimeSpec,
        *,
        max_concurrent_users: int = 20,
        runtime_idle_ttl_s: float = 300,
        runtime_port_range: tuple[int, int] = (7878, 7977),
        runtime_memory_limit_mb: float | None = None,
    ) -> None:
        """``spec`` says what all runtimes are started with; whom each serves is filled in."""
        self._spec = spec
        self._max_users = max_concurrent_users
        self._resolver = RuntimeResolver(spec.selection())
        self._launcher = launcher_for(
            self._resolver, PortRange(*runtime_port_range), has_cloud=bool(spec.cloud_base_url)
        )
        self._condition = threading.Condition()
        self._handles: OrderedDict[str, RuntimeHandle] = OrderedDict()  # the one used longest ago first
        # Runtimes that are being ended, by process id. Under a lock of its own: a handle lets go of its runtime under
        # the handle's lock, and the pool asks handles under the pool's.
        self._retire_condition = threading.Condition()
        self._retiring_pids: set[int] = set()
        self._excluded_pids: set[int] = set()  # other clients' runtimes that hang: whoever owns them may end them
        self._starts_in_progress = 0
        self._is_closed = False
        self._close_lock = threading.Lock()
        self._evictions = self._restarts = 0  # of handles that are gone
        self._supervisor = Supervisor(self, runtime_idle_ttl_s, runtime_memory_limit_mb)
        register_after_fork(self, RuntimePool._reset_after_fork)

    def __repr__(self) -> str:
        return f"<RuntimePool {len(self._handles)} of {self._max_users}>"

    def acquire(self, user_id: str, *, pins: bool = False) -> RuntimeHandle:
        """Take the caller's handle for a call; give it back with `release`. Starts nothing and never waits.

        One that is taken in order to pin it (``pins``) is not waited for when the pool is closed.

        Raises ``pool.exhausted`` where every place is taken by calls under way, ``pool.closed``.
        """
        with self._condition:
            if self._is_closed:
                raise MemoAirVoiceMemoryError("pool.closed", CLIENT_CLOSED)
            handle = self._handles.get(user_id)
            if handle is None:
                if len(self._handles) >= self._max_users:
                    self._evict_least_recent()
                handle = self._handles[user_id] = RuntimeHandle(
                    user_id, self._launch, self._start_finished, self._retire
                )
            handle.in_use += 1
            handle.pins += pins
            self._handles.move_to_end(user_id)
            return handle

    def release(self, handle: RuntimeHandle, *, pins: bool = False) -> None:
        """Give a handle back, as it was taken."""
        with self._condition:
            handle.in_use -= 1
            handle.pins -= pins
            if self._handles.get(handle.user_id) is handle:
                self._handles.move_to_end(handle.user_id)
            handle.released_at = time.monotonic()
            self._condition.notify_all()

    def handles(self) -> list[RuntimeHandle]:
        """The handles of all callers that have a place now."""
        with self._condition:
            return list(self._handles.values())

    def evict(self, handle: RuntimeHandle, *, unused_since: float) -> bool:
        """Take away the place of a handle that was not used since that moment (monotonic seconds), nor is now.

        Tells whether that was done.
        """
        with self._condition:
            is_needed = self._handles.get(handle.user_id) is not handle or handle.in_use
            if is_needed or handle.released_at > unused_since:
                return False
            self._drop_handle(handle)
            return True

    @property
    def is_in_use(self) -> bool:
        """Whether there is something that `close` has to end."""
        return not self._is_closed and self._supervisor.is_started

    def close(self, timeout_s: float = DRAIN_TIMEOUT_S) -> None:
        """End all runtimes, each after what it was doing, within about ``timeout_s``. Twice is no harm."""
        with self._close_lock:  # who comes second finds it done
            self._close(time.monotonic() + timeout_s)

    def _close(self, deadline: float) -> None:
        with self._condition:
            self._is_closed = True
        self._resolver.close()
        with self._condition:
            # What was begun may end; who comes now is turned away.
            self._condition.wait_for(self._has_no_calls, (deadline - time.monotonic()) / 2)
            for handle in list(self._handles.values()):
                self._drop_handle(handle)
        self._supervisor.close()
        with self._retire_condition:
            # Each ends its runtime by force in the end; what was starting when we closed ends as soon as it has begun.
            remaining_s = max(0.1, deadline - time.monotonic()) + DRAIN_TIMEOUT_S
            self._retire_condition.wait_for(
                lambda: not self._retiring_pids and not self._starts_in_progress, remaining_s
            )
        self._launcher.close(max(0.5, deadline - time.monotonic()))

    def stats(self) -> dict[str, Any]:
        """What the pool holds, and what each runtime takes; see `MemoAirVoiceClientSync.stats`."""
        with self._condition:
            handles, evictions, restarts = list(self._handles.values()), self._evictions, self._restarts
        sync_by_handle = sync_stats(handles, has_cloud=bool(self._spec.cloud_base_url))
        return {
            "max_concurrent_users": self._max_users,
            "runtimes": [{**_runtime_stats(handle), **sync_by_handle.get(handle, UNKNOWN)} for handle in handles],
            "retiring": len(self._retiring_pids),
            "evictions": evictions,
            "restarts": restarts + sum(handle.restarts for handle in handles),
        }

    def exit_code(self, runtime: StartedRuntime) -> int | None:
        """With which code a runtime has ended, where that is known."""
        return self._launcher.exit_code(runtime)

    def _has_no_calls(self) -> bool:
        return all(handle.in_use == handle.pins for handle in self._handles.values())

    def _evict_least_recent(self) -> None:
        idle = next((handle for handle in self._handles.values() if not handle.in_use), None)
        if idle is None:
            message = f"all {self._max_users} runtimes are in use; raise max_concurrent_users or try again in a moment"
            raise MemoAirVoiceMemoryError("pool.exhausted", message)
        self._evictions += 1
        self._drop_handle(idle)

    def _drop_handle(self, handle: RuntimeHandle) -> None:
        del self._handles[handle.user_id]
        self._restarts += handle.restarts
        runtime = handle.end()
        if runtime is not None:
            self._retire(runtime, DRAIN_TIMEOUT_S, handle if handle.opened_user else None)

    def _launch(self, handle: RuntimeHandle) -> StartedRuntime:
        """Start a runtime for a handle. Where all ports are taken by runtimes that are being ended, wait for one."""
        with self._retire_condition:
            self._starts_in_progress += 1
        self._wait_for_program(handle)
        deadline = time.monotonic() + START_TIMEOUT_S
        org_only = self._spec.org_only or handle.user_id == ORG_ONLY_USER
        spec = attrs.evolve(
            self._spec,
            user_id=handle.user_id,
            session_id=handle.session_id,
            token=secrets.token_urlsafe(32),
            org_only=org_only,
            is_shared=not org_only,
        )
        while True:
            try:
                return self._launcher.launch(spec, deadline, self._retiring_pids | self._excluded_pids)
            except MemoAirVoiceMemoryError as error:
                if error.code != "pool.port_exhausted" or not self._wait_for_port(deadline):
                    raise

    def _wait_for_program(self, handle: RuntimeHandle) -> None:
        """Wait for a runtime that is being pulled, for as long as somebody wants it; a call waits as long as it may."""
        if not self._resolver.needs_pull:
            return
        try:
            while self._resolver.command() is None:
                if handle.state is HandleState.ENDED:
                    raise MemoAirVoiceMemoryError("pool.closed", CLIENT_CLOSED)
                handle.start_status = self._resolver.status()
                time.sleep(_PULL_POLL_INTERVAL_S)
        finally:
            handle.start_status = None

    def _start_finished(self) -> None:
        with self._retire_condition:
            self._starts_in_progress -= 1
            self._retire_condition.notify_all()
        self._supervisor.wake()

    def _wait_for_port(self, deadline: float) -> bool:
        """Wait a moment for a runtime that is being ended to give its port back; tell whether there was one."""
        with self._retire_condition:
            if not self._retiring_pids or time.monotonic() > deadline:
                return False
            self._retire_condition.wait(_PORT_POLL_INTERVAL_S)
            return True

    def _retire(self, runtime: StartedRuntime, drain_s: float, handle: RuntimeHandle | None = None) -> None:
        """End a runtime in the background, and before it the call of the handle that is ``ending``, if any."""
        with self._retire_condition:
            self._retiring_pids.add(runtime.pid)
            if not runtime.is_ours and not drain_s:
                self._excluded_pids.add(runtime.pid)
        arguments = (runtime, drain_s, handle)
        threading.Thread(target=self._end_runtime, args=arguments, name="memoair-retire", daemon=True).start()

    def _end_runtime(self, runtime: StartedRuntime, drain_s: float, handle: RuntimeHandle | None) -> None:
        try:
            if handle is not None and runtime.is_ours:
                self._end_session_and_flush(runtime, handle)
            runtime.end(drain_s if runtime.is_alive() else 0)
        except Exception as error:  # noqa: BLE001 - the next one is to be ended all the same
            log.warning("a runtime could not be ended: action=retire_failed error=%s", type(error).__name__)
        finally:
            with self._retire_condition:
                self._retiring_pids.discard(runtime.pid)
                self._retire_condition.notify_all()

    def _end_session_and_flush(self, runtime: StartedRuntime, handle: RuntimeHandle) -> None:
        """End the call and have everything written. The turns are on the disk, whatever becomes of this."""
        identity = {"workspaceId": self._spec.project_id, "userId": handle.user_id}
        deadline = time.monotonic() + _END_SESSION_TIMEOUT_S
        try:
            body = encode_body({**identity, "sessionId": handle.session_id, "reason": "closed"})
            runtime.transport.call("POST", "/v1/runtime/session/end", body, deadline)
            body = encode_body({**identity, "deadlineMs": _END_SESSION_TIMEOUT_S * 1e3})
            runtime.transport.call("POST", "/v1/runtime/sync/flush", body, deadline)
        except (RuntimeUnreachableError, MemoAirVoiceMemoryError) as error:
            log.warning("the end of a call could not be told: action=end_failed error=%s", type(error).__name__)

    def _reset_after_fork(self) -> None:
        """After a fork, in the child: all that runs is the parent's."""
        self._condition, self._retire_condition, self._close_lock = (
            threading.Condition(),
            threading.Condition(),
            threading.Lock(),
        )
        for handle in self._handles.values():
            handle.reset_after_fork()
        self._handles.clear()
        self._retiring_pids.clear()
        self._starts_in_progress = 0
        self._launcher.reset_after_fork()
        self._supervisor.reset_after_fork()


def _runtime_stats(handle: RuntimeHandle) -> dict[str, Any]:
    runtime = handle.runtime
    stats: dict[str, Any] = {
        "user_id": handle.user_id,
        "session_id": handle.session_id,
        "state": handle.state.value,
        "in_use": handle.in_use,
        "restarts": handle.restarts,
        "pid": None if runtime is None else runtime.pid,
        "port": None if runtime is None else runtime.transport.port,
        "borrowed": runtime is not None and not runtime.is_ours,
        "rss_bytes": None,
        "cpu_s": None,
        "uptime_s": None,
    }
    if runtime is not None:
        try:
            process = psutil.Process(runtime.pid)
            with process.oneshot():
                times = process.cpu_times()
                stats["rss_bytes"] = process.memory_info().rss
                stats["cpu_s"] = times.user + times.system
                stats["uptime_s"] = max(0.0, time.time() - process.create_time())
        except psutil.Error:
            stats["state"] = HandleState.IDLE.value  # it has just ended
    return stats
