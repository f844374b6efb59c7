"""Durable writes: folders, files and their names are on the disk when a call returns."""

import os
import sys
from pathlib import Path


def sync_data(fd: int) -> None:
    """Wait until the content of a file is on the disk, by the cheapest call that the platform has for it.

    Args:
        fd: An open file descriptor.

    Raises:
        OSError: The disk reports an error.
    """
    if sys.platform == "darwin":
        import fcntl

        try:
            fcntl.fcntl(fd, fcntl.F_FULLFSYNC)  # on macOS fsync leaves the data in the drive's cache
        except OSError:
            os.fsync(fd)  # some file systems support nothing else
    elif hasattr(os, "fdatasync"):
        os.fdatasync(fd)
    else:
        os.fsync(fd)


def sync_file(path: Path) -> None:
    """Wait until the content of a closed file is on the disk. Its name may not be.

    Raises:
        OSError: The file cannot be opened, or the disk reports an error.
    """
    fd = os.open(path, os.O_RDWR | getattr(os, "O_CLOEXEC", 0))  # Windows syncs only what may be written
    try:
        sync_data(fd)
    finally:
        os.close(fd)


def sync_folder(folder: Path) -> None:
    """Wait until the names in a folder are on the disk. Does nothing on Windows, which neither needs nor allows it.

    Raises:
        OSError: The folder cannot be opened, or the disk reports an error.
    """
    if os.name == "nt":
        return
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def make_folder(folder: Path) -> None:
    """Create a folder and its missing parents, accessible to this operating system user only; each name is durable.

    Raises:
        OSError: A folder cannot be created.
    """
    missing = []
    while not folder.is_dir():
        missing.append(folder)
        folder = folder.parent
    for path in reversed(missing):
        path.mkdir(mode=0o700, exist_ok=True)
        sync_folder(path.parent)


def write_file(path: Path, content: bytes, *, durable: bool) -> None:
    """Replace a whole file atomically: readers see the old content or the new content, nothing in between.

    Only this operating system user may read the file.

    Args:
        path: The file, in an existing folder.
        content: Its new content.
        durable: Whether to wait until the content and the name are on the disk, so that they survive a power failure. A
            file that can be rebuilt need not wait.

    Raises:
        OSError: The disk refuses. The old content is then still there.
    """
    # All writers of a file use the same temporary name, so the next write replaces what a crash left behind.
    temporary = path.with_name(f"{path.name}.tmp")
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        with os.fdopen(fd, "wb") as file:
            file.write(content)
            if durable:
                file.flush()
                os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    if durable:
        sync_folder(path.parent)
