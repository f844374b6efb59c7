"""Waiting for what must come true."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")

# Stands first in the PYTHONPATH of a program that a test runs as a user would: see the file in it.
PATIENCE = str(Path(__file__).parent / "patience")


def eventually(check: Callable[[], T], within_s: float = 10.0) -> T:
    """Call ``check`` until it returns something true, and return that; fail at the deadline."""
    deadline = time.monotonic() + within_s
    while True:
        result = check()
        if result:
            return result
        assert time.monotonic() < deadline, f"did not come true within {within_s} s"
        time.sleep(0.01)
