"""The supervisor: one thread of a pool that finds runtimes that have died, are idle, or use too much memory."""

import selectors
import socket
import threading
import time
from contextlib import suppress
from typing import Protocol

import psutil

from memoair_voice_sync._diagnostics import log
from memoair_voice_sync._pool.backlog import BacklogSupervisor
from memoair_voice_sync._pool.handle import RuntimeHandle
from memoair_voice_sync._processes.started_runtime import StartedRuntime

# How often to poll runtimes that have no socket to report their exit, and the memory of all runtimes.
_POLL_INTERVAL_S = 1.0
_MEGABYTE = 1 << 20
# The fork server reports an exit code a moment after the end of the runtime, which its socket shows at once.
_EXIT_CODE_TIMEOUT_S, _EXIT_CODE_POLL_INTERVAL_S = 0.2, 0.01


class Supervised(Protocol):
    """What the supervisor needs of a pool."""

    def handles(self) -> list[RuntimeHandle]:
        """Return the handles of all users that have a place."""

    def idle_since(self, handle: RuntimeHandle) -> float | None:
        """Return when the last call of a handle ended (monotonic seconds), or None if one is in progress."""

    def evict(self, handle: RuntimeHandle, *, unused_since: float) -> bool:
        """Take away the place of a handle that has not been used since that moment (monotonic seconds)."""

    def exit_code(self, runtime: StartedRuntime) -> int | None:
        """Return the exit code of a runtime, or None if it is unknown."""

    @property
    def backlog(self) -> BacklogSupervisor | None:
        """The backlog process; None without a cloud."""


class Supervisor:
    """The thread that watches the runtimes of a pool, from the first start of a runtime until it is closed."""

    def __init__(self, pool: Supervised, idle_ttl_s: float, memory_limit_mb: float | None) -> None:
        self._pool = pool
        self._idle_ttl_s = idle_ttl_s
        self._memory_limit_bytes = None if memory_limit_mb is None else memory_limit_mb * _MEGABYTE
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._sockets: tuple[socket.socket, socket.socket] | None = None
        self._is_closed = False

    @property
    def is_started(self) -> bool:
        """Whether the thread was started in this process."""
        return self._thread is not None

    def wake(self) -> None:
        """Check now, because a start is over; start the thread if it is not running."""
        with self._lock:
            if self._thread is None and not self._is_closed:
                self._sockets = socket.socketpair()
                for end in self._sockets:
                    end.setblocking(False)
                self._thread = threading.Thread(target=self._run, name="memoair-supervisor", daemon=True)
                self._thread.start()
            elif self._sockets is not None:
                with suppress(OSError):  # the buffer is full: the thread is about to wake anyway
                    self._sockets[0].send(b"\0")

    def close(self) -> None:
        """Stop the thread."""
        with self._lock:
            self._is_closed = True
            thread, sockets = self._thread, self._sockets
        if thread is not None and sockets is not None:
            with suppress(OSError):
                sockets[0].send(b"\0")
            thread.join()
            for end in sockets:
                end.close()
        self._sockets = None

    def reset_after_fork(self) -> None:
        """Drop the thread in the child of a fork: it exists only in the parent."""
        self._lock = threading.Lock()
        if self._sockets is not None:
            for end in self._sockets:
                end.close()
        self._thread, self._sockets = None, None

    def _run(self) -> None:
        sockets = self._sockets
        assert sockets is not None  # noqa: S101 - created before the thread
        while not self._is_closed:
            self._check_runtimes()
            backlog = self._pool.backlog
            if backlog is not None:
                backlog.ensure_running()
            handles = self._pool.handles()
            channels = [runtime.channel for runtime in _runtimes_of(handles) if runtime.channel is not None]
            channels += [backlog.channel] if backlog is not None and backlog.channel is not None else []
            with selectors.DefaultSelector() as selector:
                for channel in {*channels, sockets[1]}:
                    with suppress(ValueError, KeyError, OSError):  # closed at this moment
                        selector.register(channel, selectors.EVENT_READ)
                selector.select(self._wait_s(handles))
            with suppress(OSError):
                sockets[1].recv(1 << 10)

    def _check_runtimes(self) -> None:
        for handle in self._pool.handles():
            runtime = handle.runtime
            if runtime is None:
                continue
            if handle.drop_dead_runtime():
                self._log_end(runtime)
            elif (
                self._memory_limit_bytes is not None
                and runtime.is_ours
                and self._pool.idle_since(handle) is not None
                and _resident_bytes(runtime) > self._memory_limit_bytes
            ):
                log.warning(
                    "a runtime is over its memory limit and is replaced: action=runtime_large pid=%s", runtime.pid
                )
                handle.replace(runtime)
        for handle in self._pool.handles():
            self._pool.evict(handle, unused_since=time.monotonic() - self._idle_ttl_s)

    def _log_end(self, runtime: StartedRuntime) -> None:
        if not runtime.is_ours:  # its client has stopped it, or the client itself has ended
            log.info(
                "another client's runtime has ended, and the next call starts one: action=shared_runtime_ended pid=%s",
                runtime.pid,
            )
            return
        deadline = time.monotonic() + _EXIT_CODE_TIMEOUT_S
        while (exit_code := self._pool.exit_code(runtime)) is None and time.monotonic() < deadline:
            time.sleep(_EXIT_CODE_POLL_INTERVAL_S)
        known = "unknown" if exit_code is None else exit_code
        log.warning("a runtime has died: action=runtime_died pid=%s exit_code=%s", runtime.pid, known)

    def _wait_s(self, handles: list[RuntimeHandle]) -> float | None:
        """Return the time until the next check, or None if only an event requires one."""
        now = time.monotonic()
        # The supervisor is not notified when a handle is released: one in use counts as released now at the earliest.
        idle_since = [self._pool.idle_since(handle) for handle in handles]
        pauses = [max(0.0, (now if since is None else since) + self._idle_ttl_s - now) for since in idle_since]
        if handles and (self._memory_limit_bytes or any(runtime.channel is None for runtime in _runtimes_of(handles))):
            pauses.append(_POLL_INTERVAL_S)
        backlog = self._pool.backlog
        if backlog is not None and (restart_pause_s := backlog.restart_pause_s()) is not None:
            pauses.append(restart_pause_s)
        return min(pauses, default=None)


def _runtimes_of(handles: list[RuntimeHandle]) -> list[StartedRuntime]:
    # Each handle is read once: another thread may drop its runtime at any moment.
    runtimes = [handle.runtime for handle in handles]
    return [runtime for runtime in runtimes if runtime is not None]


def _resident_bytes(runtime: StartedRuntime) -> int:
    try:
        return int(psutil.Process(runtime.pid).memory_info().rss)
    except psutil.Error:
        return 0
