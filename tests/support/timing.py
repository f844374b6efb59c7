"""Bounds in seconds that a busy machine does not break and a defect does."""

import time
from collections.abc import Callable


def fastest(attempt: Callable[[], object], good_enough_s: float, tries: int = 5) -> float:
    """Return how many seconds the fastest of several calls took.

    Other work on the machine delays one call or another, a defect delays each. Stops after the first call that takes
    less than ``good_enough_s``.
    """

    def took_s() -> float:
        began_at = time.monotonic()
        attempt()
        return time.monotonic() - began_at

    return least(took_s, good_enough_s, tries)


def least(measure: Callable[[], float], good_enough: float, tries: int = 5) -> float:
    """Return the least of several measurements of what other work on the machine lengthens now and then.

    Stops after the first one that is less than ``good_enough``.
    """
    best = float("inf")
    for _ in range(tries):
        best = min(best, measure())
        if best < good_enough:
            break
    return best


def slowdown(work_s: float = 0.3) -> float:
    """Return how many times longer a computation takes now than on a quiet machine (1.0 there)."""
    began_at, worked_before_s = time.monotonic(), time.thread_time()
    while time.thread_time() - worked_before_s < work_s:
        pass
    return max(1.0, (time.monotonic() - began_at) / work_s)
