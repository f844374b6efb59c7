"""A folder as a disk of its own: records what this process does to it, and builds what a power failure would leave.

    with CrashDisk(folder) as disk:
        save(folder / "storage", "hello")
        disk.promise("hello")
    for crash in disk.crashes(count=200, seed=1):
        root = crash.write_to(tmp_path / "after") / "storage"
        assert all(what in load(root) for what in crash.promises)

Recorded is what goes through the functions of `os` and through files that `open`, `os.fdopen`, `pathlib`, `tempfile`
and `shutil` open. Syncs only mark what they make durable; nothing waits for the real disk. At its end, the folder is
compared with the record, so code that writes in another way (SQLite, memory maps, other processes) is noticed.
"""

# Here the functions of `os` are what is recorded.
# ruff: noqa: PTH100, PTH115, PTH116, PTH117, PTH118, PTH208

import builtins
import fcntl
import io
import os
import pathlib
import stat
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any
from unittest import mock

from typing_extensions import Self

from support.crash_states import Crash, Inode, Operation, Promise, SetNames, Sync, Truncate, Write, crashes, final_tree

_ROOT = 0
_REAL_OPEN = io.open
_WRITE_FLAGS = frozenset("wax+")


class ProcessDied(BaseException):
    """The recorded code is killed at this operation. What it does afterwards, while it is unwound, does not happen."""


class _RecordedFile(io.FileIO):
    """A file whose writes go through `os`, where they are recorded."""

    def write(self, data: Any) -> int:
        return os.write(self.fileno(), data)

    def truncate(self, size: int | None = None) -> int:
        size = self.tell() if size is None else size
        os.ftruncate(self.fileno(), size)
        return size


