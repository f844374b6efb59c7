"""The client side of the fork server: one warm process that forks a runtime when one is needed."""

import json
import os
import socket
import subprocess
import sys
import threading
import time
from contextlib import suppress

from memoair_voice_sync._processes.output import ProcessOutput
from memoair_voice_sync._processes.runtime_selection import python_executable
from memoair_voice_sync._processes.spawn import inherited_env, start_program
from memoair_voice_sync._processes.terminate import terminate_process
from memoair_voice_sync.errors import MemoAirVoiceMemoryError

# The fork server must have one thread only, since it forks; the libraries that it imports would start threads for work
# that it never does. With one malloc arena, more of its memory stays shared after a fork.
_SINGLE_THREAD_ENV = {
    "OPENBLAS_NUM_THREADS": "1",
    "OMP_NUM_THREADS": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "MALLOC_ARENA_MAX": "1",
}
_MAX_KNOWN_EXITS = 1_000
_POLL_INTERVAL_S = 0.01


def can_fork() -> bool:
    """Return whether forking is safe here: Windows has no fork, and on macOS system frameworks break after one."""
    return hasattr(os, "fork") and hasattr(socket, "send_fds") and sys.platform != "darwin"


class ForkServerClient:
    """A client of the fork server, which starts it on first use and again when it has died.

    Safe to use from any thread. With ``has_cloud`` the server also warms up the code that calls the cloud before it
    forks.
    """

    def __init__(self, *, has_cloud: bool = False) -> None:
        self._has_cloud = has_cloud
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._control: socket.socket | None = None
        self._output: ProcessOutput | None = None
        self._partial_line = b""
        self._exits: dict[int, int] = {}
        self._is_ready = False  # the server has warmed up

    def fork(self, environment: dict[str, str], ports: tuple[int, int] | None) -> socket.socket:
        """Request a runtime on one of the ports; return the socket on which it reports where it listens.

        Without ports, request a process that sends the backlog.

        Only the runtime receives the ``environment``. Raises ``runtime.start_failed`` if no fork server can be started.
        """
        try:
            local_end, remote_end = _connect_process()
        except OSError as error:
            raise _start_error(error) from error
        try:
            with remote_end:
                local_end.sendall(json.dumps(environment).encode() + b"\n")
                with self._lock:
                    self._send_request(remote_end, json.dumps({"ports": ports and list(ports)}).encode() + b"\n")
        except OSError as error:
            local_end.close()
            raise _start_error(error) from error
        return local_end

    def warm_up(self, deadline: float) -> None:
        """Start the server if it is not running, and wait until it can fork.

        Raises ``runtime.timeout`` at the deadline (monotonic seconds), or ``runtime.start_failed``.
        """
        has_started = False
        while True:
            with self._lock:
                if self._process is None or (self._process.poll() is not None and not has_started):
                    self._start_or_raise()
                has_started = True
                self._read_events()
                if self._is_ready:
                    return
                if self._process is None or self._process.poll() is not None:
                    output = "" if self._output is None else self._output.tail()
                    message = f"the fork server has exited; its last output: {output or '(none)'}"
                    raise MemoAirVoiceMemoryError("runtime.start_failed", message)
            if time.monotonic() >= deadline:
                raise MemoAirVoiceMemoryError("runtime.timeout", "the fork server is still starting")
            time.sleep(_POLL_INTERVAL_S)

    def exit_code(self, pid: int) -> int | None:
        """Return the exit code of a runtime, or None if the server has not reported one."""
        with self._lock:
            self._read_events()
            return self._exits.pop(pid, None)

    def relay(self) -> None:
        """Copy what the server and the runtimes have printed to the log."""
        with self._lock:
            if self._output is not None:
                self._output.relay()

    def kill(self) -> None:
        """Kill a server that hangs. Its runtimes go on; the next `fork` starts another server."""
        with self._lock:
            if self._process is not None:
                self._process.kill()
                self._process.wait()

    def close(self, timeout_s: float) -> None:
        """End the server, whose runtimes have ended already."""
        with self._lock:
            process, control, output = self._detach()
        if control is not None:
            control.close()
        if process is not None:
            with suppress(subprocess.TimeoutExpired):
                process.wait(timeout_s)  # it exits by itself after its last runtime
            terminate_process(process, 0)
        if output is not None:
            output.relay()
            output.close()

    def reset_after_fork(self) -> None:
        """Drop the server in the child of a fork: it belongs to the parent."""
        self._lock = threading.Lock()
        process, control, output = self._detach()
        if control is not None:
            control.close()  # otherwise the server would not notice the end of the parent while this process lives
        if output is not None:
            output.close()
        if process is not None:
            process.returncode = 0  # not a child of this process: it must not be waited for

    def _send_request(self, descriptor: socket.socket, request: bytes) -> None:
        if self._process is not None and self._process.poll() is None and self._control is not None:
            self._read_events()
            with suppress(OSError):  # it is about to exit
                socket.send_fds(self._control, [request], [descriptor.fileno()])
                return
        self._start()
        assert self._control is not None  # noqa: S101 - a started server has one
        socket.send_fds(self._control, [request], [descriptor.fileno()])

    def _start_or_raise(self) -> None:
        try:
            self._start()
        except OSError as error:
            raise _start_error(error) from error

    def _start(self) -> None:
        process, control, output = self._detach()
        if control is not None:
            control.close()
        if process is not None:
            terminate_process(process, 0)
        if output is not None:
            output.relay()
            output.close()
        self._output = ProcessOutput()
        self._control, remote_end = _connect_process()
        with remote_end:
            python = python_executable() or sys.executable
            options = ["--with-cloud"] if self._has_cloud else []
            command = [python, "-m", "memoair_runtime.fork_server", *options]
            environment = inherited_env() | _SINGLE_THREAD_ENV
            self._process = start_program(command, environment, self._output.file, remote_end.fileno())

    def _read_events(self) -> None:
        """Read what the server has reported: that it is ready, and exit codes of runtimes."""
        if self._control is None:
            return
        # Not by MSG_DONTWAIT: a socket of gevent waits in spite of the flag.
        self._control.setblocking(False)
        try:
            while content := self._control.recv(1 << 16):
                *lines, self._partial_line = (self._partial_line + content).split(b"\n")
                for line in lines:
                    event = json.loads(line)
                    if event.get("event") == "ready":
                        self._is_ready = True
                    else:
                        self._exits[event["pid"]] = event["exitCode"]
        except OSError:
            pass  # nothing more to read, or the server is gone
        finally:
            self._control.setblocking(True)
        while len(self._exits) > _MAX_KNOWN_EXITS:
            del self._exits[next(iter(self._exits))]

    def _detach(self) -> tuple[subprocess.Popen[bytes] | None, socket.socket | None, ProcessOutput | None]:
        detached = self._process, self._control, self._output
        self._process, self._control, self._output, self._partial_line = None, None, None, b""
        self._is_ready = False
        return detached


def _start_error(error: OSError) -> MemoAirVoiceMemoryError:
    return MemoAirVoiceMemoryError("runtime.start_failed", f"the fork server could not be started: {error.strerror}")


def _connect_process() -> tuple[socket.socket, socket.socket]:
    """Return our end of a connection to another process, and the end to pass to it."""
    local_end, remote_end = socket.socketpair()
    # With gevent and eventlet every socket is non-blocking, which is inherited: the process would read EAGAIN, and take
    # it for the end of the client.
    os.set_blocking(remote_end.fileno(), True)
    return local_end, remote_end
