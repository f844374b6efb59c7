"""The cache of pulled runtimes: each folder appears complete or not at all, and is looked up by its reference.

    {cache}/
        content/{content id}/       an unpacked artifact, under its digest; never changed
            memoair-runtime.json    which file is the program, and its size
        named/{key}.json            the cache entry of a reference on a platform: what it names, and when it was pulled
        named/{key}.lock            held by the process that pulls
        .unpacking-{key}.../        an artifact being unpacked; if its process died, the next pull removes it

Reading needs no write permission, so a cache can be part of a machine image.
"""

import json
import os
import re
import stat
from pathlib import Path
from typing import Any

import attrs
import platformdirs

from memoair_protocol.input_files import read_regular_file
from memoair_runtime_store.errors import RuntimeStoreError, to_public_error
from memoair_runtime_store.reference import Platform, Reference, cache_key, current_platform

PROGRAM_INFO_FILE = "memoair-runtime.json"
_WRITABLE_BY_OTHERS = stat.S_IWGRP | stat.S_IWOTH


@attrs.frozen
class CachedRuntime:
    """A runtime in the cache.

    Attributes:
        reference: The reference that was pulled, without secrets.
        digest: The digest of what the reference names: of a manifest, or of a file.
        digest_from: Where the digest came from: ``reference`` (pinned), ``registry``, or ``server`` (a checksum file).
        version: The version, if it is known.
        program: The path of the program.
        pulled_at: When it was pulled, in ISO 8601.
    """

    reference: str
    digest: str
    digest_from: str
    version: str | None
    program: Path
    pulled_at: str


def default_cache_dir() -> Path:
    """Return the default cache folder. It belongs to this user alone."""
    return platformdirs.user_cache_path("memoair", appauthor=False) / "runtimes"


class Cache:
    """Read access to one cache folder. Safe to use from any thread and from any number of processes."""

    def __init__(self, root: Path) -> None:
        self.root: Path = root.expanduser().absolute()

    def find(self, reference: Reference, target: Platform) -> CachedRuntime | None:
        """Return the runtime that was pulled for a reference, or None if it was not pulled.

        Raises:
            RuntimeStoreError: Other users could have changed the program, or the cache is not readable.
        """
        entry_file = self.entry_file(cache_key(reference, target))
        entry = self._read_json(entry_file)
        if entry is None:
            return None
        program = self._find_program(self.content_folder(str(entry.get("content"))))
        if program is None:
            return None
        for path in (entry_file, self.root / "named", program, *program.parents):
            if path == self.root or self.root in path.parents:
                check_owner(path)
        version = entry.get("version")
        return CachedRuntime(
            reference.display_name,
            str(entry.get("digest")),
            str(entry.get("digestFrom")),
            version if isinstance(version, str) else None,
            program,
            str(entry.get("pulledAt")),
        )

    def has_content(self, content_id: str) -> bool:
        """Return whether the artifact with this id is unpacked."""
        return self._find_program(self.content_folder(content_id)) is not None

    def entry_file(self, key: str) -> Path:
        """Return the path of the cache entry of a reference."""
        return self.root / "named" / f"{key}.json"

    def content_folder(self, content_id: str) -> Path:
        """Return the folder of the artifact with this id."""
        return self.root / "content" / re.sub(r"[^0-9a-z-]", "-", content_id)

    def _find_program(self, folder: Path) -> Path | None:
        """Return the program of an unpacked artifact, or None if the artifact is missing or incomplete."""
        info = self._read_json(folder / PROGRAM_INFO_FILE)
        if info is None:
            return None
        program = folder / str(info.get("program"))
        try:
            is_complete = program.is_file() and program.stat().st_size == info.get("size")
        except OSError:
            return None
        return program if is_complete else None

    def _read_json(self, path: Path) -> dict[str, Any] | None:
        try:
            payload = json.loads(read_regular_file(path))
        except (FileNotFoundError, NotADirectoryError):
            return None
        except PermissionError as error:
            raise RuntimeStoreError(f"the cache {self.root} is not readable: {error.strerror}") from error
        except (OSError, ValueError, RecursionError):  # a damaged entry counts as a missing one
            return None
        return payload if isinstance(payload, dict) else None


def find_cached(reference: Reference, cache_dir: Path) -> CachedRuntime | None:
    """Return the runtime that was pulled for a reference, or None if it was not pulled. Does not use the network.

    Args:
        reference: The runtime to look up.
        cache_dir: The folder of the cache.

    Raises:
        MemoAirVoiceMemoryError: The runtime is in the cache but must not be run (``runtime.start_failed``).
    """
    try:
        return Cache(cache_dir).find(reference, current_platform())
    except (RuntimeStoreError, OSError) as error:
        raise to_public_error(error, reference.display_name) from error


def check_owner(path: Path) -> None:
    """Raise `RuntimeStoreError` if users other than this one and root own a path or may write to it."""
    if os.name == "nt":
        return  # Windows user folders are private, and file modes have no meaning
    info = path.stat()
    if info.st_uid not in (0, os.geteuid()):
        raise RuntimeStoreError(f"{path} belongs to another user, who could have replaced the program")
    if info.st_mode & _WRITABLE_BY_OTHERS:
        raise RuntimeStoreError(
            f"other users may write to {path} and could have replaced the program; run `chmod go-w {path}`"
        )
