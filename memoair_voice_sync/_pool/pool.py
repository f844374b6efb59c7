"""The pool: a runtime for each of a bounded number of users. Closing it leaves no process behind."""

import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Any
from weakref import WeakSet

import attrs
import psutil

from memoair_protocol.defaults import ORG_ONLY_USER, RUNTIME_PORT_RANGE
from memoair_voice_sync._after_fork import check_process, register_after_fork
from memoair_voice_sync._closing import closed_error
from memoair_voice_sync._pool.backlog import BacklogSupervisor
from memoair_voice_sync._pool.handle import HandleState, RuntimeHandle
from memoair_voice_sync._pool.retirement import Retirement
from memoair_voice_sync._pool.supervisor import Supervisor, WaitingWork
from memoair_voice_sync._pool.sync_health import UNKNOWN, query_sync_stats
from memoair_voice_sync._processes.backlog_process import BacklogProcess
from memoair_voice_sync._processes.launchers import Launcher, launcher_for
from memoair_voice_sync._processes.ports import PortRange
from memoair_voice_sync._processes.runtime_resolver import RuntimeResolver
from memoair_voice_sync._processes.spec import RuntimeSpec
from memoair_voice_sync._processes.started_runtime import DRAIN_TIMEOUT_S, StartedRuntime
from memoair_voice_sync.errors import MemoAirVoiceMemoryError

# A process that has not answered its health check within this time after its start has failed.
_START_TIMEOUT_S = 15.0
_PULL_POLL_INTERVAL_S = 0.02


@attrs.define
class _Entry:
    """A user's handle, and how it is used."""

    handle: RuntimeHandle
    in_use: int = 0  # the number of calls in progress, pins included
    pins: int = 0  # how often a session pins the handle
    released_at: float = attrs.field(factory=time.monotonic)  # when a call last ended


