"""The index file of a caller's memory: found at the start, written anew behind the requests, never the truth.

The logs are the truth. The file saves reading them: it notes which logs it holds, up to which write, and whatever
has come since is read from the logs again. A file that is damaged, or that holds what the logs no longer do, is thrown
away and made anew.
"""

import logging
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import msgspec

from memoair_index import ContainerError
from memoair_runtime.calls.caller_memory import CallerMemory
from memoair_runtime.storage.role import Role
from memoair_runtime.storage.user_folder import LogStamp, UserFolder

log = logging.getLogger(__name__)

# So many passages that no file holds are quickly read at the next start; more are worth a file.
_WORTH_A_FILE = 400


class MemoryFile:
    """Reads and writes the file of one memory. Used by one background job at a time."""

    def __init__(self, folder: UserFolder, memory: CallerMemory) -> None:
        self._folder = folder
        self._memory = memory
        self._role = Role(folder.role("permanent"))

    def open(self) -> Mapping[str, LogStamp]:
        """Let the memory go on with the newest file that is sound; return the logs that it holds all of."""
        for path in self._paths():
            try:
                stamps = msgspec.convert(self._memory.open(path)["logs"], dict[str, LogStamp])
                self._memory.verify()
            except (OSError, ContainerError, LookupError, TypeError, ValueError) as error:
                log.warning("an index file is of no use, the logs are read: action=index_refused why=%s", _why(error))
            else:
                if self._is_backed_by_logs(stamps):
                    return stamps
            self._memory.forget()
        return {}

    def write_if_due(self, stamps: Mapping[str, LogStamp]) -> None:
        """Write a new file where enough has come, unless another process does; ``stamps`` are of the logs as read."""
        if self._memory.unmerged < _WORTH_A_FILE or not self._folder.path.is_dir() or not self._role.take():
            return
        old = self._paths()
        noted = {"logs": dict(stamps)}
        number = 1 + max((_number(path) for path in old), default=0)
        try:
            # A new name each time: where a file that is mapped can't be replaced, the old one goes when it can.
            self._memory.merge(self._folder.index(number), lambda: noted)
        except OSError as error:
            log.warning("an index file could not be written: action=index_unwritten errno=%s", error.errno)
            return
        for path in (*old, *self._folder.path.glob(".permanent-*.part")):  # what writers that died left behind, too
            with suppress(OSError):
                path.unlink()

    def close(self) -> None:
        """Let another process write the file."""
        self._role.leave()

    def _paths(self) -> list[Path]:
        """The files there are, the newest first."""
        return sorted(self._folder.indexes(), key=_number, reverse=True)

    def _is_backed_by_logs(self, stamps: Mapping[str, LogStamp]) -> bool:
        """Whether every log that the file holds is still there, no shorter than it was."""
        sizes = {session_id: size for session_id, (_, size) in self._folder.session_logs()}
        return all(sizes.get(session_id, -1) >= size for session_id, (_, size) in stamps.items())


def _number(path: Path) -> int:
    digits = path.stem.rpartition("-")[2]
    return int(digits) if digits.isascii() and digits.isdigit() else 0


def _why(error: Exception) -> str:
    """The kind of error; a path would name the caller."""
    return f"{type(error).__name__}" + (f" errno={error.errno}" if isinstance(error, OSError) else "")
