"""The backlog process of a client, which is started with the first runtime and again if it has died."""

import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from memoair_voice_sync._diagnostics import log
from memoair_voice_sync._processes.backlog_process import STOP_TIMEOUT_S, BacklogProcess, read_backlog
from memoair_voice_sync.errors import MemoAirVoiceMemoryError

_START_TIMEOUT_S = 5.0
# One that dies at once is not started again and again.
RESTART_PAUSE_S = 5.0


class BacklogSupervisor:
    """Keeps one backlog process running until it is closed. Safe to use from any thread.

    Args:
        start: Starts the process until a deadline (monotonic seconds). Returns None if the selected runtime has none.
    """

    def __init__(self, start: Callable[[float], BacklogProcess | None]) -> None:
        self._start = start
        self._lock = threading.Lock()
        self._process: BacklogProcess | None = None
        self._start_at = 0.0
        self._is_needed = True
        self._is_closed = False

    @property
    def channel(self) -> socket.socket | None:
        """A socket that becomes readable when the process exits, or None."""
        process = self._process
        return process.channel if process is not None else None

    def ensure_running(self) -> None:
        """Start the process, unless it is running or was started a moment ago. May take a moment."""
        with self._lock:
            if self._is_closed or not self._is_needed or (self._process is not None and self._process.is_alive()):
                return
            if self._process is not None:
                log.warning("the backlog process has died and is started again: action=backlog_died")
                self._process.end(0)
                self._process = None
            if time.monotonic() < self._start_at:
                return
            self._start_at = time.monotonic() + RESTART_PAUSE_S
            try:
                self._process = self._start(time.monotonic() + _START_TIMEOUT_S)
                self._is_needed = self._process is not None
            except (MemoAirVoiceMemoryError, OSError) as error:
                code = getattr(error, "code", type(error).__name__)
                log.warning("the backlog process could not be started: action=backlog_failed code=%s", code)

    def restart_pause_s(self) -> float | None:
        """Return in how many seconds the process is to be started again; None if it runs or is not needed."""
        if self._is_closed or not self._is_needed or self._process is not None:
            return None
        return max(0.0, self._start_at - time.monotonic())

    def stats(self) -> dict[str, Any] | None:
        """Return the backlog of the machine; None if it is unknown."""
        process = self._process
        return None if process is None else read_backlog(process.status_file)

    def request_stop(self) -> None:
        """Let the process make a last attempt and end, and start no other."""
        self._is_closed = True  # before the lock, which a start may hold
        with self._lock, suppress(OSError):
            if self._process is not None:
                self._process.request_stop()

    def close(self) -> None:
        """Wait for the end of the process, and kill it if it takes too long."""
        self.request_stop()
        with self._lock:
            process, self._process = self._process, None
        if process is not None:
            process.end(STOP_TIMEOUT_S)

    def reset_after_fork(self) -> None:
        """Drop the process in the child of a fork: it belongs to the parent."""
        self._lock = threading.Lock()
        process, self._process = self._process, None
        self._start_at = 0.0
        if process is not None:
            process.reset_after_fork()
