"""Keeps turns behind the frames, one after another."""

import asyncio
from collections import deque
from collections.abc import Mapping
from typing import Any

from memoair_pipecat._log import error_code, log
from memoair_pipecat._turn_assembler import PipecatTurn
from memoair_voice import MemoAirVoiceClient, MemoAirVoiceMemoryError

# What a pool that has no place or port now may have in a moment.
_TRANSIENT_CODES = frozenset({"pool.exhausted", "pool.port_exhausted"})
_RETRY_PAUSE_S = 0.25


class TurnWriter:
    """Saves turns in the order in which they come, in a task that the owner runs `work` in."""

    def __init__(self, client: MemoAirVoiceClient, user: Mapping[str, Any]) -> None:
        self._client = client
        self._user = user
        self._queue: deque[PipecatTurn] = deque()
        self._has_work = asyncio.Event()
        self._is_stopping = False

    def __len__(self) -> int:
        return len(self._queue)

    def add(self, turn: PipecatTurn) -> None:
        """Have a turn saved; returns at once."""
        self._queue.append(turn)
        self._has_work.set()

    def stop(self) -> None:
        """Let `work` end when all is saved."""
        self._is_stopping = True
        self._has_work.set()

    async def run(self) -> None:
        """Save what comes until there is `no_more`."""
        while self._queue or not self._is_stopping:
            if not self._queue:
                self._has_work.clear()
                await self._has_work.wait()
                continue
            await self._save_turn(self._queue[0])
            self._queue.popleft()

    async def _save_turn(self, turn: PipecatTurn) -> None:
        """Save one turn, or give it up where no other attempt can help."""
        while True:
            try:
                # None is no failure: then the client saves it again by itself.
                await self._client.save_response(
                    user_text=turn.user_text,
                    assistant_text=turn.assistant_text,
                    user=self._user,
                    tool_calls=[{"name": name} for name in turn.tool_names],
                    metadata={
                        "framework": "pipecat",
                        "interrupted": turn.is_interrupted,
                        "occurredAt": turn.started_at.isoformat(),
                    },
                )
            except MemoAirVoiceMemoryError as error:
                if error.code in _TRANSIENT_CODES:
                    await asyncio.sleep(_RETRY_PAUSE_S)
                    continue
                log.error("a turn is lost: action=save_failed code=%s", error.code)
            except Exception as error:  # noqa: BLE001 - whatever it is, the turns behind this one are to be saved
                log.error("a turn is lost: action=save_failed code=%s", error_code(error))
            return
