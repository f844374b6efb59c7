"""Runtimes that are programs: each on a port of a range, or the one at an address that the application has named."""

import sys
import time
from collections.abc import Set as AbstractSet

import attrs
import psutil
import urllib3

from memoair_protocol.processes import EXIT_PORT_TAKEN
from memoair_voice_sync._closing import closed_error
from memoair_voice_sync._loopback.transport import ConnectionBrokenError, RuntimeTransport, RuntimeUnreachableError
from memoair_voice_sync._processes.backlog_process import BacklogProcess, SubprocessBacklogProcess
from memoair_voice_sync._processes.output import ProcessOutput
from memoair_voice_sync._processes.ports import PortRange, find_port_owner
from memoair_voice_sync._processes.runtime_resolver import RuntimeResolver
from memoair_voice_sync._processes.spawn import start_program
from memoair_voice_sync._processes.spec import RuntimeSpec
from memoair_voice_sync._processes.started_runtime import (
    AttachedRuntime,
    SharedRuntime,
    StartedRuntime,
    SubprocessRuntime,
    runtime_from_lease,
)
from memoair_voice_sync.errors import MemoAirVoiceMemoryError

_HOST = "127.0.0.1"
_POLL_INTERVAL_S = 0.01
_PROBE_TIMEOUT_S = 1.0
# A runtime that is being ended may hold the user's lease for so long. After that, the new one does not share the user.
LEASE_WAIT_S = 1.0


class _ProgramStarter:
    """Starts programs and waits until they answer. Safe to use from any thread."""

    def __init__(self) -> None:
        self._starting: set[SubprocessRuntime] = set()
        self._is_cancelled = False

    @property
    def starting_pid(self) -> int | None:
        """The process id of a program that does not answer yet, or None."""
        return next((runtime.pid for runtime in list(self._starting) if runtime.is_alive()), None)

    def start(
        self, command: list[str], spec: RuntimeSpec, address: tuple[str, int], deadline: float
    ) -> StartedRuntime | None:
        """Start a program at an address and wait until it answers; return None if another process took the port first.

        With port 0 the program chooses a port and reports it. Raises ``runtime.start_failed`` or ``pool.closed``.
        """
        host, port = address
        output = ProcessOutput()
        try:
            process = start_program(command, spec.environment(_join(host, port)), output.file)
        except BaseException:
            output.close()
            raise
        runtime = SubprocessRuntime(RuntimeTransport(host, port, spec.token), spec.session_id, process, output)
        self._starting.add(runtime)
        started: StartedRuntime | None = None
        try:
            started = self._wait_until_ready(runtime, spec, host, deadline)
        finally:
            self._starting.discard(runtime)
            if started is not runtime:
                runtime.end(0)
        return started

    def cancel(self) -> None:
        """Let every `start` raise ``pool.closed``, now and from now on."""
        self._is_cancelled = True

    def raise_if_cancelled(self) -> None:
        """Raise ``pool.closed`` after `cancel`."""
        if self._is_cancelled:
            raise closed_error()

    def reset_after_fork(self) -> None:
        """Drop the starting runtimes in the child of a fork: they belong to the parent."""
        while self._starting:
            self._starting.pop().reset_after_fork()

    def _wait_until_ready(
        self, runtime: SubprocessRuntime, spec: RuntimeSpec, host: str, deadline: float
    ) -> StartedRuntime | None:
        process, output = runtime.process, runtime.output
        while process.poll() is None:
            self.raise_if_cancelled()
            if (shared := _announced_shared_runtime(output)) is not None:
                return shared
            if not runtime.transport.port and (port := output.listening_port()):
                runtime.transport = RuntimeTransport(host, port, spec.token)
            try:
                if runtime.transport.port:
                    _probe(runtime.transport, spec, deadline)
                    output.relay()
                    return runtime
            except (RuntimeUnreachableError, MemoAirVoiceMemoryError) as error:
                if isinstance(error, MemoAirVoiceMemoryError) and error.code == "runtime.identity_mismatch":
                    return None
            if time.monotonic() >= deadline:
                message = "the runtime did not answer its health check in time"
                raise MemoAirVoiceMemoryError("runtime.start_failed", message, details={"output": output.tail()})
            time.sleep(_POLL_INTERVAL_S)
        shared = _announced_shared_runtime(output)
        if shared is not None or process.returncode == EXIT_PORT_TAKEN:
            return shared
        code, last_output = process.returncode, output.tail()
        message = f"the runtime exited with code {code} before it answered; its last output: {last_output or '(none)'}"
        details = {"exitCode": code, "output": last_output}
        raise MemoAirVoiceMemoryError("runtime.start_failed", message, details=details)


