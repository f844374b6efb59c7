"""Cursors: how far each log of a caller has been sent to the cloud.

``outbox.json`` may be lost: then events are sent again, and the cloud knows them by their ids. It must never tell of
more than was sent; so each cursor has a mark of the log it was in, and one that does not fit begins anew.
"""

import zlib
from collections.abc import Callable, Mapping
from pathlib import Path

import msgspec

from memoair_runtime.storage.durable import write_file
from memoair_runtime.storage.user_folder import LogVersionKey

# The first event's id stands within these bytes of a log, and no other log has the same.
FINGERPRINT_BYTES = 48


class Cursor(msgspec.Struct, frozen=True, array_like=True):
    """Everything before ``offset`` has been sent, in the log that begins with ``mark``.

    ``written_ns`` is when the log was written last, as far as that was known then: one of that time and that size need
    not be opened to know that nothing in it waits.
    """

    offset: int = 0
    fingerprint: int = 0
    mtime_ns: int = 0

    @property
    def version_key(self) -> LogVersionKey:
        """What a log looks like from outside in which nothing waits."""
        return self.mtime_ns, self.offset


START_OF_LOG = Cursor()


class _CursorFile(msgspec.Struct, frozen=True):
    cloud: str
    sessions: dict[str, Cursor]


_decode_file = msgspec.json.Decoder(_CursorFile).decode


def log_fingerprint(head: bytes) -> int:
    """The mark of a log, from its beginning."""
    return zlib.crc32(head[:FINGERPRINT_BYTES])


class Cursors:
    """The file of one caller, as one process sees it. Who writes to it holds the role for that. Not thread-safe."""

    def __init__(self, path: Path, cloud: str) -> None:
        self._path = path
        self._cloud = cloud  # what was sent to another does not count
        self._version_key: tuple[int, int, int] | None = None
        self._sessions: dict[str, Cursor] = {}

    def refresh(self) -> bool:
        """Read what another process has written since, and tell whether there was any.

        What can't be read is as if it were not there.
        """
        before = self._sessions
        try:
            version_key = self._read_version_key()
            if version_key == self._version_key:
                return False
            stored = _decode_file(self._path.read_bytes())
        except (OSError, msgspec.MsgspecError, UnicodeDecodeError):
            self._version_key, self._sessions = None, {}
        else:
            self._version_key, self._sessions = version_key, stored.sessions if stored.cloud == self._cloud else {}
        return self._sessions != before

    def get(self, session_id: str) -> Cursor:
        """A session's cursor."""
        return self._sessions.get(session_id, START_OF_LOG)

    def update(self, moved: Mapping[str, Cursor], exists: Callable[[str], bool]) -> None:
        """Move cursors, and let go of those of sessions that are there no more; raises OSError where the disk refuses.

        In this process they have moved in any case.
        """
        cursors = {**self._sessions, **moved}
        self._sessions = {session_id: cursor for session_id, cursor in cursors.items() if exists(session_id)}
        write_file(self._path, msgspec.json.encode(_CursorFile(self._cloud, self._sessions)), durable=False)
        self._version_key = self._read_version_key()

    def rewind(self) -> None:
        """Begin anew with every log: the cloud has lost what it had."""
        self._sessions = {}
        self._path.unlink(missing_ok=True)

    def _read_version_key(self) -> tuple[int, int, int]:
        stat = self._path.stat()
        return stat.st_mtime_ns, stat.st_size, stat.st_ino
