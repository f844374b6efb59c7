"""Temporary folders that do not outlive their process for long, also if it is killed."""

import os
import shutil
import stat
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

if sys.platform != "win32":
    import fcntl

_LOCK_NAME = ".in-use"
_MIN_AGE_S = 3_600.0
# For folders without a lock, of earlier versions.
_MIN_UNLOCKED_AGE_S = 86_400.0


@contextmanager
def temporary_folder(prefix: str) -> Iterator[Path]:
    """Yield a new temporary folder of this operating system user, and remove it at the end of the block.

    It is locked until then, so that `remove_abandoned_folders` can tell it from one whose process was killed.

    Args:
        prefix: How its name begins.

    Raises:
        OSError: If it cannot be created.
    """
    with tempfile.TemporaryDirectory(prefix=prefix, ignore_cleanup_errors=True) as name:
        folder = Path(name)
        fd = os.open(folder / _LOCK_NAME, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            if sys.platform != "win32":
                fcntl.flock(fd, fcntl.LOCK_EX)
            yield folder
        finally:
            os.close(fd)


def remove_abandoned_folders(*prefixes: str, min_age_s: float = _MIN_AGE_S) -> int:
    """Remove temporary folders of this operating system user whose processes were killed; return their number.

    Args:
        *prefixes: How their names begin.
        min_age_s: How old a folder is at least, in seconds.
    """
    if sys.platform == "win32":
        return 0
    removed = 0
    now = time.time()
    with suppress(OSError):
        for entry in os.scandir(tempfile.gettempdir()):
            if entry.name.startswith(prefixes):
                with suppress(OSError):  # another process is removing it
                    info = entry.stat(follow_symlinks=False)
                    if stat.S_ISDIR(info.st_mode) and info.st_uid == os.geteuid():
                        removed += _remove(Path(entry.path), now - info.st_mtime, min_age_s)
    return removed


if sys.platform != "win32":

    def _remove(folder: Path, age_s: float, min_age_s: float) -> bool:
        """Remove a folder unless it is young or in use; return whether it was removed."""
        try:
            fd = os.open(folder / _LOCK_NAME, os.O_RDWR | os.O_NOFOLLOW)
        except FileNotFoundError:
            fd = None
        if age_s < (max(min_age_s, _MIN_UNLOCKED_AGE_S) if fd is None else min_age_s):
            if fd is not None:
                os.close(fd)
            return False
        try:
            if fd is not None:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(folder, ignore_errors=True)
        except BlockingIOError:
            return False
        finally:
            if fd is not None:
                os.close(fd)
        return True
