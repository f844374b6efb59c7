"""Waiting for conditions."""

import asyncio
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
    while not (result := check()):
        assert time.monotonic() < deadline, f"the condition was not met within {within_s} s"
        time.sleep(0.01)
    return result


async def wait_until(check: Callable[[], T], within_s: float = 30.0) -> T:
    """Do the same as `eventually`, while the event loop goes on."""
    deadline = time.monotonic() + within_s
    while not (result := check()):
        assert time.monotonic() < deadline, f"the condition was not met within {within_s} s"
        await asyncio.sleep(0.005)
    return result
