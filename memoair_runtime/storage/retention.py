"""Retention on this machine: how long a project keeps turns, and the dropping of older ones.

The rules come from the cloud and are kept in a file of the project, so that they hold offline, too. A turn is dropped
once it is old enough and, if it is meant for a cloud, that has received it. Logs are only appended to, so a log loses
its oldest lines by being replaced. Every file that is derived from a log or replica is deleted with what it was
derived from.
"""

import uuid
from contextlib import ExitStack
from datetime import datetime

import attrs
import filelock
import msgspec

from memoair_protocol.corrections import corrected_event_id
from memoair_protocol.durable import write_file
from memoair_protocol.enums import EventType
from memoair_protocol.hashes import hash_user_id
from memoair_protocol.private_files import open_private_reader, read_private_file, remove_private_tree
from memoair_protocol.retention import find_cutoff
from memoair_runtime.storage.cursors import FINGERPRINT_BYTES, Cursors, log_fingerprint
from memoair_runtime.storage.erasure import DELETED_PREFIX, finish_interrupted, remove_folder_without_data
from memoair_runtime.storage.events import Event, decode_line
from memoair_runtime.storage.process_lock import ProcessLock
from memoair_runtime.storage.project_folder import ProjectFolder
from memoair_runtime.storage.replica_file import ReplicaFile
from memoair_runtime.storage.session_log import LOCK_TIMEOUT_S
from memoair_runtime.storage.user_folder import SessionFolder, UserFolder


class RetentionRules(msgspec.Struct, frozen=True):
    """What the cloud said last about a project's retention, as stored in ``retention.json``.

    Attributes:
        cloud: Identifies the cloud.
        version: The version of the rules.
        turns_days: For how many days turns are kept; None for ever.
        held: Whether a legal hold covers all users.
        held_users: Digests of single users that legal holds cover.
    """

    cloud: str
    version: int
    turns_days: int | None = None
    held: bool = False
    held_users: frozenset[str] = frozenset()


_decode_rules = msgspec.json.Decoder(RetentionRules).decode


@attrs.frozen
class DroppedTurns:
    """What was dropped from the files of a user.

    Attributes:
        event_ids: The ids of the events.
        turns: The number of turns.
    """

    event_ids: tuple[str, ...] = ()
    turns: int = 0


def read_rules(project: ProjectFolder) -> RetentionRules | None:
    """Return what a cloud said last; None if none said anything, or if that cannot be read."""
    try:
        return _decode_rules(read_private_file(project.retention))
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None


def write_rules(project: ProjectFolder, rules: RetentionRules) -> None:
    """Store what the cloud said.

    Raises:
        OSError: The file cannot be written.
    """
    write_file(project.retention, msgspec.json.encode(rules), durable=False)


def find_user_cutoff(
    rules: RetentionRules | None, local_days: int | None, folder: UserFolder, now: datetime
) -> datetime | None:
    """Return the time before which turns of a user are dropped; None if all are kept.

    Args:
        rules: What the cloud said last.
        local_days: For how many days this machine keeps turns, whatever the cloud says; None for ever.
        folder: The user's folder.
        now: The present time.
    """
    cloud_days = None
    if rules is not None:
        if rules.held or hash_user_id(folder.project_id, folder.user_id) in rules.held_users:
            return None
        cloud_days = rules.turns_days
    return find_cutoff(now, min((days for days in (cloud_days, local_days) if days is not None), default=None))


def drop_old_turns(folder: UserFolder, cutoff: datetime) -> DroppedTurns:
    """Drop what is older than a time from the files of a user. A crash leaves files that the next call completes.

    Args:
        folder: The user's folder. No thread of this process reads or writes it during the call.
        cutoff: The time.

    Raises:
        OSError: Something could not be deleted.
    """
    finish_interrupted(folder)
    events: list[Event] = []
    for path in folder.list_session_folders():
        events += _trim_session(folder, SessionFolder(path), cutoff)
    events += _trim_replica(folder, cutoff)
    if events:
        for path in (*folder.list_indexes(), folder.vectors):
            path.unlink(missing_ok=True)
    turns = {event.event_id for event in events if event.type is EventType.TURN and not _is_correction(event)}
    return DroppedTurns(tuple(event.event_id for event in events), len(turns))


