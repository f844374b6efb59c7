"""Files by the hash of what is in them: in a folder, or anywhere that fsspec can reach."""

import hashlib
import uuid
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import fsspec

from memoair_cloud.errors import ServiceUnavailableError

_BLOCK = 1 << 20


def hash_of(file: Path) -> str:
    """The SHA-256 of what is in a file. Raises OSError."""
    digest = hashlib.sha256()
    with file.open("rb") as content:
        while block := content.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


class BlobStore:
    """A store under one URL. What is in it never changes: one name, one content."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._files, root = fsspec.core.url_to_fs(url)
        self._root = root.rstrip("/")

    def put(self, source: Path, sha256: str) -> None:
        """Keep a file that can be had by its hash then. Raises OSError."""
        if not self.has(sha256):
            # Written beside its place and moved there whole: nobody may find the half of a file under its name.
            part = f"{self._path(sha256)}.{uuid.uuid4().hex}.part"
            self._files.makedirs(self._files._parent(part), exist_ok=True)  # noqa: SLF001 - fsspec has no public name for it
            self._files.put_file(str(source), part)
            self._files.mv(part, self._path(sha256))

    def has(self, sha256: str) -> bool:
        """Whether there is a file of this hash. Raises OSError."""
        return bool(self._files.exists(self._path(sha256)))

    def stream(self, sha256: str) -> tuple[int, Iterator[bytes]]:
        """The size of a file, and its content in blocks; raises FileNotFoundError, or another OSError."""
        size = int(self._files.size(self._path(sha256)))
        return size, self._blocks(sha256)

    def remove(self, sha256: str) -> None:
        """Remove a file, where there is one. Raises OSError."""
        with suppress(FileNotFoundError):
            self._files.rm_file(self._path(sha256))

    def check(self) -> None:
        """Raise `ServiceUnavailableError` unless the store can be written."""
        probe = f"{self._root}/probe.{uuid.uuid4().hex}"
        try:
            self._files.makedirs(self._root, exist_ok=True)
            self._files.pipe_file(probe, b"")
            self._files.rm_file(probe)
        except Exception as error:  # each kind of store has its own errors
            with suppress(Exception):
                self._files.rm_file(probe)
            raise ServiceUnavailableError("the blob store can't be written", store="blobs") from error

    def _blocks(self, sha256: str) -> Iterator[bytes]:
        with self._files.open(self._path(sha256), "rb") as content:
            while block := content.read(_BLOCK):
                yield block

    def _path(self, sha256: str) -> str:
        return f"{self._root}/{sha256[:2]}/{sha256}"