class CrashDisk:
    """Records the operations of this process on a folder while entered. Threads may be used within.

    Args:
        root: An existing folder: the root of the disk. What is in it is durable.

    Attributes:
        before_sync: If set, is called before each sync with the path of the file or folder.
        operations: What was recorded.
    """

    def __init__(self, root: Path) -> None:
        self._root = os.path.realpath(root)
        self._lock = threading.RLock()
        self._inodes: dict[int, Inode] = {}
        self._numbers: dict[tuple[int, int], int] = {}  # of what is on the disk, by device and inode
        self._patches: list[Any] = []
        self._operations_left: int | None = None
        self._is_dead = False
        self.before_sync: Callable[[str], None] | None = None
        self.operations: list[Operation] = []
        self._add_existing(self._root)

    def promise(self, what: Any) -> None:
        """Record that something holds from now on, whatever happens to the machine."""
        with self._lock:
            self.operations.append(Promise(what))

    @contextmanager
    def killing(self, after: int | None) -> Iterator[None]:
        """Kill the code within the block after some operations; None lets it live.

        `ProcessDied` ends the block without an error.
        """
        self._operations_left, self._is_dead = after, False
        try:
            yield
        except ProcessDied:
            pass
        finally:
            self._operations_left, self._is_dead = None, False

    def crashes(self, *, count: int, seed: int) -> Iterator[Crash]:
        """Yield the disks that a power failure could leave, at any moment of the record."""
        return crashes(self._inodes, self.operations, count=count, seed=seed, root=_ROOT)

    def __enter__(self) -> Self:
        for name, real in [(name, getattr(os, name)) for name in _RECORDED if hasattr(os, name)]:
            self._patch(os, name, _wrap(getattr(self, f"_{_RECORDED[name]}"), real))
        self._patch(io, "open", self._open_file)
        self._patch(builtins, "open", self._open_file)
        accessor: Any = getattr(pathlib, "_NormalAccessor", None)  # Python 3.10 keeps the functions of `os` in a class
        for name in ("open", "mkdir", "unlink", "rmdir", "rename", "replace", "link", "symlink"):
            if accessor is not None and hasattr(accessor, name):
                self._patch(accessor, name, staticmethod(self._open_file if name == "open" else getattr(os, name)))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for patch in reversed(self._patches):
            patch.stop()
        self._patches.clear()
        if error is None:
            seen = final_tree(self._inodes, self.operations, _ROOT)
            there = dict(_read_tree(self._root, ""))
            missed = {name for name in {*seen, *there} if seen.get(name, "missing") != there.get(name, "missing")}
            assert not missed, f"written in a way that was not recorded: {sorted(missed)}"

    def _patch(self, owner: Any, name: str, new: Any) -> None:
        patch = mock.patch.object(owner, name, new)
        patch.start()
        self._patches.append(patch)

    # The operations: each gets the real function first

    def _open(self, real: Any, path: Any, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
        absolute = self._absolute(path, dir_fd)
        if absolute is None or not flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC):
            return int(real(path, flags, mode, dir_fd=dir_fd))
        if flags & getattr(os, "O_TMPFILE", 0) == getattr(os, "O_TMPFILE", -1):
            return int(real(path, flags, mode, dir_fd=dir_fd))  # it has no name, so nothing of it is left
        with self._lock:
            exists = os.path.lexists(absolute)
            has_content = exists and os.stat(absolute).st_size > 0
            if not exists or (flags & os.O_TRUNC and has_content):
                self._count()
            fd = int(real(path, flags, mode, dir_fd=dir_fd))
            info = os.fstat(fd)
            if not exists:
                self._add_name(absolute, self._new_inode(info, Inode()))
            elif flags & os.O_TRUNC and has_content:
                self.operations.append(Truncate(self._number(info), 0, info.st_mtime_ns))
            return fd

    def _write(self, real: Any, fd: int, data: Any) -> int:
        if self._number_of_fd(fd) is None:
            return int(real(fd, data))
        appends = fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_APPEND
        offset = os.fstat(fd).st_size if appends else os.lseek(fd, 0, os.SEEK_CUR)
        return self._do_write(fd, offset, lambda: real(fd, data), lambda written: bytes(data)[:written])

    def _pwrite(self, real: Any, fd: int, data: Any, offset: int) -> int:
        return self._do_write(fd, offset, lambda: real(fd, data, offset), lambda written: bytes(data)[:written])

    def _writev(self, real: Any, fd: int, buffers: Any) -> int:
        return os.write(fd, b"".join(map(bytes, buffers)))

    def _pwritev(self, real: Any, fd: int, buffers: Any, offset: int, flags: int = 0) -> int:
        return os.pwrite(fd, b"".join(map(bytes, buffers)), offset)

    def _sendfile(self, real: Any, out_fd: int, in_fd: int, offset: int | None, count: int, *more: Any) -> int:
        def read(written: int) -> bytes:
            with _REAL_OPEN(f"/proc/self/fd/{out_fd}", "rb") as file:
                file.seek(at)
                return bytes(file.read(written))

        at = os.lseek(out_fd, 0, os.SEEK_CUR) if self._number_of_fd(out_fd) is not None else 0
        return self._do_write(out_fd, at, lambda: real(out_fd, in_fd, offset, count, *more), read)

    def _copy_file_range(self, real: Any, *_: Any, **__: Any) -> int:
        raise OSError(38, "not recorded")

    def _do_write(self, fd: int, offset: int, write: Callable[[], int], read: Callable[[int], bytes]) -> int:
        number = self._number_of_fd(fd)
        if number is None:
            return write()
        with self._lock:
            self._count()
            written = write()
            if written:
                self.operations.append(Write(number, offset, read(written), os.fstat(fd).st_mtime_ns))
            return written

    def _ftruncate(self, real: Any, fd: int, size: int) -> None:
        number = self._number_of_fd(fd)
        if number is None:
            real(fd, size)
            return
        with self._lock:
            self._count()
            real(fd, size)
            self.operations.append(Truncate(number, size, os.fstat(fd).st_mtime_ns))

    def _truncate(self, real: Any, path: Any, size: int) -> None:
        fd = os.open(path, os.O_WRONLY)
        try:
            os.ftruncate(fd, size)
        finally:
            os.close(fd)

    def _sync(self, real: Any, fd: Any) -> None:
        fd = fd if isinstance(fd, int) else fd.fileno()
        number = self._number_of_fd(fd)
        if number is None:
            real(fd)
            return
        with self._lock:
            self._count()
            since = len(self.operations)
        if self.before_sync is not None:
            self.before_sync(os.readlink(f"/proc/self/fd/{fd}"))
        with self._lock:
            self.operations.append(Sync(number, since))

    def _rename(
        self, real: Any, old: Any, new: Any, *, src_dir_fd: int | None = None, dst_dir_fd: int | None = None
    ) -> None:
        source, target = self._absolute(old, src_dir_fd), self._absolute(new, dst_dir_fd)
        if source is None and target is None:
            real(old, new, src_dir_fd=src_dir_fd, dst_dir_fd=dst_dir_fd)
            return
        assert source is not None, "a file that is moved onto the disk is not recorded"
        with self._lock:
            self._count()
            info = os.lstat(source)
            number = self._number(info)
            replaced = os.lstat(target) if target is not None and os.path.lexists(target) else None
            real(old, new, src_dir_fd=src_dir_fd, dst_dir_fd=dst_dir_fd)
            names: dict[tuple[int, str], int | None] = {self._name(source): None}
            if target is not None:
                names[self._name(target)] = number
            if replaced is not None and (replaced.st_dev, replaced.st_ino) != (info.st_dev, info.st_ino):
                self._forget_if_gone(replaced)
            self.operations.append(SetNames(names))

    def _link(self, real: Any, old: Any, new: Any, **options: Any) -> None:
        target = self._absolute(new, options.get("dst_dir_fd"))
        if target is None:
            real(old, new, **options)
            return
        with self._lock:
            self._count()
            real(old, new, **options)
            self._add_name(target, self._number(os.lstat(target)))

    def _symlink(self, real: Any, target: Any, path: Any, *more: Any, dir_fd: int | None = None) -> None:
        absolute = self._absolute(path, dir_fd)
        if absolute is not None:
            self._count()
        real(target, path, *more, dir_fd=dir_fd)
        if absolute is not None:
            with self._lock:
                self._add_name(absolute, self._new_inode(os.lstat(absolute), Inode(target=os.fspath(target))))

    def _mkdir(self, real: Any, path: Any, mode: int = 0o777, *, dir_fd: int | None = None) -> None:
        absolute = self._absolute(path, dir_fd)
        with self._lock:
            if absolute is not None and not os.path.lexists(absolute):
                self._count()
            real(path, mode, dir_fd=dir_fd)
            if absolute is not None:
                self._add_name(absolute, self._new_inode(os.lstat(absolute), Inode(names={})))

    def _remove(self, real: Any, path: Any, *, dir_fd: int | None = None) -> None:
        absolute = self._absolute(path, dir_fd)
        if absolute is None or not os.path.lexists(absolute):
            real(path, dir_fd=dir_fd)
            return
        with self._lock:
            self._count()
            info, name = os.lstat(absolute), self._name(absolute)
            real(path, dir_fd=dir_fd)
            self._forget_if_gone(info)
            self.operations.append(SetNames({name: None}))

    def _open_file(
        self,
        file: Any,
        mode: str = "r",
        buffering: int = -1,
        encoding: str | None = None,
        errors: str | None = None,
        newline: str | None = None,
        closefd: bool = True,
        opener: Any = None,
    ) -> Any:
        is_ours = self._number_of_fd(file) is not None if isinstance(file, int) else self._absolute(file) is not None
        if not is_ours or not _WRITE_FLAGS & set(mode):
            return _REAL_OPEN(file, mode, buffering, encoding, errors, newline, closefd, opener)
        if opener is None and not isinstance(file, int):
            opener = os.open
        raw = _RecordedFile(file, mode.replace("b", "").replace("t", ""), closefd, opener)
        if buffering == 0:
            return raw
        size = buffering if buffering > 1 else io.DEFAULT_BUFFER_SIZE
        buffer: Any = io.BufferedRandom(raw, size) if "+" in mode else io.BufferedWriter(raw, size)
        if "b" in mode:
            return buffer
        text = io.TextIOWrapper(buffer, encoding, errors, newline, line_buffering=buffering == 1)
        text.mode = mode  # type: ignore[misc]
        return text

    # What is where

    def _count(self) -> None:
        """Count an operation that is about to happen, unless the process dies of it, or has died."""
        if self._operations_left is not None:
            self._operations_left -= 1
            self._is_dead = self._is_dead or self._operations_left < 0
        if self._is_dead:
            raise ProcessDied

    def _absolute(self, path: Any, dir_fd: int | None = None) -> str | None:
        """Return the absolute path, or None for one that is not on this disk."""
        if isinstance(path, int):
            return None
        name = os.fsdecode(path)
        if dir_fd is not None and not os.path.isabs(name):
            name = os.path.join(os.readlink(f"/proc/self/fd/{dir_fd}"), name)
        absolute = os.path.abspath(name)
        return absolute if absolute == self._root or absolute.startswith(self._root + os.sep) else None

    def _number_of_fd(self, fd: int) -> int | None:
        info = os.fstat(fd)
        return self._numbers.get((info.st_dev, info.st_ino)) if stat.S_IFMT(info.st_mode) in _KINDS else None

    def _number(self, info: os.stat_result) -> int:
        return self._numbers[info.st_dev, info.st_ino]

    def _name(self, absolute: str) -> tuple[int, str]:
        folder, name = os.path.split(absolute)
        return self._number(os.lstat(folder)), name

    def _new_inode(self, info: os.stat_result, inode: Inode) -> int:
        number = len(self._inodes)
        self._inodes[number] = inode
        self._numbers[info.st_dev, info.st_ino] = number
        return number

    def _add_name(self, absolute: str, number: int) -> None:
        self.operations.append(SetNames({self._name(absolute): number}))

    def _forget_if_gone(self, info: os.stat_result) -> None:
        """Forget an inode whose last name is gone: the system gives its number to the next file."""
        if stat.S_ISDIR(info.st_mode) or info.st_nlink <= 1:
            self._numbers.pop((info.st_dev, info.st_ino), None)

    def _add_existing(self, path: str) -> int:
        info = os.lstat(path)
        if stat.S_ISDIR(info.st_mode):
            inode = Inode(names={})
            number = self._new_inode(info, inode)
            inode.names = {name: self._add_existing(os.path.join(path, name)) for name in os.listdir(path)}
            return number
        if stat.S_ISLNK(info.st_mode):
            return self._new_inode(info, Inode(target=os.readlink(path)))
        return self._new_inode(info, Inode(Path(path).read_bytes(), mtime_ns=info.st_mtime_ns))


