"""Ctrl-C at a moment when it can be handled: not between an act and the note that it was done."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def deferred_interrupt() -> Iterator[None]:
    """Raise KeyboardInterrupt only after the block, so that what the block has created is known, and can be removed.

    A second interrupt is raised at once. Has no effect in other threads than the main one, which Ctrl-C never reaches,
    and in a process that ignores Ctrl-C.
    """
    is_reached = threading.current_thread() is threading.main_thread()
    if not is_reached or signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        yield
        return
    interrupts: list[int] = []

    def note(signal_number: int, _: object) -> None:
        interrupts.append(signal_number)
        if len(interrupts) > 1:
            raise KeyboardInterrupt

    former = signal.signal(signal.SIGINT, note)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, former)
    if interrupts:
        raise KeyboardInterrupt
