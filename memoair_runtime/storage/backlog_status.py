"""The status of a project's backlog: a file in the project's folder, for all clients and runtimes of the machine.

``backlog-{cloud}.json`` is written by the process that sends the backlog. It holds counts only, and may be lost.
"""

import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from memoair_protocol.durable import write_file
from memoair_protocol.private_files import read_private_file


class BacklogStatus(msgspec.Struct, frozen=True, rename="camel"):
    """The content of the file. Times are in seconds since the epoch.

    Attributes:
        turns: Turns that are not in the cloud yet.
        users: Users with unsent turns.
        refused: Events that the cloud has permanently rejected.
        state: The state of the connection to the cloud.
        oldest_at: When the oldest unsent event was logged.
        pid: The process that sends the backlog.
    """

    turns: int = 0
    users: int = 0
    refused: int = 0
    state: str = "connecting"
    oldest_at: float | None = None
    pid: int | None = None

    @property
    def oldest_s(self) -> float:
        """The age of the oldest unsent event, in seconds; 0 without any."""
        return 0.0 if self.oldest_at is None else max(0.0, time.time() - self.oldest_at)


_decode = msgspec.json.Decoder(BacklogStatus).decode


def read_status(path: Path) -> BacklogStatus:
    """Return the status; an empty one without a readable file."""
    try:
        return _decode(read_private_file(path))
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return BacklogStatus()


def write_status(path: Path, status: BacklogStatus) -> None:
    """Write the status.

    Raises:
        OSError: The file cannot be written.
    """
    write_file(path, msgspec.json.encode(status), durable=False)


def cached_reader(path: Path, max_age_s: float = 1.0) -> Callable[[], BacklogStatus]:
    """Return a function that reads the status, but not more often than every ``max_age_s`` seconds."""
    read_at, status = float("-inf"), BacklogStatus()

    def read() -> BacklogStatus:
        nonlocal read_at, status
        if time.monotonic() - read_at > max_age_s:
            read_at, status = time.monotonic(), read_status(path)
        return status

    return read