class _ProgramLauncher:
    """What launchers have in common whose runtimes are programs."""

    def __init__(self) -> None:
        self._starter = _ProgramStarter()

    def warm_up(self, deadline: float) -> None:
        """Do nothing: every runtime is a program of its own."""

    def exit_code(self, runtime: StartedRuntime) -> int | None:
        """Return the exit code of a program, or None if it is unknown."""
        return runtime.process.returncode if isinstance(runtime, SubprocessRuntime) else None

    def cancel_starts(self) -> None:
        """Let every start raise ``pool.closed``."""
        self._starter.cancel()

    def close(self, timeout_s: float) -> None:
        """Do nothing: there is nothing to end besides the runtimes."""

    def reset_after_fork(self) -> None:
        """Drop the starting runtimes in the child of a fork: they belong to the parent."""
        self._starter.reset_after_fork()


class SubprocessLauncher(_ProgramLauncher):
    """A launcher that starts a program for each runtime and polls until it is ready."""

    needs_program = True

    def __init__(self, ports: PortRange, resolver: RuntimeResolver) -> None:
        super().__init__()
        self._ports = ports
        self._resolver = resolver

    def find_running(self, spec: RuntimeSpec) -> StartedRuntime | None:  # noqa: ARG002
        """Return None: a program that is started finds the runtime that serves its user."""
        return None

    def launch(self, spec: RuntimeSpec, deadline: float, excluded_pids: AbstractSet[int]) -> StartedRuntime:
        """Start the program; see `Launcher`."""
        command = _command(self._resolver)
        share_until = time.monotonic() + LEASE_WAIT_S
        for port in self._ports.iter_free():
            started = self._starter.start(command, spec, (_HOST, port), deadline)
            if started is not None and started.pid not in excluded_pids:
                return started
            if time.monotonic() > share_until:
                spec = attrs.evolve(spec, is_shared=False)
        raise self._ports.exhausted_error()

    def start_backlog(self, spec: RuntimeSpec, deadline: float) -> BacklogProcess | None:  # noqa: ARG002
        """Start the program that sends the backlog; see `Launcher`."""
        if not self._resolver.is_bundled:
            return None  # a runtime of another version may have another format of logs
        output = ProcessOutput()
        try:
            command = [sys.executable, "-m", "memoair_runtime.backlog_process"]
            return SubprocessBacklogProcess(start_program(command, spec.environment(f"{_HOST}:0"), output.file), output)
        except BaseException:
            output.close()
            raise


