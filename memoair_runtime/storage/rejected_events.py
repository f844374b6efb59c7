"""What the cloud will never take: the ids of events and why, for who looks after a machine. No words."""

import os
from collections.abc import Mapping
from pathlib import Path

import msgspec

from memoair_runtime.timeutil import iso, utc_now

# Nobody reads more, and a cloud that refuses everything must not fill the disk.
_MAX_FILE_BYTES = 4 << 20


class _RejectedEvent(msgspec.Struct, frozen=True, rename="camel"):
    event_id: str
    code: str
    at: str


_decode_line = msgspec.json.Decoder(_RejectedEvent).decode


class RejectedEvents:
    """``refused.jsonl`` of one caller, one JSON object a line. Used by one thread; `count` by any."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.count = 0  # how many events are known to be refused

    def load(self) -> None:
        """Count what earlier processes noted."""
        try:
            lines = self._path.read_bytes().splitlines()
        except OSError:
            lines = []
        self.count = len({event_id for event_id in map(_read_event_id, lines) if event_id is not None})

    def record(self, codes: Mapping[str, str]) -> None:
        """Note events by their ids, each with the code of its refusal; raises OSError where the disk refuses."""
        now = iso(utc_now())
        lines = b"".join(
            msgspec.json.encode(_RejectedEvent(event_id, code, now)) + b"\n" for event_id, code in codes.items()
        )
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | getattr(os, "O_CLOEXEC", 0)
        fd = os.open(self._path, flags, 0o600)
        try:
            if os.fstat(fd).st_size < _MAX_FILE_BYTES:
                os.write(fd, lines)
        finally:
            os.close(fd)
        self.count += len(codes)

    def reset(self) -> None:
        """Let go of what was counted; the file has been deleted."""
        self.count = 0


def _read_event_id(line: bytes) -> str | None:
    try:
        return _decode_line(line).event_id
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None
