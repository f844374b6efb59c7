"""The runtime of a memory without a client: a pool with one place, which the memory has for as long as it lives."""

import urllib3

from memoair_voice_sync._after_fork import check_process
from memoair_voice_sync._closing import closed_error
from memoair_voice_sync._loopback.transport import RuntimeTransport
from memoair_voice_sync._pool.handle import HandleState, RuntimeHandle
from memoair_voice_sync._pool.pool import RuntimePool
from memoair_voice_sync._processes.program_launchers import AddressLauncher
from memoair_voice_sync._processes.runtime_resolver import RuntimeResolver
from memoair_voice_sync._processes.spec import RuntimeSpec


class PoolOfOne:
    """A `RuntimePool` for one user, whose runtime listens at an address that the application has named.

    A runtime of the user that already listens there is used and left running. Otherwise it is started on first use,
    watched, replaced when it has died or hangs, and ended. Safe to use from any thread, and after a fork.

    Args:
        spec: What the runtime is started with, its user included.
        address: The loopback host and port. With port 0 the runtime chooses a port.
        starts_runtime: Whether to start a runtime if none listens.
        connection_pool: The connections to use for a runtime that is not started here.
    """

    def __init__(
        self,
        spec: RuntimeSpec,
        address: tuple[str, int],
        *,
        starts_runtime: bool = True,
        connection_pool: urllib3.HTTPConnectionPool | None = None,
    ) -> None:
        self._user_id = spec.user_id
        self._handle: RuntimeHandle | None = None
        self._is_closed = False

        def make_launcher(resolver: RuntimeResolver) -> AddressLauncher:
            used_resolver = resolver if starts_runtime else None
            self._launcher = AddressLauncher(address, spec.token, used_resolver, connection_pool)
            return self._launcher

        self._pool = RuntimePool(spec, max_concurrent_users=1, runtime_idle_ttl_s=None, make_launcher=make_launcher)

    def __repr__(self) -> str:
        state = HandleState.IDLE if self._handle is None else self._handle.state
        return f"<PoolOfOne {state.value} pid={self.pid} url={self._launcher.url}>"

    @property
    def pid(self) -> int | None:
        """The process id, or None if the process was not started here or is not running."""
        runtime = None if self._handle is None else self._handle.runtime
        if runtime is None:
            return self._launcher.starting_pid
        return runtime.pid if runtime.is_ours and runtime.is_alive() else None

    @property
    def needs_close(self) -> bool:
        """Whether `stop` has threads or processes to end."""
        return self._pool.needs_close

    def ensure_running(self, deadline: float) -> RuntimeTransport:
        """Return the transport to a running runtime by the deadline (monotonic seconds); start one if needed.

        Raises ``runtime.not_found``, ``runtime.start_failed`` with the last output of the process,
        ``runtime.identity_mismatch`` if the runtime of another user listens, ``runtime.timeout`` at the deadline: the
        start, or the pull before it, then goes on, and the next call continues from there.
        """
        check_process()
        if self._is_closed:
            raise closed_error("memory")
        handle = self._handle
        if handle is None or handle.state is HandleState.ENDED:  # ended by a fork of this process
            handle = self._handle = self._pool.acquire(self._user_id, pins=True)
        return handle.ensure_running(deadline)

    def mark_unreachable(self, transport: RuntimeTransport) -> None:
        """Drop a runtime that refused a connection or is shutting down: the next call starts another."""
        if self._handle is not None:
            self._handle.mark_unreachable(transport)

    def mark_timed_out(self, transport: RuntimeTransport) -> None:
        """Record that the runtime did not answer a call in time. After a while without answers it is replaced."""
        if self._handle is not None:
            self._handle.mark_timed_out(transport)

    def mark_responsive(self, transport: RuntimeTransport) -> None:
        """Record that the runtime answered a call."""
        if self._handle is not None:
            self._handle.mark_responsive(transport)

    def stop(self, timeout_s: float) -> None:
        """End and reap the process that was started here: SIGTERM, after ``timeout_s`` SIGKILL with its children."""
        self._is_closed = True
        self._pool.close(timeout_s)
