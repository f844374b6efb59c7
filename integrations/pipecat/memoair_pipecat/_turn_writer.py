"""Keeps turns behind the frames, one after another."""

import asyncio
from collections import deque
from collections.abc import Mapping
from typing import Any

from memoair_pipecat._log import code_of, log
from memoair_pipecat._turn_assembler import PipecatTurn
from memoair_voice import MemoAirVoiceClient, MemoAirVoiceMemoryError

# What a pool that has no place or port now may have in a moment.
_PASSING = frozenset({"pool.exhausted", "pool.port_exhausted"})
_AGAIN_AFTER_S = 0.25


class TurnWriter:
    """Saves turns in the order in which they come, in a task that the owner runs `work` in."""

    def __init__(self, client: MemoAirVoiceClient, user: Mapping[str, Any]) -> None:
        self._client = client
        self._user = user
        self._waiting: deque[PipecatTurn] = deque()
        self._has_news = asyncio.Event()
        self._is_over = False

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, turn: PipecatTurn) -> None:
        """Have a turn saved; returns at once."""
        self._waiting.append(turn)
        self._has_news.set()

    def no_more(self) -> None:
        """Let `work` end when all is saved."""
        self._is_over = True
        self._has_news.set()

    async def work(self) -> None:
        """Save what comes until there is `no_more`."""
        while self._waiting or not self._is_over:
            if not self._waiting:
                self._has_news.clear()
                await self._has_news.wait()
                continue
            await self._save(self._waiting[0])
            self._waiting.popleft()

    async def _save(self, turn: PipecatTurn) -> None:
        """Save one turn, or give it up where no other attempt can help."""
        while True:
            try:
                # None is no failure: then the client saves it again by itself.
                await self._client.save_response(
                    user_text=turn.user_text,
                    assistant_text=turn.assistant_text,
                    user=self._user,
                    tool_calls=[{"name": name} for name in turn.tools],
                    metadata={
                        "framework": "pipecat",
                        "interrupted": turn.interrupted,
                        "occurredAt": turn.began_at.isoformat(),
                    },
                )
            except MemoAirVoiceMemoryError as error:
                if error.code in _PASSING:
                    await asyncio.sleep(_AGAIN_AFTER_S)
                    continue
                log.error("a turn is lost: action=save_failed code=%s", error.code)
            except Exception as error:  # noqa: BLE001 - whatever it is, the turns behind this one are to be saved
                log.error("a turn is lost: action=save_failed code=%s", code_of(error))
            return
