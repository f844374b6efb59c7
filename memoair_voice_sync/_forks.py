"""Forks of the process: what belongs to the parent is let go of in the child."""

import os
from collections.abc import Callable
from weakref import WeakMethod

_forgetting: set["WeakMethod[Callable[[], None]]"] = set()


def forgets_in_child(forget: Callable[[], None]) -> None:
    """Have a method called in every child that this process forks, for as long as its object lives."""
    _forgetting.add(WeakMethod(forget, _forgetting.discard))


def _forget_all() -> None:
    for reference in list(_forgetting):
        forget = reference()
        if forget is not None:
            forget()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_all)
