"""Calls that are cancelled: before they start, in progress, and with the task that makes them."""

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from typing import Any

import anyio


async def call_in_cancelled_scope(call: Callable[[], Awaitable[object]]) -> None:
    """Make a call in a scope that has been cancelled."""
    with anyio.CancelScope() as scope:
        scope.cancel()
        await call()


async def cancel_in_progress(call: Callable[[], Awaitable[object]], frozen_pid: int) -> None:
    """Cancel a call that waits for a frozen runtime, and resume the runtime after that."""
    scope = anyio.CancelScope()

    async def cancel_and_rescue() -> None:
        await anyio.sleep(0.02)
        scope.cancel()
        await anyio.sleep(0.2)  # the call is cancelled by then, and cannot have ended before
        os.kill(frozen_pid, signal.SIGCONT)

    async with anyio.create_task_group() as group:
        with scope:
            group.start_soon(cancel_and_rescue)
            await call()
    assert scope.cancel_called


async def cancel_task(call: Coroutine[Any, Any, object], after_steps: int) -> None:
    """Cancel the task that makes a call, after some steps of the event loop."""
    task = asyncio.create_task(call)
    for _ in range(after_steps):
        await asyncio.sleep(0)
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