class RuntimePool:
    """The runtimes of one client, one process for each user that is being served.

    If all places are taken, a new user gets the place that was used least recently; its runtime is flushed and stopped
    in the background. Runtimes that are idle for too long are stopped, too.

    Safe to use from any thread. After a fork, the child starts with an empty pool.
    """

    def __init__(
        self,
        spec: RuntimeSpec,
        *,
        max_concurrent_users: int = 20,
        runtime_idle_ttl_s: float | None = 300,
        runtime_port_range: tuple[int, int] = RUNTIME_PORT_RANGE,
        runtime_memory_limit_mb: float | None = None,
        make_launcher: Callable[[RuntimeResolver], Launcher] | None = None,
    ) -> None:
        """Create an empty pool.

        Args:
            spec: What all runtimes are started with. The pool sets the user, session and token of each.
            max_concurrent_users: The number of places.
            runtime_idle_ttl_s: The time in seconds after which an unused runtime is stopped. None means that none is.
            runtime_port_range: The first and the last loopback port that runtimes may listen on.
            runtime_memory_limit_mb: Replace a runtime that uses more memory than this, in MB. None means no limit.
            make_launcher: Makes what starts the runtimes. None means that each listens on a port of the range.
        """
        check_process()
        self._spec = spec
        self._max_users = max_concurrent_users
        self._resolver = RuntimeResolver(spec.selection())
        self._launcher: Launcher = (
            launcher_for(self._resolver, PortRange(*runtime_port_range), has_cloud=bool(spec.cloud_base_url))
            if make_launcher is None
            else make_launcher(self._resolver)
        )
        self._condition = threading.Condition()
        self._entries: OrderedDict[str, _Entry] = OrderedDict()  # by user id, least recently used first
        self._retirement = Retirement(spec.project_id, self._launcher.exit_code, self.wake_supervisor)
        # Not strongly: the thread of the supervisor must not keep an unclosed client alive.
        self.waiting_work: WeakSet[WaitingWork] = WeakSet([self._retirement])
        self._is_closed = False
        self._close_lock = threading.Lock()
        self._evictions = self._restarts = 0  # of handles that were dropped
        backlog = BacklogSupervisor(self._start_backlog) if spec.cloud_base_url else None
        self.backlog: BacklogSupervisor | None = backlog
        self._supervisor = Supervisor(self, runtime_idle_ttl_s, runtime_memory_limit_mb)
        # Without these, only the runtimes that were started here need the supervisor.
        self._watches_more = runtime_idle_ttl_s is not None or backlog is not None
        register_after_fork(self, RuntimePool._reset_after_fork)

    def __repr__(self) -> str:
        return f"<RuntimePool {len(self._entries)} of {self._max_users}>"

    def acquire(self, user_id: str, *, pins: bool = False) -> RuntimeHandle:
        """Acquire a user's handle for a call. Starts no runtime and never waits.

        Args:
            user_id: The user.
            pins: Whether the handle is acquired to pin it for many calls. `close` does not wait for pins.

        Returns:
            The handle, to be given back with `release`.

        Raises:
            MemoAirVoiceMemoryError: ``pool.exhausted`` if calls in progress take every place, or ``pool.closed``.
            RuntimeError: If gevent or eventlet has patched the standard library too late.
        """
        check_process()
        self._supervisor.ensure_started()
        with self._condition:
            if self._is_closed:
                raise closed_error()
            entry = self._entries.get(user_id)
            if entry is None:
                if len(self._entries) >= self._max_users:
                    self._evict_least_recent()
                entry = self._entries[user_id] = _Entry(
                    RuntimeHandle(
                        user_id, self._launch, self._resolver.status, self._start_finished, self._retirement.retire
                    )
                )
            entry.in_use += 1
            entry.pins += pins
            self._entries.move_to_end(user_id)
            return entry.handle

    def release(self, handle: RuntimeHandle, *, pins: bool = False) -> None:
        """Release a handle that `acquire` returned.

        Args:
            handle: The handle.
            pins: As in `acquire`.
        """
        with self._condition:
            entry = self._entry_of(handle)
            if entry is not None:  # otherwise `close` did not wait for the call, or a fork came between
                entry.in_use -= 1
                entry.pins -= pins
                entry.released_at = time.monotonic()
                self._entries.move_to_end(handle.user_id)
            self._condition.notify_all()

    def handles(self) -> list[RuntimeHandle]:
        """Return the handles of all users that have a place, least recently used first."""
        with self._condition:
            return [entry.handle for entry in self._entries.values()]

    def idle_since(self, handle: RuntimeHandle) -> float | None:
        """Return when the last call of a handle ended (monotonic seconds); None if one goes on or it has no place."""
        entry = self._entry_of(handle)
        return None if entry is None or entry.in_use else entry.released_at

    def evict(self, handle: RuntimeHandle, *, unused_since: float) -> bool:
        """Take away the place of a handle that is not in use and has not been used for some time.

        Args:
            handle: The handle.
            unused_since: Keep the handle if it was used after this moment (monotonic seconds).

        Returns:
            Whether the place was taken away.
        """
        with self._condition:
            idle_since = self.idle_since(handle)
            if idle_since is None or idle_since > unused_since:
                return False
            self._drop_handle(handle, DRAIN_TIMEOUT_S)
            return True

    def warm_up(self, timeout_s: float) -> None:
        """Start what all runtimes need, without a user; see `MemoAirVoiceClientSync.warm_up`."""
        check_process()
        if self._is_closed:
            raise closed_error()
        deadline = time.monotonic() + timeout_s
        self._supervisor.wake()  # from now on there is something to close
        while self._resolver.command() is None:
            if time.monotonic() >= deadline:
                raise MemoAirVoiceMemoryError("runtime.timeout", self._resolver.status())
            time.sleep(_PULL_POLL_INTERVAL_S)
        self._launcher.warm_up(deadline)

    @property
    def needs_close(self) -> bool:
        """Whether `close` has threads or processes to end."""
        return not self._is_closed and self._supervisor.is_started

    def close(self, timeout_s: float = DRAIN_TIMEOUT_S) -> None:
        """End all runtimes. Calling it again has no effect.

        Waits for calls in progress for half of the time at most, then lets each runtime finish its work.

        Args:
            timeout_s: About how long this may take, in seconds.
        """
        with self._close_lock:  # a second call waits for the first and finds everything closed
            self._close(timeout_s)

    def _close(self, timeout_s: float) -> None:
        deadline, drain_s = time.monotonic() + timeout_s, min(timeout_s, DRAIN_TIMEOUT_S)
        with self._condition:
            self._is_closed = True
        self._resolver.close()
        with self._condition:
            # Calls in progress may finish. New ones are rejected.
            self._condition.wait_for(self._has_no_calls, (deadline - time.monotonic()) / 2)
            for entry in list(self._entries.values()):
                self._drop_handle(entry.handle, drain_s)
        self._launcher.cancel_starts()
        if self.backlog is not None:
            self.backlog.request_stop()
        self._supervisor.close(max(0.1, deadline - time.monotonic()) + drain_s)
        # Every runtime is killed in the end. One that was still starting is ended as soon as it has started.
        self._retirement.wait_until_done(max(0.1, deadline - time.monotonic()) + drain_s)
        if self.backlog is not None:
            self.backlog.close()
        self._launcher.close(max(0.5, deadline - time.monotonic()))

    def stats(self) -> dict[str, Any]:
        """Return the part of `MemoAirVoiceClientSync.stats` that describes the pool and its runtimes."""
        with self._condition:
            entries, evictions, restarts = list(self._entries.values()), self._evictions, self._restarts
        handles = [entry.handle for entry in entries]
        sync_by_handle = query_sync_stats(handles, has_cloud=bool(self._spec.cloud_base_url))
        return {
            "max_concurrent_users": self._max_users,
            "runtimes": [
                {**_collect_runtime_stats(entry), **sync_by_handle.get(entry.handle, UNKNOWN)} for entry in entries
            ],
            "backlog": None if self.backlog is None else self.backlog.stats(),
            "retiring": len(self._retirement),
            "evictions": evictions,
            "restarts": restarts + sum(handle.restarts for handle in handles),
        }

    def _has_no_calls(self) -> bool:
        return all(entry.in_use == entry.pins for entry in self._entries.values())

    def _entry_of(self, handle: RuntimeHandle) -> _Entry | None:
        entry = self._entries.get(handle.user_id)
        return entry if entry is not None and entry.handle is handle else None

    def _evict_least_recent(self) -> None:
        idle = next((entry.handle for entry in self._entries.values() if not entry.in_use), None)
        if idle is None:
            message = f"all {self._max_users} runtimes are in use; raise max_concurrent_users or try again later"
            raise MemoAirVoiceMemoryError("pool.exhausted", message)
        self._evictions += 1
        self._drop_handle(idle, DRAIN_TIMEOUT_S)

    def _drop_handle(self, handle: RuntimeHandle, drain_s: float) -> None:
        del self._entries[handle.user_id]
        self._restarts += handle.restarts
        runtime = handle.end()
        if runtime is not None:
            self._retirement.retire(runtime, drain_s, handle)

    def _launch(self, handle: RuntimeHandle) -> StartedRuntime:
        """Start a runtime for a handle. If runtimes that are being ended hold all ports, wait for one."""
        self._retirement.start_began()
        org_only = self._spec.org_only or handle.user_id == ORG_ONLY_USER
        spec = attrs.evolve(
            self._spec,
            user_id=handle.user_id,
            session_id=handle.session_id,
            token=secrets.token_urlsafe(32),
            org_only=org_only,
            is_shared=not org_only,
        )
        running = self._wait_for_program(handle, spec)
        if running is not None:
            return running
        deadline = time.monotonic() + _START_TIMEOUT_S
        while True:
            retiring_pids = self._retirement.retiring_pids
            try:
                return self._launcher.launch(spec, deadline, self._retirement.excluded_pids)
            except MemoAirVoiceMemoryError as error:
                if error.code != "pool.port_exhausted" or not self._retirement.wait_for_port(retiring_pids, deadline):
                    raise

    def _start_backlog(self, deadline: float) -> BacklogProcess | None:
        return self._launcher.start_backlog(attrs.evolve(self._spec, user_id=ORG_ONLY_USER, org_only=True), deadline)

    def _wait_for_program(self, handle: RuntimeHandle, spec: RuntimeSpec) -> StartedRuntime | None:
        """Wait until the runtime is pulled or the handle has ended. Calls wait for their own time at most.

        Returns a runtime that runs already and makes the wait superfluous, or None.
        """
        if not (self._resolver.needs_pull and self._launcher.needs_program):
            return None
        while (running := self._launcher.find_running(spec)) is None and self._resolver.command() is None:
            if handle.state is HandleState.ENDED:
                raise closed_error()
            time.sleep(_PULL_POLL_INTERVAL_S)
        return running

    def _start_finished(self) -> None:
        self._retirement.start_finished()
        if self._watches_more or any(
            handle.runtime is not None and handle.runtime.is_ours for handle in self.handles()
        ):
            self._supervisor.wake()

    def wake_supervisor(self) -> None:
        """Let the supervisor check everything now, such as new `waiting_work`. Never raises."""
        self._supervisor.wake()

    def _reset_after_fork(self) -> None:
        """Drop everything in the child of a fork: all runtimes belong to the parent."""
        self._condition = threading.Condition()
        self._close_lock = threading.Lock()
        for entry in self._entries.values():
            entry.handle.reset_after_fork()
        self._entries.clear()
        self._retirement.reset_after_fork()
        if self.backlog is not None:
            self.backlog.reset_after_fork()
        self._launcher.reset_after_fork()
        self._supervisor.reset_after_fork()


def _collect_runtime_stats(entry: _Entry) -> dict[str, Any]:
    handle = entry.handle
    runtime = handle.runtime
    stats: dict[str, Any] = {
        "user_id": handle.user_id,
        "session_id": handle.session_id,
        "state": handle.state.value,
        "in_use": entry.in_use,
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
            stats["state"] = HandleState.IDLE.value  # it has just exited
    return stats
