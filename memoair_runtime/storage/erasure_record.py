"""What remains of an erased user on a machine, so that a repeated delivery of an old turn does not bring it back.

A file beside the user's folder, named by a hash of the ids, holds the time of the erasure and a digest of each erased
turn. It holds neither words nor ids. It is durable before the first log is deleted, and stays when the folder goes.
"""

import hashlib
from collections.abc import Iterable
from contextlib import suppress
from datetime import datetime, timedelta
from pathlib import Path

import attrs
import msgspec

from memoair_protocol.durable import write_file
from memoair_protocol.enums import EventType
from memoair_protocol.private_files import read_private_file
from memoair_runtime.storage.events import Event
from memoair_runtime.storage.turn_words import TurnWords
from memoair_runtime.storage.user_folder import ERASURE_RECORD_PREFIX, LogVersionKey, UserFolder, create_project_folder

# An id with so many letters and digits is unique by itself, as a UUID is. Applications use shorter ones again in
# another call: "turn-1".
_MIN_UNIQUE_ID_CHARS = 20
_DIGEST_BYTES = 8
_MAX_CLOCK_SKEW = timedelta(minutes=5)


@attrs.frozen
class CloudErasure:
    """The erasure of a user in a cloud.

    Attributes:
        cloud: Identifies the cloud.
        at: When the user was erased there.
    """

    cloud: str
    at: datetime


class _ErasureRecord(msgspec.Struct, frozen=True, rename="camel"):
    """The content of the file.

    Attributes:
        erased_at: What was said up to this time has been erased.
        turns: Digests of the erased turns.
        clouds: When clouds erased the user, by their ids: a cloud that loses this is to be reminded of it.
    """

    erased_at: datetime
    turns: frozenset[int] = frozenset()
    clouds: dict[str, datetime] = {}


_decode_record = msgspec.json.Decoder(_ErasureRecord).decode


def record_erasure(
    folder: UserFolder, erased_at: datetime, events: Iterable[Event], in_cloud: CloudErasure | None = None
) -> None:
    """Record an erasure, in addition to earlier ones. It is on the disk when this returns.

    Args:
        folder: The user's folder.
        erased_at: What was said up to this time is erased.
        events: The events that are erased.
        in_cloud: The erasure in the cloud, if that is known.

    Raises:
        OSError: The record cannot be written, or an earlier one cannot be read.
    """
    events = list(events)
    # A redelivered turn has the time that it had, and the clock of its machine may have been ahead.
    erased_at = max([erased_at, *(min(event.occurred_at, erased_at + _MAX_CLOCK_SKEW) for event in events)])
    turns = [
        _turn_digests(folder, str(event.payload.get("turnId")), TurnWords.of(event.payload))
        for event in events
        if event.type is EventType.TURN
    ]
    known = _read(folder)
    record = _ErasureRecord(
        max(erased_at, known.erased_at) if known else erased_at,
        (known.turns if known else frozenset[int]()).union(*turns),
        {**(known.clouds if known else {}), **({in_cloud.cloud: in_cloud.at} if in_cloud else {})},
    )
    if record != known:
        create_project_folder(folder.root, folder.project_id)
        write_file(folder.erasure_record, msgspec.json.encode(record), durable=True)


def find_cloud_erasures(project: Path, cloud: str) -> dict[str, datetime]:
    """Return the users that a cloud and this machine have erased: the time in the cloud by the hash of their ids.

    Args:
        project: The project's folder.
        cloud: Identifies the cloud.
    """
    found = {}
    for path in project.glob(f"{ERASURE_RECORD_PREFIX}*.json"):
        with suppress(OSError, msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            record = _decode_record(read_private_file(path))
            if cloud in record.clouds:
                found[path.stem.removeprefix(ERASURE_RECORD_PREFIX)] = record.clouds[cloud]
    return found


def read_erasure_time(folder: UserFolder) -> datetime | None:
    """Return the time up to which a user has been erased on this machine; None if never.

    Raises:
        OSError: The record cannot be read.
    """
    record = _read(folder)
    return record.erased_at if record else None


class ErasedTurns:
    """Recognizes turns of a user that were erased on this machine. Thread-safe.

    Args:
        folder: The user's folder.
    """

    def __init__(self, folder: UserFolder) -> None:
        self._folder = folder
        self._path = folder.erasure_record
        self._loaded = _LoadedRecord(None, None)

    def contains(self, turn_id: str, words: TurnWords, occurred_at: datetime | None) -> bool:
        """Return whether a turn was said before the user was erased, as far as can be known.

        Args:
            turn_id: The turn's id.
            words: Its words.
            occurred_at: When it was spoken, if the application says so.

        Raises:
            OSError: The record cannot be read.
        """
        record = self._refresh()
        if record is None:
            return False
        if occurred_at is not None and occurred_at <= record.erased_at:
            return True
        if occurred_at is not None and not _is_unique(turn_id):
            return False  # said after the erasure, with an id that is used again in each call
        return not record.turns.isdisjoint(_candidate_digests(self._folder, turn_id, words))

    def _refresh(self) -> _ErasureRecord | None:
        """Return the record as it is on the disk: another process may have erased the user."""
        try:
            stat = self._path.stat()
        except FileNotFoundError:
            return None
        version_key = stat.st_mtime_ns, stat.st_size
        loaded = self._loaded
        if loaded.version_key != version_key:
            loaded = self._loaded = _LoadedRecord(version_key, _read(self._folder))
        return loaded.record


@attrs.frozen
class _LoadedRecord:
    """A record, and the version of its file."""

    version_key: LogVersionKey | None
    record: _ErasureRecord | None


def _read(folder: UserFolder) -> _ErasureRecord | None:
    """Return the record of a user; None without one. A damaged one is an OSError: it must not look like none."""
    try:
        return _decode_record(read_private_file(folder.erasure_record))
    except FileNotFoundError:
        return None
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        raise OSError("the record of an erasure is damaged") from None


def _is_unique(turn_id: str) -> bool:
    return sum(map(str.isalnum, turn_id)) >= _MIN_UNIQUE_ID_CHARS


def _turn_digests(folder: UserFolder, turn_id: str, words: TurnWords) -> frozenset[int]:
    """Return the digest by which a repeated delivery of a turn is recognized; none for a turn without words.

    A unique id is enough. A short one is used again in other calls, so the words must be the same, too.
    """
    if _is_unique(turn_id):
        return frozenset([_digest(folder, turn_id)])
    answer = words.assistant_text or words.full_text
    if not words.user_text and not answer:
        return frozenset()
    return frozenset([_digest(folder, turn_id, words.user_text, answer)])


def _candidate_digests(folder: UserFolder, turn_id: str, words: TurnWords) -> frozenset[int]:
    """Return the digests of the turns that a delivery would repeat, or complete by their other side."""
    sides = attrs.evolve(words, user_text=""), attrs.evolve(words, assistant_text=None, full_text="")
    return frozenset[int]().union(*(_turn_digests(folder, turn_id, part) for part in (words, *sides)))


def _digest(folder: UserFolder, *parts: str) -> int:
    content = msgspec.json.encode((folder.project_id, folder.user_id, *parts))
    return int.from_bytes(hashlib.blake2b(content, digest_size=_DIGEST_BYTES).digest(), "big", signed=True)