_KINDS = frozenset({stat.S_IFREG, stat.S_IFDIR})
_RECORDED = {
    "open": "open",
    "write": "write",
    "pwrite": "pwrite",
    "writev": "writev",
    "pwritev": "pwritev",
    "sendfile": "sendfile",
    "copy_file_range": "copy_file_range",
    "ftruncate": "ftruncate",
    "truncate": "truncate",
    "fsync": "sync",
    "fdatasync": "sync",
    "rename": "rename",
    "replace": "rename",
    "link": "link",
    "symlink": "symlink",
    "mkdir": "mkdir",
    "unlink": "remove",
    "remove": "remove",
    "rmdir": "remove",
}


def _wrap(recorded: Callable[..., Any], real: Any) -> Callable[..., Any]:
    def call(*arguments: Any, **options: Any) -> Any:
        return recorded(real, *arguments, **options)

    return call


def _read_tree(folder: str, prefix: str) -> Iterator[tuple[str, bytes | str | None]]:
    for entry in os.scandir(folder):
        name = prefix + entry.name
        if entry.is_symlink():
            yield name, os.readlink(entry.path)
        elif entry.is_dir():
            yield name, None
            yield from _read_tree(entry.path, f"{name}/")
        else:
            yield name, Path(entry.path).read_bytes()
