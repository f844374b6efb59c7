"""The same done with many runtimes at once, so that one that hangs holds up no other."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")

_MOST_THREADS = 16


def each(act: Callable[[T], R], things: Sequence[T]) -> list[R]:
    """What ``act`` returns for each, in order. It must not raise, and is over by some deadline of its own."""
    if len(things) < 2:
        return [act(thing) for thing in things]
    with ThreadPoolExecutor(min(len(things), _MOST_THREADS), thread_name_prefix="memoair-each") as threads:
        return list(threads.map(act, things))
