"""Ports of this test process's own, so that neither another test nor another run of the tests takes one meanwhile."""

import fcntl
import os
import random
import socket
import tempfile
from contextlib import suppress
from pathlib import Path

# Where the system picks no ports of its own, and nobody looks for a runtime.
_SLICE = 500
_SLICES = range(12_000, 32_000, _SLICE)
_LOCKS = Path(tempfile.gettempdir()) / "memoair-tests-ports"


def _claim() -> int:
    """Take a slice that no other process has, for as long as this one lives; return its first port.

    Done when this module is imported: a test counts the descriptors that are open before and after it.
    """
    slices = random.sample(_SLICES, len(_SLICES))
    with suppress(OSError):
        _LOCKS.mkdir(exist_ok=True)
        for first in slices:
            descriptor = os.open(_LOCKS / str(first), os.O_RDWR | os.O_CREAT, 0o600)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(descriptor)
                continue
            return first
    return slices[0]


_first = _claim()
_next = random.randrange(_SLICE)


def free_ports(count: int = 24) -> tuple[int, int]:
    """The ends of a range of ports, all of which are free; the next range is another one."""
    global _next
    while True:
        first = _first + (_next if _next + count <= _SLICE else 0)
        _next = first + count - _first
        if all(map(_is_free, range(first, first + count))):
            return first, first + count - 1


def free_port() -> int:
    """A port on which nobody listens."""
    return free_ports(1)[0]


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
