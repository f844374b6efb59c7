"""One caller's memory while an agent serves him: opened and written to behind the talk, searched within a time."""

import asyncio
from collections import deque
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from memoair_livekit._clients import SharedClient
from memoair_livekit._log import log, log_failures
from memoair_livekit._turn_assembler import LiveKitTurn
from memoair_voice import MemoAirVoiceMemoryError, SearchResult, VoiceSession

# Beyond the deadline that the client holds by itself: it may wait for a thread.
_THREAD_GRACE_S = 0.05
_MIN_RETRY_PAUSE_S = 0.1
_MAX_RETRY_PAUSE_S = 2.0
# How often a turn is tried again once the call is over.
_MAX_FINAL_TRIES = 5


class CallMemory:
    """What an agent asks of the memory, none of which raises. For the thread of the event loop that it is made in.

    The caller's runtime is pinned from `open` to `end`. Turns are saved one after the other by a task of ours, so that
    the order is that in which they were spoken, and a slow disk delays nobody.
    """

    def __init__(self, client_arguments: Mapping[str, Any], user_id: str, search_timeout_ms: float) -> None:
        """``arguments`` are the client's."""
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
        self._save_task = asyncio.create_task(self._run(), name="memoair-keep")

    async def wait_opened(self) -> None:
        """Wait until the memory is ready, or can't be made ready, or is not needed any more."""
        await self._open_finished.wait()

    def release_waiters(self) -> None:
        """Let nobody wait in `opened` any more: whoever called has hung up."""
        self._open_finished.set()

    async def search(self, query: str) -> SearchResult | None:
        """Recall what matters, within the time for a search; None where the memory failed."""
        found = None
        with log_failures("search_failed"):
            pending_search = self._shared_client.client.search_memory(
                query, user=self._user, timeout_ms=self._search_timeout_ms
            )
            found = await asyncio.wait_for(pending_search, self._search_timeout_ms / 1e3 + _THREAD_GRACE_S)
        # The client tells of a search that failed in its own log.
        return None if found is None or "error" in found.trace else found

    def save(self, turn: LiveKitTurn) -> None:
        """Have a turn saved, after those that came before it."""
        self._unsaved_turns.append(turn)
        self._is_drained.clear()
        self._has_work.set()

    async def wait_drained(self) -> None:
        """Wait until all turns that were given so far are saved."""
        await self._is_drained.wait()

    def start_closing(self) -> None:
        """Save what is left, then give the memory back, behind whoever calls this. Twice is no harm."""
        if not self._is_closing:
            self._is_closing = True
            self._open_finished.set()
            self._has_work.set()

    async def wait_closed(self) -> None:
        """Wait for the end that `end` began. Whoever is cancelled meanwhile leaves it going on."""
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
        finally:  # also where the event loop ends, and cancels every task
            self.start_closing()
            await self._drain_and_close()

    async def _drain_and_close(self) -> None:
        while self._unsaved_turns:
            with suppress(asyncio.CancelledError):
                await self._save_queued()
        for step in (self._release_session, self._shared_client.aclose):
            # What is cancelled here goes on in its thread.
            with suppress(asyncio.CancelledError), log_failures("close_failed"):
                await step()
        # A start that was under way has heard of the end by now.
        await asyncio.wait({self._open_task})

    async def _release_session(self) -> None:
        if self._pinned_session is not None:
            await self._pinned_session.aclose()

    async def _save_queued(self) -> None:
        while self._unsaved_turns:
            await self._save_turn(self._unsaved_turns[0])
            self._unsaved_turns.popleft()  # only now: a cancelled save is repeated, and counts once
        self._is_drained.set()

    async def _save_turn(self, turn: LiveKitTurn) -> None:
        """Save a turn. What the client can't save now it saves later by itself; but it may have no place at all."""
        pause_s, tries_left = _MIN_RETRY_PAUSE_S, _MAX_FINAL_TRIES
        while True:
            try:
                await self._shared_client.client.save_response(user=self._user, **turn.save_arguments())
            except MemoAirVoiceMemoryError as error:
                tries_left -= self._is_closing
                if not error.code.startswith("pool.") or error.code == "pool.closed" or not tries_left:
                    log.warning("a turn is lost: action=turn_lost code=%s", error.code)
                    return
            except Exception as error:  # noqa: BLE001 - the turns behind it are to be saved, whatever it was
                log.warning("a turn is lost: action=turn_lost code=%s", type(error).__name__)
                return
            else:
                return
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, _MAX_RETRY_PAUSE_S)
