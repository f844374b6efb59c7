"""The spool: turns that clients have promised to save, in files that survive them.

``{storage_root}/outbox.d/`` holds files of a project, cloud, user and client, ``PROJECT.CLOUD.USER.OWNER.N.jsonl``, and
a lock file for each client that has some, ``OWNER.lock``. Project and user are hashes. The lock is held for as long as
the client lives: the turns of a client that has ended are saved by another one, which holds the lock by then. What is
saved is removed, and what is empty, too.

A line is either a turn, ``{"n": 1, ...}``, which is on the disk before it is promised, or says which turns are done,
``{"done": [1]}``. A torn last line was never promised.
"""

import errno
import hashlib
import json
import math
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Any

import attrs

from memoair_protocol.durable import make_folder, sync_data
from memoair_protocol.hashes import cloud_id_of, hash_user_id
from memoair_protocol.timestamps import parse_timestamp

SPOOL_FOLDER = "outbox.d"  # the names of projects have no dots, see `memoair_runtime.storage.folder_names`
LOCK_SUFFIX = ".lock"
_SUFFIX = ".jsonl"
_NO_CLOUD = "local"
_ID_CHARS = 32
_CREATE_TRIES = 5
# O_NOFOLLOW and O_DIRECTORY do not exist on Windows, where O_BINARY turns off the translation of line ends.
_FLAGS = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
_HAS_DIR_FD = os.open in os.supports_dir_fd


def hash_project(project_id: str) -> str:
    """Return what stands for a project in the names of its files."""
    return hashlib.sha256(project_id.encode()).hexdigest()[:_ID_CHARS]


def hash_user(project_id: str, user_id: str) -> str:
    """Return what stands for a user of a project in the names of their files."""
    return hash_user_id(project_id, user_id)[:_ID_CHARS]


def cloud_part(cloud_base_url: str | None) -> str:
    """Return what stands for a cloud, or for none: what is said without a cloud must not be sent to one."""
    return cloud_id_of(cloud_base_url) if cloud_base_url else _NO_CLOUD


@attrs.frozen(order=True)
class SegmentName:
    """The parts of a file's name.

    Attributes:
        project: The hash of the project.
        cloud: The id of the cloud, or that of none.
        user: The hash of the user.
        owner: The client that has written the file.
        number: Counts the files of the client.
    """

    project: str
    cloud: str
    user: str
    owner: str
    number: int

    @classmethod
    def parse(cls, name: str) -> "SegmentName | None":
        """Return the parts of a name; None if it is not that of a segment."""
        parts = name.removesuffix(_SUFFIX).split(".")
        if not name.endswith(_SUFFIX) or len(parts) != 5 or not (parts[4].isascii() and parts[4].isdecimal()):
            return None
        project, cloud, user, owner, number = parts
        return cls(project, cloud, user, owner, int(number))

    def __str__(self) -> str:
        return f"{self.project}.{self.cloud}.{self.user}.{self.owner}.{self.number}{_SUFFIX}"


@attrs.frozen
class SegmentContent:
    """The content of a segment.

    Attributes:
        turns: The turns that are not done, by their number.
        damaged: How many lines are neither.
        end: The offset after the last complete line.
    """

    turns: Mapping[int, Mapping[str, Any]] = attrs.field(repr=False)
    damaged: int
    end: int

    @classmethod
    def parse(cls, content: bytes) -> "SegmentContent":
        """Parse the content of a file. A torn last line is left out."""
        end = content.rfind(b"\n") + 1
        turns: dict[int, Mapping[str, Any]] = {}
        done: set[int] = set()
        damaged = 0
        for line in content[:end].split(b"\n")[:-1]:
            try:
                record = json.loads(line)
                if "done" in record:
                    done.update(map(int, record["done"]))
                else:
                    turns[int(record["n"])] = record
            except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
                damaged += 1
        return cls({number: turn for number, turn in turns.items() if number not in done}, damaged, end)


class OpenSpoolFolder:
    """The folder while it is open. No name in it leads elsewhere: links are not followed."""

    def __init__(self, path: Path, fd: int | None) -> None:
        self._path = path
        self._fd = fd

    def open(self, name: object, flags: int) -> int:
        """Open a file, readable by this operating system user only, and return its descriptor. Raises OSError."""
        if self._fd is None:
            return os.open(self._path / str(name), flags | _FLAGS, 0o600)
        return os.open(str(name), flags | _FLAGS, 0o600, dir_fd=self._fd)

    def read(self, name: object) -> bytes:
        """Return the content of a file. Raises OSError."""
        with os.fdopen(self.open(name, os.O_RDONLY), "rb") as file:
            return file.read()

    def remove(self, name: object) -> None:
        """Remove a file, if it exists. Raises OSError."""
        with suppress(FileNotFoundError):
            if self._fd is None:
                (self._path / str(name)).unlink()
            else:
                os.unlink(str(name), dir_fd=self._fd)

    def list_names(self) -> list[str]:
        """Return the names of the files. Raises OSError."""
        if self._fd is None:
            return [path.name for path in self._path.iterdir()]
        return os.listdir(self._fd)  # noqa: PTH208 - a path has no descriptor

    def modified_at(self, name: object) -> float:
        """Return when a file was last written, in seconds since the epoch. Raises OSError."""
        if self._fd is None:
            return (self._path / str(name)).stat().st_mtime
        return os.stat(str(name), dir_fd=self._fd, follow_symlinks=False).st_mtime

    def sync(self) -> None:
        """Wait until the names are on the disk. Raises OSError."""
        if self._fd is not None:
            os.fsync(self._fd)


