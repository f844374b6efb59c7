"""The one bridge from the event loop to the sync classes."""

import asyncio
from collections.abc import Callable, Coroutine
from functools import partial, wraps
from typing import Any, Concatenate, ParamSpec, TypeVar

from anyio import CancelScope, CapacityLimiter, to_thread
from anyio.lowlevel import RunVar

P = ParamSpec("P")
R = TypeVar("R")

# The threads of the event loop's default limiter are shared with everything else that the application does in threads;
# a recall must not wait for those.
_MAX_THREADS = 64
_limiter: RunVar[CapacityLimiter] = RunVar("memoair_voice_limiter")


async def run_in_thread(call: Callable[[], R], *, abandon_on_cancel: bool) -> R:
    """Run a call in a thread of ours. On cancellation it is ``abandon``-ed, or waited for and only then cancelled."""
    try:
        limiter = _limiter.get()
    except LookupError:
        limiter = CapacityLimiter(_MAX_THREADS)
        _limiter.set(limiter)
    if abandon_on_cancel:
        return await to_thread.run_sync(call, abandon_on_cancel=True, limiter=limiter)
    with CancelScope(shield=True):  # or a call in a scope that is cancelled already would not even begin
        if _is_on_asyncio():
            return await _await_shielded(asyncio.ensure_future(to_thread.run_sync(call, limiter=limiter)))
        return await to_thread.run_sync(call, limiter=limiter)
    raise AssertionError("a scope of our own is never cancelled")


def _is_on_asyncio() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


async def _await_shielded(task: "asyncio.Future[R]") -> R:
    """Wait for a task whatever happens to us: asyncio cancels tasks also past the scopes that shield from it."""
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError as error:
            if task.cancelled():
                raise
            cancelled = error
        except BaseException:  # noqa: BLE001 - the task's own, which its result raises below
            break
    if cancelled is not None:
        raise cancelled
    return task.result()


def async_method(
    method: Callable[Concatenate[Any, P], R], *, abandon_on_cancel: bool = False
) -> Callable[Concatenate[Any, P], Coroutine[Any, Any, R]]:
    """The async twin of a method of the sync class: same name, signature and docstring, run in a thread.

    Whoever has the twin keeps the sync object in ``_sync``.
    """

    @wraps(method)
    async def call(self: Any, /, *args: P.args, **kwargs: P.kwargs) -> R:
        bound = partial(method, self._sync, *args, **kwargs)
        return await run_in_thread(bound, abandon_on_cancel=abandon_on_cancel)

    return call


def with_signature_of(
    source: Callable[Concatenate[Any, P], object],
) -> Callable[[Callable[..., None]], Callable[Concatenate[Any, P], None]]:
    """Give a constructor that hands everything on the signature of the one that it hands it to."""

    def decorate(target: Callable[..., None]) -> Callable[Concatenate[Any, P], None]:
        return wraps(source)(target)

    return decorate
