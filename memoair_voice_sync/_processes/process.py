"""The runtime of a memory without a pool: a process, from its start to its end, or one that was started elsewhere."""

import subprocess
import threading
import time
from collections.abc import Sequence
from enum import Enum
from typing import NamedTuple, Protocol

from memoair_protocol.processes import EXIT_PORT_TAKEN
from memoair_voice_sync._after_fork import check_process, register_after_fork
from memoair_voice_sync._diagnostics import log
from memoair_voice_sync._loopback.transport import ConnectionBrokenError, RuntimeTransport, RuntimeUnreachableError
from memoair_voice_sync._processes.output import ProcessOutput
from memoair_voice_sync._processes.ports import find_port_owner
from memoair_voice_sync._processes.runtime_resolver import RuntimeResolver
from memoair_voice_sync._processes.spawn import start_program
from memoair_voice_sync._processes.spec import RuntimeSpec
from memoair_voice_sync._processes.terminate import terminate_process
from memoair_voice_sync.errors import MemoAirVoiceMemoryError

# A process that has not answered its health check within this time after its start has failed.
START_TIMEOUT_S = 15.0
TERM_TIMEOUT_S = 2.0
# A process that accepts calls and has answered none of them for this long hangs, and is replaced.
UNRESPONSIVE_AFTER_S = 5.0
_POLL_INTERVAL_S = 0.01
_PROBE_TIMEOUT_S = 1.0
# The message of a memory that is used after `close`.
_MEMORY_CLOSED = "the memory is closed"


class RuntimeManager(Protocol):
    """What a memory needs of the object that starts its runtime. One can serve several memories of the same user."""

    def ensure_running(self, deadline: float) -> RuntimeTransport:
        """Return the transport to a running runtime by the deadline (monotonic seconds); start one if needed."""

    def mark_unreachable(self, transport: RuntimeTransport) -> None:
        """Record that the runtime of this transport refused a connection or is shutting down."""

    def mark_timed_out(self, transport: RuntimeTransport) -> None:
        """Record that the runtime accepted a call and did not answer in time."""

    def mark_responsive(self, transport: RuntimeTransport) -> None:
        """Record that the runtime answered a call."""

    @property
    def pid(self) -> int | None:
        """The process id of the runtime, or None if it was not started here or is not running."""

    def stop(self, timeout_s: float) -> None:
        """End the runtime if it was started here."""


class ProcessState(Enum):
    """The state of the process, as seen from here."""

    IDLE = "idle"  # no process: none was started yet, or it is gone
    STARTING = "starting"  # started, but has not answered yet
    RUNNING = "running"  # started here, and answers
    SUSPECT = "suspect"  # refused a connection: it is shutting down, or will answer again
    ATTACHED = "attached"  # a process that was started elsewhere and serves the same user
    STOPPED = "stopped"  # ended permanently; starts no more processes


class _ProcessResources(NamedTuple):
    """The resources that belong to one process."""

    process: subprocess.Popen[bytes] | None
    transport: RuntimeTransport | None
    output: ProcessOutput | None

    def close(self, *, relay_output: bool = True) -> None:
        """Close our ends of all resources, after the process has ended or in the child of a fork."""
        if self.process is not None and self.process.stdin is not None:
            self.process.stdin.close()
        if self.transport is not None:
            self.transport.close()
        if self.output is not None:
            if relay_output:
                self.output.relay()
            self.output.close()


