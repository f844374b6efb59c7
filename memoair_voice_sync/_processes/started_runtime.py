"""Running runtimes: forked by the fork server, started as a program, or started by another process.

Each class knows whether its runtime is alive and how to end it. None of them restarts anything.
"""

import json
import os
import socket
import subprocess
import time
from contextlib import suppress
from typing import Any, Protocol

import attrs
import psutil

from memoair_protocol.addresses import is_loopback
from memoair_protocol.processes import is_own_process, process_start_time
from memoair_voice_sync._loopback.transport import RuntimeTransport
from memoair_voice_sync._processes.output import ProcessOutput
from memoair_voice_sync._processes.terminate import terminate_process, terminate_tree
from memoair_voice_sync.errors import MemoAirVoiceMemoryError

# The time that a runtime may take to flush and drain.
DRAIN_TIMEOUT_S = 7.0
# The further time after SIGTERM, if it has not exited by then.
_TERM_TIMEOUT_S = 2.0
_MAX_EVENT_BYTES = 1 << 16


class StartedRuntime(Protocol):
    """What the pool needs of a running runtime. ``session_id`` is the session that it was started for, if any."""

    transport: RuntimeTransport
    session_id: str | None
    is_ours: bool

    @property
    def pid(self) -> int | None:
        """The process id, or None if it is not known."""

    @property
    def channel(self) -> "socket.socket | ExitChannel | None":
        """What becomes readable when the runtime exits, or None."""

    def is_alive(self) -> bool:
        """Return whether the process exists, as far as is known; a stopped (SIGSTOP) one does."""

    def end(self, timeout_s: float) -> None:
        """Let the runtime drain, then kill it with its children after ``timeout_s``. Leave a shared one running.

        Raises OSError if this process is at a limit, and can then be called again.
        """

    def reset_after_fork(self) -> None:
        """Drop the runtime in the child of a fork: it belongs to the parent."""


class ExitChannel:
    """A descriptor that becomes readable when a child process exits."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    @classmethod
    def of(cls, pid: int) -> "ExitChannel | None":
        """Return the channel of a child process; None where the system has none, so that the process is polled."""
        try:
            return cls(os.pidfd_open(pid)) if hasattr(os, "pidfd_open") else None
        except OSError:
            return None

    def fileno(self) -> int:
        """Return the descriptor, or -1 after `close`."""
        return self._descriptor

    def close(self) -> None:
        """Close the descriptor. Calling it again has no effect."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)


@attrs.define(eq=False)
class AttachedRuntime:
    """A runtime of the same user that listens at an address which the application has named."""

    transport: RuntimeTransport
    session_id: str | None = None
    pid: int | None = None
    is_ours: bool = False
    channel: socket.socket | None = None

    def is_alive(self) -> bool:
        """Return True: only a call shows whether it still listens."""
        return True

    def end(self, timeout_s: float) -> None:  # noqa: ARG002 - there is nothing to wait for
        """Close the connections to the runtime."""
        self.transport.close()

    def reset_after_fork(self) -> None:
        """Close the connections in the child of a fork: they belong to the parent."""
        self.transport.close()


@attrs.define(eq=False)
class SharedRuntime(AttachedRuntime):
    """A runtime of the same user that another client started."""

    process_started_at: float = attrs.field(kw_only=True)

    def is_alive(self) -> bool:
        """Return whether the process exists; True also if this process is at a limit and cannot look."""
        try:
            return self.pid is not None and process_start_time(self.pid) == self.process_started_at
        except OSError:
            return True


@attrs.define(eq=False)
class ForkedRuntime:
    """A runtime that the fork server started. Its socket closes when it exits, and it exits when our end closes."""

    transport: RuntimeTransport
    session_id: str | None
    pid: int
    process_started_at: float | None
    channel: socket.socket
    is_ours: bool = True

    def is_alive(self) -> bool:
        """Return whether the process exists."""
        try:
            return bool(self.channel.recv(1, socket.MSG_PEEK))
        except BlockingIOError:
            return True
        except OSError:
            return False

    def end(self, timeout_s: float) -> None:
        """Let the runtime drain, then kill it with its children after ``timeout_s``."""
        with suppress(OSError):
            self.channel.shutdown(socket.SHUT_WR)
        if not _wait_until_closed(self.channel, timeout_s) and process_start_time(self.pid) == self.process_started_at:
            with suppress(psutil.Error):
                terminate_tree(psutil.Process(self.pid), min(timeout_s, _TERM_TIMEOUT_S))
        self.channel.close()
        self.transport.close()

    def reset_after_fork(self) -> None:
        """Close the socket in the child of a fork, or the runtime would not notice the end of the parent."""
        self.channel.close()
        self.transport.close()


@attrs.define(eq=False)
class SubprocessRuntime:
    """A runtime that was started as a program."""

    transport: RuntimeTransport
    session_id: str | None
    process: subprocess.Popen[bytes]
    output: ProcessOutput
    is_ours: bool = True
    channel: ExitChannel | None = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        """Open the channel that shows the exit of the program."""
        self.channel = ExitChannel.of(self.process.pid)

    @property
    def pid(self) -> int:
        """The process id."""
        return self.process.pid

    def is_alive(self) -> bool:
        """Return whether the process exists."""
        return self.process.poll() is None

    def end(self, timeout_s: float) -> None:
        """Let the runtime drain, then kill it with its children after ``timeout_s``."""
        terminate_process(self.process, timeout_s)
        self._close_channel()
        self.output.relay()
        self.output.close()
        self.transport.close()

    def reset_after_fork(self) -> None:
        """Drop the process and its pipe in the child of a fork: they belong to the parent."""
        if self.process.stdin is not None:
            self.process.stdin.close()
        self.process.returncode = 0  # not a child of this process: it must not be waited for
        self._close_channel()
        self.output.close()
        self.transport.close()

    def _close_channel(self) -> None:
        if self.channel is not None:
            self.channel.close()


def runtime_from_lease(lease: dict[str, Any]) -> SharedRuntime | None:
    """Return the runtime that a lease names, or None if it has exited, or is not of this user and this machine.

    The runtime that reports a lease has checked it, unless the runtime is of an earlier version.
    """
    is_ours = is_loopback(lease["host"]) and 0 < lease["port"] < 1 << 16 and is_own_process(lease["pid"])
    if not is_ours or process_start_time(lease["pid"]) != lease["createTime"]:
        return None
    transport = RuntimeTransport(lease["host"], lease["port"], lease["token"])
    return SharedRuntime(transport, lease["sessionId"], lease["pid"], process_started_at=lease["createTime"])


def _wait_until_closed(channel: socket.socket, timeout_s: float) -> bool:
    """Wait for the other end to close, which it does when its process exits; return whether it has closed."""
    try:
        channel.settimeout(max(0.001, timeout_s))
        return not channel.recv(1)
    except TimeoutError:
        return False
    except OSError:
        return True


def wait_for_start_event(channel: socket.socket, deadline: float) -> dict[str, Any] | None:
    """Wait until a forked runtime reports its start; return None at the deadline (monotonic seconds)."""
    received = b""
    while not received.endswith(b"\n"):
        remaining_s = deadline - time.monotonic()
        try:
            channel.settimeout(max(0.001, remaining_s))
            content = channel.recv(_MAX_EVENT_BYTES)
        except TimeoutError:
            return None
        except OSError:
            content = b""
        if not content:
            raise MemoAirVoiceMemoryError(
                "runtime.start_failed", "the runtime exited before it reported where it listens"
            )
        received += content
    channel.setblocking(False)  # from now on it is only polled
    event: dict[str, Any] = json.loads(received)
    return event