class AddressLauncher(_ProgramLauncher):
    """A launcher for the one runtime at an address: it uses the one that listens there, or else starts a program.

    With port 0 no other process can know the port: then it always starts a program, which chooses one.

    Args:
        address: The loopback host and port.
        token: The token that the runtime requires.
        resolver: Finds the program. None means that none is started.
        connection_pool: The connections to use for a runtime that is not started here.
    """

    def __init__(
        self,
        address: tuple[str, int],
        token: str | None,
        resolver: RuntimeResolver | None,
        connection_pool: urllib3.HTTPConnectionPool | None = None,
    ) -> None:
        super().__init__()
        self._address = address
        self._token = token
        self._resolver = resolver
        self._connection_pool = connection_pool

    @property
    def url(self) -> str:
        """The URL of the address."""
        return f"http://{_join(*self._address)}"

    @property
    def starting_pid(self) -> int | None:
        """The process id of a program that does not answer yet, or None."""
        return self._starter.starting_pid

    @property
    def needs_program(self) -> bool:
        """Whether a program is started if no runtime listens."""
        return self._resolver is not None

    def find_running(self, spec: RuntimeSpec) -> StartedRuntime | None:
        """Return the runtime that listens at the address, if it serves the user of ``spec``.

        Raises ``runtime.identity_mismatch`` if the runtime of another user listens.
        """
        try:
            return self._attach(spec, time.monotonic() + _PROBE_TIMEOUT_S) if self._address[1] else None
        except (RuntimeUnreachableError, MemoAirVoiceMemoryError) as error:
            if isinstance(error, MemoAirVoiceMemoryError) and error.code == "runtime.identity_mismatch":
                raise
            return None

    def launch(self, spec: RuntimeSpec, deadline: float, excluded_pids: AbstractSet[int]) -> StartedRuntime:
        """Attach to the runtime at the address, or start it; see `Launcher`."""
        spec = attrs.evolve(spec, token=self._token, session_id=None, is_shared=False)
        has_lost_race = False
        while True:
            self._starter.raise_if_cancelled()
            attached, is_free = self._try_to_attach(spec, deadline, excluded_pids)
            if attached is not None:
                return attached
            if is_free and self._resolver is not None:
                started = self._starter.start(_command(self._resolver), spec, self._address, deadline)
                if started is not None:
                    return started
                if has_lost_race and not _any_exists(excluded_pids):
                    raise self._port_taken_error()
                has_lost_race = True  # perhaps to another client of the same user: see who listens
            if time.monotonic() >= deadline:
                raise MemoAirVoiceMemoryError("runtime.timeout", f"the runtime at {self.url} did not answer in time")
            time.sleep(_POLL_INTERVAL_S)

    def start_backlog(self, spec: RuntimeSpec, deadline: float) -> BacklogProcess | None:  # noqa: ARG002
        """Return None: the runtime of one user sends what this user has said, and nothing else."""
        return None

    def _attach(self, spec: RuntimeSpec, deadline: float) -> AttachedRuntime:
        transport = RuntimeTransport(*self._address, self._token, self._connection_pool)
        try:
            _probe(transport, spec, deadline)
        except BaseException:
            transport.close()
            raise
        return AttachedRuntime(transport)

    def _try_to_attach(
        self, spec: RuntimeSpec, deadline: float, excluded_pids: AbstractSet[int]
    ) -> tuple[AttachedRuntime | None, bool]:
        """Return the runtime that listens, if there is one, and whether the address is free to start one.

        Neither is so while a runtime is shutting down: its port will be free in a moment.
        """
        if not self._address[1]:
            return None, True
        try:
            return self._attach(spec, deadline), False
        except ConnectionBrokenError as error:
            cause: Exception = error
            problem = (
                MemoAirVoiceMemoryError("runtime.internal", str(error))
                if self._resolver is None
                else self._port_taken_error()
            )
        except RuntimeUnreachableError as error:
            if self._resolver is not None:
                return None, True
            message = f"no runtime listens at {self.url}; start voice-runtime, or set auto_start_runtime=True"
            raise MemoAirVoiceMemoryError("runtime.start_failed", message) from error
        except MemoAirVoiceMemoryError as error:
            if error.code == "runtime.identity_mismatch":
                raise
            is_slow = self._resolver is None and error.code == "runtime.timeout"
            if error.code == "runtime.draining" or is_slow:
                return None, False
            problem, cause = (error if self._resolver is None else self._port_taken_error()), error
        if _any_exists(excluded_pids):  # one of them may be what listens, and does not answer any more
            return None, False
        raise problem from cause

    def _port_taken_error(self) -> MemoAirVoiceMemoryError:
        port = self._address[1]
        owner = find_port_owner(port)
        problem = f"port {port} is taken by {owner}, which does not answer as a runtime"
        message = f"{problem}; use another runtime_url, or port 0 for a free port"
        return MemoAirVoiceMemoryError("runtime.start_failed", message, details={"port": port, "holder": owner})


def _probe(transport: RuntimeTransport, spec: RuntimeSpec, deadline: float) -> None:
    transport.verify_identity(spec.project_id, spec.user_id, min(deadline, time.monotonic() + _PROBE_TIMEOUT_S))


def _command(resolver: RuntimeResolver) -> list[str]:
    command = resolver.command()
    if command is None:  # it was removed after the pool had found it
        raise MemoAirVoiceMemoryError("runtime.start_failed", resolver.status())
    return command


def _announced_shared_runtime(output: ProcessOutput) -> SharedRuntime | None:
    lease = output.find_event("leased")
    return runtime_from_lease(lease) if lease is not None else None


def _any_exists(pids: AbstractSet[int]) -> bool:
    return any(psutil.pid_exists(pid) for pid in pids)


def _join(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
