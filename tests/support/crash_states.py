"""What a power failure can leave on a disk: built from the operations that a process has made on it.

The model is as strict as POSIX: a sync of a file makes its content durable but not its name, a sync of a folder makes
the names in it durable but nothing below them. What has not been synced may be there or not, each operation by itself
and in any order; a write may be there in part, or as zeros. Only a change of names in one folder, such as a rename, is
there as a whole or not at all.
"""

import os
import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import attrs


@attrs.frozen
class Write:
    """A write to a file."""

    inode: int
    offset: int
    data: bytes = attrs.field(repr=False)
    mtime_ns: int


@attrs.frozen
class Truncate:
    """A file was cut or extended."""

    inode: int
    size: int
    mtime_ns: int


@attrs.frozen
class SetNames:
    """Names were added to folders (with the inode), or removed (None), in one operation."""

    names: dict[tuple[int, str], int | None]


@attrs.frozen
class Sync:
    """A file or folder was synced: what was done to it before ``since``, an index of operations, is on the disk."""

    inode: int
    since: int


@attrs.frozen
class Promise:
    """The tested code has returned, so that something holds from now on."""

    what: Any


Operation: TypeAlias = Write | Truncate | SetNames | Sync | Promise


@attrs.define
class Inode:
    """A file, folder or link as it was before the first operation."""

    content: bytes = attrs.field(default=b"", repr=False)
    names: dict[str, int] | None = None  # of a folder
    target: str | None = None  # of a link
    mtime_ns: int = 0


@attrs.frozen
class Crash:
    """One disk after a power failure.

    Attributes:
        promises: What was promised before, in order.
        position: How many operations were made before.
        style: Which of the operations that were not synced are on the disk.
    """

    promises: list[Any]
    position: int
    style: str
    tree: dict[str, bytes | str | None] = attrs.field(repr=False)
    mtimes: dict[str, int] = attrs.field(repr=False)

    def write_to(self, folder: Path) -> Path:
        """Create the disk in a new folder and return it."""
        folder.mkdir(parents=True)
        for name, content in self.tree.items():  # a folder comes before what is in it
            path = folder / name
            if content is None:
                path.mkdir(mode=0o700)
            elif isinstance(content, str):
                path.symlink_to(content)
            else:
                path.write_bytes(content)
                path.chmod(0o600)
                os.utime(path, ns=(self.mtimes[name], self.mtimes[name]))
        return folder

    def files(self) -> dict[str, bytes]:
        """Return the content of all files by their paths."""
        return {name: content for name, content in self.tree.items() if isinstance(content, bytes)}


class _Kept:
    """Decides which operations that were not synced are on the disk, and how much of them."""

    STYLES = ("nothing", "all", "names", "data", "earlier", "mixed", "mixed", "mixed")

    def __init__(self, style: str, rng: random.Random, position: int) -> None:
        self._style = style
        self._rng = rng
        self._limit = rng.randint(0, position) if style == "earlier" else position

    def has_names(self, index: int) -> bool:
        if self._style == "mixed":
            return self._rng.random() < 0.5
        return self._style in ("all", "names") or (self._style == "earlier" and index < self._limit)

    def data(self, index: int, operation: Write) -> bytes | None:
        """Return what is on the disk of a write: the data, a part of it, zeros, or None for nothing."""
        data = operation.data
        if self._style != "mixed":
            is_kept = self._style in ("all", "data") or (self._style == "earlier" and index < self._limit)
            return data if is_kept else None
        luck = self._rng.random()
        if luck < 0.35:
            return data
        if luck < 0.6:
            return None
        begin, end = sorted((self._rng.randint(0, len(data)), self._rng.randint(0, len(data))))
        if luck < 0.8:
            return data[:end]  # torn
        return data[:begin] + bytes(end - begin) + data[end:]  # a block that was allocated and never written

    def is_truncated(self, index: int) -> bool:
        return self.data(index, Write(0, 0, b"", 0)) is not None


