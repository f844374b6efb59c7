"""Ending a process, and with it whatever it has started."""

import os
import subprocess
import time
from collections.abc import Callable, Sequence
from contextlib import suppress

import psutil

# How long the system may take to end what was killed.
_KILL_TIMEOUT_S = 2.0


def terminate_process(process: subprocess.Popen[bytes], timeout_s: float) -> None:
    """Tell a process and its children to end, and after ``timeout_s`` make them; reap it."""
    # Before anybody has ended: a child whose parent is gone is nobody's. psutil knows each by its pid and the time of
    # its birth, so that no stranger with the same pid is met.
    children = _children(process)
    if process.stdin is not None:
        with suppress(OSError):
            process.stdin.close()
    if os.name != "nt":  # on Windows it would not be asked but ended; there the closed input is the whole message
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
    """End a process that is somebody else's child, and its children: SIGTERM, after ``timeout_s`` SIGKILL."""
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
