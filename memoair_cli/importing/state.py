"""The state file: which batches are acknowledged, so that the next run need not send them.

A line for each batch: a hash of the target, and of the ids and words of its events. They are the same whenever a file
is read.
The file may be lost, outdated or damaged: then batches are sent again, and the target recognizes their events.
"""

import hashlib
import os
from contextlib import suppress
from pathlib import Path

import platformdirs

from memoair_cli.importing.batches import EventBatch
from memoair_cli.importing.events import ImportEvent
from memoair_protocol.durable import write_file
from memoair_protocol.input_files import check_regular_file, read_regular_file

# A batch is at least a call, except for very long ones. Beyond the limit, the oldest are dropped.
_MAX_BATCHES = 100_000
_HASH_BYTES = 8


def default_state_file(target: str) -> Path:
    """Return the default state file of imports into one target."""
    folder = platformdirs.user_state_path("memoair", appauthor=False) / "imports"
    return folder / f"{hashlib.sha256(target.encode()).hexdigest()[:16]}.batches"


class ImportState:
    """The state file of imports. `record` is safe to call from any thread and process.

    Args:
        path: The state file.
        target: The name of the target.
        restart: Whether to ignore what the file says.
    """

    def __init__(self, path: Path, target: str, *, restart: bool = False) -> None:
        self.path = path
        self._target = target.encode()
        lines = _read_lines(path)
        if len(lines) > 2 * _MAX_BATCHES:
            lines = lines[-_MAX_BATCHES:]
            with suppress(OSError):
                write_file(path, b"\n".join(lines), durable=False, is_private=False)
        self._positions = {} if restart else {line: position for position, line in enumerate(lines)}

    def position(self, batch: EventBatch) -> int | None:
        """Return the position of a batch among those that earlier runs have had acknowledged; None if it is new."""
        return self._positions.get(self._hash(batch))

    def record(self, batch: EventBatch) -> None:
        """Record that a batch is acknowledged. Raises OSError."""
        if self._hash(batch) in self._positions:
            return
        self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        if self.path.exists():
            check_regular_file(self.path)
        descriptor = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        with os.fdopen(descriptor, "ab") as file:
            file.write(b"\n" + self._hash(batch))  # in one write; on a line of its own whatever the file holds

    def forget(self) -> None:
        """Forget all batches."""
        self._positions = {}
        with suppress(OSError):  # what stays in the file is true again after this run
            self.path.unlink()

    def _hash(self, batch: EventBatch) -> bytes:
        # The words of a turn are not in its id, and a turn with other words must be sent again.
        content = b"\0".join((self._target, *(_identify(event) for event in batch.events)))
        return hashlib.blake2b(content, digest_size=_HASH_BYTES).hexdigest().encode()


def _identify(event: ImportEvent) -> bytes:
    words = [str(event.payload.get(side, "")) for side in ("userText", "assistantText")]
    return "\0".join((event.id, *words)).encode(errors="surrogatepass")


def _read_lines(path: Path) -> list[bytes]:
    try:
        return read_regular_file(path).split()
    except OSError:
        return []
