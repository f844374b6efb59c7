"""Small JSON files that are read back: checked as strictly as what comes from the network.

The types here have the ranges that readers rely on. A file that does not fit them is moved aside under the name
``{name}.damaged``, for people to look at, and counts as missing: what it held is fetched again or rebuilt.
"""

import logging
import os
from collections.abc import Callable, Iterable
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Annotated, TypeVar

import msgspec

from memoair_protocol.private_files import UnsafePathError, open_private_reader
from memoair_protocol.retention import MAX_RETENTION_DAYS
from memoair_protocol.starvation import raise_if_starved

log = logging.getLogger(__name__)

DAMAGED_SUFFIX = ".damaged"
_FIRST_YEAR, _LAST_YEAR = 1970, 9998  # arithmetic with offsets and periods stays in the range of datetime

Version = Annotated[int, msgspec.Meta(ge=0, le=2**53 - 1)]  # up to the largest integer that every JSON parser preserves
Timestamp = Annotated[datetime, msgspec.Meta(tz=True)]
Days = Annotated[int, msgspec.Meta(ge=1, le=MAX_RETENTION_DAYS)]
Sha256 = Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")]
HeaderValue = Annotated[str, msgspec.Meta(pattern=r"^[\x21-\x7e]{1,512}$")]

StateT = TypeVar("StateT")


def read_state(path: Path, decode: Callable[[bytes], StateT], max_bytes: int = -1) -> StateT | None:
    """Return the content of a file; None if it is missing, cannot be read, or is damaged.

    A damaged file is moved aside, and that is logged, so that the next reader does not meet it again.

    Args:
        path: The file.
        decode: Decodes its content; raises ValueError or RecursionError if it is damaged.
        max_bytes: Read no more than this; -1 for the whole file.

    Raises:
        OSError: If it cannot be opened for want of descriptors or memory. It is neither missing nor damaged then.
    """
    try:
        return read_trusted_state(path, decode, max_bytes)
    except UnsafePathError:
        return None


def read_trusted_state(path: Path, decode: Callable[[bytes], StateT], max_bytes: int = -1) -> StateT | None:
    """Do the same for a file that decides which process to trust: one that another user could have written is an error.

    Raises:
        UnsafePathError: Another user of the machine could have written the file.
        OSError: As `read_state`.
    """
    try:
        with open_private_reader(path) as file:
            inode, content = os.fstat(file.fileno()).st_ino, file.read(max_bytes)
    except UnsafePathError:
        raise
    except OSError as error:
        raise_if_starved(error)
        return None
    try:
        return decode(content)
    except (ValueError, RecursionError) as error:
        _set_aside(path, inode, type(error).__name__)
        return None


def check_times(times: Iterable[datetime | None]) -> None:
    """Raise ValueError for a time that arithmetic could take out of the range of dates; for ``__post_init__``."""
    if any(at is not None and not _FIRST_YEAR <= at.year <= _LAST_YEAR for at in times):
        raise ValueError("a time is out of range")


def _set_aside(path: Path, inode: int, error: str) -> None:
    with suppress(OSError):
        if path.stat().st_ino == inode:  # else another process has replaced it
            path.replace(path.with_name(path.name + DAMAGED_SUFFIX))
            log.warning("a damaged file was moved aside: action=state_damaged file=%s error=%s", path.name, error)
