"""A content-addressed file store: files by their SHA-256, in a folder or anywhere that fsspec supports."""

import logging
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import fsspec
from fsspec.implementations.local import LocalFileSystem

from memoair_cloud.errors import ServiceUnavailableError
from memoair_cloud.indexes.blob_folder import PART_SUFFIX, PROBE_PREFIX, make_private, open_part, remove_parts
from memoair_protocol.durable import make_folder, sync_folder

log = logging.getLogger(__name__)

_BLOCK_BYTES = 1 << 20
# Empty files, and such that fit into what a file system has in reserve, can still be created on a full disk.
_PROBE_BYTES = 1 << 20
# Longer than a writer takes between two blocks.
_MIN_PART_AGE = timedelta(hours=1)
# In an object store, nothing says whether a writer is still at work on a file.
_MIN_REMOTE_PART_AGE = timedelta(days=1)
# How stores of fsspec call the time of the last change.
_CHANGE_TIMES = ("LastModified", "last_modified", "updated", "mtime", "created")


class BlobStore:
    """A store below one URL. Files never change: a name always has the same content.

    In a folder, only the operating system user of the server may access the files.

    Args:
        url: A folder as a ``file://`` URL, or any URL that fsspec supports.

    Attributes:
        url: The URL.
        folder: The folder; None for other stores.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self._fs, root = fsspec.core.url_to_fs(url)
        self._root = root.rstrip("/")
        self.folder = Path(root) if isinstance(self._fs, LocalFileSystem) else None

    def put(self, source: Path, sha256: str) -> None:
        """Store a file under its hash.

        Args:
            source: The file to copy.
            sha256: The hash of its content. In a folder, the file survives a power failure from now on.

        Raises:
            OSError: If it cannot be stored. Nothing is left of it.
        """
        if not self.exists(sha256):
            with source.open("rb") as file:
                self.write(sha256, iter(lambda: file.read(_BLOCK_BYTES), b""))
        else:
            self._sync_name(self._path(sha256))  # the writer of the file may have died before that

    def write(self, key: str, blocks: Iterable[bytes]) -> None:
        """Store a file under its hash, or under a key that only its writer knows.

        It appears complete or not at all: a partial file must never be visible under its final name.

        Args:
            key: Hexadecimal digits; the key of no other file.
            blocks: Its content.

        Raises:
            OSError: If it cannot be stored. Nothing is left of it, unless the store does not respond any more: then
                `remove_abandoned` removes it later.
        """
        if self.folder is not None:
            with open_part(Path(self._path(key))) as target:
                target.writelines(blocks)
            return
        temporary = f"{self._path(key)}.{uuid.uuid4().hex}{PART_SUFFIX}"
        try:
            self._fs.makedirs(self._fs._parent(temporary), exist_ok=True)  # noqa: SLF001 - fsspec has no public name for it
            with self._fs.open(temporary, "wb") as target:
                for block in blocks:
                    target.write(block)
            self._fs.mv(temporary, self._path(key))
        except BaseException:
            with suppress(Exception):  # each kind of store raises its own errors
                self._fs.rm_file(temporary)
            raise

    def exists(self, sha256: str) -> bool:
        """Return whether the store has a file with this hash. Raises OSError."""
        return bool(self._fs.exists(self._path(sha256)))

    def stream(self, sha256: str) -> tuple[int, Iterator[bytes]]:
        """Return the size of a file in bytes, and its content in blocks.

        Raises:
            FileNotFoundError: If there is no such file.
            OSError: If the store does not respond.
        """
        size = int(self._fs.size(self._path(sha256)))
        return size, self._read_blocks(sha256)

    def remove(self, sha256: str) -> None:
        """Remove a file if it exists. Raises OSError."""
        with suppress(FileNotFoundError):
            self._fs.rm_file(self._path(sha256))

    def check_writable(self) -> None:
        """Raise `ServiceUnavailableError` unless the store takes files."""
        probe = f"{self._root}/{PROBE_PREFIX}{uuid.uuid4().hex}"
        try:
            if self.folder is None:
                self._fs.makedirs(self._root, exist_ok=True)
            else:
                make_folder(self.folder)
            self._fs.pipe_file(probe, bytes(_PROBE_BYTES))
            self._fs.rm_file(probe)
        except Exception as error:  # each kind of store raises its own errors
            with suppress(Exception):
                self._fs.rm_file(probe)
            raise ServiceUnavailableError("the blob store takes no files: is it full?", store="blobs") from error

    def make_private(self) -> None:
        """Take the access of other operating system users from files of the store, if it is a folder."""
        if self.folder is not None:
            make_private(self.folder)

    def remove_abandoned(self) -> int:
        """Remove parts of files whose writers were killed a while ago; return their number.

        Errors are logged: the next call tries again.
        """
        try:
            if self.folder is not None:
                removed = remove_parts(self.folder, _MIN_PART_AGE.total_seconds())
            else:
                removed = self._remove_remote_parts()
        except Exception as error:  # noqa: BLE001 - each kind of store raises its own errors
            fields = {"error": type(error).__name__}
            log.warning("parts of files were not removed", extra={"action": "parts_failed", "fields": fields})
            return 0
        if removed:
            log.info("removed parts of files", extra={"action": "parts_removed", "fields": {"files": removed}})
        return removed

    def _remove_remote_parts(self) -> int:
        latest = time.time() - _MIN_REMOTE_PART_AGE.total_seconds()
        found: Mapping[str, Mapping[str, Any]] = self._fs.find(self._root, detail=True)
        removed = 0
        for path, info in found.items():
            name = path.rpartition("/")[2]
            if name.endswith(PART_SUFFIX) or name.startswith(PROBE_PREFIX):
                changed_at = _change_time(info)
                if changed_at is not None and changed_at < latest:
                    self._fs.rm_file(path)
                    removed += 1
        return removed

    def _read_blocks(self, sha256: str) -> Iterator[bytes]:
        with self._fs.open(self._path(sha256), "rb") as content:
            while block := content.read(_BLOCK_BYTES):
                yield block

    # A file is on the disk before the database refers to it. Other stores than a folder do not answer before that.

    def _sync_name(self, path: str) -> None:
        if self.folder is not None:
            sync_folder(Path(path).parent)
            sync_folder(self.folder)

    def _path(self, sha256: str) -> str:
        return f"{self._root}/{sha256[:2]}/{sha256}"


def _change_time(info: Mapping[str, Any]) -> float | None:
    """Return when a file was last changed, in seconds since the epoch; None if the store does not say."""
    for name in _CHANGE_TIMES:
        value = info.get(name)
        if isinstance(value, datetime):
            return value.timestamp()
        if isinstance(value, (int, float)):
            return float(value)
    return None
