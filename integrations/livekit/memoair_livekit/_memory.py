"""One caller's memory during a call: opened and written to in the background, searched within a time limit."""

import asyncio
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

from memoair_livekit._clients import ClientReference
from memoair_livekit._log import log, log_failures
from memoair_livekit._telemetry import find_tracer
from memoair_voice import Prompt, SearchResult
from memoair_voice.integration import (
    AssembledTurn,
    NamedCall,
    PromptInstructions,
    TurnWriter,
    search_in_time,
    traced_by,
)

# How long a turn that finds no room is retried once the call is over.
_FLUSH_TIMEOUT_S = 5.0


class CallMemory:
    """The memory of one caller during one call. Failures of the memory are logged and never raised.

    The caller's runtime is pinned, and the call open, until the last turn is saved after `start_closing`. One task
    saves the turns one after another, so they keep the order in which they were spoken, and a slow disk does not delay
    the conversation. Use it only in the thread of the event loop in which it was created.
    """

    def __init__(
        self,
        take_client: Callable[[], ClientReference],
        user: Mapping[str, Any],
        search_timeout_ms: float,
        start_timeout_ms: float,
        session_id: str | None = None,
    ) -> None:
        """Start opening the memory.

        Args:
            take_client: Returns the client, which is released at the end.
            user: The caller, ``{"id", "name", "metadata"}``.
            search_timeout_ms: How long a search may take, in milliseconds.
            start_timeout_ms: How long from now on searches wait for the memory to be loaded, in milliseconds.
            session_id: The id of the call; None makes a new one.
        """
        self._reference = take_client()
        self._user = user
        self._search_timeout_ms = search_timeout_ms
        self._start_deadline = time.monotonic() + start_timeout_ms / 1e3
        self._call = NamedCall(self._reference.client, user, session_id=session_id, metadata={"framework": "livekit"})
        self._turn_writer = TurnWriter(
            self._reference.client,
            self._user,
            framework="livekit",
            log=log,
            lost_action="turn_lost",
            lost_level=logging.WARNING,
            session_id=self._call.session_id,
        )
        self._prompt_tasks: list[asyncio.Task[Prompt | None]] = []  # of each agent that takes part
        self.latest_prompt: PromptInstructions | None = None  # of the agent that has taken part last
        self._record_tasks: list[asyncio.Task[None]] = []
        self._open_finished = asyncio.Event()
        self._released = asyncio.Event()
        self._open_task = asyncio.create_task(self._open(), name="memoair-open")
        self._save_task = asyncio.create_task(self._run(), name="memoair-save")

    async def wait_opened(self) -> None:
        """Wait until the memory is ready, has failed to open, or `release_waiters` is called."""
        waits = [asyncio.ensure_future(event.wait()) for event in (self._open_finished, self._released)]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()

    def release_waiters(self) -> None:
        """Let those who wait in `wait_opened` now return: their agent leaves."""
        self._released.set()
        self._released = asyncio.Event()

    def take_prompt(self, agent_prompt: PromptInstructions) -> "asyncio.Task[Prompt | None]":
        """Fetch the prompt of an agent that takes part in the call, and record its version on the call.

        Returns:
            A task that returns the prompt, or None without one. It takes two seconds at most, and never raises.
        """
        self.latest_prompt = agent_prompt
        task = asyncio.create_task(agent_prompt.fetch(self._reference.client), name="memoair-prompt")
        self._prompt_tasks.append(task)
        if len(self._prompt_tasks) > 1:  # the first agent's is recorded when the call is opened
            self._record_tasks.append(asyncio.create_task(self._record_prompt(task), name="memoair-prompt-record"))
        return task

    async def search(self, query: str, known_texts: Sequence[str] = (), **options: Any) -> SearchResult | None:
        """Search within the time limit, without what the model's context holds. Return None if the memory failed.

        ``options`` are more arguments for ``search_memory``.

        While the memory is being loaded at the start of a call, this waits for that first: otherwise the first turn
        would often be answered without memory.
        """
        found = None
        with log_failures("search_failed"):
            await self._wait_loaded()
            with traced_by(find_tracer()):
                found = await search_in_time(
                    self._reference.client,
                    query,
                    user=self._user,
                    timeout_ms=self._search_timeout_ms,
                    known_texts=known_texts,
                    session_id=self._call.session_id,
                    **{"origin": "hook", **options},
                )
        # The client has already logged a search that failed.
        return None if found is None or "error" in found.trace else found

    def save(self, turn: AssembledTurn) -> None:
        """Queue a turn to be saved, after the turns before it."""
        self._turn_writer.add(turn)

    async def wait_drained(self) -> None:
        """Wait until all turns queued so far are saved."""
        await self._turn_writer.wait_drained()

    def start_closing(self) -> None:
        """Save the remaining turns and release the memory, in the background. Calling it again does no harm."""
        self._open_finished.set()
        self._turn_writer.stop(_FLUSH_TIMEOUT_S)

    async def wait_closed(self) -> None:
        """Wait until the work that `start_closing` began has ended. Cancelling the wait does not cancel that work."""
        await asyncio.wait({self._save_task})

    async def _wait_loaded(self) -> None:
        remaining_s = self._start_deadline - time.monotonic()
        if not self._open_finished.is_set() and remaining_s > 0:
            with suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._open_finished.wait(), remaining_s)

    async def _open(self) -> None:
        with log_failures("open_failed"):
            # The task that was registered in the same step of the event loop as this one.
            await self._call.open(self._prompt_tasks[0] if self._prompt_tasks else None)
        self._open_finished.set()

    async def _record_prompt(self, task: "asyncio.Task[Prompt | None]") -> None:
        with log_failures("prompt_unrecorded"):
            await asyncio.wait([task, self._open_task])
            if (prompt := task.result()) is not None:
                await self._call.record_prompt(prompt)

    async def _run(self) -> None:
        try:
            await self._turn_writer.run()
        finally:  # also if the event loop ends and cancels every task
            self.start_closing()
            await self._drain_and_close()

    async def _drain_and_close(self) -> None:
        is_drained = False
        while not is_drained:
            with suppress(asyncio.CancelledError):
                await self._turn_writer.run()
                is_drained = True
        if len(self._turn_writer):
            log.warning("turns found no room: action=turn_lost code=pool.exhausted turns=%d", len(self._turn_writer))
        while pending := [task for task in (*self._prompt_tasks, *self._record_tasks) if not task.done()]:
            with suppress(asyncio.CancelledError):
                await asyncio.wait(pending)
        for step in (self._end_call, self._reference.aclose):
            # If this is cancelled, the work continues in its thread.
            with suppress(asyncio.CancelledError), log_failures("close_failed"):
                await step()
        # If the memory was still being opened, closing the client has aborted that.
        await asyncio.wait({self._open_task})

    async def _end_call(self) -> None:
        await self._call.end(has_turns=self._turn_writer.has_saved)
