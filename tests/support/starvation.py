"""A moment without descriptors or threads, for this process and for others, as real as it can be had."""

import os
import resource
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import psutil
import pytest

_HOOK_FOLDER = str(Path(__file__).parent / "starved")
_STARTERS = ("_start_new_thread", "_start_joinable_thread")


@contextmanager
def without_descriptors(*pids: int) -> Iterator[None]:
    """Let processes, or this one, open nothing more within the block; what they have opened still works.

    The limit is the lowest number that is free: descriptors above it stay open.
    """
    with ExitStack() as stack:
        for pid in pids or (os.getpid(),):
            with suppress(ProcessLookupError, psutil.NoSuchProcess):
                stack.callback(_set_limit, pid, resource.prlimit(pid, resource.RLIMIT_NOFILE)[0])
                _set_limit(pid, _find_free(pid))
        yield


def _find_free(pid: int) -> int:
    """Return the lowest descriptor that a process does not use."""
    if pid == os.getpid():
        os.close(free := os.open(os.devnull, os.O_RDONLY))
        return free
    used = {int(path.name) for path in Path(f"/proc/{pid}/fd").iterdir()}
    return min(set(range(len(used) + 1)) - used)


def _set_limit(pid: int, soft: int) -> None:
    with suppress(ProcessLookupError):  # it has ended
        hard = resource.prlimit(pid, resource.RLIMIT_NOFILE)[1]
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (soft, hard))


@contextmanager
def without_threads() -> Iterator[None]:
    """Let this process start no thread within the block."""

    def refuse(*_: object, **__: object) -> None:
        raise RuntimeError("can't start new thread")

    with pytest.MonkeyPatch.context() as patch:
        for name in _STARTERS:
            if hasattr(threading, name):
                patch.setattr(threading, name, refuse)
        yield


class ThreadLimit:
    """Refuses threads in processes that are started with its variables; see starved/sitecustomize.py."""

    def __init__(self, path: Path) -> None:
        self._path = path

    @property
    def variables(self) -> dict[str, str]:
        """The environment of the processes."""
        return {"PYTHONPATH": _HOOK_FOLDER, "STARVED_THREADS": str(self._path)}

    @contextmanager
    def refusing(self, names: Sequence[str] = ("*",)) -> Iterator[None]:
        """Refuse threads of these names within the block, by default all."""
        self._path.write_text("\n".join(names))
        try:
            yield
        finally:
            self._path.unlink()
