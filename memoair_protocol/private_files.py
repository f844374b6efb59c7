"""Private files: folders and files that other users of the machine have not prepared, and cannot read or change.

A storage root may lie where other users can write, such as ``/tmp``. They could have prepared folders, links, pipes or
files there, to read what callers say or to have this process overwrite another file. So each folder and file below the
root is checked when it is opened. The root itself may be a link, because the operator chose it; nothing below it may.

The rules, on systems that have owners and modes (Windows folders of a user are private anyway):

* The root belongs to this user or to the superuser. If all users may write to it, it must be sticky, as ``/tmp`` is.
* Folders below it are no links. They and the files in them belong to this user or the superuser.
* What belongs to this user and is open to others, such as a restored backup, is closed to them (0700, 0600).
* A network file system may show files of the superuser as those of another user, and some file systems have no modes. A
  file that is created for a moment shows what holds there.
"""

import errno
import logging
import os
import secrets
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, NamedTuple

log = logging.getLogger(__name__)

_HAS_OWNERS = os.name != "nt"
_SUPERUSER = 0
_OPEN_TO_OTHERS = stat.S_IRWXG | stat.S_IRWXO
_WRITABLE_BY_OTHERS = stat.S_IWGRP | stat.S_IWOTH
_FOLDER_FLAGS = os.O_RDONLY | getattr(os, "O_DIRECTORY", 0) | getattr(os, "O_CLOEXEC", 0)
_NO_LINK = getattr(os, "O_NOFOLLOW", 0)
# Without O_NONBLOCK, opening a pipe waits for its other end. It makes no difference to regular files.
_FILE_FLAGS = _NO_LINK | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
_CHUNK_BYTES = 1 << 20


class UnsafePathError(PermissionError):
    """Another user of the machine could have prepared a folder or file, or could change it. It was not used.

    The message names the path and says what to do. The path may contain a user's id, so do not log it.

    Attributes:
        path: The folder or file.
        problem: What is wrong with it, without the path.
        remedy: What to do.
    """

    def __init__(self, path: Path, problem: str, remedy: str) -> None:
        super().__init__(errno.EPERM, f"{path} {problem}; {remedy}")
        self.path, self.problem, self.remedy = path, problem, remedy

    def __str__(self) -> str:
        return str(self.strerror)


class _FileSystem(NamedTuple):
    """What a file system makes of a new file of this process: its owner, and whether modes have a meaning."""

    owner: int
    has_modes: bool


_file_systems: dict[int, _FileSystem] = {}  # by device
_has_reported_tightening = False


def check_private_folders(root: Path, folder: Path) -> None:
    """Check a folder below a storage root, and all folders between them, as far as they exist. Thread-safe.

    Args:
        root: The storage root.
        folder: The folder; the root itself, or below it.

    Raises:
        UnsafePathError: Another user could have prepared one of the folders.
        OSError: A folder cannot be opened.
    """
    with suppress(FileNotFoundError):
        walk_private_folders(root, folder, is_creating=False)


def walk_private_folders(root: Path, folder: Path, *, is_creating: bool) -> None:
    """Check an existing storage root, and each folder from there to a folder below it; raises as the check does.

    Args:
        root: The storage root.
        folder: The folder; the root itself, or below it.
        is_creating: Whether to create what is missing below the root.
    """
    names = folder.relative_to(root).parts
    if not _HAS_OWNERS:
        for depth in range(1, len(names) + 1):
            path = root.joinpath(*names[:depth])
            _refuse_link(path)
            if is_creating:
                path.mkdir(exist_ok=True)
        return
    path, fd = root, _open_root(root)
    try:
        for name in names:
            path = path / name
            if is_creating:
                with suppress(FileExistsError):
                    os.mkdir(name, 0o700, dir_fd=fd)
            parent_fd, fd = fd, _open_folder(path, fd)
            os.close(parent_fd)
    finally:
        os.close(fd)


def open_private_file(path: Path, flags: int) -> int:
    """Open a file in a private folder and return its descriptor. Thread-safe.

    The folder and the file are checked first; links are not followed. A new file is readable by this user only (0600).

    Args:
        path: The file. Its folder must exist.
        flags: As of `os.open`, such as ``os.O_WRONLY | os.O_CREAT | os.O_APPEND``. Close-on-exec and binary mode are
            always on.

    Raises:
        UnsafePathError: Another user could have prepared the file or its folder, or it is no regular file.
        FileNotFoundError: There is no such file or folder.
        OSError: The file cannot be opened.
    """
    if not _HAS_OWNERS:
        _refuse_link(path)
        return os.open(path, flags | _FILE_FLAGS, 0o600)
    with open_private_folder(path.parent) as folder_fd:
        return open_private_file_at(folder_fd, path, flags)


