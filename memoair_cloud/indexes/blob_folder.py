"""The blob store in a folder: private files, complete or not there, and no remains of those that failed."""

import logging
import os
import re
import stat
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from memoair_cloud.private_files import FILE_MODE, tighten_folder, tighten_tree
from memoair_protocol.durable import make_folder, sync_data, sync_folder

if sys.platform != "win32":
    import fcntl

log = logging.getLogger(__name__)

PART_SUFFIX = ".part"
PROBE_PREFIX = "probe."
_SUBFOLDER = re.compile("[0-9a-f]{2}")


@contextmanager
def open_part(target: Path) -> Iterator[BinaryIO]:
    """Yield a new file that takes the name of a file at the end of the block. If the block raises, it is removed.

    It is locked until then. A process that is killed leaves it behind, without its lock: see `remove_parts`.

    Raises:
        OSError: If the disk does not take it.
    """
    make_folder(target.parent)
    part = target.with_name(f"{target.name}.{uuid.uuid4().hex}{PART_SUFFIX}")
    fd = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), FILE_MODE)
    try:
        with os.fdopen(fd, "wb") as file:
            if sys.platform != "win32":
                fcntl.flock(fd, fcntl.LOCK_EX)  # on Windows, an open file cannot be removed anyway
            yield file
            file.flush()
            sync_data(fd)
        part.replace(target)
    except BaseException:
        with suppress(OSError):
            part.unlink(missing_ok=True)
        raise
    sync_folder(target.parent)


def remove_parts(root: Path, min_age_s: float) -> int:
    """Remove what writers left behind that were killed, or could not remove it themselves; return the number of files.

    Args:
        root: The folder of the store.
        min_age_s: How long a file has not been written to, in seconds. One that is still locked stays in any case.
    """
    latest = time.time() - min_age_s
    removed = 0
    for path in _find_parts(root):
        with suppress(OSError):  # another server may be removing it, or the disk is gone: there is a next time
            info = path.lstat()
            if stat.S_ISREG(info.st_mode) and info.st_mtime < latest and _remove_unlocked(path):
                removed += 1
    return removed


def make_private(root: Path) -> None:
    """Take the access of other users from the folder of the store, and from all files of the store in it."""
    tighten_folder(root, lambda name: bool(_SUBFOLDER.fullmatch(name)) or name.startswith(PROBE_PREFIX))
    tighten_tree(root, _SUBFOLDER)


def _find_parts(root: Path) -> Iterator[Path]:
    with suppress(OSError):
        for entry in os.scandir(root):
            if entry.name.startswith(PROBE_PREFIX):
                yield Path(entry.path)
            elif _SUBFOLDER.fullmatch(entry.name):
                with suppress(OSError):
                    yield from (Path(part.path) for part in os.scandir(entry.path) if part.name.endswith(PART_SUFFIX))


def _remove_unlocked(path: Path) -> bool:
    if sys.platform == "win32":
        path.unlink()
        return True
    fd = os.open(path, os.O_RDWR | os.O_NOFOLLOW)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        path.unlink()
    except BlockingIOError:
        return False
    finally:
        os.close(fd)
    return True
