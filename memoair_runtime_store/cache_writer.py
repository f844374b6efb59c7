"""Write access to the cache: one writer per reference, and artifacts that appear complete or not at all."""

import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from memoair_protocol.durable import sync_folder
from memoair_runtime_store.cache import PROGRAM_INFO_FILE, Cache, check_owner
from memoair_runtime_store.cancel_token import CancelToken
from memoair_runtime_store.errors import RuntimeStoreError
from memoair_runtime_store.reference import Platform, Reference, cache_key

_UNPACK_PREFIX = ".unpacking-"
_POLL_INTERVAL_S = 0.05


class CacheWriter(Cache):
    """A cache that can be written to. Safe to use from any thread and from any number of processes."""

    @contextmanager
    def hold_lock(self, reference: Reference, target: Platform, cancel_token: CancelToken) -> Iterator[None]:
        """Hold the lock of a reference for the length of the block. Wait for another process that holds it."""
        self._make_folders()
        lock = FileLock(self.entry_file(cache_key(reference, target)).with_suffix(".lock"))
        while True:
            with suppress(Timeout):
                lock.acquire(timeout=0)
                break
            cancel_token.sleep(_POLL_INTERVAL_S)
        try:
            self._remove_leftovers(cache_key(reference, target))
            yield
        finally:
            lock.release()

    @contextmanager
    def make_unpack_folder(self, reference: Reference, target: Platform) -> Iterator[Path]:
        """Create a folder to unpack into. It is deleted afterwards unless `commit_folder` moved it."""
        folder = Path(tempfile.mkdtemp(prefix=f"{_UNPACK_PREFIX}{cache_key(reference, target)}-", dir=self.root))
        try:
            folder.chmod(0o755 & ~_read_umask())
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    @contextmanager
    def make_download_file(self) -> Iterator[Any]:
        """Create an unnamed file to download into. It disappears with the process, however that ends."""
        with tempfile.TemporaryFile(dir=self.root) as file:
            yield file

    def commit_folder(self, folder: Path, program: str, content_id: str) -> None:
        """Move a complete folder to its place. If the same artifact is already there, keep that one."""
        info = {"program": program, "size": folder.joinpath(program).stat().st_size}
        _write_json(folder / PROGRAM_INFO_FILE, info)
        destination = self.content_folder(content_id)
        try:
            folder.rename(destination)
        except OSError:
            if not self.has_content(content_id):
                shutil.rmtree(destination, ignore_errors=True)  # damaged, so no process runs from it
                folder.rename(destination)
        sync_folder(destination.parent)

    def save_entry(
        self,
        reference: Reference,
        target: Platform,
        *,
        digest: str,
        digest_from: str,
        content_id: str,
        version: str | None,
    ) -> None:
        """Write the cache entry of a reference: what it names from now on."""
        entry = {
            "reference": reference.display_name,
            "platform": str(target),
            "digest": digest,
            "digestFrom": digest_from,
            "content": content_id,
            "version": version,
            "pulledAt": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        }
        path = self.entry_file(cache_key(reference, target))
        new_path = path.with_suffix(".new")
        _write_json(new_path, entry)
        new_path.replace(path)
        sync_folder(path.parent)

    def _make_folders(self) -> None:
        try:
            for folder in (self.root, self.root / "named", self.root / "content"):
                folder.mkdir(mode=0o755, parents=True, exist_ok=True)
                check_owner(folder)
            with tempfile.TemporaryFile(dir=self.root):
                pass
        except OSError as error:
            message = (
                f"the cache {self.root} is not writable: {error.strerror}; set runtime_cache_dir to another folder"
            )
            raise RuntimeStoreError(message) from error

    def _remove_leftovers(self, key: str) -> None:
        """Delete the folders of processes that died while unpacking. Their locks are free, or this key's, held here."""
        for folder in self.root.glob(f"{_UNPACK_PREFIX}*"):
            owner_key = folder.name.removeprefix(_UNPACK_PREFIX).rpartition("-")[0]
            if owner_key == key:
                shutil.rmtree(folder, ignore_errors=True)
                continue
            with (
                suppress(Timeout, OSError),
                FileLock(self.entry_file(owner_key).with_suffix(".lock")).acquire(timeout=0),
            ):
                shutil.rmtree(folder, ignore_errors=True)


def _write_json(path: Path, payload: dict[str, Any]) -> None:
    path.unlink(missing_ok=True)  # an archive may contain a link of this name
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644), "w", encoding="utf-8") as out:
        json.dump(payload, out, indent=1)
        out.flush()
        os.fsync(out.fileno())


def _read_umask() -> int:
    """Return the umask. Python can read it only by setting it, which would affect other threads, so ask Linux."""
    try:
        match = re.search(r"^Umask:\s*([0-7]+)$", Path("/proc/self/status").read_text(), re.MULTILINE)
    except OSError:
        match = None
    return int(match[1], 8) if match else 0o022
