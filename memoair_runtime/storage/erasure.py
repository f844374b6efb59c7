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

from memoair_runtime.storage.events import Event, EventType, decode_line
from memoair_runtime.storage.folder_names import ID_FILE
from memoair_runtime.storage.process_lock import ProcessLock
from memoair_runtime.storage.replica_file import ReplicaFile
from memoair_runtime.storage.user_folder import SessionFolder, UserFolder

_DELETED_PREFIX = ".forgotten-"


@attrs.frozen
class ErasedCounts:
    """What was deleted."""

    sessions: int = 0
    turns: int = 0


def erase(folder: UserFolder, before: datetime | None = None) -> ErasedCounts:
    """Delete what a caller said, and all that was made from it or told of him; raises OSError where something stays.

    With ``before``, sessions in which nothing was said before that moment are kept: he has called again since.
    """
    finish_interrupted(folder)
    session_ids: set[str] = set()
    turn_ids: set[str] = set()
    for path in folder.list_session_folders():
        events = _read_events(SessionFolder(path).log)
        if before is not None and events and all(event.occurred_at >= before for event in events):
            continue
        deleted = path.with_name(f"{_DELETED_PREFIX}{uuid.uuid4().hex}")
        path.rename(deleted)
        shutil.rmtree(deleted)
        if events is not None:
            _collect_ids(events, session_ids, turn_ids)
    _collect_ids(ReplicaFile(folder.cloud_replica, None).refresh().events, session_ids, turn_ids)
    for path in _list_files(folder):
        if not _is_kept(path, folder):
            path.unlink(missing_ok=True)
    return ErasedCounts(len(session_ids), len(turn_ids))


def finish_interrupted(folder: UserFolder) -> None:
    """Delete what an erasure left that did not come to its end; raises OSError."""
    for path in folder.path.glob(f"{_DELETED_PREFIX}*"):
        shutil.rmtree(path)


def erase_unserved_user(folder: UserFolder, before: datetime) -> bool:
    """The same for a caller whom no runtime serves; False where one does, which will do it itself. Raises OSError."""
    runtime_lock = ProcessLock(folder.lock("runtime"))
    if not runtime_lock.try_acquire():
        return False
    try:
        erase(folder, before)
        _remove_folder_without_data(folder)
    finally:
        runtime_lock.release()
    return True


def remove_if_empty(folder: UserFolder) -> None:
    """Delete the folder of a caller of whom nothing is left, unless a runtime serves him: it bears his name."""
    runtime_lock = ProcessLock(folder.lock("runtime"))
    if folder.path.is_dir() and runtime_lock.try_acquire():
        try:
            with suppress(OSError):
                _remove_folder_without_data(folder)
        finally:
            runtime_lock.release()


def _remove_folder_without_data(folder: UserFolder) -> None:
    replica = ReplicaFile(folder.cloud_replica, None)
    replica.refresh()
    if (
        not folder.list_session_folders() and not replica.event_count and not replica.facts
    ):  # all other files are made of these
        shutil.rmtree(folder.path)


def _list_files(folder: UserFolder) -> list[Path]:
    try:
        return [path for path in folder.path.iterdir() if not path.is_dir()]
    except FileNotFoundError:
        return []


def _is_kept(path: Path, folder: UserFolder) -> bool:
    """Whether a file says nothing of what was said."""
    return path.suffix == ".lock" or path in (folder.lease, folder.path / ID_FILE)


def _read_events(log: Path) -> list[Event] | None:
    """The events of a log; None where it, or a line of it, can't be read: nobody knows what stands there."""
    try:
        lines = log.read_bytes().split(b"\n")
    except FileNotFoundError:
        return []
    except OSError:
        return None
    events = [decode_line(line) for line in lines[:-1]]  # the last one, if it is torn, was never acknowledged
    return None if None in events else [event for event in events if event is not None]


def _collect_ids(events: Sequence[Event], session_ids: set[str], turn_ids: set[str]) -> None:
    session_ids.update(event.session_id for event in events)
    turn_ids.update(event.event_id for event in events if event.type is EventType.TURN)
