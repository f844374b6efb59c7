"""Erasing a user's data on this machine: the session logs, and every file that was derived from them.

A session's folder is renamed before it is deleted. From then on no reader finds it, and what a crash leaves behind is
recognized by its name. Lock files stay, because another process may hold them.
"""

import shutil
import uuid
from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime
from pathlib import Path

import attrs

from memoair_protocol.enums import EventType
from memoair_runtime.storage.events import Event, decode_line
from memoair_runtime.storage.folder_names import ID_FILE
from memoair_runtime.storage.process_lock import ProcessLock
from memoair_runtime.storage.replica_file import ReplicaFile
from memoair_runtime.storage.user_folder import SessionFolder, UserFolder

_DELETED_PREFIX = ".forgotten-"


@attrs.frozen
class ErasedCounts:
    """How much was deleted.

    Attributes:
        sessions: Number of sessions.
        turns: Number of turns.
    """

    sessions: int = 0
    turns: int = 0


def erase(folder: UserFolder, before: datetime | None = None) -> ErasedCounts:
    """Delete what a user said and everything derived from it.

    Args:
        folder: The user's folder.
        before: If given, keep the sessions in which every event is at or after this time: the user has called again
            since the erasure.

    Returns:
        How much was deleted.

    Raises:
        OSError: Something could not be deleted.
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
    """Delete what an interrupted erasure left behind.

    Raises:
        OSError: Something could not be deleted.
    """
    for path in folder.path.glob(f"{_DELETED_PREFIX}*"):
        shutil.rmtree(path)


def erase_unserved_user(folder: UserFolder, before: datetime) -> bool:
    """Erase a user that no runtime serves at present.

    Args:
        folder: The user's folder.
        before: See `erase`.

    Returns:
        False if a runtime serves the user; it will erase the data itself.

    Raises:
        OSError: Something could not be deleted.
    """
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
    """Delete a user's folder, whose name is the user's id, if it holds no data and no runtime serves the user.

    A folder that cannot be deleted stays; that is no error.
    """
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
    ):  # every other file is derived from these
        shutil.rmtree(folder.path)


def _list_files(folder: UserFolder) -> list[Path]:
    try:
        return [path for path in folder.path.iterdir() if not path.is_dir()]
    except FileNotFoundError:
        return []


def _is_kept(path: Path, folder: UserFolder) -> bool:
    """Return whether a file contains nothing of what was said."""
    return path.suffix == ".lock" or path in (folder.lease, folder.path / ID_FILE)


def _read_events(log: Path) -> list[Event] | None:
    """Return the events of a log, or None if it or one of its lines is unreadable: its content is then unknown."""
    try:
        lines = log.read_bytes().split(b"\n")
    except FileNotFoundError:
        return []
    except OSError:
        return None
    events = [decode_line(line) for line in lines[:-1]]  # a torn last line was never acknowledged
    return None if None in events else [event for event in events if event is not None]


def _collect_ids(events: Sequence[Event], session_ids: set[str], turn_ids: set[str]) -> None:
    session_ids.update(event.session_id for event in events)
    turn_ids.update(event.event_id for event in events if event.type is EventType.TURN)
