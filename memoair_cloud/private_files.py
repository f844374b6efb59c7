"""Files and folders that only the operating system user of the server may access, also where older ones were open."""

import logging
import os
import re
import stat
from collections.abc import Callable
from pathlib import Path

log = logging.getLogger(__name__)

FILE_MODE = 0o600
FOLDER_MODE = 0o700
_OTHERS = 0o077


def tighten(path: Path) -> None:
    """Take the access of other users from a file or folder of this user. Symbolic links are left alone.

    The file is not opened: closing it would release the locks that SQLite has on it in this process.
    """
    if os.name == "nt":
        return
    try:
        info = path.lstat()
        if stat.S_ISLNK(info.st_mode) or not info.st_mode & _OTHERS:
            return
        path.chmod(FOLDER_MODE if stat.S_ISDIR(info.st_mode) else FILE_MODE)
    except FileNotFoundError:
        return
    except OSError as error:
        # Such as one of another user: what to do about it is for the operator to decide.
        log.warning(
            "other users of this machine may read files of the server",
            extra={"action": "not_private", "fields": {"error": type(error).__name__}},
        )


def tighten_folder(folder: Path, is_ours: Callable[[str], bool]) -> None:
    """Do the same for a folder, if it has nothing but files of the server.

    Others may need a folder that has other files in it, such as a home folder: that one stays as it is.

    Args:
        folder: The folder.
        is_ours: Returns whether a file of this name belongs to the server.
    """
    try:
        names = [entry.name for entry in os.scandir(folder)]
    except OSError:
        return
    if all(map(is_ours, names)):
        tighten(folder)


def tighten_tree(root: Path, is_ours: "re.Pattern[str]") -> None:
    """Do the same for the folders below a folder whose names match, and for all files in them."""
    try:
        folders = [Path(entry.path) for entry in os.scandir(root) if is_ours.fullmatch(entry.name)]
    except OSError:
        return
    for folder in folders:
        tighten(folder)
        if folder.is_dir() and not folder.is_symlink():
            for entry in os.scandir(folder):
                tighten(Path(entry.path))
