"""Cursors: how much of each session log has been sent to the cloud.

``outbox.json`` may be lost: the events are then sent again, and the cloud recognizes them by their ids. A cursor must
never claim more than was sent. So each one holds a fingerprint of its log, and a cursor whose fingerprint does not
match starts again at the beginning of the log.

The file has the cursors of the cloud that was used last, and under ``others`` those of other destinations: clouds that
share the storage root, and what was sent although it had been said without a cloud. Cursors are valid for one epoch of
a cloud: one that was restored from a backup has a new epoch, and may lack what was sent before.
"""

import zlib
from collections.abc import Callable, Mapping

import msgspec

from memoair_protocol.durable import write_file
from memoair_protocol.private_files import read_private_file
from memoair_runtime.storage.user_folder import LogVersionKey, UserFolder

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


class _CursorSet(msgspec.Struct, frozen=True, omit_defaults=True):
    """The cursors of one destination by session, and the epoch of the cloud for which they are valid."""

    sessions: dict[str, Cursor]
    epoch: str | None = None


class _CursorFile(msgspec.Struct, frozen=True):
    """The content of ``outbox.json``.

    ``unmarked`` is the cloud that events without a mark are meant for, None for no cloud. Versions that did not mark
    events did not write the field either, and sent all of them to the cloud that the file names.
    """

    cloud: str
    sessions: dict[str, Cursor]
    epoch: str | None = None
    others: dict[str, _CursorSet] = {}
    unmarked: str | msgspec.UnsetType | None = msgspec.UNSET


class _PullStateFile(msgspec.Struct, frozen=True):
    """What is read of ``cloud_state.json``; ``marks`` says that its writer marked the events that it logged."""

    cloud: str
    marks: bool = False


_decode_file = msgspec.json.Decoder(_CursorFile).decode
_decode_pull_state = msgspec.json.Decoder(_PullStateFile).decode


def log_fingerprint(head: bytes) -> int:
    """Return the fingerprint of a log.

    Args:
        head: The beginning of the log, at least `FINGERPRINT_BYTES` if it is that long.
    """
    return zlib.crc32(head[:FINGERPRINT_BYTES])


class Cursors:
    """The cursor file of one user, as one process sees it. Writers hold the process lock ``push``. Not thread-safe.

    Args:
        folder: The user's folder.
        destination: The cloud, or another name for what is sent. What was sent elsewhere does not count.

    Attributes:
        unmarked_cloud: The cloud that events without a mark are meant for; None for no cloud.
    """

    def __init__(self, folder: UserFolder, destination: str) -> None:
        self._folder = folder
        self._path = folder.outbox
        self._destination = destination
        self._epoch: str | None = None
        self._version_key: tuple[int, int, int] | None = None
        self._sessions: dict[str, Cursor] = {}
        self._file: _CursorFile | None = None
        self.unmarked_cloud: str | None = None

    def set_epoch(self, epoch: str | None) -> None:
        """Set the epoch of the cloud. Cursors of another one do not count. None accepts those of any epoch."""
        if epoch is not None and epoch != self._epoch:
            self._epoch, self._version_key = epoch, None  # read again

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
            self._file = _decode_file(read_private_file(self._path))
        except (OSError, msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            self._version_key, self._file = None, None
        else:
            self._version_key = version_key
        stored = self._find_stored()
        self._sessions = stored.sessions if self._epoch in (None, stored.epoch) else {}
        self.unmarked_cloud = self._find_unmarked_cloud()
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
        self._write({session_id: cursor for session_id, cursor in cursors.items() if exists(session_id)})

    def rewind(self) -> None:
        """Start again at the beginning of every log, because the cloud has lost data.

        Raises:
            OSError: The file cannot be written.
        """
        if self._sessions:
            self._write({})

    def _find_stored(self) -> _CursorSet:
        if self._file is None:
            return _CursorSet({})
        if self._file.cloud == self._destination:
            return _CursorSet(self._file.sessions, self._file.epoch)
        return self._file.others.get(self._destination, _CursorSet({}))

    def _find_unmarked_cloud(self) -> str | None:
        """Return the cloud that events without a mark are meant for: the one that an earlier version synced with.

        Without a trace of one, they may have been said without a cloud, and stay on this machine.
        """
        if self._file is not None:
            return self._file.cloud if self._file.unmarked is msgspec.UNSET else self._file.unmarked
        try:
            state = _decode_pull_state(read_private_file(self._folder.pull_state))
        except (OSError, msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            return None
        return None if state.marks else state.cloud

    def _write(self, sessions: dict[str, Cursor]) -> None:
        """Write the cursors of this destination and those of the others. The new values hold even if that fails."""
        self._sessions = sessions
        file = self._file
        others = {**file.others, file.cloud: _CursorSet(file.sessions, file.epoch)} if file is not None else {}
        stored = others.pop(self._destination, None)
        epoch = self._epoch or (stored.epoch if stored else None)
        new_file = _CursorFile(self._destination, sessions, epoch, others, self.unmarked_cloud)
        write_file(self._path, msgspec.json.encode(new_file), durable=False)
        self._file, self._version_key = new_file, self._read_version_key()

    def _read_version_key(self) -> tuple[int, int, int]:
        stat = self._path.stat()
        return stat.st_mtime_ns, stat.st_size, stat.st_ino
