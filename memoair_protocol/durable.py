"""Durable writes: folders, files and their names are on the disk when a call returns."""

import os
import secrets
import sys
import time
from contextlib import ExitStack, suppress
from pathlib import Path

from memoair_protocol.private_files import (
    open_private_file_at,
    open_private_folder,
    walk_private_folders,
)

TEMPORARY_SUFFIX = ".tmp"
# A write takes milliseconds, and a second or two on a slow disk. A temporary file of this age was left by a crash.
_LEFTOVER_AGE_S = 3_600.0
_MAX_SWEPT_FOLDERS = 256
_swept_folders: set[Path] = set()


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


def make_private_folders(root: Path, folder: Path) -> None:
    """Create a folder below a storage root, with all folders between them, and check each. Thread-safe.

    What is missing is created for this operating system user only (0700). The root's name is durable when this returns;
    a name below it becomes durable with `sync_folder`. `memoair_protocol.private_files` has the rules of the check.

    Args:
        root: The storage root. It is created if it is missing, and may be a link.
        folder: The folder; the root itself, or below it.

    Raises:
        UnsafePathError: Another user of the machine could have prepared one of the folders. It is an OSError.
        OSError: A folder cannot be created.

    Example:
        ``make_private_folders(root, root / "spool.d")``, then `open_private_file` for the files in it.
    """
    make_folder(root)
    walk_private_folders(root, folder, is_creating=True)


def write_file(path: Path, content: bytes, *, durable: bool, is_private: bool = True) -> None:
    """Replace a whole file atomically: readers see the old content or the new content, nothing in between.

    Only this operating system user may read the file. Its folder is checked, and the temporary file has a name that
    cannot be guessed and is new, so that no other user can redirect the write; see `memoair_protocol.private_files`.

    Args:
        path: The file, in an existing folder.
        content: Its new content.
        durable: Whether to wait until the content and the name are on the disk, so that they survive a power failure. A
            file that can be rebuilt need not wait.
        is_private: Whether the folder is one of ours. It is not checked if the user chose it.

    Raises:
        UnsafePathError: Another user of the machine could have prepared the folder. It is an OSError.
        OSError: The disk refuses. The old content is then still there.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}{TEMPORARY_SUFFIX}")
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
    with ExitStack() as stack:
        folder_fd = None
        if os.name == "nt" or not is_private:
            fd = os.open(temporary, flags | getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0), 0o600)
        else:
            folder_fd = stack.enter_context(open_private_folder(path.parent))
            fd = open_private_file_at(folder_fd, temporary, flags)
        try:
            with os.fdopen(fd, "wb") as file:
                file.write(content)
                if durable:
                    file.flush()
                    os.fsync(file.fileno())
            _rename(temporary, path, folder_fd)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        if durable:
            sync_folder(path.parent)
        if is_private:
            _remove_leftovers(path.parent)


def _rename(source: Path, target: Path, folder_fd: int | None) -> None:
    """Rename a file within its folder, which keeps its place while its descriptor is open."""
    if folder_fd is None:
        source.replace(target)
    else:
        os.replace(source.name, target.name, src_dir_fd=folder_fd, dst_dir_fd=folder_fd)


def _remove_leftovers(folder: Path) -> None:
    """Delete the temporary files that crashes left in a folder; once per folder and process."""
    if folder in _swept_folders:
        return
    if len(_swept_folders) >= _MAX_SWEPT_FOLDERS:
        _swept_folders.clear()
    _swept_folders.add(folder)
    with suppress(OSError), os.scandir(folder) as entries:
        latest = time.time() - _LEFTOVER_AGE_S
        for entry in entries:
            if entry.name.endswith(TEMPORARY_SUFFIX) and entry.stat(follow_symlinks=False).st_mtime < latest:
                with suppress(OSError):
                    Path(entry.path).unlink()
