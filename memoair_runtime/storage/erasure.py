"""Forgetting on the disk: what a caller said is deleted, and every file that was made from it.

A session's folder is renamed before it is deleted: from then on nobody who looks for it finds it, and what a crash
leaves is known by its name. Locks stay for as long as somebody may hold them.
"""

import shutil
import uuid
from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime
from pathlib import Path

import attrs

from memoair_runtime.storage.events import Event, EventType, from_line
from memoair_runtime.storage.folder_names import ID_FILE
from memoair_runtime.storage.process_lock import ProcessLock
from memoair_runtime.storage.replica_file import ReplicaFile
from memoair_runtime.storage.user_folder import SessionFolder, UserFolder

_GOING = ".forgotten-"


@attrs.frozen
class ErasedCounts:
    """What was deleted."""

    sessions: int = 0
    turns: int = 0


def erase(folder: UserFolder, before: datetime | None = None) -> ErasedCounts:
    """Delete what a caller said, and all that was made from it or told of him; raises OSError where something stays.

    With ``before``, sessions in which nothing was said before that moment are kept: he has called again since.
    """
    finish(folder)
    sessions: set[str] = set()
    turns: set[str] = set()
    for path in folder.session_folders():
        events = _events(SessionFolder(path).log)
        if before is not None and events and all(event.occurred_at >= before for event in events):
            continue
        going = path.with_name(f"{_GOING}{uuid.uuid4().hex}")
        path.rename(going)
        shutil.rmtree(going)
        if events is not None:
            _count(events, sessions, turns)
    _count(ReplicaFile(folder.cloud_copy, None).catch_up().events, sessions, turns)
    for path in _files(folder):
        if not _stays(path, folder):
            path.unlink(missing_ok=True)
    return ErasedCounts(len(sessions), len(turns))


def finish(folder: UserFolder) -> None:
    """Delete what an erasure left that did not come to its end; raises OSError."""
    for path in folder.path.glob(f"{_GOING}*"):
        shutil.rmtree(path)


def erase_unattended(folder: UserFolder, before: datetime) -> bool:
    """The same for a caller whom no runtime serves; False where one does, which will do it itself. Raises OSError."""
    serving = ProcessLock(folder.role("runtime"))
    if not serving.take():
        return False
    try:
        erase(folder, before)
        _remove(folder)
    finally:
        serving.leave()
    return True


def remove_if_empty(folder: UserFolder) -> None:
    """Delete the folder of a caller of whom nothing is left, unless a runtime serves him: it bears his name."""
    serving = ProcessLock(folder.role("runtime"))
    if folder.path.is_dir() and serving.take():
        try:
            with suppress(OSError):
                _remove(folder)
        finally:
            serving.leave()


def _remove(folder: UserFolder) -> None:
    copy = ReplicaFile(folder.cloud_copy, None)
    copy.catch_up()
    if not folder.session_folders() and not copy.events and not copy.facts:  # all other files are made of these
        shutil.rmtree(folder.path)


def _files(folder: UserFolder) -> list[Path]:
    try:
        return [path for path in folder.path.iterdir() if not path.is_dir()]
    except FileNotFoundError:
        return []


def _stays(path: Path, folder: UserFolder) -> bool:
    """Whether a file says nothing of what was said."""
    return path.suffix == ".lock" or path in (folder.lease, folder.path / ID_FILE)


def _events(log: Path) -> list[Event] | None:
    """The events of a log; None where it, or a line of it, can't be read: nobody knows what stands there."""
    try:
        lines = log.read_bytes().split(b"\n")
    except FileNotFoundError:
        return []
    except OSError:
        return None
    events = [from_line(line) for line in lines[:-1]]  # the last one, if it is torn, was never acknowledged
    return None if None in events else [event for event in events if event is not None]


def _count(events: Sequence[Event], sessions: set[str], turns: set[str]) -> None:
    sessions.update(event.session_id for event in events)
    turns.update(event.event_id for event in events if event.type is EventType.TURN)
