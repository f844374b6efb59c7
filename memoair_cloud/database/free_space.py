"""Whether the disk of a folder is full."""

import shutil
from contextlib import suppress
from pathlib import Path

# As much as the largest batch of events. Files that have grown before may still take a write where this is missing, so
# trying to write a little does not tell.
MIN_FREE_BYTES = 16 << 20


def is_full(folder: Path) -> bool:
    """Return whether the disk of a folder is full. One that does not exist, or that does not say, is not full."""
    with suppress(OSError):
        return shutil.disk_usage(folder).free < MIN_FREE_BYTES
    return False
