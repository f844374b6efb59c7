"""How a runtime comes to run on a port of a range: forked by a host, or started as a program of its own."""

import socket
import time
from collections.abc import Set as AbstractSet
from typing import Any, Protocol

import attrs

from memoair_voice_sync._errors import MemoAirVoiceMemoryError
from memoair_voice_sync._fork_server_client import ForkServerClient, can_fork
from memoair_voice_sync._log import log
from memoair_voice_sync._output import ProcessOutput
from memoair_voice_sync._ports import PortRange
from memoair_voice_sync._probe import check_runtime
from memoair_voice_sync._runtime_resolver import RuntimeResolver
from memoair_voice_sync._runtimes import (
    ForkedRuntime,
    SharedRuntime,
    StartedRuntime,
    SubprocessRuntime,
    birth_of,
    borrow,
    hear_of_start,
)
from memoair_voice_sync._spec import RuntimeSpec, start_program
from memoair_voice_sync._transport import RuntimeTransport, RuntimeUnreachableError

_HOST = "127.0.0.1"
_EXIT_ADDRESS = 3  # with this exit code a runtime says that it could not have its port
# A host that has not forked by then hangs. Its own start takes half a second, many times that on a busy machine.
_FORK_S = 5.0
_POLL_S = 0.01
_PROBE_S = 1.0
# A runtime that we want no more may for so long be known as the one that serves the caller; then another serves beside.
_LEASE_S = 1.0


class Launcher(Protocol):
    """Starts runtimes. Safe to use from any thread."""

    def launch(self, spec: RuntimeSpec, deadline: float, unwanted: AbstractSet[int]) -> StartedRuntime:
        """Start a runtime, or find the one that serves the caller already, by the deadline (monotonic seconds).

        ``unwanted`` are the process ids of runtimes that are being ended, or that hang: none of them is returned.
        Raises ``pool.port_exhausted``, ``runtime.start_failed`` or ``runtime.not_found``.
        """

    def exit_code(self, runtime: StartedRuntime) -> int | None:
        """With which code a runtime has ended, where that is known."""

    def close(self, timeout_s: float) -> None:
        """End what starts them; they have ended before."""

    def forget(self) -> None:
        """After a fork, in the child: all of it is the parent's."""


def launcher_for(source: RuntimeResolver, ports: PortRange, *, have_cloud: bool) -> Launcher:
    """The launcher for what was chosen: the host where it can serve, which is many times as fast."""
    return (
        ForkServerLauncher(ports, have_cloud=have_cloud)
        if can_fork() and source.can_be_forked
        else SubprocessLauncher(ports, source)
    )


class ForkServerLauncher:
    """Has runtimes forked by a host, which is started at the first need."""

    def __init__(self, ports: PortRange, *, have_cloud: bool = False) -> None:
        self._ports = ports
        self._host = ForkServerClient(have_cloud=have_cloud)
        self._starting: set[socket.socket] = set()  # to runtimes that have not told yet where they listen

    def launch(self, spec: RuntimeSpec, deadline: float, unwanted: AbstractSet[int]) -> StartedRuntime:
        """Have a runtime forked; see `Launcher`."""
        patience, pause_s = time.monotonic() + _LEASE_S, _POLL_S
        while True:
            started = self._fork(spec, deadline)
            if started is not None and started.pid not in unwanted:
                return started
            if time.monotonic() > patience:
                spec = attrs.evolve(spec, shares=False)
            time.sleep(pause_s)  # who holds the lease is about to end, or hangs
            pause_s *= 2

    def _fork(self, spec: RuntimeSpec, deadline: float) -> StartedRuntime | None:
        channel = self._host.fork(spec.environment(f"{_HOST}:0"), self._ports.bounds)
        self._starting.add(channel)
        told: dict[str, Any] | None = None
        try:
            told = hear_of_start(channel, min(deadline, time.monotonic() + _FORK_S))
        finally:
            self._starting.discard(channel)
            if told is None or told["event"] != "listening":
                channel.close()
            self._host.relay()
        if told is None:
            if time.monotonic() < deadline:  # its runtimes live on without it
                log.warning("the runtime host does not answer and is replaced: action=host_hung")
                self._host.kill()
                return None
            message = "the runtime did not say in time where it listens"
            raise MemoAirVoiceMemoryError("runtime.start_failed", message)
        if told["event"] == "failed":
            raise self._refused(told)
        if told["event"] == "leased":
            return borrow(told)
        transport = RuntimeTransport(_HOST, told["port"], spec.token)
        return ForkedRuntime(transport, spec.session_id, told["pid"], birth_of(told["pid"]), channel)

    def exit_code(self, runtime: StartedRuntime) -> int | None:
        """With which code a runtime has ended."""
        return self._host.exit_code(runtime.pid)

    def close(self, timeout_s: float) -> None:
        """End the host."""
        self._host.close(timeout_s)

    def forget(self) -> None:
        """After a fork, in the child: the host is the parent's, and so are the runtimes that are starting."""
        self._host.forget()
        while self._starting:
            self._starting.pop().close()

    def _refused(self, told: dict[str, Any]) -> MemoAirVoiceMemoryError:
        if told["code"] == "pool.port_exhausted":
            return self._ports.exhausted()
        return MemoAirVoiceMemoryError(str(told["code"]), f"the runtime could not start: {told.get('message')}")


