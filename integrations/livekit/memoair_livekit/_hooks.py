"""Hooks of subclasses, which need not call ``super()``: entering and leaving a session are noticed nevertheless."""

from collections.abc import Callable, Coroutine
from functools import wraps
from typing import Any

Hook = Callable[[Any], Coroutine[Any, Any, None]]


def wrap_hooks(agent_class: type, enter: Callable[[Any], None], prepare: Hook, leave: Hook) -> None:
    """Wrap `on_enter` and `on_exit` of a class that overrides them.

    Args:
        agent_class: The class.
        enter: Called before its `on_enter`. It must not raise.
        prepare: Awaited between the two: what a greeting needs. It must not raise.
        leave: Called after its `on_exit`, also if that fails.
    """
    if "on_enter" in agent_class.__dict__:
        agent_class.on_enter = _wrap_on_enter(agent_class.__dict__["on_enter"], enter, prepare)  # type: ignore[attr-defined]
    if "on_exit" in agent_class.__dict__:
        agent_class.on_exit = _wrap_on_exit(agent_class.__dict__["on_exit"], leave)  # type: ignore[attr-defined]


def _wrap_on_enter(hook: Hook, enter: Callable[[Any], None], prepare: Hook) -> Hook:
    @wraps(hook)
    async def on_enter(self: Any) -> None:
        enter(self)
        await prepare(self)
        await hook(self)

    return on_enter


def _wrap_on_exit(hook: Hook, leave: Hook) -> Hook:
    @wraps(hook)
    async def on_exit(self: Any) -> None:
        try:
            await hook(self)
        finally:
            await leave(self)

    return on_exit
