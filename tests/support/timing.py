"""Bounds in seconds that a busy machine does not break and a defect does."""

import time
from collections.abc import Callable


def fastest(attempt: Callable[[], object], good_enough_s: float, tries: int = 5) -> float:
    """Return how many seconds the fastest of several calls took.

    Other work on the machine delays one call or another, a defect delays each. Stops after the first call that takes
    less than ``good_enough_s``.
    """
    best = float("inf")
    for _ in range(tries):
        began_at = time.monotonic()
        attempt()
        best = min(best, time.monotonic() - began_at)
        if best < good_enough_s:
            break
    return best
