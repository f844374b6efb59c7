"""The supervisor: one thread of a pool that finds runtimes that have died, are idle, or use too much memory."""

import selectors
import socket
import threading
import time
from collections.abc import Iterable
from contextlib import suppress
from typing import Protocol

import psutil

from memoair_protocol.threads import ThreadUnavailableError, run_loop, start_thread
from memoair_voice_sync._diagnostics import log
from memoair_voice_sync._pool.backlog import BacklogSupervisor
from memoair_voice_sync._pool.handle import RuntimeHandle
from memoair_voice_sync._processes.started_runtime import StartedRuntime

# How often to poll runtimes that have no socket to report their exit, and the memory of all runtimes.
_POLL_INTERVAL_S = 1.0
# How often to try again to start threads for what waits for one.
_THREAD_RETRY_INTERVAL_S = 0.2
_MEGABYTE = 1 << 20


class WaitingWork(Protocol):
    """Work that is done in threads, and that waits if the process can start none at the moment."""

    @property
    def is_waiting(self) -> bool:
        """Whether there is work that no thread does."""

    def start_waiting(self) -> object:
        """Try again to start a thread for it."""


class Supervised(Protocol):
    """What the supervisor needs of a pool."""

    def handles(self) -> list[RuntimeHandle]:
        """Return the handles of all users that have a place."""

    def idle_since(self, handle: RuntimeHandle) -> float | None:
        """Return when the last call of a handle ended (monotonic seconds), or None if one is in progress."""

    def evict(self, handle: RuntimeHandle, *, unused_since: float) -> bool:
        """Take away the place of a handle that has not been used since that moment (monotonic seconds)."""

    @property
    def waiting_work(self) -> Iterable[WaitingWork]:
        """What may wait for threads."""

    @property
    def backlog(self) -> BacklogSupervisor | None:
        """The backlog process; None without a cloud."""


