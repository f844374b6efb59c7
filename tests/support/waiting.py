"""Waiting for what must come true."""

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def eventually(check: Callable[[], T], within_s: float = 10.0) -> T:
    """Call ``check`` until it returns something true, and return that; fail at the deadline."""
    deadline = time.monotonic() + within_s
    while True:
        result = check()
        if result:
            return result
        assert time.monotonic() < deadline, f"did not come true within {within_s} s"
        time.sleep(0.01)