def drop_unserved(folder: UserFolder, cutoff: datetime) -> DroppedTurns:
    """Drop what is older than a time of a user that no runtime serves at present. A served one does so itself.

    Raises:
        OSError: Something could not be deleted.
    """
    folder.check()
    runtime_lock = ProcessLock(folder.lock("runtime"))
    if not folder.path.is_dir() or not runtime_lock.try_acquire():
        return DroppedTurns()
    try:
        dropped = drop_old_turns(folder, cutoff)
        if dropped.event_ids:
            remove_folder_without_data(folder)
    finally:
        runtime_lock.release()
    return dropped


def _trim_session(folder: UserFolder, session: SessionFolder, cutoff: datetime) -> list[Event]:
    """Drop the oldest lines of a log, up to the first that is kept; return their events."""
    try:
        with open_private_reader(session.log) as file:
            first = decode_line(file.readline().removesuffix(b"\n"))
    except FileNotFoundError:
        return []
    if first is not None and first.occurred_at >= cutoff:
        return []  # the common case costs one line
    with ExitStack() as stack:
        try:
            stack.enter_context(filelock.FileLock(session.lock, mode=0o600).acquire(timeout=LOCK_TIMEOUT_S))
        except filelock.Timeout:
            return []  # next time
        return _replace_log(folder, session, cutoff)


def _replace_log(folder: UserFolder, session: SessionFolder, cutoff: datetime) -> list[Event]:
    content = read_private_file(session.log)
    events: list[Event] = []
    end = 0
    sent = _SentOffsets(folder, content)
    while (line_end := content.find(b"\n", end) + 1) > 0:
        event = decode_line(content[end : line_end - 1])
        if event is not None:
            if event.occurred_at >= cutoff or not sent.is_done(event, line_end):
                break
            events.append(event)
        end = line_end
    if not events:
        return []
    # The brief quotes the first turn. It is written again with the next one.
    session.brief.unlink(missing_ok=True)
    if end < len(content):
        # Another first line means that no cursor matches: what is left is sent again, and known to the cloud.
        write_file(session.log, content[end:], durable=True)
    else:
        deleted = session.path.with_name(f"{DELETED_PREFIX}{uuid.uuid4().hex}")
        session.path.rename(deleted)
        remove_private_tree(deleted)
    return events


class _SentOffsets:
    """Up to where a log has been sent, to each of the clouds that its events are meant for."""

    def __init__(self, folder: UserFolder, content: bytes) -> None:
        self._folder = folder
        self._fingerprint = log_fingerprint(content[:FINGERPRINT_BYTES])
        self._offsets: dict[str, int] = {}
        cursors = Cursors(folder, "")
        cursors.refresh()
        self._unmarked_cloud = cursors.unmarked_cloud

    def is_done(self, event: Event, end_offset: int) -> bool:
        """Return whether an event, whose line ends there, is not waiting to be sent."""
        cloud = self._unmarked_cloud if event.cloud is msgspec.UNSET else event.cloud
        if not isinstance(cloud, str):
            return True
        if cloud not in self._offsets:
            cursors = Cursors(self._folder, cloud)
            cursors.refresh()
            cursor = cursors.get(event.session_id)
            self._offsets[cloud] = cursor.offset if cursor.fingerprint == self._fingerprint else 0
        return end_offset <= self._offsets[cloud]


def _trim_replica(folder: UserFolder, cutoff: datetime) -> list[Event]:
    """Drop what is old from the replica; return the events. Another process that is pulling leaves it to later."""
    if not folder.cloud_replica.exists():
        return []
    lock = ProcessLock(folder.lock("pull"))
    if not lock.try_acquire():
        return []
    try:
        return ReplicaFile(folder.cloud_replica, None).drop_before(cutoff)
    finally:
        lock.release()


def _is_correction(event: Event) -> bool:
    return corrected_event_id(event.payload) is not None
