"""Files by the hash of what is in them: in a folder, or anywhere that fsspec can reach."""

import hashlib
import uuid
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import fsspec

from memoair_cloud.errors import ServiceUnavailableError

_BLOCK_BYTES = 1 << 20


def hash_file(file: Path) -> str:
    """The SHA-256 of what is in a file. Raises OSError."""
    digest = hashlib.sha256()
    with file.open("rb") as content:
        while block := content.read(_BLOCK_BYTES):
            digest.update(block)
    return digest.hexdigest()


class BlobStore:
    """A store under one URL. What is in it never changes: one name, one content."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._fs, root = fsspec.core.url_to_fs(url)
        self._root = root.rstrip("/")

    def put(self, source: Path, sha256: str) -> None:
        """Keep a file that can be had by its hash then. Raises OSError."""
        if not self.exists(sha256):
            # Written beside its place and moved there whole: nobody may find the half of a file under its name.
            temporary = f"{self._path(sha256)}.{uuid.uuid4().hex}.part"
            self._fs.makedirs(self._fs._parent(temporary), exist_ok=True)  # noqa: SLF001 - fsspec has no public name for it
            self._fs.put_file(str(source), temporary)
            self._fs.mv(temporary, self._path(sha256))

    def exists(self, sha256: str) -> bool:
        """Whether there is a file of this hash. Raises OSError."""
        return bool(self._fs.exists(self._path(sha256)))

    def stream(self, sha256: str) -> tuple[int, Iterator[bytes]]:
        """The size of a file, and its content in blocks; raises FileNotFoundError, or another OSError."""
        size = int(self._fs.size(self._path(sha256)))
        return size, self._read_blocks(sha256)

    def remove(self, sha256: str) -> None:
        """Remove a file, where there is one. Raises OSError."""
        with suppress(FileNotFoundError):
            self._fs.rm_file(self._path(sha256))

    def check_writable(self) -> None:
        """Raise `ServiceUnavailableError` unless the store can be written."""
        probe = f"{self._root}/probe.{uuid.uuid4().hex}"
        try:
            self._fs.makedirs(self._root, exist_ok=True)
            self._fs.pipe_file(probe, b"")
            self._fs.rm_file(probe)
        except Exception as error:  # each kind of store has its own errors
            with suppress(Exception):
                self._fs.rm_file(probe)
            raise ServiceUnavailableError("the blob store can't be written", store="blobs") from error

    def _read_blocks(self, sha256: str) -> Iterator[bytes]:
        with self._fs.open(self._path(sha256), "rb") as content:
            while block := content.read(_BLOCK_BYTES):
                yield block

    def _path(self, sha256: str) -> str:
        return f"{self._root}/{sha256[:2]}/{sha256}"
