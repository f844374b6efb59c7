"""Forks of this process: the child drops what belongs to the parent. Also checks for servers where that fails."""

import _thread
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from weakref import WeakKeyDictionary

# For each object, the function of its class that resets it. A bound method would keep the object alive.
_reset_functions: "WeakKeyDictionary[object, Callable[[object], None]]" = WeakKeyDictionary()
# A context variable and not a threading.local: greenlets of one thread must not see each other's value.
_is_starting_program: ContextVar[bool] = ContextVar("memoair_is_starting_program", default=False)
# What gevent and eventlet replace, as it was when this package was imported.
_PRIMITIVES = (_thread.start_new_thread, socket.socket)
_process_id = os.getpid()


def register_after_fork(owner: object, reset: Callable[..., None]) -> None:
    """Call ``reset(owner)`` in every child that this process forks, for as long as ``owner`` lives."""
    _reset_functions[owner] = reset


@contextmanager
def starting_program() -> Iterator[None]:
    """Reset nothing in a child that is forked within this block, because it executes another program at once.

    CPython's ``subprocess`` forks without this hook. That of gevent forks with it, and would then find the descriptors
    closed that it passes to the program.
    """
    token = _is_starting_program.set(True)
    try:
        yield
    finally:
        _is_starting_program.reset(token)


def check_process() -> None:
    """Prepare for a call of the application: do `reset_if_forked`, and reject a late monkey patch.

    Raises:
        RuntimeError: If gevent or eventlet has patched the standard library after this package was imported. The locks
            made before that would block the whole process.
    """
    reset_if_forked()
    if (_thread.start_new_thread, socket.socket) != _PRIMITIVES:
        raise RuntimeError(
            "gevent or eventlet has patched the standard library after memoair_voice_sync was imported; call "
            "monkey.patch_all() before it is imported, and do not preload the application (gunicorn: no preload_app) "
            "with such workers"
        )


def reset_if_forked() -> None:
    """Reset all objects if this process was forked without the hook, as uWSGI forks its workers."""
    if os.getpid() != _process_id:
        _reset_all()


def _reset_all() -> None:
    global _process_id
    if _is_starting_program.get():
        return
    _process_id = os.getpid()
    for owner, reset in list(_reset_functions.items()):
        reset(owner)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_reset_all)
