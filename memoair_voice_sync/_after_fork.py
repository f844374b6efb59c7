"""Forks of the process: what belongs to the parent is let go of in the child."""

import os
from collections.abc import Callable
from weakref import WeakKeyDictionary

# By object, the function of its class that lets go: a bound method would keep the object alive.
_forgetting: "WeakKeyDictionary[object, Callable[[object], None]]" = WeakKeyDictionary()


def forgets_in_child(owner: object, forget: Callable[..., None]) -> None:
    """Have ``forget(owner)`` called in every child that this process forks, for as long as ``owner`` lives."""
    _forgetting[owner] = forget


def _forget_all() -> None:
    for owner, forget in list(_forgetting.items()):
        forget(owner)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_all)
