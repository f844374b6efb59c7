"""Work on many runtimes in parallel, so that one that hangs does not delay the others."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")

_MAX_THREADS = 16


def map_in_threads(function: Callable[[T], R], items: Sequence[T]) -> list[R]:
    """Return the results of a function in order. It must not raise, and must have a deadline of its own."""
    if len(items) < 2:
        return [function(thing) for thing in items]
    with ThreadPoolExecutor(min(len(items), _MAX_THREADS), thread_name_prefix="memoair-each") as threads:
        return list(threads.map(function, items))
