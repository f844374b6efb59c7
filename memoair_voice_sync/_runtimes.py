"""A runtime that runs: ours, forked by the host or started as a program, or another client's that we may use.

Each knows whether it lives and how it ends; none starts anything again.
"""

import json
import socket
import subprocess
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

import attrs
import psutil

from memoair_voice_sync._errors import MemoAirVoiceMemoryError
from memoair_voice_sync._output import ProcessOutput
from memoair_voice_sync._terminate import terminate_process, terminate_tree
from memoair_voice_sync._transport import RuntimeTransport

# How long a runtime may take to flush and drain.
DRAIN_TIMEOUT_S = 7.0
# And after SIGTERM, where it has not by then.
_TERM_TIMEOUT_S = 2.0
_MAX_EVENT_BYTES = 1 << 16
_HAS_PROC = Path("/proc/self/stat").is_file()


class StartedRuntime(Protocol):
    """What the pool needs of a runtime that runs. ``session_id`` is the call that it was started for, if any."""

    transport: RuntimeTransport
    session_id: str | None
    is_ours: bool

    @property
    def pid(self) -> int:
        """The process id."""

    @property
    def channel(self) -> socket.socket | None:
        """What can be waited for to become readable, which it does when the runtime ends; None where there is none."""

    def is_alive(self) -> bool:
        """Whether the process runs; one that is stopped does."""

    def end(self, timeout_s: float) -> None:
        """Let it drain, and make it end after so long, with its children. One that is not ours is let alone."""

    def reset_after_fork(self) -> None:
        """After a fork, in the child: it is the parent's."""


@attrs.define(eq=False)
class SharedRuntime:
    """Another client's runtime of the same caller."""

    transport: RuntimeTransport
    session_id: str | None
    pid: int
    process_started_at: float
    is_ours: bool = False
    channel: socket.socket | None = None

    def is_alive(self) -> bool:
        """Whether the process runs."""
        return process_start_time(self.pid) == self.process_started_at

    def end(self, timeout_s: float) -> None:  # noqa: ARG002 - there is nothing to wait for
        """Close our connections to it."""
        self.transport.close()

    def reset_after_fork(self) -> None:
        """After a fork, in the child: nothing is shared with the parent but connections."""
        self.transport.close()


@attrs.define(eq=False)
class ForkedRuntime:
    """A runtime that the host forked for us. Its socket closes when it ends, and it ends when ours closes."""

    transport: RuntimeTransport
    session_id: str | None
    pid: int
    process_started_at: float | None
    channel: socket.socket
    is_ours: bool = True

    def is_alive(self) -> bool:
        """Whether the process runs."""
        try:
            return bool(self.channel.recv(1, socket.MSG_PEEK))
        except BlockingIOError:
            return True
        except OSError:
            return False

    def end(self, timeout_s: float) -> None:
        """Let it drain, and make it end after so long, with its children."""
        with suppress(OSError):
            self.channel.shutdown(socket.SHUT_WR)
        if not _wait_until_closed(self.channel, timeout_s) and process_start_time(self.pid) == self.process_started_at:
            with suppress(psutil.Error):
                terminate_tree(psutil.Process(self.pid), min(timeout_s, _TERM_TIMEOUT_S))
        self.channel.close()
        self.transport.close()

    def reset_after_fork(self) -> None:
        """After a fork, in the child: the runtime must see the parent end while this process lives."""
        self.channel.close()
        self.transport.close()


@attrs.define(eq=False)
class SubprocessRuntime:
    """A program that we started."""

    transport: RuntimeTransport
    session_id: str | None
    process: subprocess.Popen[bytes]
    output: ProcessOutput
    is_ours: bool = True
    channel: socket.socket | None = None

    @property
    def pid(self) -> int:
        """The process id."""
        return self.process.pid

    def is_alive(self) -> bool:
        """Whether the process runs."""
        return self.process.poll() is None

    def end(self, timeout_s: float) -> None:
        """Let it drain, and make it end after so long, with its children."""
        terminate_process(self.process, timeout_s)
        self.output.relay()
        self.output.close()
        self.transport.close()

    def reset_after_fork(self) -> None:
        """After a fork, in the child: the process and its pipe are the parent's."""
        if self.process.stdin is not None:
            self.process.stdin.close()
        self.process.returncode = 0  # not ours to wait for
        self.output.close()
        self.transport.close()


def shared_runtime(lease: dict[str, Any]) -> SharedRuntime | None:
    """The runtime that a lease tells of; None where it has ended meanwhile."""
    if process_start_time(lease["pid"]) != lease["createTime"]:
        return None
    transport = RuntimeTransport(lease["host"], lease["port"], lease["token"])
    return SharedRuntime(transport, lease["sessionId"], lease["pid"], lease["createTime"])


def process_start_time(pid: int) -> float | None:
    """When a process was born, by a clock that nobody sets, if the system has one; None where there is no such process.

    As `memoair_runtime.storage.lease` tells it.
    """
    try:
        if _HAS_PROC:  # in ticks since the boot; psutil adds a moment to it that moves with the clock
            return float(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])
        return psutil.Process(pid).create_time()
    except (OSError, ValueError, IndexError, psutil.Error):
        return None


def _wait_until_closed(channel: socket.socket, timeout_s: float) -> bool:
    """Wait so long for the other end to close, which it does when its process ends; tell whether it has."""
    try:
        channel.settimeout(max(0.001, timeout_s))
        return not channel.recv(1)
    except TimeoutError:
        return False
    except OSError:
        return True


def wait_for_start_event(channel: socket.socket, deadline: float) -> dict[str, Any] | None:
    """Wait until a forked runtime tells what became of it; None at the deadline (monotonic seconds)."""
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
            raise MemoAirVoiceMemoryError("runtime.start_failed", "the runtime ended before it said where it listens")
        received += content
    channel.setblocking(False)  # from now on it is only looked at
    event: dict[str, Any] = json.loads(received)
    return event