class RuntimeProcess:
    """A runtime process that is started on first use, watched, restarted when it has died, and ended.

    With port 0 the runtime chooses a free port and reports it. A runtime of the same user that already listens on the
    port is used and left running. The runtime exits by itself when this process ends, in whatever way: its standard
    input closes then. Safe to use from any thread.
    """

    def __init__(self, spec: RuntimeSpec, host: str, port: int) -> None:
        self._spec = spec
        self._resolver = RuntimeResolver(spec.selection())
        self._host = host
        self._requested_port = port
        self._lock = threading.Lock()
        self._state = ProcessState.IDLE
        self._process: subprocess.Popen[bytes] | None = None
        self._output: ProcessOutput | None = None
        self._started_at = 0.0
        self._lost_port_race = False  # the last start found the port taken
        self._unresponsive_since: float | None = None  # when the first of the calls without an answer timed out
        self._transport: RuntimeTransport | None = None
        register_after_fork(self, RuntimeProcess._reset_after_fork)

    def __repr__(self) -> str:
        pid = self._process.pid if self._process else None
        return f"<RuntimeProcess {self._state.value} pid={pid} host={self._host} port={self._requested_port}>"

    @property
    def pid(self) -> int | None:
        """The process id, or None if the process was not started here or is not running."""
        process = self._process
        return process.pid if process is not None and process.poll() is None else None

    def ensure_running(self, deadline: float) -> RuntimeTransport:
        """Return the transport to a running runtime by the deadline (monotonic seconds); start one if needed.

        Raises ``runtime.not_found``, ``runtime.start_failed`` with the last output of the process,
        ``runtime.identity_mismatch`` if the runtime of another user listens, ``runtime.timeout`` at the deadline: the
        start, or the pull before it, then goes on, and the next call continues from there.
        """
        check_process()
        transport, process = self._transport, self._process
        is_running = self._state is ProcessState.RUNNING and process is not None and process.poll() is None
        if is_running and transport is not None and not self._is_unresponsive():
            return transport
        while True:
            # One thread at a time takes the next step, which may be a request. The others wait until their deadlines.
            if not self._lock.acquire(timeout=max(0.0, deadline - time.monotonic())):
                break
            try:
                transport = self._advance(deadline)
            finally:
                self._lock.release()
            if transport is not None:
                return transport
            if time.monotonic() >= deadline:
                break
            time.sleep(_POLL_INTERVAL_S)
        raise MemoAirVoiceMemoryError("runtime.timeout", self._resolver.status())

    def mark_unreachable(self, transport: RuntimeTransport) -> None:
        """Check the runtime before the next call: it refused a connection or is shutting down."""
        with self._lock:
            if transport is not self._transport:
                return  # the runtime was replaced already
            if self._state is ProcessState.RUNNING:
                self._state = ProcessState.SUSPECT
            if self._state is ProcessState.ATTACHED and self._transport is not None:
                self._transport.close()
                self._state, self._transport = ProcessState.IDLE, None

    def mark_timed_out(self, transport: RuntimeTransport) -> None:
        """Record that the runtime did not answer a call in time. After a while without answers it is replaced."""
        if self._unresponsive_since is None and transport is self._transport:
            self._unresponsive_since = time.monotonic()

    def mark_responsive(self, transport: RuntimeTransport) -> None:  # noqa: ARG002 - at worst it is checked once more
        """Record that the runtime answered a call."""
        self._unresponsive_since = None

    def stop(self, timeout_s: float = TERM_TIMEOUT_S) -> None:
        """End and reap the process that was started here: SIGTERM, after ``timeout_s`` SIGKILL with its children."""
        with self._lock:
            self._state = ProcessState.STOPPED
            resources = self._detach()
        self._resolver.close()
        if resources.process is not None:
            terminate_process(resources.process, timeout_s)
        resources.close()

    def _advance(self, deadline: float) -> RuntimeTransport | None:
        """Take the next step towards a running process, under the lock; return its transport if it is running."""
        if self._state is ProcessState.STOPPED:
            raise MemoAirVoiceMemoryError("pool.closed", _MEMORY_CLOSED)
        if self._state is ProcessState.IDLE:
            command = self._resolver.command()
            if self._requested_port and self._attach(self._requested_port, deadline):
                return self._transport
            if command is not None:  # otherwise it is being pulled
                self._spawn(command)
            return None
        if self._state is ProcessState.ATTACHED:
            return self._transport
        assert self._process is not None  # noqa: S101 - the remaining states have one
        if self._is_unresponsive():
            log.warning(
                "a runtime has not answered for %.0f s and is replaced: action=runtime_hung", UNRESPONSIVE_AFTER_S
            )
            terminate_process(self._process, 0)
        if self._process.poll() is not None:
            self._handle_exit(self._process.returncode)
            return None
        if self._state is ProcessState.RUNNING:
            return self._transport
        return self._poll_start(deadline)

    def _attach(self, port: int, deadline: float) -> bool:
        """Use a runtime that already listens, if it serves the same user; return whether one listens.

        A runtime that is shutting down counts as listening: its port will be free in a moment.
        """
        transport = RuntimeTransport(self._host, port, self._spec.token)
        try:
            self._probe(transport, deadline)
        except ConnectionBrokenError:
            transport.close()
            raise self._port_taken_error(port) from None
        except RuntimeUnreachableError:
            transport.close()
            return False
        except MemoAirVoiceMemoryError as error:
            transport.close()
            if error.code == "runtime.draining":
                return True
            if error.code == "runtime.identity_mismatch":
                raise
            raise self._port_taken_error(port) from None
        self._transport, self._state = transport, ProcessState.ATTACHED
        self._lost_port_race = False
        return True

    def _spawn(self, command: Sequence[str]) -> None:
        address = f"[{self._host}]" if ":" in self._host else self._host
        self._output = ProcessOutput()
        try:
            environment = self._spec.environment(f"{address}:{self._requested_port}")
            self._process = start_program(command, environment, self._output.file)
        except MemoAirVoiceMemoryError:
            self._output.close()
            self._output = None
            raise
        self._started_at = time.monotonic()
        self._state = ProcessState.STARTING

    def _poll_start(self, deadline: float) -> RuntimeTransport | None:
        """Check whether the process answers by now."""
        port = self._requested_port or (self._output.listening_port() if self._output else None)
        if port:
            transport = self._transport or RuntimeTransport(self._host, port, self._spec.token)
            try:
                self._probe(transport, deadline)
            except (RuntimeUnreachableError, MemoAirVoiceMemoryError) as error:
                transport.close()
                if isinstance(error, MemoAirVoiceMemoryError) and error.code == "runtime.identity_mismatch":
                    raise
            else:
                self._transport, self._state = transport, ProcessState.RUNNING
                self._lost_port_race = False
                self._unresponsive_since = None
                if self._output is not None:
                    self._output.relay()
                return transport
        if self._state is ProcessState.STARTING and time.monotonic() - self._started_at > START_TIMEOUT_S:
            output = self._output_tail()
            self._state = ProcessState.IDLE
            resources = self._detach()
            if resources.process is not None:
                terminate_process(resources.process, 0)
            resources.close()
            message = f"the runtime did not answer its health check within {START_TIMEOUT_S:.0f} s"
            raise MemoAirVoiceMemoryError("runtime.start_failed", message, details={"output": output})
        return None

    def _handle_exit(self, exit_code: int) -> None:
        """Clean up after a process that has exited: during the start that is an error, later it is restarted."""
        was_starting = self._state is ProcessState.STARTING
        output = self._output_tail()
        self._unresponsive_since = None
        self._state = ProcessState.IDLE
        self._detach().close()
        if not was_starting:
            log.warning("a runtime has died and is restarted: action=runtime_died exit_code=%s", exit_code)
            return
        if exit_code == EXIT_PORT_TAKEN and self._requested_port and not self._lost_port_race:
            self._lost_port_race = True  # perhaps to another client of the same user: check again who listens
            return
        if exit_code == EXIT_PORT_TAKEN:
            raise self._port_taken_error(self._requested_port)
        message = f"the runtime exited with code {exit_code} before it answered; its last output: {output or '(none)'}"
        raise MemoAirVoiceMemoryError(
            "runtime.start_failed", message, details={"exitCode": exit_code, "output": output}
        )

    def _probe(self, transport: RuntimeTransport, deadline: float) -> None:
        probe_deadline = min(deadline, time.monotonic() + _PROBE_TIMEOUT_S)
        transport.verify_identity(self._spec.project_id, self._spec.user_id, probe_deadline)

    def _port_taken_error(self, port: int) -> MemoAirVoiceMemoryError:
        owner = find_port_owner(port)
        problem = f"port {port} is taken by {owner}, which does not answer as a runtime"
        message = f"{problem}; use another runtime_url, or port 0 for a free port"
        return MemoAirVoiceMemoryError("runtime.start_failed", message, details={"port": port, "holder": owner})

    def _detach(self) -> _ProcessResources:
        resources = _ProcessResources(self._process, self._transport, self._output)
        self._process, self._transport, self._output = None, None, None
        return resources

    def _output_tail(self) -> str:
        return self._output.tail() if self._output is not None else ""

    def _is_unresponsive(self) -> bool:
        since = self._unresponsive_since
        return since is not None and time.monotonic() - since > UNRESPONSIVE_AFTER_S

    def _reset_after_fork(self) -> None:
        """Drop the process, its pipe and its connections in the child of a fork: they belong to the parent."""
        self._lock = threading.Lock()
        if self._state is not ProcessState.STOPPED:
            self._state = ProcessState.IDLE
        resources = self._detach()
        # The pipe must close here, too, or the runtime would not notice the end of the parent while this process lives.
        resources.close(relay_output=False)
        if resources.process is not None:
            resources.process.returncode = 0  # not a child of this process: it must not be waited for


