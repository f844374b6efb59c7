"""Files that a user names: regular files only, and no more of them than there was when they were opened.

A pipe without a writer, a device such as ``/dev/zero``, or a link to one would be read for ever.
"""

import errno
import io
import os
import stat
from pathlib import Path
from typing import Any, BinaryIO

# Without O_NONBLOCK, opening a pipe waits for its other end. It makes no difference to regular files.
_FLAGS = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)


def open_regular_file(path: Path) -> BinaryIO:
    """Open a regular file, or a link to one, to read it. What is appended from now on is not read.

    Raises:
        IsADirectoryError: It is a folder.
        OSError: It is a pipe, a device or a socket, or cannot be opened. ``strerror`` says so.
    """
    try:
        fd = os.open(path, _FLAGS)
    except OSError as error:
        if error.errno == errno.ENXIO:  # a socket
            raise _not_regular(path) from None
        raise
    try:
        mode = os.fstat(fd).st_mode
        if stat.S_ISDIR(mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        if not stat.S_ISREG(mode):
            raise _not_regular(path)
        return io.BufferedReader(_SizedFile(fd))
    except BaseException:
        os.close(fd)
        raise


def read_regular_file(path: Path, max_bytes: int | None = None) -> bytes:
    """Return the content of a regular file; raises as `open_regular_file`.

    Args:
        path: The file.
        max_bytes: Read no more than this; None for the whole file.
    """
    with open_regular_file(path) as file:
        return file.read() if max_bytes is None else file.read(max_bytes)


def check_regular_file(path: Path) -> None:
    """Raise the error that `open_regular_file` raises, if it does."""
    open_regular_file(path).close()


class _SizedFile(io.FileIO):
    """A file that ends where it ended when it was opened: another process may append faster than this one reads."""

    def __init__(self, fd: int) -> None:
        super().__init__(fd, "rb")
        self._size = os.fstat(fd).st_size

    def readinto(self, buffer: Any, /) -> int | None:
        with memoryview(buffer) as view, view.cast("B")[: max(0, self._size - self.tell())] as part:
            return super().readinto(part)

    def readall(self) -> bytes:
        blocks = []
        while block := self.read(max(0, self._size - self.tell())):
            blocks.append(block)
        return b"".join(blocks)


def _not_regular(path: Path) -> OSError:
    return OSError(errno.EINVAL, "not a regular file", str(path))
