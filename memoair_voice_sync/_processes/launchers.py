"""Two ways to start a runtime on a port of a range: forked by the fork server, or as a program."""

import socket
import sys
import time
from collections.abc import Set as AbstractSet
from pathlib import Path
from typing import Any, Protocol

import attrs

from memoair_protocol.processes import EXIT_PORT_TAKEN, process_start_time
from memoair_voice_sync._diagnostics import log
from memoair_voice_sync._loopback.transport import RuntimeTransport, RuntimeUnreachableError
from memoair_voice_sync._processes.backlog_process import (
    BacklogProcess,
    ForkedBacklogProcess,
    SubprocessBacklogProcess,
)
from memoair_voice_sync._processes.fork_server_client import ForkServerClient, can_fork
from memoair_voice_sync._processes.output import ProcessOutput
from memoair_voice_sync._processes.ports import PortRange
from memoair_voice_sync._processes.runtime_resolver import RuntimeResolver
from memoair_voice_sync._processes.spawn import start_program
from memoair_voice_sync._processes.spec import RuntimeSpec
from memoair_voice_sync._processes.started_runtime import (
    ForkedRuntime,
    SharedRuntime,
    StartedRuntime,
    SubprocessRuntime,
    runtime_from_lease,
    wait_for_start_event,
)
from memoair_voice_sync.errors import MemoAirVoiceMemoryError

_HOST = "127.0.0.1"
# A fork server that has not forked by then hangs. Its own start takes half a second, many times that on a busy machine.
_FORK_TIMEOUT_S = 5.0
_POLL_INTERVAL_S = 0.01
_PROBE_TIMEOUT_S = 1.0
# A runtime that is being ended may hold the user's lease for so long. After that, the new one does not share the user.
_LEASE_WAIT_S = 1.0


class Launcher(Protocol):
    """A way to start runtimes. Safe to use from any thread."""

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

    def __init__(self, ports: PortRange, *, has_cloud: bool = False) -> None:
        self._ports = ports
        self._fork_server = ForkServerClient(has_cloud=has_cloud)
        self._starting: set[socket.socket] = set()  # to runtimes that have not reported yet where they listen

    def launch(self, spec: RuntimeSpec, deadline: float, excluded_pids: AbstractSet[int]) -> StartedRuntime:
        """Fork a runtime; see `Launcher`."""
        share_until, pause_s = time.monotonic() + _LEASE_WAIT_S, _POLL_INTERVAL_S
        while True:
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
        try:
            event = wait_for_start_event(channel, min(deadline, time.monotonic() + _FORK_TIMEOUT_S))
        finally:
            self._starting.discard(channel)
            if event is None or event["event"] != "listening":
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
        if event["event"] == "leased":
            return runtime_from_lease(event)
        transport = RuntimeTransport(_HOST, event["port"], spec.token)
        return ForkedRuntime(transport, spec.session_id, event["pid"], process_start_time(event["pid"]), channel)

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
        return self._fork_server.exit_code(runtime.pid)

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


class SubprocessLauncher:
    """A launcher that starts a program for each runtime and polls until it is ready."""

    def __init__(self, ports: PortRange, resolver: RuntimeResolver) -> None:
        self._ports = ports
        self._resolver = resolver
        self._starting: set[SubprocessRuntime] = set()

    def launch(self, spec: RuntimeSpec, deadline: float, excluded_pids: AbstractSet[int]) -> StartedRuntime:
        """Start the program; see `Launcher`."""
        command = self._resolver.command()
        if command is None:  # it was removed after the pool had found it
            raise MemoAirVoiceMemoryError("runtime.start_failed", self._resolver.status())
        share_until = time.monotonic() + _LEASE_WAIT_S
        for port in self._ports.iter_free():
            started = self._start(command, spec, port, deadline)
            if started is not None and started.pid not in excluded_pids:
                return started
            if time.monotonic() > share_until:
                spec = attrs.evolve(spec, is_shared=False)
        raise self._ports.exhausted_error()

    def _start(self, command: list[str], spec: RuntimeSpec, port: int, deadline: float) -> StartedRuntime | None:
        """Start a program on a port and wait until it answers; return None if another process took the port first."""
        output = ProcessOutput()
        try:
            process = start_program(command, spec.environment(f"{_HOST}:{port}"), output.file)
        except MemoAirVoiceMemoryError:
            output.close()
            raise
        runtime = SubprocessRuntime(RuntimeTransport(_HOST, port, spec.token), spec.session_id, process, output)
        self._starting.add(runtime)
        started: StartedRuntime | None = None
        try:
            started = _wait_until_ready(runtime, spec, deadline)
        finally:
            self._starting.discard(runtime)
            if started is not runtime:
                runtime.end(0)
        return started

    def warm_up(self, deadline: float) -> None:
        """Do nothing: every runtime is a program of its own."""

    def start_backlog(self, spec: RuntimeSpec, deadline: float) -> BacklogProcess | None:  # noqa: ARG002
        """Start the program that sends the backlog; see `Launcher`."""
        if not self._resolver.is_bundled:
            return None  # a runtime of another version may have another format of logs
        output = ProcessOutput()
        try:
            command = [sys.executable, "-m", "memoair_runtime.backlog_process"]
            return SubprocessBacklogProcess(start_program(command, spec.environment(f"{_HOST}:0"), output.file), output)
        except MemoAirVoiceMemoryError:
            output.close()
            raise

    def exit_code(self, runtime: StartedRuntime) -> int | None:
        """Return the exit code of a program, or None if it is unknown."""
        return runtime.process.returncode if isinstance(runtime, SubprocessRuntime) else None

    def close(self, timeout_s: float) -> None:
        """Do nothing: there is nothing to end besides the runtimes."""

    def reset_after_fork(self) -> None:
        """Drop the starting runtimes in the child of a fork: they belong to the parent."""
        while self._starting:
            self._starting.pop().reset_after_fork()


def _wait_until_ready(runtime: SubprocessRuntime, spec: RuntimeSpec, deadline: float) -> StartedRuntime | None:
    """Wait until a program answers; return None if another process took the port first."""
    process, output = runtime.process, runtime.output
    while process.poll() is None:
        if (shared := _announced_shared_runtime(output)) is not None:
            return shared
        try:
            probe_deadline = min(deadline, time.monotonic() + _PROBE_TIMEOUT_S)
            runtime.transport.verify_identity(spec.project_id, spec.user_id, probe_deadline)
        except (RuntimeUnreachableError, MemoAirVoiceMemoryError) as error:
            if isinstance(error, MemoAirVoiceMemoryError) and error.code == "runtime.identity_mismatch":
                return None
        else:
            output.relay()
            return runtime
        if time.monotonic() >= deadline:
            message = "the runtime did not answer its health check in time"
            raise MemoAirVoiceMemoryError("runtime.start_failed", message, details={"output": output.tail()})
        time.sleep(_POLL_INTERVAL_S)
    shared = _announced_shared_runtime(output)
    if shared is not None or process.returncode == EXIT_PORT_TAKEN:
        return shared
    last_output = output.tail()
    message = f"the runtime exited with code {process.returncode} before it answered; its last output: {last_output}"
    details = {"exitCode": process.returncode, "output": last_output}
    raise MemoAirVoiceMemoryError("runtime.start_failed", message, details=details)


def _announced_shared_runtime(output: ProcessOutput) -> SharedRuntime | None:
    lease = output.find_event("leased")
    return runtime_from_lease(lease) if lease is not None else None