class AttachedRuntime:
    """Access to a runtime at a given address. Its identity is checked before anything is sent to it."""

    def __init__(self, transport: RuntimeTransport, project_id: str, user_id: str, url: str) -> None:
        self._transport = transport
        self._project_id, self._user_id = project_id, user_id
        self._url = url
        self._is_verified = False
        self._is_closed = False

    pid: int | None = None  # the process is not ours

    def ensure_running(self, deadline: float) -> RuntimeTransport:
        """Return the transport to the runtime; raise ``runtime.start_failed`` if none listens."""
        if self._is_closed:
            raise MemoAirVoiceMemoryError("pool.closed", _MEMORY_CLOSED)
        if not self._is_verified:
            try:
                self._transport.verify_identity(self._project_id, self._user_id, deadline)
            except ConnectionBrokenError as error:
                raise MemoAirVoiceMemoryError("runtime.internal", str(error)) from error
            except RuntimeUnreachableError as error:
                message = f"no runtime listens at {self._url}; start voice-runtime, or set auto_start_runtime=True"
                raise MemoAirVoiceMemoryError("runtime.start_failed", message) from error
            self._is_verified = True
        return self._transport

    def mark_unreachable(self, transport: RuntimeTransport) -> None:  # noqa: ARG002 - there is only one
        """Check the identity again before the next call: another runtime may listen there by then."""
        self._is_verified = False

    def mark_timed_out(self, transport: RuntimeTransport) -> None:
        """Do nothing: only the process that started the runtime can replace it."""

    def mark_responsive(self, transport: RuntimeTransport) -> None:
        """Do nothing."""

    def stop(self, timeout_s: float) -> None:  # noqa: ARG002
        """Close the connections and leave the runtime running."""
        self._is_closed = True
        self._transport.close()
