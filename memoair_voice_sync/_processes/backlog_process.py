"""The client side of the backlog process, which sends the unsent turns of all users of the project on this machine."""

import json
import socket
import subprocess
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

import attrs
import psutil

from memoair_protocol.private_files import read_private_file
from memoair_protocol.processes import process_start_time
from memoair_voice_sync._processes.output import ProcessOutput
from memoair_voice_sync._processes.terminate import terminate_process, terminate_tree

# What the process may take for a last attempt when the client is closed.
STOP_TIMEOUT_S = 2.5


class BacklogProcess(Protocol):
    """A running backlog process."""

    @property
    def channel(self) -> socket.socket | None:
        """A socket that becomes readable when the process exits, or None."""

    @property
    def status_file(self) -> Path | None:
        """The file with the status of the backlog; None if it is not known yet."""

    def is_alive(self) -> bool:
        """Return whether the process exists."""

    def request_stop(self) -> None:
        """Let the process make a last attempt and end."""

    def end(self, timeout_s: float) -> None:
        """Wait until the process has ended; kill it after ``timeout_s``."""

    def reset_after_fork(self) -> None:
        """Drop the process in the child of a fork: it belongs to the parent."""


@attrs.define(eq=False)
class ForkedBacklogProcess:
    """A backlog process that the fork server started. It ends when our end of the channel closes."""

    channel: socket.socket
    pid: int
    process_started_at: float | None
    status_file: Path | None

    def is_alive(self) -> bool:
        """Return whether the process exists."""
        try:
            return bool(self.channel.recv(1, socket.MSG_PEEK))
        except BlockingIOError:
            return True
        except OSError:
            return False

    def request_stop(self) -> None:
        """Let the process make a last attempt and end."""
        with suppress(OSError):
            self.channel.shutdown(socket.SHUT_WR)

    def end(self, timeout_s: float) -> None:
        """Wait until the process has ended; kill it after ``timeout_s``."""
        self.request_stop()
        has_ended = False
        with suppress(OSError):
            self.channel.settimeout(max(0.001, timeout_s))
            has_ended = not self.channel.recv(1)
        if not has_ended and process_start_time(self.pid) == self.process_started_at:
            with suppress(psutil.Error):
                terminate_tree(psutil.Process(self.pid), 0)
        self.channel.close()

    def reset_after_fork(self) -> None:
        """Close the channel in the child of a fork."""
        self.channel.close()


@attrs.define(eq=False)
class SubprocessBacklogProcess:
    """A backlog process that was started as a program. It ends when its standard input closes."""

    process: subprocess.Popen[bytes]
    output: ProcessOutput
    channel: socket.socket | None = None

    @property
    def status_file(self) -> Path | None:
        """The file with the status of the backlog; None if it is not known yet."""
        event = self.output.find_event("backlog")
        return None if event is None else Path(event["statusFile"])

    def is_alive(self) -> bool:
        """Return whether the process exists."""
        return self.process.poll() is None

    def request_stop(self) -> None:
        """Let the process make a last attempt and end."""
        if self.process.stdin is not None:
            with suppress(OSError):
                self.process.stdin.close()

    def end(self, timeout_s: float) -> None:
        """Wait until the process has ended; kill it after ``timeout_s``."""
        self.request_stop()
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(timeout_s)
        terminate_process(self.process, 0)
        self.output.relay()
        self.output.close()

    def reset_after_fork(self) -> None:
        """Drop the process and its pipe in the child of a fork."""
        self.request_stop()
        self.process.returncode = 0  # not a child of this process: it must not be waited for
        self.output.close()


def read_backlog(path: Path | None) -> dict[str, Any] | None:
    """Return the status of the backlog for `MemoAirVoiceClientSync.stats`; None if it is unknown."""
    if path is None:
        return None
    try:
        status = json.loads(read_private_file(path))
        oldest_at = status["oldestAt"]
        return {
            "turns": status["turns"],
            "users": status["users"],
            "oldest_s": None if oldest_at is None else max(0.0, time.time() - oldest_at),
            "refused_events": status["refused"],
            "sync": status["state"],
        }
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
