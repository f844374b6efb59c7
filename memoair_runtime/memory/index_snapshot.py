"""The index file of a user's memory: opened at start, rewritten in the background, never the source of truth.

The session logs are the truth, together with the cloud replica. The index file saves reading them. Its metadata says
which logs it holds, up to which byte, and how much of the replica; whatever has come since is read. A file that is
damaged, or that holds what the logs or the cloud no longer hold, is deleted and rebuilt.
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
from memoair_protocol.private_files import check_private_file, open_private_reader
from memoair_protocol.starvation import raise_if_starved
from memoair_runtime.memory.cloud_replica import CloudReplica, ReplicaState
from memoair_runtime.memory.user_memory import UserMemory
from memoair_runtime.storage.process_lock import ProcessLock
from memoair_runtime.storage.user_folder import LogVersionKey, UserFolder

log = logging.getLogger(__name__)

# Fewer new passages than this are quickly read from the logs at the next start, and not worth a file.
_MIN_UNSAVED_PASSAGES = 400
_READ_CHUNK_BYTES = 1 << 20
# Outdated facts must leave the disk too, but a caller should not wait while a file is written for that alone.
_MAX_STALE_S = 86_400.0


class _IndexedLog(msgspec.Struct, frozen=True, array_like=True):
    """What an index file holds of a log."""

    mtime_ns: int
    size: int
    crc: int  # of the first ``size`` bytes

    @property
    def version_key(self) -> LogVersionKey:
        """Changes with every write to the log."""
        return self.mtime_ns, self.size


class IndexSnapshot:
    """Reads and writes the index files of one memory. Used by one background job at a time."""

    def __init__(self, folder: UserFolder, memory: UserMemory, replica: CloudReplica) -> None:
        self._folder = folder
        self._memory = memory
        self._replica = replica
        self._lock = ProcessLock(folder.lock("permanent"))
        self._indexed_logs: Mapping[str, _IndexedLog] = {}  # what the newest file holds of logs
        self._indexed_replica = ReplicaState()  # and of the replica

    def load(self) -> Mapping[str, LogVersionKey]:
        """Let the memory continue with the newest valid file. Files that are invalid or outdated are deleted.

        Returns:
            The logs that the file holds, with their version keys. Empty if there is no valid file.
        """
        for path in self._list_paths():
            try:
                check_private_file(path)
                is_used = self._memory.open_snapshot(path, self._matches)
            except OSError as error:
                raise_if_starved(error)  # it is opened later: to read the logs takes what is wanting, too
                log.warning("cannot open an index file, the logs are read: action=index_refused errno=%s", error.errno)
                continue
            except (ContainerError, ValueError) as error:
                log.warning(
                    "an index file is damaged, the logs are read: action=index_refused why=%s", _error_kind(error)
                )
                is_used = False
            if is_used:
                return {session_id: indexed.version_key for session_id, indexed in self._indexed_logs.items()}
            self._indexed_logs, self._indexed_replica = {}, ReplicaState()
            for stale_path in (path, self._folder.vectors):  # what was deleted from the logs must not stay in them
                _delete(stale_path)
        return {}

    def write_if_due(
        self, loaded_versions: Mapping[str, LogVersionKey], *, is_idle: bool = False, is_forced: bool = False
    ) -> None:
        """Write a new file if many passages are in no file, unless another process writes the files.

        Also write one if the current file holds outdated facts, once it is a day old or while ``is_idle``.

        Args:
            loaded_versions: The logs that the memory holds, with their version keys.
            is_idle: Whether no session is active.
            is_forced: Whether the last file was deleted although most of it still holds.
        """
        old_paths = self._list_paths()
        is_due = (is_forced and len(self._memory) >= _MIN_UNSAVED_PASSAGES) or (
            self._memory.unmerged_count >= _MIN_UNSAVED_PASSAGES
        )
        is_due = is_due or (bool(old_paths) and self._is_stale(old_paths[0], is_idle=is_idle))
        if not is_due or not self._folder.path.is_dir() or not self._lock.try_acquire():
            return
        number = 1 + max((_file_number(path) for path in old_paths), default=0)
        try:
            indexed_logs = {
                session_id: self._describe_log(session_id, version_key)
                for session_id, version_key in loaded_versions.items()
            }
            indexed_replica = self._replica.current_state()
            file_metadata = {"logs": msgspec.to_builtins(indexed_logs), "cloud": msgspec.to_builtins(indexed_replica)}
            # A new name each time: on systems where a mapped file cannot be replaced, the old one is deleted later.
            self._memory.write_snapshot(self._folder.index(number), lambda: file_metadata)
        except OSError as error:
            log.warning("cannot write an index file: action=index_unwritten errno=%s", error.errno)
            return
        except ContainerError as error:  # the next start reads the logs
            log.error("an index file was damaged while in use: action=index_unwritten why=%s", _error_kind(error))
            return
        self._indexed_logs, self._indexed_replica = indexed_logs, indexed_replica
        for path in (*old_paths, *self._folder.path.glob(".*.part")):  # also what killed writers left behind
            _delete(path)

    def reset(self) -> None:
        """Start over after the files have been deleted."""
        self._indexed_logs, self._indexed_replica = {}, ReplicaState()

    def close(self) -> None:
        """Let another process write the files."""
        self._lock.release()

    def _list_paths(self) -> list[Path]:
        """Return the existing files, newest first."""
        return sorted(self._folder.list_indexes(), key=_file_number, reverse=True)

    def _is_stale(self, path: Path, *, is_idle: bool) -> bool:
        if not self._replica.is_stale(self._indexed_replica):
            return False
        with suppress(OSError):
            return is_idle or time.time() - path.stat().st_mtime > _MAX_STALE_S
        return False

    def _matches(self, file_metadata: Mapping[str, Any]) -> bool:
        """Return whether logs and replica still hold what the file holds; raise ValueError for other metadata."""
        if not self._matches_logs(file_metadata) or not self._replica.matches(file_metadata.get("cloud")):
            return False
        self._indexed_replica = msgspec.convert(file_metadata.get("cloud") or ReplicaState(), ReplicaState)
        return True

    def _matches_logs(self, file_metadata: Mapping[str, Any]) -> bool:
        """Return whether each log still starts with what the file holds of it; raise ValueError for other metadata."""
        self._indexed_logs = msgspec.convert(file_metadata.get("logs"), dict[str, _IndexedLog])
        version_keys = dict(self._folder.list_session_logs())
        for session_id, indexed in self._indexed_logs.items():
            version_key = version_keys.get(session_id)
            if version_key is None or (
                version_key != indexed.version_key and self._log_crc(session_id, indexed.size) != indexed.crc
            ):
                log.warning("a session log has changed, all logs are read again: action=index_outdated")
                return False
        return True

    def _describe_log(self, session_id: str, version_key: LogVersionKey) -> _IndexedLog:
        known = self._indexed_logs.get(session_id)
        if known is not None and known.version_key == version_key:
            return known
        crc = self._log_crc(session_id, version_key[1])
        return _IndexedLog(*version_key, UNREADABLE_CRC if crc is None else crc)

    def _log_crc(self, session_id: str, size: int) -> int | None:
        """Return the checksum of the beginning of a log, or None if the log is shorter or unreadable."""
        crc = 0
        try:
            with open_private_reader(self._folder.session(session_id).log) as file:
                while size > 0 and (chunk := file.read(min(size, _READ_CHUNK_BYTES))):
                    crc = zlib.crc32(chunk, crc)
                    size -= len(chunk)
        except OSError as error:
            raise_if_starved(error)  # the file is not outdated
            return None
        return None if size else crc


UNREADABLE_CRC = -1  # of a log that disappeared before it could be read


def _delete(path: Path) -> None:
    with suppress(OSError):
        path.unlink(missing_ok=True)


def _file_number(path: Path) -> int:
    digits = path.stem.rpartition("-")[2]
    return int(digits) if digits.isascii() and digits.isdigit() else 0


def _error_kind(error: Exception) -> str:
    """Return the class of an error: its message contains a path, and with it the user's id."""
    return type(error).__name__