def crashes(
    inodes: dict[int, Inode], operations: Sequence[Operation], *, count: int, seed: int, root: int
) -> Iterator[Crash]:
    """Yield different disks: one of each style after each promise, in random order, then random ones.

    Args:
        inodes: Everything that was ever on the disk.
        operations: What was done to it.
        count: How many disks at most.
        seed: Chooses among the possible disks.
        root: The inode of the disk's root folder.
    """
    rng = random.Random(seed)
    promised = [index + 1 for index, operation in enumerate(operations) if isinstance(operation, Promise)]
    chosen = [(position, style) for position in promised for style in ("nothing", "names", "data", "all")]
    rng.shuffle(chosen)
    seen: set[int] = set()
    for attempt in range(3 * count):
        if attempt < len(chosen):
            position, style = chosen[attempt]
        else:
            # Half of them right after a promise, where most is at stake.
            is_after_promise = promised and rng.random() < 0.5
            position = rng.choice(promised) if is_after_promise else rng.randint(0, len(operations))
            style = rng.choice(_Kept.STYLES)
        crash = _crash_at(inodes, operations[:position], style, rng, root)
        key = hash((len(crash.promises), frozenset(crash.tree.items())))
        if key not in seen:
            seen.add(key)
            yield crash
        if len(seen) >= count:
            return


def final_tree(inodes: dict[int, Inode], operations: Sequence[Operation], root: int) -> dict[str, bytes | str | None]:
    """Return what is on the disk if there is no power failure."""
    return _crash_at(inodes, operations, "all", random.Random(0), root).tree


def _crash_at(
    inodes: dict[int, Inode], operations: Sequence[Operation], style: str, rng: random.Random, root: int
) -> Crash:
    synced: dict[int, int] = {}
    for operation in operations:
        if isinstance(operation, Sync):
            synced[operation.inode] = max(operation.since, synced.get(operation.inode, 0))
    kept = _Kept(style, rng, len(operations))
    contents = {number: inode.content for number, inode in inodes.items()}
    mtimes = {number: inode.mtime_ns for number, inode in inodes.items()}
    folders = {number: dict(inode.names) for number, inode in inodes.items() if inode.names is not None}
    for index, operation in enumerate(operations):
        if isinstance(operation, SetNames):
            is_kept = kept.has_names(index)
            for (folder, name), inode in operation.names.items():
                if is_kept or index < synced.get(folder, 0):
                    _set_name(folders[folder], name, inode)
        elif isinstance(operation, Write):
            data = operation.data if index < synced.get(operation.inode, 0) else kept.data(index, operation)
            if data is not None:
                before = contents[operation.inode].ljust(operation.offset, b"\0")
                contents[operation.inode] = before[: operation.offset] + data + before[operation.offset + len(data) :]
                mtimes[operation.inode] = operation.mtime_ns
        elif isinstance(operation, Truncate) and (index < synced.get(operation.inode, 0) or kept.is_truncated(index)):
            contents[operation.inode] = contents[operation.inode][: operation.size].ljust(operation.size, b"\0")
            mtimes[operation.inode] = operation.mtime_ns
    promises = [operation.what for operation in operations if isinstance(operation, Promise)]
    tree: dict[str, bytes | str | None] = {}
    tree_mtimes: dict[str, int] = {}

    def add(folder: int, prefix: str) -> None:
        for name, number in folders[folder].items():
            path = prefix + name
            if number in folders:
                tree[path] = None
                add(number, f"{path}/")
            elif (target := inodes[number].target) is not None:
                tree[path] = target
            else:
                tree[path], tree_mtimes[path] = contents[number], mtimes[number]

    add(root, "")
    return Crash(promises, len(operations), style, tree, tree_mtimes)


def _set_name(names: dict[str, int], name: str, inode: int | None) -> None:
    if inode is None:
        names.pop(name, None)
    else:
        names[name] = inode
