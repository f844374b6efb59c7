"""Threads: the one place that starts them, and a loop that survives its own errors."""

import threading
from collections.abc import Callable, Iterable
from typing import Any

from memoair_protocol.backoff import Backoff

_LOOP_BACKOFF = Backoff(0.1, 5.0, jitter=0)


class ThreadUnavailableError(RuntimeError):
    """The process cannot start another thread: it is at a limit for the moment, or is exiting."""


def start_thread(
    target: Callable[..., object], *, name: str, args: Iterable[Any] = (), daemon: bool = True
) -> threading.Thread:
    """Start a thread and return it.

    Call this before the state says that the thread runs, or take the state back if it fails: a limit on threads
    (``RLIMIT_NPROC``, the pids limit of a container) may hold for seconds and then be gone.

    Args:
        target: What the thread calls.
        name: The name of the thread.
        args: The arguments of ``target``.
        daemon: Whether the process may exit while the thread runs.

    Raises:
        ThreadUnavailableError: If the thread could not be started. Nothing is left behind.
    """
    thread = threading.Thread(target=target, name=name, args=args, daemon=daemon)
    try:
        thread.start()
    except (RuntimeError, MemoryError) as error:
        raise ThreadUnavailableError("the process can start no more threads") from error
    return thread


def run_loop(step: Callable[[], bool], *, report: Callable[[Exception], None], wait: Callable[[float], object]) -> None:
    """Call ``step`` until it returns False. An error of it does not end the loop: it goes on after a pause.

    The thread that runs the loop is often the only one that does its work. One moment without a descriptor, memory or
    another thread must not end that work for as long as the process lives.

    Args:
        step: Does the next piece of work; returns whether the loop goes on.
        report: Called with each error of ``step``, to log it. Errors of one piece of work are reported once each.
        wait: Waits for some seconds, less if the loop is to end, such as the ``wait`` of an event.
    """
    failures = 0
    while True:
        try:
            goes_on = step()
        except Exception as error:  # noqa: BLE001 - the loop survives whatever the error is
            failures += 1
            report(error)
            wait(_LOOP_BACKOFF.pause_s(failures))
        else:
            failures = 0
            if not goes_on:
                return
