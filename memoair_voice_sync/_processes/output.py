"""The output of a runtime process. It goes to a file, so that the process never waits for a reader."""

import json
import os
import tempfile
from contextlib import suppress
from typing import IO, Any

from memoair_voice_sync._diagnostics import log

_TAIL_BYTES = 4_096
_HEAD_BYTES = 65_536


class ProcessOutput:
    """Standard output and error of one process, in an unnamed file. Not thread-safe: the owner of the process locks."""

    def __init__(self) -> None:
        self.file: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the process
        self._relayed_bytes = 0  # how much was copied to the log

    def listening_port(self) -> int | None:
        """Return the port on which the runtime reports to listen, or None."""
        event = self.find_event("listening")
        return None if event is None else int(event["port"])

    def find_event(self, name: str) -> dict[str, Any] | None:
        """Return an event that the runtime has reported, or None. Events are among its first lines."""
        for line in self._read(0, _HEAD_BYTES).splitlines():
            with suppress(ValueError, TypeError, KeyError):
                event: dict[str, Any] = json.loads(line)
                if event["event"] == name:
                    return event
        return None

    def tail(self) -> str:
        """Return the end of the output."""
        return self._read(max(0, os.fstat(self.file.fileno()).st_size - _TAIL_BYTES), _TAIL_BYTES).strip()

    def relay(self) -> None:
        """Copy new lines of the output to the log. They never contain what a caller said."""
        output = self._read(self._relayed_bytes, _HEAD_BYTES)
        complete = output[: output.rfind("\n") + 1]
        self._relayed_bytes += len(complete.encode())
        for line in complete.splitlines():
            if not line.startswith("{"):  # those lines are events
                log.warning("output of the runtime: %s", line)

    def close(self) -> None:
        """Close the file, which deletes it."""
        self.file.close()

    def _read(self, start: int, size: int) -> str:
        if hasattr(os, "pread"):  # seeking would move the file offset at which the process writes
            raw = os.pread(self.file.fileno(), size, start)
        else:
            self.file.seek(start)
            raw = self.file.read(size)
        return raw.decode(errors="replace")
