"""The state file: how far each file of an import is acknowledged, so that the next run goes on there.

It may be lost, old or damaged: then events are sent again, and the target knows them. A file is known by its size, its
time and its beginning, and by how it is read and for which target; one that has changed is read anew.
"""

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import attrs
import platformdirs

from memoair_cli.importing.ledger import FileProgress, ImportRejection
from memoair_voice_sync.transcripts import TranscriptOptions

# Grows with every change of what a reader makes of the same file: the numbers of events would mean others then.
_READER_VERSION = 1
_FILE_VERSION = 1
# The files of some years of nights; the ones that were imported longest ago are forgotten first.
_MAX_FILES = 20_000
_HEAD_BYTES = 1 << 16


def default_state_file(target: str) -> Path:
    """Where the state of imports into one target lies, unless told otherwise."""
    folder = platformdirs.user_state_path("memoair", appauthor=False) / "imports"
    return folder / f"{hashlib.sha256(target.encode()).hexdigest()[:16]}.json"


def file_identity(file: BinaryIO, target: str, options: TranscriptOptions, format_: str | None) -> str | None:
    """What a file, read in this way for this target, is known by; None for what is no plain file, as a pipe is."""
    try:
        info = os.fstat(file.fileno())
        if not file.seekable():
            return None
        head = file.read(_HEAD_BYTES)
        file.seek(0)
    except OSError:  # `fileno` of what is none, too
        return None
    parts = [_READER_VERSION, target, attrs.astuple(options), format_, info.st_size, info.st_mtime_ns]
    return hashlib.sha256(json.dumps(parts, default=str).encode() + head).hexdigest()


class ImportState:
    """The state file of one import. To be used by one thread. ``forgets`` begins anew, whatever the file says."""

    def __init__(self, path: Path, *, restart: bool = False) -> None:
        self.path = path
        self._files: dict[str, Any] = {} if restart else _read_files(path)

    def resume(self, identity: str | None) -> tuple[int, tuple[ImportRejection, ...]]:
        """How many of a file's events are acknowledged, and what the target refused of them."""
        entry = self._files.get(identity or "") or {}
        try:
            rejected = [
                ImportRejection(int(ordinal), int(line), str(reason)) for ordinal, line, reason in entry["refused"]
            ]
            return int(entry["acknowledged"]), tuple(rejected)
        except (TypeError, ValueError, KeyError):
            return 0, ()

    def record(self, progress_by_identity: Mapping[str, FileProgress]) -> None:
        """Take in how far files have come, by identity."""
        for identity, progress in progress_by_identity.items():
            acknowledged, rejected = progress.resume_point()
            self._files.pop(identity, None)  # the one that came last stands last
            self._files[identity] = {
                "acknowledged": acknowledged,
                "refused": [[rejection.ordinal, rejection.line, rejection.reason] for rejection in rejected],
            }

    def save(self) -> None:
        """Write the file; raises OSError. What other imports have written meanwhile stays."""
        files = {
            **{name: entry for name, entry in _read_files(self.path).items() if name not in self._files},
            **self._files,
        }
        self._files = dict(list(files.items())[-_MAX_FILES:])
        self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        temporary = self.path.with_name(f"{self.path.name}.{os.getpid()}.tmp")
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            json.dump({"version": _FILE_VERSION, "files": self._files}, file)
        temporary.replace(self.path)


def _read_files(path: Path) -> dict[str, Any]:
    try:
        payload = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    is_valid = (
        isinstance(payload, dict) and payload.get("version") == _FILE_VERSION and isinstance(payload.get("files"), dict)
    )
    return dict(payload["files"]) if is_valid else {}
