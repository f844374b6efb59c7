"""Files by the hash of what is in them: in a folder, or anywhere that fsspec can reach."""

import hashlib
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import fsspec

from memoair_cloud.faults import Unavailable

_BLOCK = 1 << 20


class BlobStore:
    """A store under one URL. What is in it never changes: one name, one content."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._files, root = fsspec.core.url_to_fs(url)
        self._root = root.rstrip("/")

    def put(self, source: Path) -> str:
        """Keep a file, and return the SHA-256 that it can be had by. Raises OSError."""
        digest = hashlib.sha256()
        with source.open("rb") as content:
            while block := content.read(_BLOCK):
                digest.update(block)
        sha256 = digest.hexdigest()
        if not self.has(sha256):
            # Written beside its place and moved there whole: nobody may find the half of a file under its name.
            part = f"{self._path(sha256)}.{uuid.uuid4().hex}.part"
            self._files.makedirs(self._files._parent(part), exist_ok=True)  # noqa: SLF001 - fsspec has no public name for it
            self._files.put_file(str(source), part)
            self._files.mv(part, self._path(sha256))
        return sha256

    def has(self, sha256: str) -> bool:
        """Whether there is a file of this hash. Raises OSError."""
        return bool(self._files.exists(self._path(sha256)))

    @contextmanager
    def fetched(self, sha256: str) -> Iterator[Path]:
        """A copy of a file, for as long as the block lasts; raises FileNotFoundError, or another OSError."""
        with tempfile.TemporaryDirectory(prefix="memoair-blob-") as folder:
            copy = Path(folder) / sha256
            self._files.get_file(self._path(sha256), str(copy))
            yield copy

    def check(self) -> None:
        """Raise `Unavailable` unless the store can be written."""
        probe = f"{self._root}/probe.{uuid.uuid4().hex}"
        try:
            self._files.makedirs(self._root, exist_ok=True)
            self._files.pipe_file(probe, b"")
            self._files.rm_file(probe)
        except Exception as error:  # each kind of store has its own errors
            with suppress(Exception):
                self._files.rm_file(probe)
            raise Unavailable("the blob store can't be written", store="blobs") from error

    def _path(self, sha256: str) -> str:
        return f"{self._root}/{sha256[:2]}/{sha256}"