class Supervisor:
    """The thread that watches the runtimes of a pool, from the first start of a runtime until it is closed.

    It survives its own errors. If it cannot be started, `ensure_started` starts it as soon as that is possible.

    Args:
        pool: The pool.
        idle_ttl_s: The time in seconds after which an unused runtime is stopped. None means that none is.
        memory_limit_mb: Replace a runtime that uses more memory than this, in MB. None means no limit.
    """

    def __init__(self, pool: Supervised, idle_ttl_s: float | None, memory_limit_mb: float | None) -> None:
        self._pool = pool
        self._idle_ttl_s = idle_ttl_s
        self._memory_limit_bytes = None if memory_limit_mb is None else memory_limit_mb * _MEGABYTE
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._sockets: tuple[socket.socket, socket.socket] | None = None
        self._is_wanted = False  # there is something to watch
        self._is_missing = False  # the last attempt to start the thread failed
        self._closed = threading.Event()

    @property
    def is_started(self) -> bool:
        """Whether the thread was started in this process."""
        return self._thread is not None

    def wake(self) -> None:
        """Check now, because a start is over; start the thread if it is not running. Never raises."""
        self._is_wanted = True
        with self._lock:
            if self._thread is None and not self._closed.is_set():
                self._start()
            elif self._sockets is not None:
                with suppress(OSError):  # the buffer is full: the thread is about to wake anyway
                    self._sockets[0].send(b"\0")

    def ensure_started(self) -> None:
        """Start the thread if `wake` could not: the process had no thread or no descriptor for it."""
        if self._is_wanted and self._thread is None:
            self.wake()

    def close(self, timeout_s: float) -> None:
        """Stop the thread, and wait for its end, for ``timeout_s`` at most."""
        with self._lock:
            self._closed.set()
            thread, sockets = self._thread, self._sockets
            self._sockets = None
        if thread is not None and sockets is not None:
            with suppress(OSError):
                sockets[0].send(b"\0")
            thread.join(timeout_s)  # it closes the sockets

    def reset_after_fork(self) -> None:
        """Drop the thread in the child of a fork: it exists only in the parent."""
        self._lock = threading.Lock()
        if self._sockets is not None:
            _close(self._sockets)
        self._thread, self._sockets = None, None
        self._is_wanted = False

    def _start(self) -> None:
        """Start the thread, under the lock. Without a descriptor or a thread, everything is as before."""
        sockets: tuple[socket.socket, socket.socket] | None = None
        try:
            sockets = socket.socketpair()
            for end in sockets:
                end.setblocking(False)
            self._thread = start_thread(self._run, args=[sockets], name="memoair-supervisor")
            self._sockets, self._is_missing = sockets, False
        except (OSError, ThreadUnavailableError) as error:
            if sockets is not None:
                _close(sockets)
            if not self._is_missing:  # every call tries again
                self._is_missing = True
                log.warning("runtimes are not watched: action=supervisor_not_started error=%s", type(error).__name__)

    def _run(self, sockets: tuple[socket.socket, socket.socket]) -> None:
        def supervise() -> bool:
            if not self._closed.is_set():
                self._supervise(sockets[1])
            return not self._closed.is_set()

        def report(error: Exception) -> None:
            log.warning("the runtimes could not be watched: action=supervision_failed error=%s", type(error).__name__)

        try:
            run_loop(supervise, report=report, wait=self._closed.wait)
        finally:
            _close(sockets)

    def _supervise(self, wake_socket: socket.socket) -> None:
        """Check everything once, and wait until there is something to check."""
        self._start_waiting_work()
        self._check_runtimes()
        backlog = self._pool.backlog
        if backlog is not None:
            backlog.ensure_running()
        handles = self._pool.handles()
        channels = [runtime.channel for runtime in _runtimes_of(handles) if runtime.channel is not None]
        channels += [backlog.channel] if backlog is not None and backlog.channel is not None else []
        with selectors.DefaultSelector() as selector:
            for channel in {*channels, wake_socket}:
                with suppress(ValueError, KeyError, OSError):  # closed at this moment
                    selector.register(channel, selectors.EVENT_READ)
            selector.select(self._wait_s(handles))
        with suppress(OSError):
            wake_socket.recv(1 << 10)

    def _start_waiting_work(self) -> None:
        # Not in the method that waits: its variables would keep an unclosed client alive.
        for work in list(self._pool.waiting_work):
            if work.is_waiting:
                work.start_waiting()

    def _check_runtimes(self) -> None:
        for handle in self._pool.handles():
            runtime = handle.runtime
            if runtime is None:
                continue
            if not handle.drop_dead_runtime() and (
                self._memory_limit_bytes is not None
                and runtime.is_ours
                and self._pool.idle_since(handle) is not None
                and _resident_bytes(runtime) > self._memory_limit_bytes
            ):
                log.warning(
                    "a runtime is over its memory limit and is replaced: action=runtime_large pid=%s", runtime.pid
                )
                handle.replace(runtime)
        if self._idle_ttl_s is not None:
            for handle in self._pool.handles():
                self._pool.evict(handle, unused_since=time.monotonic() - self._idle_ttl_s)

    def _wait_s(self, handles: list[RuntimeHandle]) -> float | None:
        """Return the time until the next check, or None if only an event requires one."""
        now, pauses = time.monotonic(), []
        if self._idle_ttl_s is not None:
            # No handle notifies the supervisor when it is released: one in use counts as released now at the earliest.
            idle_since = [self._pool.idle_since(handle) for handle in handles]
            pauses = [max(0.0, (now if since is None else since) + self._idle_ttl_s - now) for since in idle_since]
        if any(work.is_waiting for work in list(self._pool.waiting_work)):
            pauses.append(_THREAD_RETRY_INTERVAL_S)
        if handles and (self._memory_limit_bytes or any(runtime.channel is None for runtime in _runtimes_of(handles))):
            pauses.append(_POLL_INTERVAL_S)
        backlog = self._pool.backlog
        if backlog is not None and (restart_pause_s := backlog.restart_pause_s()) is not None:
            pauses.append(restart_pause_s)
        return min(pauses, default=None)


def _close(sockets: tuple[socket.socket, socket.socket]) -> None:
    for end in sockets:
        end.close()


def _runtimes_of(handles: list[RuntimeHandle]) -> list[StartedRuntime]:
    # Each handle is read once: another thread may drop its runtime at any moment.
    runtimes = [handle.runtime for handle in handles]
    return [runtime for runtime in runtimes if runtime is not None]


def _resident_bytes(runtime: StartedRuntime) -> int:
    try:
        return int(psutil.Process(runtime.pid).memory_info().rss)
    except psutil.Error:
        return 0
