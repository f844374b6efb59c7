"""How runtimes are started, and the fastest way: forked by the fork server, each on a port of a range."""

import socket
import time
from collections.abc import Set as AbstractSet
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

import attrs

from memoair_protocol.processes import process_start_time
from memoair_voice_sync._closing import closed_error
from memoair_voice_sync._diagnostics import log
from memoair_voice_sync._loopback.transport import RuntimeTransport
from memoair_voice_sync._processes.backlog_process import BacklogProcess, ForkedBacklogProcess
from memoair_voice_sync._processes.fork_server_client import ForkServerClient, can_fork
from memoair_voice_sync._processes.ports import PortRange
from memoair_voice_sync._processes.program_launchers import LEASE_WAIT_S, SubprocessLauncher
from memoair_voice_sync._processes.runtime_resolver import RuntimeResolver
from memoair_voice_sync._processes.spec import RuntimeSpec
from memoair_voice_sync._processes.started_runtime import (
    ForkedRuntime,
    StartedRuntime,
    runtime_from_lease,
    wait_for_start_event,
)
from memoair_voice_sync.errors import MemoAirVoiceMemoryError

_HOST = "127.0.0.1"
# A fork server that has not forked by then hangs. Its own start takes half a second, many times that on a busy machine.
_FORK_TIMEOUT_S = 5.0
_POLL_INTERVAL_S = 0.01


class Launcher(Protocol):
    """A way to start runtimes. Safe to use from any thread."""

    @property
    def needs_program(self) -> bool:
        """Whether the selected runtime must be there, or be pulled, before one can be started."""

    def find_running(self, spec: RuntimeSpec) -> StartedRuntime | None:
        """Return a runtime of the user that runs already and can be used before the program is pulled, if any."""

    def launch(self, spec: RuntimeSpec, deadline: float, excluded_pids: AbstractSet[int]) -> StartedRuntime:
        """Start a runtime by the deadline (monotonic seconds), or return the one that serves the user already.

        Never returns a runtime in ``excluded_pids``: those are being ended, or hang. Raises ``pool.port_exhausted``,
        ``runtime.start_failed`` or ``runtime.not_found``.
        """

    def warm_up(self, deadline: float) -> None:
        """Prepare by the deadline (monotonic seconds) what all runtimes share. Raises the error of a start."""

    def start_backlog(self, spec: RuntimeSpec, deadline: float) -> BacklogProcess | None:
        """Start the process that sends the backlog; None if the selected runtime has none.

        Raises ``runtime.start_failed``.
        """

    def exit_code(self, runtime: StartedRuntime) -> int | None:
        """Return the exit code of a runtime, or None if it is unknown."""

    def cancel_starts(self) -> None:
        """Let every start raise ``pool.closed``, now and from now on, and leave no process of it behind."""

    def close(self, timeout_s: float) -> None:
        """End what starts runtimes. The runtimes have ended already."""

    def reset_after_fork(self) -> None:
        """Drop everything in the child of a fork: it belongs to the parent."""


def launcher_for(resolver: RuntimeResolver, ports: PortRange, *, has_cloud: bool) -> Launcher:
    """Return the launcher for the selected runtime: the fork server if it can start it, which is much faster."""
    return (
        ForkServerLauncher(ports, has_cloud=has_cloud)
        if can_fork() and resolver.can_be_forked
        else SubprocessLauncher(ports, resolver)
    )


