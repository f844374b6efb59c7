"""One caller's memory during a call: opened and written to in the background, searched within a time limit."""

import asyncio
from collections import deque
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from memoair_livekit._clients import SharedClient
from memoair_livekit._log import log, log_failures
from memoair_livekit._turn_assembler import LiveKitTurn
from memoair_voice import MemoAirVoiceMemoryError, SearchResult, VoiceSession

# The client enforces the time limit itself, but may have to wait for a free thread first.
_THREAD_GRACE_S = 0.05
_MIN_RETRY_PAUSE_S = 0.1
_MAX_RETRY_PAUSE_S = 2.0
# How many times a save is tried after the call has ended.
_MAX_FINAL_TRIES = 5


class CallMemory:
    """The memory of one caller during one call. Failures of the memory are logged and never raised.

    The caller's runtime is pinned until `start_closing`. One task saves the turns one after another, so they keep the
    order in which they were spoken, and a slow disk does not delay the conversation. Use it only in the thread of the
    event loop in which it was created.
    """

    def __init__(self, client_arguments: Mapping[str, Any], user_id: str, search_timeout_ms: float) -> None:
        """Start opening the memory. ``client_arguments`` are those of ``MemoAirVoiceClient``."""
        self._shared_client = SharedClient(client_arguments)
        self._user = {"id": user_id}
        self._search_timeout_ms = search_timeout_ms
        self._unsaved_turns: deque[LiveKitTurn] = deque()
        self._has_work = asyncio.Event()
        self._is_drained = asyncio.Event()
        self._is_drained.set()
        self._open_finished = asyncio.Event()
        self._is_closing = False
        self._pinned_session: VoiceSession | None = None
        self._open_task = asyncio.create_task(self._open(), name="memoair-open")
        self._save_task = asyncio.create_task(self._run(), name="memoair-save")

    async def wait_opened(self) -> None:
        """Wait until the memory is ready, has failed to open, or is no longer needed."""
        await self._open_finished.wait()

    def release_waiters(self) -> None:
        """Let every `wait_opened` return: the caller has hung up."""
        self._open_finished.set()

    async def search(self, query: str) -> SearchResult | None:
        """Search within the time limit. Return None if the memory failed."""
        found = None
        with log_failures("search_failed"):
            pending_search = self._shared_client.client.search_memory(
                query, user=self._user, timeout_ms=self._search_timeout_ms
            )
            found = await asyncio.wait_for(pending_search, self._search_timeout_ms / 1e3 + _THREAD_GRACE_S)
        # The client has already logged a search that failed.
        return None if found is None or "error" in found.trace else found

    def save(self, turn: LiveKitTurn) -> None:
        """Queue a turn to be saved, after the turns before it."""
        self._unsaved_turns.append(turn)
        self._is_drained.clear()
        self._has_work.set()

    async def wait_drained(self) -> None:
        """Wait until all turns queued so far are saved."""
        await self._is_drained.wait()

    def start_closing(self) -> None:
        """Save the remaining turns and release the memory, in the background. Calling it again does no harm."""
        if not self._is_closing:
            self._is_closing = True
            self._open_finished.set()
            self._has_work.set()

    async def wait_closed(self) -> None:
        """Wait until the work that `start_closing` began has ended. Cancelling the wait does not cancel that work."""
        await asyncio.wait({self._save_task})

    async def _open(self) -> None:
        with log_failures("open_failed"):
            self._pinned_session = await self._shared_client.client.session(user=self._user)
            await self._shared_client.client.load_index(user=self._user)
        self._open_finished.set()

    async def _run(self) -> None:
        try:
            while not self._is_closing:
                await self._has_work.wait()
                self._has_work.clear()
                await self._save_queued()
        finally:  # also if the event loop ends and cancels every task
            self.start_closing()
            await self._drain_and_close()

    async def _drain_and_close(self) -> None:
        while self._unsaved_turns:
            with suppress(asyncio.CancelledError):
                await self._save_queued()
        for step in (self._release_session, self._shared_client.aclose):
            # If this is cancelled, the work continues in its thread.
            with suppress(asyncio.CancelledError), log_failures("close_failed"):
                await step()
        # If the memory was still being opened, closing the client has aborted that.
        await asyncio.wait({self._open_task})

    async def _release_session(self) -> None:
        if self._pinned_session is not None:
            await self._pinned_session.aclose()

    async def _save_queued(self) -> None:
        while self._unsaved_turns:
            await self._save_turn(self._unsaved_turns[0])
            # Only now: a cancelled save is repeated, and a turn with a known id is not saved again.
            self._unsaved_turns.popleft()
        self._is_drained.set()

    async def _save_turn(self, turn: LiveKitTurn) -> None:
        """Save a turn, retrying while the pool has no room.

        If a runtime fails, the client itself saves the turn again. If the pool is full, the client rejects the turn.
        """
        pause_s, tries_left = _MIN_RETRY_PAUSE_S, _MAX_FINAL_TRIES
        while True:
            try:
                await self._shared_client.client.save_response(user=self._user, **turn.save_arguments())
            except MemoAirVoiceMemoryError as error:
                tries_left -= self._is_closing
                if not error.code.startswith("pool.") or error.code == "pool.closed" or not tries_left:
                    log.warning("a turn is lost: action=turn_lost code=%s", error.code)
                    return
            except Exception as error:  # noqa: BLE001 - whatever the error is, the next turns must be saved
                log.warning("a turn is lost: action=turn_lost code=%s", type(error).__name__)
                return
            else:
                return
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, _MAX_RETRY_PAUSE_S)
