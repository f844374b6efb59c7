"""Refuses threads, as the system does at a limit, while a file exists.

It is the one that STARVED_THREADS names. A client passes that on to no runtime: theirs is in the folder XDG_DATA_HOME.

The real limit, ``RLIMIT_NPROC``, does not bind root, and binds all processes of another user together. The file holds
the names of the threads that are refused, one a line; ``*`` stands for all.
"""

import os
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

RUNTIMES_FILE = "refused-threads"
_FILE = os.environ.get("STARVED_THREADS") or f"{os.environ.get('XDG_DATA_HOME', '')}/{RUNTIMES_FILE}"
_STARTERS = ("_start_new_thread", "_start_joinable_thread")  # before and from Python 3.13 on


def _refusing(start: Callable[..., Any]) -> Callable[..., Any]:
    def start_or_refuse(function: Any, *arguments: Any, **options: Any) -> Any:
        names: list[str] = []
        with suppress(FileNotFoundError):
            names = os.fsdecode(_read(_FILE)).split("\n")
        name = getattr(getattr(function, "__self__", None), "name", "")
        if "*" in names or name in names:
            raise RuntimeError("can't start new thread")
        return start(function, *arguments, **options)

    return start_or_refuse


def _read(path: str) -> bytes:
    """Read a short file; if it exists and there is no descriptor for it, all threads are refused."""
    Path(path).stat()
    try:
        fd = os.open(path, os.O_RDONLY)
    except OSError:
        return b"*"
    try:
        return os.read(fd, 1 << 12)
    finally:
        os.close(fd)


for _name in _STARTERS:
    if hasattr(threading, _name):
        setattr(threading, _name, _refusing(getattr(threading, _name)))