class ForkServerLauncher:
    """A launcher whose runtimes are forked by the fork server."""

    needs_program = True

    def __init__(self, ports: PortRange, *, has_cloud: bool = False) -> None:
        self._ports = ports
        self._fork_server = ForkServerClient(has_cloud=has_cloud)
        self._starting: set[socket.socket] = set()  # to runtimes that have not reported yet where they listen
        self._is_cancelled = False

    def find_running(self, spec: RuntimeSpec) -> StartedRuntime | None:  # noqa: ARG002
        """Return None: a runtime that is forked finds the one that serves its user."""
        return None

    def launch(self, spec: RuntimeSpec, deadline: float, excluded_pids: AbstractSet[int]) -> StartedRuntime:
        """Fork a runtime; see `Launcher`."""
        share_until, pause_s = time.monotonic() + LEASE_WAIT_S, _POLL_INTERVAL_S
        while True:
            if self._is_cancelled:
                raise closed_error()
            started = self._fork(spec, deadline)
            if started is not None and started.pid not in excluded_pids:
                return started
            if time.monotonic() > share_until:
                spec = attrs.evolve(spec, is_shared=False)
            time.sleep(pause_s)  # the runtime that holds the lease is about to end, or hangs
            pause_s *= 2

    def _fork(self, spec: RuntimeSpec, deadline: float) -> StartedRuntime | None:
        channel = self._fork_server.fork(spec.environment(f"{_HOST}:0"), self._ports.bounds)
        self._starting.add(channel)
        event: dict[str, Any] | None = None
        runtime: ForkedRuntime | None = None
        try:
            event = wait_for_start_event(channel, min(deadline, time.monotonic() + _FORK_TIMEOUT_S))
            if event is not None and event["event"] == "listening":
                transport, pid = RuntimeTransport(_HOST, event["port"], spec.token), event["pid"]
                runtime = ForkedRuntime(transport, spec.session_id, pid, process_start_time(pid), channel)
                return runtime
        finally:
            self._starting.discard(channel)
            if runtime is None:
                channel.close()
            self._fork_server.relay()
        if event is None:
            if time.monotonic() < deadline:  # its runtimes go on without it
                log.warning("the fork server does not answer and is replaced: action=host_hung")
                self._fork_server.kill()
                return None
            message = "the runtime did not report in time where it listens"
            raise MemoAirVoiceMemoryError("runtime.start_failed", message)
        if event["event"] == "failed":
            raise self._start_error(event)
        return runtime_from_lease(event)

    def warm_up(self, deadline: float) -> None:
        """Start the fork server and wait until it can fork."""
        self._fork_server.warm_up(deadline)

    def start_backlog(self, spec: RuntimeSpec, deadline: float) -> BacklogProcess | None:
        """Fork the process that sends the backlog; see `Launcher`."""
        channel = self._fork_server.fork(spec.environment(f"{_HOST}:0"), None)
        self._starting.add(channel)
        event: dict[str, Any] | None = None
        try:
            event = wait_for_start_event(channel, deadline)
        finally:
            self._starting.discard(channel)
            if event is None or event["event"] != "backlog":
                channel.close()
        if event is None or event["event"] != "backlog":
            raise MemoAirVoiceMemoryError("runtime.start_failed", "the backlog process did not start")
        pid = event["pid"]
        return ForkedBacklogProcess(channel, pid, process_start_time(pid), Path(event["statusFile"]))

    def exit_code(self, runtime: StartedRuntime) -> int | None:
        """Return the exit code of a runtime, or None if it is unknown."""
        return None if runtime.pid is None else self._fork_server.exit_code(runtime.pid)

    def cancel_starts(self) -> None:
        """Let every start raise ``pool.closed``: a runtime exits when our end of its socket closes."""
        self._is_cancelled = True
        for channel in list(self._starting):
            with suppress(OSError):
                channel.shutdown(socket.SHUT_RDWR)

    def close(self, timeout_s: float) -> None:
        """End the fork server."""
        self._fork_server.close(timeout_s)

    def reset_after_fork(self) -> None:
        """Drop the fork server and the starting runtimes in the child of a fork: they belong to the parent."""
        self._fork_server.reset_after_fork()
        while self._starting:
            self._starting.pop().close()

    def _start_error(self, event: dict[str, Any]) -> MemoAirVoiceMemoryError:
        if event["code"] == "pool.port_exhausted":
            return self._ports.exhausted_error()
        return MemoAirVoiceMemoryError(str(event["code"]), f"the runtime could not start: {event.get('message')}")
