"""Writing so that it stays written: folders, files and their names, on the disk when the call returns."""

import os
import sys
from pathlib import Path


def sync_data(fd: int) -> None:
    """Wait until a file's content is on the disk, by the cheapest call that the platform has for it."""
    if sys.platform == "darwin":
        import fcntl

        try:
            fcntl.fcntl(fd, fcntl.F_FULLFSYNC)  # fsync leaves the data in the drive's cache there
        except OSError:
            os.fsync(fd)  # some file systems know no other
    elif hasattr(os, "fdatasync"):
        os.fdatasync(fd)
    else:
        os.fsync(fd)


def sync_folder(folder: Path) -> None:
    """Wait until the names in a folder are on the disk; Windows neither needs nor allows it."""
    if os.name == "nt":
        return
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def make_folder(folder: Path) -> None:
    """Make a folder and its missing parents, for this user only, each name durable."""
    missing = []
    while not folder.is_dir():
        missing.append(folder)
        folder = folder.parent
    for path in reversed(missing):
        path.mkdir(mode=0o700, exist_ok=True)
        sync_folder(path.parent)


def write_file(path: Path, content: bytes, *, durable: bool) -> None:
    """Write a whole file, for this user only, so that readers find the old or the new content and nothing between.

    A ``durable`` one stands there whenever the machine stops; one that can be made anew need not wait for the disk.
    """
    # One name for all writers of a file: what a crash left behind is overwritten by the next one, not kept for ever.
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
