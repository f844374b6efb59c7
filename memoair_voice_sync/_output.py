"""What a runtime process puts out: kept in a file, so that it never waits for a reader, and read from there."""

import json
import os
import tempfile
from contextlib import suppress
from typing import IO, Any

from memoair_voice_sync._log import log

_TAIL_BYTES = 4_096
_HEAD_BYTES = 65_536


class ProcessOutput:
    """Both outputs of one process, in a file without a name. Not thread-safe: whoever owns the process locks."""

    def __init__(self) -> None:
        self.file: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the process
        self._relayed_bytes = 0  # how much has been passed on to our log

    def listening_port(self) -> int | None:
        """The port that the runtime says it listens on."""
        event = self.find_event("listening")
        return None if event is None else int(event["port"])

    def find_event(self, name: str) -> dict[str, Any] | None:
        """What the runtime has told of an event; among its first lines, however much it has said since."""
        for line in self._read(0, _HEAD_BYTES).splitlines():
            with suppress(ValueError, TypeError, KeyError):
                event: dict[str, Any] = json.loads(line)
                if event["event"] == name:
                    return event
        return None

    def tail(self) -> str:
        """The last that was said."""
        return self._read(max(0, os.fstat(self.file.fileno()).st_size - _TAIL_BYTES), _TAIL_BYTES).strip()

    def relay(self) -> None:
        """Pass on to our log what the process has complained of since; it says nothing of what a caller said."""
        output = self._read(self._relayed_bytes, _HEAD_BYTES)
        complete = output[: output.rfind("\n") + 1]
        self._relayed_bytes += len(complete.encode())
        for line in complete.splitlines():
            if not line.startswith("{"):  # that is the line which tells the port
                log.warning("the runtime says: %s", line)

    def close(self) -> None:
        """Give the file back to the system."""
        self.file.close()

    def _read(self, start: int, size: int) -> str:
        if hasattr(os, "pread"):  # the process writes at the same file offset, which must not be moved
            raw = os.pread(self.file.fileno(), size, start)
        else:
            self.file.seek(start)
            raw = self.file.read(size)
        return raw.decode(errors="replace")
