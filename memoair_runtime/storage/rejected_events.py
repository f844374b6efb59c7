"""What the cloud will never take: the ids of events and why, for who looks after a machine. No words."""

import os
from collections.abc import Mapping
from pathlib import Path

import msgspec

from memoair_runtime.timeutil import format_utc, utc_now

# Nobody reads more, and a cloud that refuses everything must not fill the disk.
_MOST_BYTES = 4 << 20


class _RejectedEvent(msgspec.Struct, frozen=True, rename="camel"):
    event_id: str
    code: str
    at: str


_read = msgspec.json.Decoder(_RejectedEvent).decode


class RejectedEvents:
    """``refused.jsonl`` of one caller, one JSON object a line. Used by one thread; `count` by any."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.count = 0  # how many events are known to be refused

    def look(self) -> None:
        """Count what earlier processes noted."""
        try:
            lines = self._path.read_bytes().splitlines()
        except OSError:
            lines = []
        self.count = len({event_id for event_id in map(_event_of, lines) if event_id is not None})

    def note(self, codes: Mapping[str, str]) -> None:
        """Note events by their ids, each with the code of its refusal; raises OSError where the disk refuses."""
        now = format_utc(utc_now())
        lines = b"".join(
            msgspec.json.encode(_RejectedEvent(event_id, code, now)) + b"\n" for event_id, code in codes.items()
        )
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | getattr(os, "O_CLOEXEC", 0)
        descriptor = os.open(self._path, flags, 0o600)
        try:
            if os.fstat(descriptor).st_size < _MOST_BYTES:
                os.write(descriptor, lines)
        finally:
            os.close(descriptor)
        self.count += len(codes)

    def forget(self) -> None:
        """Let go of what was counted; the file has been deleted."""
        self.count = 0


def _event_of(line: bytes) -> str | None:
    try:
        return _read(line).event_id
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None
