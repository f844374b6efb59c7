"""Erasing a user's data on this machine: the session logs, and every file that was derived from them.

A session's folder is renamed before it is deleted. From then on no reader finds it, and what a crash leaves behind is
recognized by its name. What has been deleted stays so after a power failure. Lock files stay, because another process
may hold them.
"""

import uuid
from contextlib import suppress
from datetime import datetime
from pathlib import Path

import attrs

from memoair_protocol.corrections import corrected_event_id
from memoair_protocol.durable import sync_folder
from memoair_protocol.enums import EventType
from memoair_protocol.erasure_marks import DeviceTime
from memoair_protocol.private_files import is_real_folder, read_private_file, remove_private_tree
from memoair_protocol.turn_spool import erase_user
from memoair_runtime.storage.erasure_record import CloudErasure, LastErasure, record_erasure
from memoair_runtime.storage.events import Event, decode_line
from memoair_runtime.storage.folder_names import ID_FILE
from memoair_runtime.storage.process_lock import ProcessLock
from memoair_runtime.storage.replica_file import ReplicaFile
from memoair_runtime.storage.user_folder import SessionFolder, UserFolder

DELETED_PREFIX = ".forgotten-"


@attrs.frozen
class ErasedCounts:
    """How much was deleted.

    Attributes:
        sessions: Number of sessions.
        turns: Number of turns.
    """

    sessions: int = 0
    turns: int = 0


def erase(
    folder: UserFolder,
    erased_at: datetime,
    *,
    keeps_later: bool,
    in_cloud: CloudErasure | None = None,
    clock: DeviceTime | None = None,
) -> ErasedCounts:
    """Delete what a user said and everything derived from it, and record that; see `erasure_record`.

    Args:
        folder: The user's folder.
        erased_at: The time of the erasure, by the clock of this machine.
        keeps_later: Whether to keep the sessions in which every event is at or after this time: the user has called
            again since the erasure.
        in_cloud: The erasure in the cloud, if that is known.
        clock: The time of the erasure by the clock that cannot be set, if known.

    Returns:
        How much was deleted.

    Raises:
        OSError: Something could not be deleted.
    """
    folder.check()
    finish_interrupted(folder)
    erase_user(folder.root, folder.project_id, folder.user_id, before=erased_at if keeps_later else None)
    erased: list[Path] = []
    events: list[Event] = []
    moment = LastErasure(erased_at, clock)
    for path in folder.list_session_folders():
        session_events, is_readable = _read_events(SessionFolder(path).log)
        is_later = is_readable and session_events and not any(map(moment.includes, session_events))
        if not (keeps_later and is_later):
            erased.append(path)
            events += session_events
    events += ReplicaFile(folder.cloud_replica, None).refresh().events
    record_erasure(folder, erased_at, events, in_cloud, clock)  # before the first of them is gone
    renamed = [path.rename(path.with_name(f"{DELETED_PREFIX}{uuid.uuid4().hex}")) for path in erased]
    for path in renamed:
        remove_private_tree(path)
    removed = [path for path in _list_files(folder) if not _is_kept(path, folder)]
    for path in removed:
        path.unlink(missing_ok=True)
    if renamed or removed:
        sync_folder(folder.path)  # a power failure must not bring them back
    turn_ids = {event.event_id for event in events if event.type is EventType.TURN and not _is_correction(event)}
    return ErasedCounts(len({event.session_id for event in events}), len(turn_ids))


def finish_interrupted(folder: UserFolder) -> None:
    """Delete what an interrupted erasure left behind.

    Raises:
        OSError: Something could not be deleted.
    """
    leftovers = list(folder.path.glob(f"{DELETED_PREFIX}*"))
    for path in leftovers:
        remove_private_tree(path)
    if leftovers:
        sync_folder(folder.path)


def erase_unserved_user(
    folder: UserFolder, in_cloud: CloudErasure | None, erased_at: datetime, clock: DeviceTime
) -> bool:
    """Erase a user that no runtime serves at present.

    Args:
        folder: The user's folder.
        in_cloud: The erasure; later sessions are kept, see `erase`. None erases everything on this machine.
        erased_at: The time of the erasure, by the clock of this machine.
        clock: The same by the clock that cannot be set.

    Returns:
        False if a runtime serves the user; it will erase the data itself.

    Raises:
        OSError: Something could not be deleted.
    """
    folder.check()
    runtime_lock = ProcessLock(folder.lock("runtime"))
    if not runtime_lock.try_acquire():
        return False
    try:
        erase(folder, erased_at, keeps_later=in_cloud is not None, in_cloud=in_cloud, clock=clock)
        remove_folder_without_data(folder)
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
                remove_folder_without_data(folder)
        finally:
            runtime_lock.release()


def remove_folder_without_data(folder: UserFolder) -> None:
    """Delete a user's folder if it holds no data. Its process lock ``runtime`` must be held."""
    replica = ReplicaFile(folder.cloud_replica, None)
    replica.refresh()
    if (
        not folder.list_session_folders() and not replica.event_count and not replica.facts
    ):  # every other file is derived from these
        remove_private_tree(folder.path)
        sync_folder(folder.path.parent)


def _list_files(folder: UserFolder) -> list[Path]:
    try:
        return [path for path in folder.path.iterdir() if not is_real_folder(path)]
    except FileNotFoundError:
        return []


def _is_kept(path: Path, folder: UserFolder) -> bool:
    """Return whether a file contains nothing of what was said."""
    return path.suffix == ".lock" or path in (folder.lease, folder.path / ID_FILE)


def _read_events(log: Path) -> tuple[list[Event], bool]:
    """Return the events of a log, and whether they are all that it holds: it or one of its lines may be unreadable."""
    try:
        lines = read_private_file(log).split(b"\n")
    except FileNotFoundError:
        return [], True
    except OSError:
        return [], False
    events = [decode_line(line) for line in lines[:-1]]  # a torn last line was never acknowledged
    return [event for event in events if event is not None], None not in events


def _is_correction(event: Event) -> bool:
    return corrected_event_id(event.payload) is not None
