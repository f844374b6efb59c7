"""The index file of a caller's memory: found at the start, written anew behind the requests, never the truth.

The logs are the truth, and beside them what the cloud told. The file saves reading them: it notes which logs it holds,
up to which byte, and how much of what the cloud told; whatever has come since is read again. A file that is damaged, or
that holds what the logs or the cloud no longer do, is deleted and made anew.
"""

import logging
import time
import zlib
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec

from memoair_index import ContainerError
from memoair_runtime.memory.cloud_replica import CloudReplica, ReplicaState
from memoair_runtime.memory.user_memory import UserMemory
from memoair_runtime.storage.process_lock import ProcessLock
from memoair_runtime.storage.user_folder import LogStamp, UserFolder

log = logging.getLogger(__name__)

# So many passages that no file holds are quickly read at the next start; more are worth a file.
_WORTH_A_FILE = 400
_READ_BYTES = 1 << 20
# What stands no longer must leave the disk, too; but a caller should not wait while a file is written for that alone.
_LONGEST_OUTDONE_S = 86_400.0


class _IndexedLog(msgspec.Struct, frozen=True, array_like=True):
    """A log as far as the file holds it."""

    written_ns: int
    size: int
    crc: int  # of its first ``size`` bytes

    @property
    def stamp(self) -> LogStamp:
        """What tells whether the log was written since."""
        return self.written_ns, self.size


class IndexSnapshot:
    """Reads and writes the file of one memory. Used by one background job at a time."""

    def __init__(self, folder: UserFolder, memory: UserMemory, cloud: CloudReplica) -> None:
        self._folder = folder
        self._memory = memory
        self._cloud = cloud
        self._role = ProcessLock(folder.role("permanent"))
        self._held: Mapping[str, _IndexedLog] = {}  # what the newest file holds
        self._held_copy = ReplicaState()  # and what of the cloud

    def open(self) -> Mapping[str, LogStamp]:
        """Let the memory go on with the newest file that is sound; return the logs that it holds all of."""
        for path in self._paths():
            try:
                is_used = self._memory.open(path, self._is_backed)
            except OSError as error:
                log.warning("an index file can't be opened, logs are read: action=index_refused errno=%s", error.errno)
                continue
            except (ContainerError, ValueError) as error:
                log.warning("an index file is damaged, the logs are read: action=index_refused why=%s", _kind(error))
                is_used = False
            if is_used:
                return {session_id: held.stamp for session_id, held in self._held.items()}
            self._held, self._held_copy = {}, ReplicaState()
            for stale in (path, self._folder.vectors):  # what was deleted from the logs must not stay here
                _delete(stale)
        return {}

    def write_if_due(self, stamps: Mapping[str, LogStamp], *, is_quiet: bool = False) -> None:
        """Write a new file where enough has come, unless another process does; ``stamps`` are of the logs as read.

        Also where the file holds what stands no longer, once it is a day old or ``is_quiet``: nobody is calling.
        """
        old = self._paths()
        is_due = self._memory.unmerged >= _WORTH_A_FILE or (bool(old) and self._is_outdone(old[0], is_quiet=is_quiet))
        if not is_due or not self._folder.path.is_dir() or not self._role.take():
            return
        number = 1 + max((_number(path) for path in old), default=0)
        try:
            held = {session_id: self._hold(session_id, stamp) for session_id, stamp in stamps.items()}
            held_copy = self._cloud.holding()
            note = {"logs": msgspec.to_builtins(held), "cloud": msgspec.to_builtins(held_copy)}
            # A new name each time: where a file that is mapped can't be replaced, the old one goes when it can.
            self._memory.merge(self._folder.index(number), lambda: note)
        except OSError as error:
            log.warning("an index file could not be written: action=index_unwritten errno=%s", error.errno)
            return
        except ContainerError as error:  # the next start reads the logs
            log.error("an index file was damaged while it was in use: action=index_unwritten why=%s", _kind(error))
            return
        self._held, self._held_copy = held, held_copy
        for path in (*old, *self._folder.path.glob(".*.part")):  # what writers that died left behind, too
            _delete(path)

    def forget(self) -> None:
        """Let go of what the files held; they have been deleted."""
        self._held, self._held_copy = {}, ReplicaState()

    def close(self) -> None:
        """Let another process write the file."""
        self._role.leave()

    def _paths(self) -> list[Path]:
        """The files there are, the newest first."""
        return sorted(self._folder.indexes(), key=_number, reverse=True)

    def _is_outdone(self, path: Path, *, is_quiet: bool) -> bool:
        if not self._cloud.has_outdone(self._held_copy):
            return False
        with suppress(OSError):
            return is_quiet or time.time() - path.stat().st_mtime > _LONGEST_OUTDONE_S
        return False

    def _is_backed(self, note: Mapping[str, Any]) -> bool:
        """Whether all that the file holds still stands where it is from; raises ValueError for another note."""
        if not self._is_backed_by_logs(note) or not self._cloud.backs(note.get("cloud")):
            return False
        self._held_copy = msgspec.convert(note.get("cloud") or ReplicaState(), ReplicaState)
        return True

    def _is_backed_by_logs(self, note: Mapping[str, Any]) -> bool:
        """Whether every log that the file holds still begins with what it held; raises ValueError for another note."""
        self._held = msgspec.convert(note.get("logs"), dict[str, _IndexedLog])
        stamps = dict(self._folder.session_logs())
        for session_id, held in self._held.items():
            stamp = stamps.get(session_id)
            if stamp is None or (stamp != held.stamp and self._crc(session_id, held.size) != held.crc):
                log.warning("a log is not what it was, all are read again: action=index_outdated")
                return False
        return True

    def _hold(self, session_id: str, stamp: LogStamp) -> _IndexedLog:
        known = self._held.get(session_id)
        if known is not None and known.stamp == stamp:
            return known
        crc = self._crc(session_id, stamp[1])
        return _IndexedLog(*stamp, NO_CRC if crc is None else crc)

    def _crc(self, session_id: str, size: int) -> int | None:
        """The checksum of the beginning of a log; None where it is shorter or can't be read."""
        crc = 0
        try:
            with self._folder.session(session_id).log.open("rb") as file:
                while size > 0 and (chunk := file.read(min(size, _READ_BYTES))):
                    crc = zlib.crc32(chunk, crc)
                    size -= len(chunk)
        except OSError:
            return None
        return None if size else crc


NO_CRC = -1  # of a log that was gone before it could be read


def _delete(path: Path) -> None:
    with suppress(OSError):
        path.unlink(missing_ok=True)


def _number(path: Path) -> int:
    digits = path.stem.rpartition("-")[2]
    return int(digits) if digits.isascii() and digits.isdigit() else 0


def _kind(error: Exception) -> str:
    """The kind of an error; what it says names a path, and that the caller."""
    return type(error).__name__