def open_private_file_at(folder_fd: int, path: Path, flags: int) -> int:
    """Open a file in a folder that is open already; see `open_private_file` and `open_private_folder`.

    Args:
        folder_fd: Descriptor of the folder.
        path: The file, in this folder.
        flags: As of `os.open`.
    """
    is_truncating = flags & os.O_TRUNC  # only after the check: the content may be another user's
    try:
        fd = os.open(path.name, flags & ~os.O_TRUNC | _FILE_FLAGS, 0o600, dir_fd=folder_fd)
    except OSError as error:
        if isinstance(error, FileNotFoundError | FileExistsError):
            raise
        with suppress(FileNotFoundError):
            _check(path, os.stat(path.name, dir_fd=folder_fd, follow_symlinks=False), folder_fd)
        raise
    try:
        info = _check(path, os.fstat(fd), folder_fd)
        if stat.S_ISDIR(info.st_mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        _close_to_others(fd, info, path, folder_fd)
        if is_truncating:
            os.ftruncate(fd, 0)
    except BaseException:
        os.close(fd)
        raise
    return fd


def read_private_file(path: Path, max_bytes: int | None = None) -> bytes:
    """Return the content of a file in a private folder. Thread-safe.

    Args:
        path: The file.
        max_bytes: Read no more than this; None for the whole file.

    Raises:
        UnsafePathError: Another user could have prepared the file or its folder, or it is no regular file.
        FileNotFoundError: There is no such file or folder.
        OSError: The file cannot be read.
    """
    with open_private_reader(path) as file:
        return file.read() if max_bytes is None else file.read(max_bytes)


def open_private_reader(path: Path) -> BinaryIO:
    """Open a file in a private folder to read it; raises as `open_private_file`."""
    return os.fdopen(open_private_file(path, os.O_RDONLY), "rb")


def create_private_file(path: Path) -> BinaryIO:
    """Create a file in a private folder to write it; raises as `open_private_file`, and FileExistsError."""
    return os.fdopen(open_private_file(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL), "wb")


def check_private_file(path: Path) -> None:
    """Check a file that is then opened by its path, as a lock or a mapped index is. It need not exist.

    Raises:
        UnsafePathError: Another user could have prepared the file or its folder, or it is no regular file.
        OSError: The file cannot be opened.
    """
    with suppress(FileNotFoundError):
        os.close(open_private_file(path, os.O_RDONLY))


@contextmanager
def open_private_folder(folder: Path) -> Iterator[int]:
    """Open and check a folder below a storage root. Not on Windows.

    Yields:
        Its descriptor, for the ``dir_fd`` of calls that must reach this folder and no other of its name.

    Raises:
        UnsafePathError: Another user could have prepared the folder.
        OSError: The folder cannot be opened.
    """
    fd = _open_folder(folder, None)
    try:
        yield fd
    finally:
        os.close(fd)


def remove_private_tree(path: Path) -> None:
    """Delete a folder with everything in it. A link is deleted itself; what it points to stays.

    Raises:
        OSError: Something could not be deleted.
    """
    if path.is_symlink() or not path.is_dir():
        path.unlink()
    else:
        shutil.rmtree(path)  # opens each folder by its descriptor and follows no link


def is_real_folder(path: Path) -> bool:
    """Return whether a path is a folder, and not a link to one."""
    try:
        return stat.S_ISDIR(path.lstat().st_mode)
    except OSError:
        return False


def _open_root(root: Path) -> int:
    """Open and check the storage root, which may be a link."""
    fd = os.open(root, _FOLDER_FLAGS)
    try:
        info = os.fstat(fd)
        mode = info.st_mode
        if not _is_owner(info.st_uid, fd):
            raise UnsafePathError(
                root,
                f"belongs to another user (uid {info.st_uid}), who could replace what is in it",
                "change its owner, or use a folder of this user as the storage root",
            )
        is_own = info.st_uid == os.geteuid()
        if mode & _WRITABLE_BY_OTHERS and not mode & stat.S_ISVTX and is_own and _has_modes(fd):
            with suppress(OSError):
                os.fchmod(fd, stat.S_IMODE(mode) & ~_WRITABLE_BY_OTHERS)
                _report_tightening()
            mode = os.fstat(fd).st_mode
        # A group that an administrator lets in is trusted. All users of the machine are not.
        if mode & stat.S_IWOTH and not mode & stat.S_ISVTX and _has_modes(fd):
            raise UnsafePathError(
                root,
                "can be changed by every user of the machine",
                "run `chmod o-w` on it, or use a folder of this user below it as the storage root",
            )
    except BaseException:
        os.close(fd)
        raise
    return fd


def _open_folder(path: Path, parent_fd: int | None) -> int:
    """Open and check a folder below the root, by its path or by its name in its parent."""
    target: Path | str = path if parent_fd is None else path.name
    try:
        fd = os.open(target, _FOLDER_FLAGS | _NO_LINK, dir_fd=parent_fd)
    except FileNotFoundError:
        raise
    except OSError:
        with suppress(FileNotFoundError):
            info = os.stat(target, dir_fd=parent_fd, follow_symlinks=False)
            if stat.S_ISLNK(info.st_mode) or info.st_uid not in (_SUPERUSER, os.geteuid()):
                _check(path, info, None)
        raise
    try:
        _close_to_others(fd, _check(path, os.fstat(fd), fd), path, fd)
    except BaseException:
        os.close(fd)
        raise
    return fd


def _check(path: Path, info: os.stat_result, folder_fd: int | None) -> os.stat_result:
    """Raise `UnsafePathError` for a link, for what is neither a folder nor a file, and for what another user owns."""
    if stat.S_ISLNK(info.st_mode):
        raise UnsafePathError(path, "is a link, and links below the storage root are not followed", "remove it")
    if not _is_owner(info.st_uid, folder_fd):
        raise UnsafePathError(
            path,
            f"belongs to another user (uid {info.st_uid}) and is not used",
            "remove it or change its owner, or use another storage root",
        )
    if not stat.S_ISREG(info.st_mode) and not stat.S_ISDIR(info.st_mode):
        raise UnsafePathError(path, "is not a regular file", "remove it")
    return info


def _close_to_others(fd: int, info: os.stat_result, path: Path, folder_fd: int) -> None:
    """Take away the rights of other users; raise `UnsafePathError` if they could still write."""
    if not info.st_mode & _OPEN_TO_OTHERS:
        return
    if info.st_uid != _SUPERUSER or os.geteuid() == _SUPERUSER:
        with suppress(OSError):
            os.fchmod(fd, stat.S_IMODE(info.st_mode) & ~_OPEN_TO_OTHERS)
            info = os.fstat(fd)
            if not info.st_mode & _OPEN_TO_OTHERS:
                _report_tightening()
    if info.st_mode & _WRITABLE_BY_OTHERS and _has_modes(folder_fd):
        raise UnsafePathError(path, "can be changed by other users and is not used", "run `chmod go-rwx` on it")


def _is_owner(uid: int, folder_fd: int | None) -> bool:
    """Return whether a file of this owner may be trusted: this user, the superuser, or what stands for this user."""
    if uid in (_SUPERUSER, os.geteuid()):
        return True
    file_system = None if folder_fd is None else _probe(folder_fd)
    return file_system is not None and uid == file_system.owner


def _has_modes(folder_fd: int) -> bool:
    file_system = _probe(folder_fd)
    return file_system is None or file_system.has_modes


def _probe(folder_fd: int) -> _FileSystem | None:
    """Create a file for a moment to see what owner and mode it gets; None if the folder cannot be written."""
    device = os.fstat(folder_fd).st_dev
    if device not in _file_systems:
        name = f".probe-{secrets.token_hex(8)}"
        try:
            fd = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _FILE_FLAGS, 0o600, dir_fd=folder_fd)
        except OSError:
            return None
        try:
            info = os.fstat(fd)
        finally:
            os.close(fd)
            with suppress(OSError):
                os.unlink(name, dir_fd=folder_fd)
        _file_systems[device] = _FileSystem(info.st_uid, not info.st_mode & _OPEN_TO_OTHERS)
    return _file_systems[device]


def _report_tightening() -> None:
    global _has_reported_tightening
    if not _has_reported_tightening:
        _has_reported_tightening = True
        log.warning(
            "files of the storage root were open to other users, as after a restored backup, and have been closed to "
            "them: action=storage_tightened"
        )


def _refuse_link(path: Path) -> None:
    if path.is_symlink():
        raise UnsafePathError(path, "is a link, and links below the storage root are not followed", "remove it")
