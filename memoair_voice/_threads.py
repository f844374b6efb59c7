"""The only bridge from the event loop to the sync classes."""

import asyncio
import time
from collections.abc import Callable, Coroutine
from functools import partial, wraps
from types import TracebackType
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar

from anyio import CancelScope, CapacityLimiter, sleep, to_thread
from anyio.lowlevel import RunVar

from memoair_voice_sync.errors import MemoAirVoiceMemoryError

if TYPE_CHECKING:
    from typing_extensions import Self

P = ParamSpec("P")
R = TypeVar("R")

# The event loop's default limiter is shared with everything else that the application does in threads, and a search
# must not wait for that.
_MAX_THREADS = 64
# How often, and for how long, to try again while the process can start no thread.
_THREAD_RETRY_S, _THREAD_TIMEOUT_S = 0.05, 2.0
_limiter: RunVar[CapacityLimiter] = RunVar("memoair_voice_limiter")


async def run_in_thread(call: Callable[[], R], *, abandon_on_cancel: bool) -> R:
    """Run a call in a worker thread. On cancellation, abandon it, or wait for it and raise the cancellation then."""
    try:
        limiter = _limiter.get()
    except LookupError:
        limiter = CapacityLimiter(_MAX_THREADS)
        _limiter.set(limiter)
    if abandon_on_cancel:
        return await _run_sync(call, limiter, abandon_on_cancel=True)
    with CancelScope(shield=True):  # otherwise a call in a scope that is already cancelled would not even start
        if _is_on_asyncio():
            return await _await_shielded(asyncio.ensure_future(_run_sync(call, limiter)))
        return await _run_sync(call, limiter)
    raise AssertionError("a shielded scope is never cancelled")


async def _run_sync(call: Callable[[], R], limiter: CapacityLimiter, *, abandon_on_cancel: bool = False) -> R:
    """Run a call in a worker thread. Without one to be had, try again for a while."""
    has_begun = False

    def run() -> R:
        nonlocal has_begun
        has_begun = True
        return call()

    deadline = time.monotonic() + _THREAD_TIMEOUT_S
    while True:
        try:
            return await to_thread.run_sync(run, abandon_on_cancel=abandon_on_cancel, limiter=limiter)
        except RuntimeError as error:
            if has_begun or "can't start new thread" not in str(error):
                raise
            if time.monotonic() >= deadline:
                message = "the process can start no more threads"
                raise MemoAirVoiceMemoryError("runtime.start_failed", message) from error
        await sleep(_THREAD_RETRY_S)


def _is_on_asyncio() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


async def _await_shielded(task: "asyncio.Future[R]") -> R:
    """Wait for a task in spite of cancellation: asyncio's own ``Task.cancel`` ignores anyio's shielded scopes."""
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError as error:
            if task.cancelled():
                raise
            cancelled = error
        except BaseException:  # noqa: BLE001 - the task's own error, which ``result`` raises below
            break
    if cancelled is not None:
        raise cancelled
    return task.result()


def async_method(
    method: Callable[Concatenate[Any, P], R], *, abandon_on_cancel: bool = False
) -> Callable[Concatenate[Any, P], Coroutine[Any, Any, R]]:
    """Return the async version of a sync method: same name, signature and docstring, run in a thread.

    The class that has the async method must hold the sync object in ``_sync``.
    """

    @wraps(method)
    async def call(self: Any, /, *args: P.args, **kwargs: P.kwargs) -> R:
        bound = partial(method, self._sync, *args, **kwargs)
        return await run_in_thread(bound, abandon_on_cancel=abandon_on_cancel)

    return call


class AsyncCloseable:
    """A mixin that makes an object with an async method ``aclose`` a context manager."""

    aclose: Callable[..., Coroutine[Any, Any, None]]

    async def __aenter__(self) -> "Self":
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()


def with_signature_of(
    source: Callable[Concatenate[Any, P], object],
) -> Callable[[Callable[..., None]], Callable[Concatenate[Any, P], None]]:
    """Give a constructor that passes on all arguments the signature and docstring of the one that receives them."""

    def decorate(target: Callable[..., None]) -> Callable[Concatenate[Any, P], None]:
        return wraps(source)(target)

    return decorate
