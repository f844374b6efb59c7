"""The cache: what was pulled, by what it was named, in folders that come whole or not at all.

    {cache}/
        content/{digest}/           what was unpacked; never changed
            memoair-runtime.json    which of the files is the program, and how long it is
        named/{key}.json            what a reference named on a platform: the digest, and since when
        named/{key}.lock            held by who pulls it
        .unpacking-{key}.../        what is being unpacked; of a process that died, until the next one comes

Who reads needs no right to write: a cache may be part of a machine's image.
"""

import json
import os
import re
import stat
from pathlib import Path
from typing import Any

import attrs
import platformdirs

from memoair_voice_sync.runtime_store.errors import RuntimeStoreError, to_public_error
from memoair_voice_sync.runtime_store.reference import Platform, Reference, cache_key, current_platform

PROGRAM_INFO_FILE = "memoair-runtime.json"
_WRITABLE_BY_OTHERS = stat.S_IWGRP | stat.S_IWOTH


@attrs.frozen
class CachedRuntime:
    """A runtime that is at hand. ``digest`` is that of what the reference names: a manifest's, or a file's.

    ``digest_from`` is where it came from: ``reference`` (it was pinned), ``registry``, or ``server`` (a file beside).
    """

    reference: str
    digest: str
    digest_from: str
    version: str | None
    program: Path
    pulled_at: str


def default_cache_dir() -> Path:
    """Where runtimes are kept unless something else was said: a folder of this user's alone."""
    return platformdirs.user_cache_path("memoair", appauthor=False) / "runtimes"


class Cache:
    """One cache folder, as who only looks sees it. Safe to use from any thread and any number of processes."""

    def __init__(self, root: Path) -> None:
        self.root: Path = root.expanduser().absolute()

    def find(self, reference: Reference, target: Platform) -> CachedRuntime | None:
        """What a reference named when it was pulled, if it was; raises a `RuntimeStoreError` where others could have changed it."""
        entry = self._read_json(self.entry_file(cache_key(reference, target)))
        if entry is None:
            return None
        program = self._find_program(self.content_folder(str(entry.get("content"))))
        if program is None:
            return None
        for path in (self.root / "named", program, *program.parents):
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

    def has_content(self, content: str) -> bool:
        """Whether what has this digest was unpacked already."""
        return self._find_program(self.content_folder(content)) is not None

    def entry_file(self, key: str) -> Path:
        """Where it is noted what a reference names."""
        return self.root / "named" / f"{key}.json"

    def content_folder(self, content: str) -> Path:
        """Where what has this digest is unpacked."""
        return self.root / "content" / re.sub(r"[^0-9a-z-]", "-", content)

    def _find_program(self, content: Path) -> Path | None:
        """The program of what was unpacked; None where it is not there, or is not whole."""
        info = self._read_json(content / PROGRAM_INFO_FILE)
        if info is None:
            return None
        program = content / str(info.get("program"))
        try:
            is_complete = program.is_file() and program.stat().st_size == info.get("size")
        except OSError:
            return None
        return program if is_complete else None

    def _read_json(self, path: Path) -> dict[str, Any] | None:
        try:
            payload = json.loads(path.read_bytes())
        except (FileNotFoundError, NotADirectoryError):
            return None
        except PermissionError as error:
            raise RuntimeStoreError(f"the cache {self.root} can't be read: {error.strerror}") from error
        except (OSError, ValueError, RecursionError):  # damaged: as good as none
            return None
        return payload if isinstance(payload, dict) else None


def find_cached(reference: Reference, cache_dir: Path) -> CachedRuntime | None:
    """What a reference named when it was pulled, if it was; needs no network.

    Raises `MemoAirVoiceMemoryError` with ``runtime.start_failed`` where it is there, but must not be run.
    """
    try:
        return Cache(cache_dir).find(reference, current_platform())
    except (RuntimeStoreError, OSError) as error:
        raise to_public_error(error, reference.display_name) from error


def check_owner(path: Path) -> None:
    """What we run must not have been written by others than the user himself or the system's administrator."""
    if os.name == "nt":
        return  # a user's folders are his own there, and modes say nothing
    info = path.stat()
    if info.st_uid not in (0, os.geteuid()):
        raise RuntimeStoreError(f"{path} belongs to another user, who could have put any program there")
    if info.st_mode & _WRITABLE_BY_OTHERS:
        raise RuntimeStoreError(
            f"other users may write {path}, and could have put any program there; `chmod go-w` denies it them"
        )
