"""The state file: how many events of each file are acknowledged, so that the next run continues from there.

The file may be lost, outdated or damaged: then events are sent again, and the target recognizes them. A file is
identified by its size, its modification time and its head, by the target, and by the options it is read with. A file
that has changed is read from the beginning.
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
from memoair_transcripts import TranscriptOptions

# Increment it when a reader's events for a file change: the ordinals in older state files no longer match them.
_READER_VERSION = 1
_FILE_VERSION = 1
# Enough for some years of nightly imports. Beyond it, the files that were imported longest ago are dropped.
_MAX_FILES = 20_000
_HEAD_BYTES = 1 << 16


def default_state_file(target: str) -> Path:
    """Return the default state file of imports into one target."""
    folder = platformdirs.user_state_path("memoair", appauthor=False) / "imports"
    return folder / f"{hashlib.sha256(target.encode()).hexdigest()[:16]}.json"


def file_identity(file: BinaryIO, target: str, options: TranscriptOptions, format_: str | None) -> str | None:
    """Return the identity of a file for one target and one way of reading it; None for pipes and other streams."""
    try:
        info = os.fstat(file.fileno())
        if not file.seekable():
            return None
        head = file.read(_HEAD_BYTES)
        file.seek(0)
    except OSError:  # also raised by `fileno` if there is no descriptor
        return None
    parts = [_READER_VERSION, target, attrs.astuple(options), format_, info.st_size, info.st_mtime_ns]
    return hashlib.sha256(json.dumps(parts, default=str).encode() + head).hexdigest()


class ImportState:
    """The state file of imports. Not thread-safe.

    Args:
        path: The state file.
        restart: Whether to ignore what the file says.
    """

    def __init__(self, path: Path, *, restart: bool = False) -> None:
        self.path = path
        self._files: dict[str, Any] = {} if restart else _read_files(path)

    def resume(self, identity: str | None) -> tuple[int, tuple[ImportRejection, ...]]:
        """Return how many events of a file are acknowledged, and which of them the target rejected."""
        entry = self._files.get(identity or "") or {}
        try:
            rejected = [
                ImportRejection(int(ordinal), int(line), str(reason)) for ordinal, line, reason in entry["refused"]
            ]
            return int(entry["acknowledged"]), tuple(rejected)
        except (TypeError, ValueError, KeyError):
            return 0, ()

    def record(self, progress_by_identity: Mapping[str, FileProgress]) -> None:
        """Record the progress of files, by their identity."""
        for identity, progress in progress_by_identity.items():
            acknowledged, rejected = progress.resume_point()
            self._files.pop(identity, None)  # keep the most recent last
            self._files[identity] = {
                "acknowledged": acknowledged,
                "refused": [[rejection.ordinal, rejection.line, rejection.reason] for rejection in rejected],
            }

    def save(self) -> None:
        """Write the file. Entries that other imports wrote in the meantime are kept. Raises OSError."""
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
