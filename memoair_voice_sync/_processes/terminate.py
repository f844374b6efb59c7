"""The end of a process and of everything that it has started."""

import os
import subprocess
import time
from collections.abc import Callable, Sequence
from contextlib import suppress

import psutil

# The time that the system may take to end a killed process.
_KILL_TIMEOUT_S = 2.0


def terminate_process(process: subprocess.Popen[bytes], timeout_s: float) -> None:
    """Ask a process and its children to exit, kill them after ``timeout_s``, and reap the process."""
    # List the children before any process ends: an orphan can no longer be found. psutil identifies each by its pid and
    # its start time, so that another process with a reused pid is not hit.
    children = _children(process)
    if process.stdin is not None:
        with suppress(OSError):
            process.stdin.close()
    if os.name != "nt":  # on Windows this would kill it; there the closed input is the only request to exit
        process.terminate()
        _apply(children, psutil.Process.terminate)
    deadline = time.monotonic() + timeout_s
    with suppress(subprocess.TimeoutExpired):
        process.wait(timeout_s)
    _, alive = psutil.wait_procs(children, max(0.0, deadline - time.monotonic()))
    if process.poll() is None:
        alive += _children(process)
        process.kill()
    _apply(alive, psutil.Process.kill)
    process.wait()
    psutil.wait_procs(alive, timeout_s)


def terminate_tree(process: psutil.Process, timeout_s: float) -> None:
    """End a process that is not our child, and its children: SIGTERM, after ``timeout_s`` SIGKILL."""
    processes = [process]
    with suppress(psutil.Error):
        processes += process.children(recursive=True)
    if timeout_s:
        _apply(processes, psutil.Process.terminate)
        _, processes = psutil.wait_procs(processes, timeout_s)
    _apply(processes, psutil.Process.kill)
    psutil.wait_procs(processes, _KILL_TIMEOUT_S)


def _children(process: subprocess.Popen[bytes]) -> list[psutil.Process]:
    try:
        return psutil.Process(process.pid).children(recursive=True) if process.poll() is None else []
    except psutil.Error:
        return []


def _apply(processes: Sequence[psutil.Process], function: Callable[[psutil.Process], None]) -> None:
    for process in processes:
        with suppress(psutil.Error):
            function(process)
