"""Ports reserved for this test process, so that neither another test nor another test run takes them."""

import fcntl
import os
import random
import socket
import tempfile
from contextlib import suppress
from pathlib import Path

# Outside the ephemeral ports of the system and the default ports of runtimes.
_SLICE_SIZE = 500
_SLICE_STARTS = range(12_000, 32_000, _SLICE_SIZE)
_LOCK_FOLDER = Path(tempfile.gettempdir()) / "memoair-tests-ports"


def _claim_slice() -> int:
    """Lock a slice of ports that no other process has, until this process ends; return its first port.

    This happens at import, because tests compare the open descriptors before and after a test.
    """
    slices = random.sample(_SLICE_STARTS, len(_SLICE_STARTS))
    with suppress(OSError):
        _LOCK_FOLDER.mkdir(exist_ok=True)
        for first in slices:
            descriptor = os.open(_LOCK_FOLDER / str(first), os.O_RDWR | os.O_CREAT, 0o600)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(descriptor)
                continue
            return first
    return slices[0]


_first_port = _claim_slice()
_next_offset = random.randrange(_SLICE_SIZE)


def free_ports(count: int = 24) -> tuple[int, int]:
    """Return the first and last port of a range of free ports; the next call returns another range."""
    global _next_offset
    while True:
        first = _first_port + (_next_offset if _next_offset + count <= _SLICE_SIZE else 0)
        _next_offset = first + count - _first_port
        if all(map(_is_free, range(first, first + count))):
            return first, first + count - 1


def free_port() -> int:
    """Return a port that no process listens on."""
    return free_ports(1)[0]


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
