"""The file of recall traces of one user: one JSON object per line, bounded in size, without fsync.

A crash may lose the last traces. They are sent from a file of their own, which is deleted once the cloud has them, so
that no writer has to wait.
"""

import os
from collections.abc import Callable, Sequence
from pathlib import Path

import attrs

from memoair_protocol.private_files import open_private_file, read_private_file

# About 200 traces. Of a user without a cloud, two such files are kept, and the oldest traces are lost.
MAX_FILE_BYTES = 512 << 10


@attrs.frozen
class TraceFile:
    """The traces of one user on the disk. Any number of threads and processes may append; one at a time may send.

    Attributes:
        path: The file that is appended to, in the user's folder.
        make_folder: Creates that folder if it is missing.
    """

    path: Path
    make_folder: Callable[[], None] = lambda: None

    @property
    def full(self) -> Path:
        """The file before it, which was full."""
        return self.path.with_suffix(".full.jsonl")

    @property
    def sending(self) -> Path:
        """The file that is being sent."""
        return self.path.with_suffix(".sending.jsonl")

    def append(self, lines: Sequence[bytes]) -> None:
        """Append lines. A file that is full replaces the one that was full before it.

        Raises:
            OSError: The file cannot be written.
        """
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
        try:
            fd = open_private_file(self.path, flags)
        except FileNotFoundError:  # a search may be all that there is of a user
            self.make_folder()
            fd = open_private_file(self.path, flags)
        try:
            os.write(fd, b"".join(line + b"\n" for line in lines))
            is_full = os.fstat(fd).st_size >= MAX_FILE_BYTES
        finally:
            os.close(fd)
        if is_full:
            self.path.replace(self.full)

    def take(self) -> list[bytes]:
        """Return the lines to send next, oldest first; empty if there are none.

        They stay in a file until `finish`: who takes them again, after a crash or a failure, gets the same lines.

        Raises:
            OSError: A file cannot be read or renamed.
        """
        for source in (self.sending, self.full, self.path):
            try:
                if source is not self.sending:
                    source.replace(self.sending)
                content = read_private_file(self.sending)
            except FileNotFoundError:
                continue
            return content.split(b"\n")[:-1]  # a torn last line is not a trace
        return []

    def finish(self) -> None:
        """Delete the lines that were taken.

        Raises:
            OSError: The file cannot be deleted.
        """
        self.sending.unlink(missing_ok=True)