class SubprocessLauncher:
    """Starts a program for each runtime, and asks it whether it is ready."""

    def __init__(self, ports: PortRange, source: RuntimeResolver) -> None:
        self._ports = ports
        self._source = source
        self._starting: set[SubprocessRuntime] = set()

    def launch(self, spec: RuntimeSpec, deadline: float, unwanted: AbstractSet[int]) -> StartedRuntime:
        """Start the program; see `Launcher`."""
        command = self._source.command()
        if command is None:  # it was there when the pool looked, and has been removed
            raise MemoAirVoiceMemoryError("runtime.start_failed", self._source.status())
        patience = time.monotonic() + _LEASE_S
        for port in self._ports.free():
            started = self._start(command, spec, port, deadline)
            if started is not None and started.pid not in unwanted:
                return started
            if time.monotonic() > patience:
                spec = attrs.evolve(spec, shares=False)
        raise self._ports.exhausted()

    def _start(self, command: list[str], spec: RuntimeSpec, port: int, deadline: float) -> StartedRuntime | None:
        """Start a program on a port, and wait until it answers; None where somebody else was faster with the port."""
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

    def exit_code(self, runtime: StartedRuntime) -> int | None:
        """With which code a program has ended."""
        return runtime.process.returncode if isinstance(runtime, SubprocessRuntime) else None

    def close(self, timeout_s: float) -> None:
        """There is nothing to end but the runtimes."""

    def forget(self) -> None:
        """After a fork, in the child: the runtimes that are starting are the parent's."""
        while self._starting:
            self._starting.pop().forget()


def _wait_until_ready(runtime: SubprocessRuntime, spec: RuntimeSpec, deadline: float) -> StartedRuntime | None:
    """Wait until a program answers; None where somebody else was faster with the port."""
    process, output = runtime.process, runtime.output
    while process.poll() is None:
        if (borrowed := _borrowed(output)) is not None:
            return borrowed
        try:
            until = min(deadline, time.monotonic() + _PROBE_S)
            check_runtime(runtime.transport, spec.project_id, spec.user_id, until)
        except (RuntimeUnreachableError, MemoAirVoiceMemoryError) as error:
            if isinstance(error, MemoAirVoiceMemoryError) and error.code == "runtime.identity_mismatch":
                return None
        else:
            output.relay()
            return runtime
        if time.monotonic() >= deadline:
            message = "the runtime did not answer its health check in time"
            raise MemoAirVoiceMemoryError("runtime.start_failed", message, details={"output": output.tail()})
        time.sleep(_POLL_S)
    borrowed = _borrowed(output)
    if borrowed is not None or process.returncode == _EXIT_ADDRESS:
        return borrowed
    last_words = output.tail()
    message = f"the runtime exited with code {process.returncode} before it answered; its last output: {last_words}"
    details = {"exitCode": process.returncode, "output": last_words}
    raise MemoAirVoiceMemoryError("runtime.start_failed", message, details=details)


def _borrowed(output: ProcessOutput) -> SharedRuntime | None:
    told = output.announced("leased")
    return borrow(told) if told is not None else None
