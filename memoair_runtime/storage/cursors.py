"""Cursors: how much of each session log has been sent to the cloud.

``outbox.json`` may be lost: the events are then sent again, and the cloud recognizes them by their ids. A cursor must
never claim more than was sent. So each one holds a fingerprint of its log, and a cursor whose fingerprint does not
match starts again at the beginning of the log.
"""

import zlib
from collections.abc import Callable, Mapping
from pathlib import Path

import msgspec

from memoair_protocol.durable import write_file
from memoair_runtime.storage.user_folder import LogVersionKey

# A log's first event id lies within these bytes and is unique to that log.
FINGERPRINT_BYTES = 48


class Cursor(msgspec.Struct, frozen=True, array_like=True):
    """A position in one session log, up to which every event has been sent.

    Attributes:
        offset: Bytes of the log that have been sent.
        fingerprint: Identifies the log; see `log_fingerprint`.
        mtime_ns: When the log was last written, as far as was known. A log of this time and size has nothing to send
            and need not be opened.
    """

    offset: int = 0
    fingerprint: int = 0
    mtime_ns: int = 0

    @property
    def version_key(self) -> LogVersionKey:
        """The time and size of the log if nothing in it is left to send."""
        return self.mtime_ns, self.offset


START_OF_LOG = Cursor()


class _CursorFile(msgspec.Struct, frozen=True):
    cloud: str
    sessions: dict[str, Cursor]


_decode_file = msgspec.json.Decoder(_CursorFile).decode


def log_fingerprint(head: bytes) -> int:
    """Return the fingerprint of a log.

    Args:
        head: The beginning of the log, at least `FINGERPRINT_BYTES` if it is that long.
    """
    return zlib.crc32(head[:FINGERPRINT_BYTES])


class Cursors:
    """The cursor file of one user, as one process sees it. Writers hold the process lock ``push``. Not thread-safe."""

    def __init__(self, path: Path, cloud: str) -> None:
        self._path = path
        self._cloud = cloud  # what was sent to another cloud does not count
        self._version_key: tuple[int, int, int] | None = None
        self._sessions: dict[str, Cursor] = {}

    def refresh(self) -> bool:
        """Read what another process has written since the last call.

        A missing or unreadable file counts as empty.

        Returns:
            Whether any cursor has changed.
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
        """Return the cursor of a session."""
        return self._sessions.get(session_id, START_OF_LOG)

    def update(self, moved: Mapping[str, Cursor], exists: Callable[[str], bool]) -> None:
        """Set cursors and drop those of sessions that no longer exist.

        The new values hold in this process even if they cannot be written.

        Args:
            moved: The new cursors by session id.
            exists: Tells whether a session still has a log.

        Raises:
            OSError: The file cannot be written.
        """
        cursors = {**self._sessions, **moved}
        self._sessions = {session_id: cursor for session_id, cursor in cursors.items() if exists(session_id)}
        write_file(self._path, msgspec.json.encode(_CursorFile(self._cloud, self._sessions)), durable=False)
        self._version_key = self._read_version_key()

    def rewind(self) -> None:
        """Start again at the beginning of every log, because the cloud has lost data.

        Raises:
            OSError: The file cannot be deleted.
        """
        self._sessions = {}
        self._path.unlink(missing_ok=True)

    def _read_version_key(self) -> tuple[int, int, int]:
        stat = self._path.stat()
        return stat.st_mtime_ns, stat.st_size, stat.st_ino
