"""Events that the cloud has permanently rejected: their ids and error codes, for the operator. No content."""

import os
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from pathlib import Path

import msgspec

from memoair_protocol.private_files import open_private_file, read_private_file
from memoair_protocol.starvation import raise_if_starved
from memoair_protocol.timestamps import format_utc, utc_now

# More than this is not useful, and a cloud that rejects everything must not fill the disk.
_MAX_FILE_BYTES = 4 << 20


class _RejectedEvent(msgspec.Struct, frozen=True, rename="camel"):
    event_id: str
    code: str
    at: str


_decode_line = msgspec.json.Decoder(_RejectedEvent).decode


def count_rejected(path: Path, ignored_codes: AbstractSet[str]) -> int:
    """Return the number of rejected events that a file lists, without those with some codes."""
    try:
        lines = read_private_file(path).splitlines()
    except OSError as error:
        raise_if_starved(error)
        return 0
    records = [record for record in map(_read_record, lines) if record is not None]
    return len({record.event_id for record in records if record.code not in ignored_codes})


class RejectedEvents:
    """The file ``refused.jsonl`` of one user, one JSON object per line.

    For one thread; `count` may be read from any.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self.count = 0  # known rejected events

    def load(self) -> None:
        """Count the events that earlier processes recorded."""
        self.count = count_rejected(self._path, frozenset())

    def record(self, codes: Mapping[str, str]) -> None:
        """Record rejected events.

        Args:
            codes: The error code of each event by its id.

        Raises:
            OSError: The file cannot be written.
        """
        now = format_utc(utc_now())
        lines = b"".join(
            msgspec.json.encode(_RejectedEvent(event_id, code, now)) + b"\n" for event_id, code in codes.items()
        )
        fd = open_private_file(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        try:
            if os.fstat(fd).st_size < _MAX_FILE_BYTES:
                os.write(fd, lines)
        finally:
            os.close(fd)
        self.count += len(codes)

    def reset(self) -> None:
        """Set the count to zero, after the file has been deleted."""
        self.count = 0


def _read_record(line: bytes) -> _RejectedEvent | None:
    try:
        return _decode_line(line)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