@attrs.frozen
class SpoolFolder:
    """The folder of all spools of a storage root.

    Attributes:
        root: The storage root.
    """

    root: Path

    @property
    def path(self) -> Path:
        """The folder."""
        return self.root / SPOOL_FOLDER

    @contextmanager
    def opened(self, *, creates: bool = False) -> Iterator[OpenSpoolFolder]:
        """Open the folder.

        Args:
            creates: Whether to create it if it is missing. Another client may remove it as empty at any time.

        Raises:
            OSError: It cannot be opened, is missing, is a link, or belongs to another operating system user.
        """
        fd = self._open(_CREATE_TRIES if creates else 0)
        try:
            yield OpenSpoolFolder(self.path, fd)
        finally:
            if fd is not None:
                os.close(fd)

    def remove_if_empty(self) -> None:
        """Remove the folder if nothing is in it."""
        with suppress(OSError):
            self.path.rmdir()

    def _open(self, tries: int) -> int | None:
        if not _HAS_DIR_FD:
            if tries:
                make_folder(self.path)
            elif not self.path.is_dir():
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
            return None
        while True:
            try:
                fd = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | _FLAGS)
                break
            except FileNotFoundError:
                if not tries:
                    raise
                tries -= 1
                make_folder(self.path)
        try:
            status = os.fstat(fd)
            if status.st_uid != os.geteuid():
                raise PermissionError(errno.EPERM, "the folder belongs to another operating system user")
            if status.st_mode & 0o077:
                os.fchmod(fd, 0o700)
        except BaseException:
            os.close(fd)
            raise
        return fd


def append_line(fd: int, line: bytes, *, durable: bool) -> None:
    """Append a line to a file that was opened for appending: all of it, or nothing.

    Raises:
        OSError: The disk refuses. If it refuses to take back what it has written, too, a part of the line may be left.
    """
    size = os.fstat(fd).st_size
    try:
        if os.write(fd, line) != len(line):  # on a full disk, only a part is written
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        if durable:
            sync_data(fd)
    except OSError:
        os.ftruncate(fd, size)
        raise


@attrs.define
class SpoolCount:
    """What waits in spools.

    Attributes:
        turns: How many turns.
        since: When the one that has waited longest was last added to, in seconds since the epoch; None without any.
    """

    turns: int = 0
    since: float | None = None


def count_turns(root: Path, project_id: str | None = None, cloud_base_url: str | None = None) -> SpoolCount:
    """Count the turns that wait in the spools of a storage root; what cannot be read counts as nothing.

    Args:
        root: The storage root.
        project_id: The project. None means all projects and clouds.
        cloud_base_url: The cloud of the project, None for what was said without one.
    """
    count = SpoolCount()
    wanted = None if project_id is None else (hash_project(project_id), cloud_part(cloud_base_url))
    with suppress(OSError), SpoolFolder(root).opened() as folder:
        for name in filter(None, map(SegmentName.parse, folder.list_names())):
            if wanted in (None, (name.project, name.cloud)):
                with suppress(OSError):  # removed at this moment
                    turns = len(SegmentContent.parse(folder.read(name)).turns)
                    if turns:
                        count.turns += turns
                        count.since = min(count.since or math.inf, folder.modified_at(name))
    return count


def erase_user(root: Path, project_id: str, user_id: str, *, before: datetime | None = None) -> bool:
    """Remove what waits of a user, of all clients and clouds; return whether there was anything.

    Args:
        root: The storage root.
        project_id: The project.
        user_id: The user.
        before: Keep what was said later. None means to keep nothing.

    Raises:
        OSError: Something could not be removed.
    """
    return erase_hashed_user(root, project_id, hash_user_id(project_id, user_id), before=before)


def erase_hashed_user(root: Path, project_id: str, user_hash: str, *, before: datetime | None) -> bool:
    """Do the same as `erase_user` for a user by the `hash_user_id`."""
    wanted = hash_project(project_id), user_hash[:_ID_CHARS]
    spool, had_any = SpoolFolder(root), False
    try:
        with spool.opened() as folder:
            for name in map(SegmentName.parse, folder.list_names()):
                if name is not None and (name.project, name.user) == wanted:
                    with suppress(FileNotFoundError):  # its turns are saved at this moment
                        had_any |= _erase_segment(folder, name, before)
            if had_any:
                folder.sync()
    except FileNotFoundError:
        return False
    spool.remove_if_empty()
    return had_any


def _erase_segment(folder: OpenSpoolFolder, name: SegmentName, before: datetime | None) -> bool:
    """Remove a segment. If some of it was said later, note that the rest is done: it goes when the segment goes."""
    if before is not None:
        turns = SegmentContent.parse(folder.read(name)).turns
        erased = [number for number, record in turns.items() if not _is_later(record, before)]
        if len(erased) < len(turns):
            if erased:
                fd = folder.open(name, os.O_WRONLY | os.O_APPEND)
                try:
                    append_line(fd, json.dumps({"done": erased}).encode() + b"\n", durable=True)
                finally:
                    os.close(fd)
            return bool(erased)
    folder.remove(name)
    return True


def _is_later(record: Mapping[str, Any], moment: datetime) -> bool:
    try:
        return parse_timestamp(record["turn"]["metadata"]["occurredAt"]) > moment
    except (KeyError, TypeError, ValueError, AttributeError):
        return False
