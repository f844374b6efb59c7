"""A content-addressed file store: files by their SHA-256, in a folder or anywhere that fsspec supports."""

import uuid
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

import fsspec
from fsspec.implementations.local import LocalFileSystem

from memoair_cloud.errors import ServiceUnavailableError
from memoair_protocol.durable import make_folder, sync_file, sync_folder

_BLOCK_BYTES = 1 << 20


class BlobStore:
    """A store below one URL. Files never change: a name always has the same content.

    Args:
        url: A folder as a ``file://`` URL, or any URL that fsspec supports.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self._fs, root = fsspec.core.url_to_fs(url)
        self._root = root.rstrip("/")
        self._is_local = isinstance(self._fs, LocalFileSystem)

    def put(self, source: Path, sha256: str) -> None:
        """Store a file under its hash.

        Args:
            source: The file to copy.
            sha256: The hash of its content. In a folder, the file survives a power failure from now on.

        Raises:
            OSError: If it cannot be stored.
        """
        if not self.exists(sha256):
            # Written to a temporary name first and then moved: a partial file must never be visible under its final
            # name.
            temporary = f"{self._path(sha256)}.{uuid.uuid4().hex}.part"
            self._make_folder_of(temporary)
            self._fs.put_file(str(source), temporary)
            self._sync_content(temporary)
            self._fs.mv(temporary, self._path(sha256))
        self._sync_name(self._path(sha256))  # also of a file that exists: its writer may have died before that

    def write(self, key: str, blocks: Iterable[bytes]) -> None:
        """Store a file under a key that only its writer knows. If writing it fails, part of it stays: remove it.

        Args:
            key: Hexadecimal digits; the key of no other file.
            blocks: Its content.

        Raises:
            OSError: If it cannot be stored.
        """
        self._make_folder_of(self._path(key))
        with self._fs.open(self._path(key), "wb") as target:
            for block in blocks:
                target.write(block)
        self._sync_content(self._path(key))
        self._sync_name(self._path(key))

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
        """Raise `ServiceUnavailableError` unless the store is writable."""
        probe = f"{self._root}/probe.{uuid.uuid4().hex}"
        try:
            self._fs.makedirs(self._root, exist_ok=True)
            self._fs.pipe_file(probe, b"")
            self._fs.rm_file(probe)
        except Exception as error:  # each kind of store raises its own errors
            with suppress(Exception):
                self._fs.rm_file(probe)
            raise ServiceUnavailableError("the blob store is not writable", store="blobs") from error

    def _read_blocks(self, sha256: str) -> Iterator[bytes]:
        with self._fs.open(self._path(sha256), "rb") as content:
            while block := content.read(_BLOCK_BYTES):
                yield block

    # A file is on the disk before the database refers to it. Other stores than a folder do not answer before that.

    def _make_folder_of(self, path: str) -> None:
        if self._is_local:
            make_folder(Path(path).parent)
        else:
            self._fs.makedirs(self._fs._parent(path), exist_ok=True)  # noqa: SLF001 - fsspec has no public name for it

    def _sync_content(self, path: str) -> None:
        if self._is_local:
            sync_file(Path(path))

    def _sync_name(self, path: str) -> None:
        if self._is_local:
            sync_folder(Path(path).parent)
            sync_folder(Path(self._root))

    def _path(self, sha256: str) -> str:
        return f"{self._root}/{sha256[:2]}/{sha256}"
