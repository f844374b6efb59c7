"""Work on many runtimes in parallel, so that one that hangs does not delay the others."""

import threading
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TypeVar

from memoair_protocol.threads import ThreadUnavailableError, start_thread

T = TypeVar("T")
R = TypeVar("R")

_MAX_THREADS = 16


def map_in_threads(function: Callable[[T], R], items: Sequence[T]) -> list[R]:
    """Return the results of a function in order. It must not raise, and must have a deadline of its own.

    This thread works, too. So it only takes longer if the process can start no others at the moment.
    """
    waiting = deque(enumerate(items))
    results: dict[int, R] = {}

    def work() -> None:
        while True:
            try:
                number, item = waiting.popleft()
            except IndexError:
                return
            results[number] = function(item)

    threads: list[threading.Thread] = []
    with suppress(ThreadUnavailableError):
        while len(threads) < min(len(items), _MAX_THREADS) - 1:
            threads.append(start_thread(work, name="memoair-each"))
    work()
    for thread in threads:
        thread.join()
    return [results[number] for number in range(len(items))]
