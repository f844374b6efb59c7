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
_GRACE_S = 0.05
_FIRST_PAUSE_S = 0.1
_LONGEST_PAUSE_S = 2.0
# How often a turn is tried again once the call is over.
_LAST_TRIES = 5


class CallMemory:
    """What an agent asks of the memory, none of which raises. For the thread of the event loop that it is made in.

    The caller's runtime is pinned from `open` to `end`. Turns are saved one after the other by a task of ours, so that
    the order is that in which they were spoken, and a slow disk delays nobody.
    """

    def __init__(self, arguments: Mapping[str, Any], user_id: str, search_timeout_ms: float) -> None:
        """``arguments`` are the client's."""
        self._lease = SharedClient(arguments)
        self._user = {"id": user_id}
        self._search_timeout_ms = search_timeout_ms
        self._unsaved: deque[LiveKitTurn] = deque()
        self._has_news = asyncio.Event()
        self._is_saved = asyncio.Event()
        self._is_saved.set()
        self._is_open = asyncio.Event()
        self._is_ending = False
        self._pinned: VoiceSession | None = None
        self._opening = asyncio.create_task(self._open(), name="memoair-open")
        self._keeping = asyncio.create_task(self._run(), name="memoair-keep")

    async def opened(self) -> None:
        """Wait until the memory is ready, or can't be made ready, or is not needed any more."""
        await self._is_open.wait()

    def let_go(self) -> None:
        """Let nobody wait in `opened` any more: whoever called has hung up."""
        self._is_open.set()

    async def search(self, query: str) -> SearchResult | None:
        """Recall what matters, within the time for a search; None where the memory failed."""
        found = None
        with log_failures("search_failed"):
            searching = self._lease.client.search_memory(query, user=self._user, timeout_ms=self._search_timeout_ms)
            found = await asyncio.wait_for(searching, self._search_timeout_ms / 1e3 + _GRACE_S)
        # The client tells of a search that failed in its own log.
        return None if found is None or "error" in found.trace else found

    def keep(self, turn: LiveKitTurn) -> None:
        """Have a turn saved, after those that came before it."""
        self._unsaved.append(turn)
        self._is_saved.clear()
        self._has_news.set()

    async def kept(self) -> None:
        """Wait until all turns that were given so far are saved."""
        await self._is_saved.wait()

    def end(self) -> None:
        """Save what is left, then give the memory back, behind whoever calls this. Twice is no harm."""
        if not self._is_ending:
            self._is_ending = True
            self._is_open.set()
            self._has_news.set()

    async def ended(self) -> None:
        """Wait for the end that `end` began. Whoever is cancelled meanwhile leaves it going on."""
        await asyncio.wait({self._keeping})

    async def _open(self) -> None:
        with log_failures("open_failed"):
            self._pinned = await self._lease.client.session(user=self._user)
            await self._lease.client.load_index(user=self._user)
        self._is_open.set()

    async def _run(self) -> None:
        try:
            while not self._is_ending:
                await self._has_news.wait()
                self._has_news.clear()
                await self._save_all()
        finally:  # also where the event loop ends, and cancels every task
            self.end()
            await self._finish()

    async def _finish(self) -> None:
        while self._unsaved:
            with suppress(asyncio.CancelledError):
                await self._save_all()
        for step in (self._unpin, self._lease.aclose):
            # What is cancelled here goes on in its thread.
            with suppress(asyncio.CancelledError), log_failures("close_failed"):
                await step()
        # A start that was under way has heard of the end by now.
        await asyncio.wait({self._opening})

    async def _unpin(self) -> None:
        if self._pinned is not None:
            await self._pinned.aclose()

    async def _save_all(self) -> None:
        while self._unsaved:
            await self._save(self._unsaved[0])
            self._unsaved.popleft()  # only now: whoever is cancelled on the way saves it again, and it counts once
        self._is_saved.set()

    async def _save(self, turn: LiveKitTurn) -> None:
        """Save a turn. What the client can't save now it saves later by itself; but it may have no place at all."""
        pause_s, tries_left = _FIRST_PAUSE_S, _LAST_TRIES
        while True:
            try:
                await self._lease.client.save_response(user=self._user, **turn.arguments())
            except MemoAirVoiceMemoryError as error:
                tries_left -= self._is_ending
                if not error.code.startswith("pool.") or error.code == "pool.closed" or not tries_left:
                    log.warning("a turn is lost: action=turn_lost code=%s", error.code)
                    return
            except Exception as error:  # noqa: BLE001 - the turns behind it are to be saved, whatever it was
                log.warning("a turn is lost: action=turn_lost code=%s", type(error).__name__)
                return
            else:
                return
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)
