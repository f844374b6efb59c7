"""The files of a SQLite database: for the operating system user of the server only."""

import os
import threading
from contextlib import suppress
from pathlib import Path

from sqlalchemy import Engine

from memoair_cloud.private_files import FILE_MODE, tighten, tighten_folder

_SUFFIXES = ("", "-wal", "-shm", "-journal")
_create_lock = threading.Lock()


def make_private(engine: Engine) -> None:
    """Create the file of a SQLite database, if it is missing, and let no other user access it or its folder.

    SQLite gives the files beside it (the log, its index) the mode of the database.

    Args:
        engine: The database. On PostgreSQL there is nothing to do.

    Raises:
        OSError: If the file cannot be created.
    """
    if engine.dialect.name != "sqlite" or not engine.url.database or engine.url.database == ":memory:":
        return
    file = Path(engine.url.database)
    # Only a new file is opened, and by one thread at a time: closing it would release locks of SQLite in this process.
    with _create_lock, suppress(FileExistsError):
        os.close(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, FILE_MODE))
    for suffix in _SUFFIXES:
        tighten(file.with_name(file.name + suffix))
    # The blob store is a folder beside it by default.
    names = {*(file.name + suffix for suffix in _SUFFIXES), "blobs"}
    tighten_folder(file.parent, names.__contains__)
