"""Waiting for conditions."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")

# First entry in the PYTHONPATH of programs that a test runs as a user would; see the sitecustomize.py in it.
PATIENCE = str(Path(__file__).parent / "patience")


def eventually(check: Callable[[], T], within_s: float = 10.0) -> T:
    """Call ``check`` until it returns a true value, and return that value; fail after ``within_s`` seconds."""
    deadline = time.monotonic() + within_s
    while True:
        result = check()
        if result:
            return result
        assert time.monotonic() < deadline, f"the condition was not met within {within_s} s"
        time.sleep(0.01)
