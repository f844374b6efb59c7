"""Forks of this process: the child drops what belongs to the parent."""

import os
from collections.abc import Callable
from weakref import WeakKeyDictionary

# For each object, the function of its class that resets it. A bound method would keep the object alive.
_reset_functions: "WeakKeyDictionary[object, Callable[[object], None]]" = WeakKeyDictionary()


def register_after_fork(owner: object, reset: Callable[..., None]) -> None:
    """Call ``reset(owner)`` in every child that this process forks, for as long as ``owner`` lives."""
    _reset_functions[owner] = reset


def _reset_all() -> None:
    for owner, reset in list(_reset_functions.items()):
        reset(owner)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_reset_all)
